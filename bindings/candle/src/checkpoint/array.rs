//! Arrays on their way to a file.

use std::borrow::Cow;

use adamant::{MomentRef, Storage};
use candle_core::Tensor;
use safetensors::{Dtype, View};

pub(super) fn dtype_of(storage: Storage) -> Dtype {
    match storage {
        Storage::F64 => Dtype::F64,
        Storage::Bf16 => Dtype::BF16,
        Storage::F16 => Dtype::F16,
        Storage::Q8 => Dtype::U8,
        _ => Dtype::F32,
    }
}

/// An array on its way to a file.
pub(super) enum Array<'a> {
    Tensor(&'a Tensor),
    /// With its shape.
    Moment(MomentRef<'a>, Vec<usize>),
}

impl View for Array<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Tensor(tensor) => View::dtype(tensor),
            Self::Moment(moment, _) => dtype_of(moment.storage()),
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Tensor(tensor) => tensor.dims(),
            Self::Moment(_, shape) => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Tensor(tensor) => View::data(tensor),
            Self::Moment(moment, _) => moment.to_le_bytes(),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Tensor(tensor) => View::data_len(tensor),
            Self::Moment(moment, _) => moment.len() * moment.storage().bytes(),
        }
    }
}
