//! Optimizers for training on CPUs: Adam and its relatives, in one pass over memory, at the speed of the
//! memory, with the same bits on every CPU.
//!
//! # A step
//!
//! ```
//! use adamant::{Adam, Optimizer};
//!
//! let adam = Adam { lr: 1e-3, ..Adam::default() };
//! let (mut params, grads) = (vec![1.0_f32; 1000], vec![0.1; 1000]);
//! let mut state = adam.state(params.len());
//! adam.step(&mut params, &grads, &mut state)?;
//! # Ok::<(), adamant::Error>(())
//! ```
//!
//! Slices are of `f32`, `f64`, bf16 or f16. A [`State`] keeps the moments and counts the steps.
//! [`state`](Optimizer::state) makes moments in `f32`, for all parameters but those in `f64`: these need
//! `adam.state_in(Storage::F64, params.len())`.
//!
//! # A model
//!
//! [`step`](fn@step) takes any number of [groups](Group) of any number of [tensors](Tensor) in one parallel
//! region. Each group has an optimizer of its own: one for weights, with weight decay, and one for biases,
//! without. [`StepOptions`] has the options of a call: a factor of the gradients, clipping by their common norm,
//! leaving out a step whose gradients are not finite, the threads, the instruction set.
//!
//! The moments are in a [`State`], or in memory of the caller: a framework passes its own arrays and step
//! counts ([`Tensor::new`]).
//!
//! # Optimizers
//!
//! [`AnyOptimizer`] lists all optimizers, with their papers. It holds any of them: the program chooses one by
//! name when it runs, and sets its settings by name. Each optimizer is also a type of its own. Its
//! documentation has the formula and the cost of a step. For another formula, implement
//! [`Rule`](rule::Rule); everything else then works with it.
//!
//! # Types
//!
//! | | kept in | bytes an element |
//! |---|---|---|
//! | [`Param`] | `f32`, also with a copy of 16 bits; bf16 and its remainder, together an `f32`; bf16, f16; `f64` | 4, 6; 4; 2; 8 |
//! | [`Grad`] | `f32`, bf16, f16; `f64`; left as they are or set to zero | 4, 2; 8 |
//! | [`Moment`] | `f32`; bf16, f16; [8 bits](Q8); `f64` | 4, 2, 1, 8 |
//!
//! Any mix is allowed, except that `f64` does not mix with others: if the parameters are `f64`, all arrays are.
//! A mix is computed in `f32`, in one pass over memory. Moments of 16 and 8 bits are rounded at random, and so
//! are parameters, if asked for ([`Param::stochastic`]). The random bits depend on the seed, the step and the
//! element alone:
//!
//! ```
//! use adamant::{Adam, Grad, Optimizer, Param, StepOptions, Storage};
//! use half::bf16;
//!
//! let adam = Adam { lr: 1e-3, ..Adam::default() };
//! let (mut params, grads) = (vec![1.0_f32; 1000], vec![bf16::ONE; 1000]);
//! let mut state = adam.state_in(Storage::Q8, params.len());
//! let (param, grad) = (Param::from(&mut params), Grad::from(&grads));
//! let report = adam.step_with(param, grad, &mut state, &StepOptions::default())?;
//! # assert_eq!((report.outcome, state.steps()), (adamant::Outcome::Taken, 1));
//! # Ok::<(), adamant::Error>(())
//! ```
//!
//! Rounding costs little: after 4,000 noisy steps of AdamW, the loss is at most 5 % above that of `f32`, with
//! moments in bf16 or 8 bits, or with parameters in two halves. With everything in bf16 it is much higher, since
//! such parameters cannot take small steps (`tests/suite/mixed.rs` has the bounds).
//!
//! # Tables
//!
//! A batch uses a few rows of an embedding table. A step of the module [`table`] reads and writes
//! these rows alone. The others stay as they are, or get the results of dense steps when they are next needed.
//!
//! # Where to look
//!
//! | to | use |
//! |---|---|
//! | step several groups of tensors in one call | [`step`](fn@step), [`Group`], [`Tensor`] |
//! | clip gradients, multiply them by a factor, leave out steps | [`StepOptions`], [`Report`] |
//! | scale a loss in f16 | [`LossScaler`] |
//! | add up the gradients of micro-batches | [`accumulate`](fn@accumulate) |
//! | know the norm of gradients, or which are not finite | [`norm`] |
//! | step rows of an embedding table | [`table`] |
//! | train one model in several processes | [`StepOptions::grad_norm`], [`Tensor::with_first`] |
//! | choose an optimizer and its settings by name | [`AnyOptimizer`], [`settings`] |
//! | choose threads | [`Exec`], [`Threads`], [`Pool`] |
//! | write a formula of your own | [`rule`] |
//!
//! # Checkpoints
//!
//! With the feature `safetensors`, the module `checkpoint` saves the parameters, moments and step counts of a
//! model to one file, and restores them. To write another format:
//!
//! A [`State`] has its step count ([`steps`](State::steps)) and its moments by name, in the storage that they
//! have ([`moments`](State::moments)) or as `f32` ([`moment_to_f32`](State::moment_to_f32)). It takes them back
//! by [`set_steps`](State::set_steps), [`moment_mut`](State::moment_mut) and
//! [`set_moment_from_f32`](State::set_moment_from_f32). A run that is restored from the same storage has the
//! bits of a run that was not interrupted. Where anything is rounded at random (moments of 16 or 8 bits, parameters by
//! [`Param::stochastic`]) this needs the same seed, and the same number of the first element
//! ([`first`](State::first)), too.
//!
//! # Schedules
//!
//! The settings are plain fields, and each call reads them. So a schedule is code that sets them:
//!
//! ```
//! use adamant::{Adam, Optimizer};
//!
//! let (mut params, mut state) = (vec![1.0_f32; 10], Adam::default().state(10));
//! for step in 0..100 {
//!     let warmed_up = f64::min(1.0, (step + 1) as f64 / 10.0);
//!     let cosine = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / 100.0).cos());
//!     let adam = Adam { lr: 1e-2 * warmed_up * cosine, ..Adam::adamw() };
//!     let grads: Vec<f32> = params.iter().map(|param| 2.0 * param).collect();
//!     adam.step(&mut params, &grads, &mut state)?;
//! }
//! # Ok::<(), adamant::Error>(())
//! ```
//!
//! # The same bits
//!
//! Scalar, AVX2, AVX-512 and NEON; one thread or many; any alignment and any cut of a tensor: the
//! results have the bits of [`reference`](mod@reference), which is plain Rust. Every multiply-add is fused, every
//! square root and division is correctly rounded, and nothing is approximated. (The bits of a NaN, its sign
//! among them, differ between CPUs.)
//!
//! A step with a learning rate of 0 leaves a finite parameter as it is (-0 may become 0), unless its update is infinite
//! or NaN, as after an infinite gradient: 0 times infinity is NaN. [`Rprop`] is an exception, since its steps do not
//! read `lr`, which is only the first step size. [`Ftrl`] refuses 0.
//!
//! # The instruction set
//!
//! It is chosen when the program runs. The environment variable `ADAMANT_ISA=scalar|avx2|avx512|neon` and the
//! option [`Exec::isa`] override the choice. [`Isa`] lists the instruction sets.
//!
//! # Features
//!
//! - `rayon` (default): large steps share their work with the threads of the caller's pool. Without
//!   it, every step runs on the calling thread.
//! - `serde`: [`AnyOptimizer`] can be serialised.
//! - `safetensors`: the module `checkpoint`, whole models to and from a file.
//!
//! # Other languages and frameworks
//!
//! C, Python with PyTorch, candle and burn have packages of their own, in the folder `bindings` of the
//! repository.

#![cfg_attr(not(feature = "rayon"), allow(dead_code, reason = "work is cut for threads only"))]

mod accumulate;
mod array;
mod buffer;
#[cfg(feature = "safetensors")]
pub mod checkpoint;
mod dispatch;
mod error;
mod exec;
mod float_modes;
mod isa;
mod kernel;
mod loss_scale;
mod mixed;
pub mod norm;
mod optimizer;
mod pieces;
pub mod reference;
pub mod rule;
pub mod settings;
mod simd;
mod state;
mod step;
pub mod table;
mod tensor;

pub use accumulate::accumulate;
pub use array::{Element, Grad, HalfElement, Moment, MomentRef, Param, Q8, Storage};
pub use buffer::{Buffer, BufferElement};
pub use error::Error;
pub use exec::{Exec, RunTasks, Threads};
pub use isa::Isa;
pub use loss_scale::LossScaler;
pub use optimizer::{DynOptimizer, Optimizer};
pub use pieces::Pool;
pub use rule::optimizers::*;
pub use state::State;
#[doc(hidden)]
pub use step::step_slices;
pub use step::{Outcome, Report, StepOptions, step};
pub use tensor::{Group, Tensor};

/// The program of the README, as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
