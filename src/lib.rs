//! CPU optimizer kernels: Adam in one pass over memory, at the speed of the memory, with the same
//! bits on every CPU.

mod dense;
mod error;
mod isa;
mod kernel;
mod lanes;
mod partition;
pub mod reference;
mod rule;
mod state;

pub use dense::{Exec, Optimizer, Tensor};
pub use error::Error;
pub use isa::Isa;
pub use lanes::{Float, Lanes};
pub use rule::{
    AdEmaMix, AdaGrad, AdaMax, Adadelta, Adam, Adopt, AmsGrad, Arity, Count, Epsilon, Lion, Many,
    NAdam, RAdam, RmsProp, Rule, Sgd, bias_corrections, check,
};
pub use state::State;
