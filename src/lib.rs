//! CPU optimizer kernels: Adam and its family in one pass over memory, at the speed of the memory,
//! with the same bits on every CPU.
//!
//! # Four ways in
//!
//! Everyday, adamant owns the moments:
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
//! Frameworks pass memory of their own, their own step count and any number of tensors, which share
//! one parallel region: [`Optimizer::step_many`].
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
//! And whoever has a formula of their own implements [`Rule`], and gets everything else with it.
//!
//! # Rows that are not listed
//!
//! | | what happens to them | for |
//! |---|---|---|
//! | [`step_rows_lazy`](RowOptimizer#lazy) | nothing, until they are listed again: PyTorch's `SparseAdam` | every optimizer |
//! | [`step_rows_dense_equivalent`](DenseEquivalent) | what a dense step with a gradient of zero does, when they are next needed: TensorFlow's Adam | [`Adam`], AdamW |
//!
//! [`RowWiseAdam`] keeps one second moment for a whole row. A table in a [`Buffer`] lies on huge pages.
//!
//! # Optimizers
//!
//! [`AnyOptimizer`] lists them, with their origins. It is any of them, chosen when the program runs; each
//! is also a type of its own, whose documentation has the formula and what a step costs.
//!
//! # Mixed precision
//!
//! [`MixedOptimizer::step_mixed`] steps tensors whose arrays are of any of these types, computed in
//! `f32`, in one pass over memory:
//!
//! | | types | bytes an element |
//! |---|---|---|
//! | [`Param`] | `f32`, also with a copy of 16 bits; bf16 and its remainder, together an `f32`; bf16, f16 | 4, 6; 4; 2 |
//! | [`Grad`] | `f32`, bf16, f16; left as they are or set to zero | 4, 2 |
//! | [`Moment`] | `f32`; bf16; [8 bits](Q8) | 4, 2, 1 |
//!
//! Or adamant owns the moments: [`MixedOptimizer::step_with`] takes a [`MixedState`], which keeps them in
//! the [`Storage`] that it was made with, and counts the steps:
//!
//! ```
//! use adamant::{Adam, Grad, MixedOptimizer, Param, Pass, Storage};
//! use half::bf16;
//!
//! let adam = Adam { lr: 1e-3, ..Adam::default() };
//! let (mut params, grads) = (vec![1.0_f32; 1000], vec![bf16::ONE; 1000]);
//! let mut state = adam.mixed_state(params.len(), Storage::Q8);
//! let (param, grad) = (Param::F32(&mut params), Grad::Bf16(&grads));
//! let outcome = adam.step_with(param, grad, Pass::default(), &mut state)?;
//! # assert_eq!((outcome, state.step()), (adamant::Outcome::Taken, 1));
//! # Ok::<(), adamant::Error>(())
//! ```
//!
//! Moments of 16 and 8 bits, and parameters if asked for, are rounded at random, by bits that depend on
//! a seed, the step and the element alone. On the way a step multiplies gradients by a factor, makes
//! subnormal moments zero, or is left out where the [norm](grad_norm) of the gradients is not finite:
//! see [`Pass`].
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
//! an invalid operation is the CPU's choice.)
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
//!
//! C and whatever speaks its ABI have all of this through the crate `adamant-capi`, in `bindings/c`.

#![cfg_attr(not(feature = "rayon"), allow(dead_code, reason = "work is cut for threads only"))]

mod accumulate;
mod array;
mod buffer;
mod element;
mod error;
mod exec;
mod isa;
mod kernel;
mod lanes;
mod loss_scale;
mod mixed;
mod norm;
mod optimizer;
mod pieces;
mod prefetch;
pub mod reference;
mod rows;
mod rule;
mod state;
mod step;
mod tensor;
mod words;

pub use accumulate::accumulate;
pub use array::{Element, Grad, HalfElement, Moment, MomentRef, Param, Storage};
pub use buffer::{Buffer, BufferElement};
pub use element::Q8;
pub use error::Error;
pub use exec::{Exec, RunTasks, Threads};
pub use isa::Isa;
pub use lanes::{Float, Lanes};
pub use loss_scale::LossScaler;
pub use norm::{NormOrder, clip_factor, first_nonfinite, grad_norm, grad_norms};
pub use optimizer::{DynOptimizer, Optimizer};
pub use pieces::Pool;
pub use rows::{
    CatchUp, DenseEquivalent, RowGrads, RowIndex, RowOptimizer, RowRule, RowScratch, RowWiseAdam,
    Table,
};
pub use rule::*;
pub use state::State;
pub use step::{Outcome, Report, StepOptions, step};
pub use tensor::{Group, MOMENTS, Tensor};
