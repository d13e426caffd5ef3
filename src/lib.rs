//! CPU optimizer kernels: Adam and its family in one pass over memory, at the speed of the memory,
//! with the same bits on every CPU.
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
//!
//! # A model
//!
//! [`step`](fn@step) takes any number of [groups](Group) of any number of [tensors](Tensor) in one parallel
//! region: weights that decay and biases that do not, each with an optimizer of its own. [`StepOptions`] says
//! what else happens on the way: gradients are multiplied by a factor, clipped by their common norm, or
//! zeroed; a step with gradients that are not finite is left out; threads and instruction set are chosen.
//!
//! Moments are those of a [`State`], or the caller's memory: a framework passes its own arrays and step
//! counts ([`Tensor::new`]).
//!
//! # Optimizers
//!
//! [`AnyOptimizer`] lists them, with their origins. It is any of them, chosen when the program runs, with
//! settings by name; each is also a type of its own, whose documentation has the formula and what a step
//! costs. Whoever has another formula implements [`Rule`] and gets everything else with it.
//!
//! # Types
//!
//! | | kept in | bytes an element |
//! |---|---|---|
//! | [`Param`] | `f32`, also with a copy of 16 bits; bf16 and its remainder, together an `f32`; bf16, f16; `f64` | 4, 6; 4; 2; 8 |
//! | [`Grad`] | `f32`, bf16, f16; `f64`; left as they are or set to zero | 4, 2; 8 |
//! | [`Moment`] | `f32`; bf16, f16; [8 bits](Q8); `f64` | 4, 2, 1, 8 |
//!
//! Any mix goes together and is computed in `f32`, in one pass over memory; where parameters are `f64`, all
//! arrays are. Moments of 16 and 8 bits, and parameters if asked for, are rounded at random, by bits that
//! depend on a seed, the step and the element alone:
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
//! What rounding costs: the loss after 4,000 noisy steps of AdamW exceeds that of `f32` by at most 5 % with
//! moments in bf16 or 8 bits, or with parameters in two halves. With everything in bf16, whose parameters have no
//! finer steps, it exceeds it by much more (`tests/mixed.rs` has the bounds).
//!
//! # Tables
//!
//! Embedding tables, of which a batch lists a few rows, cost what the batch touches:
//!
//! ```
//! use adamant::{Adam, RowGrads, RowOptimizer};
//!
//! let (rows, width) = (10_000, 64);
//! let adam = Adam { lr: 1e-3, ..Adam::default() };
//! let mut table = vec![1.0_f32; rows * width];
//! let mut state = adam.row_state(rows, width);
//! let (ids, grads) = ([7_u32, 4096, 7], vec![0.1; 3 * width]);
//! adam.step_rows_lazy(&mut table, RowGrads::new(&ids, &grads, width), &mut state)?;
//! # Ok::<(), adamant::Error>(())
//! ```
//!
//! | | rows that are not listed | for |
//! |---|---|---|
//! | [`step_rows_lazy`](RowOptimizer#lazy) | stay as they are, until they are listed again: PyTorch's `SparseAdam` | every optimizer |
//! | [`step_rows_dense_equivalent`](DenseEquivalent) | take the dense step with a gradient of zero when they are next needed: TensorFlow's Adam | [`Adam`], AdamW |
//!
//! The second way needs three calls more: [catch up](DenseEquivalent::catch_up) before each forward pass,
//! [with all rows](DenseEquivalent::catch_up_all) before the table is saved or evaluated, and a
//! [`DenseEquivalent`] that is kept beside the state. Only [`CatchUp::Replay`] has the bits of dense steps;
//! with [`CatchUp::Series`] a run that was saved goes on with other roundings.
//!
//! The first way takes any of the types above, the second `f32` or `f64`. Both take [`StepOptions`]; to clip a
//! model with tables by one norm, [sort](RowGrads::sort) the gradients of the tables first.
//!
//! [`RowWiseAdam`] keeps one second moment for a whole row. A table in a [`Buffer`] lies on huge pages.
//!
//! # Checkpoints
//!
//! A [`State`] gives its step count and its moments by name, in the storage that they have
//! ([`moments`](State::moments)) or as `f32` ([`moment_to_f32`](State::moment_to_f32)), and takes them back.
//! A run that is restored from the same storage goes on with the bits of one that was not interrupted.
//! With 8 bits or bf16 that needs the seed of the run, too.
//!
//! # Schedules
//!
//! Hyper-parameters are plain fields, read anew in every step, and so a schedule is whatever sets
//! them:
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
//! square root and division correctly rounded, and nothing is approximated. (Which NaN comes out of
//! an invalid operation, its sign too, is the CPU's choice.)
//!
//! A learning rate of 0 leaves every number as it is, but a parameter of -0 may become 0.
//!
//! # The instruction set
//!
//! It is chosen when the program runs, and `ADAMANT_ISA=scalar|avx2|avx512|neon` overrides it; see
//! [`Isa`] and [`Exec`].
//!
//! # Features
//!
//! - `rayon` (default): large steps share their work with the threads of the caller's pool. Without
//!   it, every step runs on the calling thread.
//! - `serde`: [`AnyOptimizer`] can be serialised.
//! - `safetensors`: the module `checkpoint`, whole models to and from a file.
//!
//! C and whatever speaks its ABI have all of this through the crate `adamant-capi`, in `bindings/c`.

#![cfg_attr(not(feature = "rayon"), allow(dead_code, reason = "work is cut for threads only"))]

mod accumulate;
mod array;
mod buffer;
#[cfg(feature = "safetensors")]
pub mod checkpoint;
mod error;
mod exec;
mod isa;
mod kernel;
mod loss_scale;
mod mixed;
mod norm;
mod optimizer;
mod pieces;
pub mod reference;
mod rule;
mod simd;
mod state;
mod step;
mod table;
mod tensor;

pub use accumulate::accumulate;
pub use array::{Element, Grad, HalfElement, Moment, MomentRef, Param, Q8, Storage};
pub use buffer::{Buffer, BufferElement};
pub use error::Error;
pub use exec::{Exec, RunTasks, Threads};
pub use isa::Isa;
pub use loss_scale::LossScaler;
pub use norm::{NormOrder, clip_factor, first_nonfinite, grad_norm, grad_norms};
pub use optimizer::{DynOptimizer, Optimizer};
pub use pieces::Pool;
pub use rule::*;
pub use simd::{Float, Lanes};
pub use state::State;
pub use step::{Outcome, Report, StepOptions, step};
pub use table::{
    CatchUp, DenseEquivalent, RowGrads, RowIndex, RowOptimizer, RowRule, RowScratch, RowWiseAdam,
    SortedRows, Table,
};
pub use tensor::{Group, MOMENTS, Tensor};
