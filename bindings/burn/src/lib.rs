//! [adamant](https://docs.rs/adamant)'s optimizers for [burn](https://docs.rs/burn) on its CPU backend, burn-flex: in
//! one pass over memory, with the same bits on every CPU and thread count.
//!
//! | | |
//! |---|---|
//! | [`OneCallOptimizer`] | all parameters of a module in one call and one parallel region, in place; errors name the parameter |
//! | [`ParamOptimizer`] | burn's `Optimizer`, for `ModuleOptimizer` and `Learner`: one parameter at a time |
//!
//! One or two lines of a training loop change:
//!
//! ```
//! # use burn::{Tensor, nn::LinearConfig, optim::GradientsParams, tensor::Device};
//! use adamant_burn::{Adam, OneCallOptimizer};
//!
//! # let device = Device::default().autodiff();
//! # let mut model = LinearConfig::new(2, 1).init(&device);
//! # let x = Tensor::<2>::ones([4, 2], &device);
//! // let mut optimizer = AdamWConfig::new().init();
//! let mut optimizer = OneCallOptimizer::new(Adam::adamw())?;
//! for _ in 0..10 {
//!     let loss = model.forward(x.clone()).square().mean();
//!     let grads = GradientsParams::from_grads(loss.backward(), &model);
//!     // model = optimizer.step(1e-3, model, grads);
//!     let report = optimizer.step(1e-3, &mut model, grads)?;
//!     # assert_eq!(report.grad_norm, None);
//! }
//! # Ok::<(), adamant_burn::Error>(())
//! ```
//!
//! Every optimizer of adamant can be used: by its type or, as an [`AnyOptimizer`], by its name. Defaults are
//! PyTorch's. The defaults of burn's AdamW are `Adam { eps: 1e-5, weight_decay: 1e-4, ..Adam::adamw() }`.
//!
//! Both keep records in burn's format, and read each other's. Moments can be bf16, f16 or 8 bits
//! ([`OneCallOptimizer::with_moments`]), parameters F32, F64, BF16 or F16.

mod error;
mod memory;
mod one_call;
mod param_optimizer;
mod param_state;
mod record;
mod traverse;

pub use adamant;
/// The optimizers, and the options and results of a step.
#[doc(no_inline)]
pub use adamant::{
    AdEmaMix, AdaBelief, AdaGrad, AdaMax, Adadelta, Adam, Adan, Adopt, AmsGrad, AnyOptimizer, Asgd,
    Exec, Ftrl, Lion, NAdam, Outcome, RAdam, Report, RmsProp, Rprop, Sgd, StepOptions, Storage,
    Threads, Yogi,
};
pub use error::Error;
pub use one_call::OneCallOptimizer;
pub use param_optimizer::ParamOptimizer;
pub use param_state::ParamState;

/// The programs of the README, as tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
