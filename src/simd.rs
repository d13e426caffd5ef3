//! Registers with operators, whatever their width: the one place that names pulp's operations.

#[cfg(target_arch = "x86_64")]
mod bytes;
mod fused;
mod lanes;
mod prefetch;
mod vector;
mod wide;
mod words;

pub use lanes::{Lanes, Register};
pub(crate) use lanes::{MOST_LANES, TILE};
pub(crate) use prefetch::{prefetch_from, prefetch_item, prefetch_near, prefetch_row};
pub(crate) use pulp::{Scalar, Simd, WithSimd};
pub(crate) use vector::{Vector, VectorMask};
pub(crate) use wide::{TOGETHER, Wide};
pub(crate) use words::Words;
