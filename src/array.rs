//! Arrays and their storages: the parameters, gradients and moments of a [`Tensor`](crate::Tensor), which
//! know the type of their elements, and how each type becomes registers of `f32` and back.

mod bytes;
mod float;
mod grad;
mod half_float;
mod moment;
mod narrow;
mod param;
mod q8;
mod random;
mod shared;
mod storage;
mod typed;

pub use float::{EachFloat, Float};
pub use grad::{Grad, GradArray};
pub(crate) use half_float::{F16_RANDOM_BITS, narrow_f16};
pub use moment::{Moment, MomentArray, MomentRef};
pub(crate) use narrow::{Narrow, join, narrow_bf16, narrow_bf16_pairs, split, widen_bf16_pairs};
pub use param::{HalfElement, Param, ParamArray};
pub(crate) use q8::BLOCK;
pub use q8::Q8;
pub(crate) use random::{Draw, Mixed, Random, RandomBits, RandomBlock, RandomOf};
pub(crate) use shared::{elements_mut, len_of};
pub use storage::{Element, Storage};
pub use typed::Typed;
