//! [adamant](https://docs.rs/adamant)'s optimizers for [candle](https://docs.rs/candle-core): all variables of a
//! model in one pass over memory and one parallel region, in place, with the same bits on every CPU and
//! thread count.
//!
//! One line of a training script changes:
//!
//! ```
//! # use candle_core::{DType, Device, Tensor};
//! # use candle_nn::{Module, Optimizer, ParamsAdamW, VarBuilder, VarMap};
//! use adamant_candle::{Adam, VarOptimizer};
//!
//! # let map = VarMap::new();
//! # let model = candle_nn::linear(2, 1, VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
//! # let (x, y) = (Tensor::ones((4, 2), DType::F32, &Device::Cpu)?, Tensor::ones((4, 1), DType::F32, &Device::Cpu)?);
//! // let mut optimizer = candle_nn::AdamW::new(map.all_vars(), ParamsAdamW { lr: 1e-3, ..Default::default() })?;
//! let mut optimizer = VarOptimizer::from_var_map(&map, Adam { lr: 1e-3, ..Adam::adamw() })?;
//! for _ in 0..10 {
//!     let loss = candle_nn::loss::mse(&model.forward(&x)?, &y)?;
//!     optimizer.backward_step(&loss)?;
//! }
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! Every optimizer of adamant can be used: by its type or, as an [`AnyOptimizer`], by its name. Defaults are
//! PyTorch's; candle's AdamW has the same.
//!
//! | | |
//! |---|---|
//! | groups | [`VarOptimizer::add_group`]: an optimizer of their own for variables that a predicate chooses |
//! | clipping | `optimizer.options.max_norm = Some(1.0)`; [`last_report`](VarOptimizer::last_report) has the norm |
//! | small moments | [`VarOptimizer::with_moments`]: bf16, f16 or 8 bits instead of `f32` |
//! | bf16 variables | `optimizer.stochastic = true`: rounded at random, so that small updates are not lost on average |
//! | schedules | [`set_learning_rate`](candle_nn::Optimizer::set_learning_rate); a group's settings: [`VarOptimizer::groups_mut`] |
//! | checkpoints | [`VarOptimizer::save`] and [`load`](VarOptimizer::load): variables and optimizer in one file, resumed to the bit |
//! | threads | those of the rayon pool that a step is called in, as candle's own; `options.exec.threads` chooses others |
//!
//! Variables live on the CPU, in F32, F64, BF16 or F16.

mod checkpoint;
mod error;
mod memory;
mod optimizer;
mod step;

pub use adamant;
/// The optimizers, and the options and results of a step.
#[doc(no_inline)]
pub use adamant::{
    AdEmaMix, AdaBelief, AdaGrad, AdaMax, Adadelta, Adam, Adan, Adopt, AmsGrad, AnyOptimizer, Asgd,
    Exec, Ftrl, Lion, NAdam, Outcome, RAdam, Report, RmsProp, Rprop, Sgd, StepOptions, Storage,
    Threads, Yogi,
};
pub use error::Error;
pub use optimizer::VarOptimizer;

/// The programs of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
