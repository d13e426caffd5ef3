//! The arrays of a file: written, checked and copied.

use std::borrow::Cow;

use safetensors::{Dtype, View, tensor::TensorInfo};

use crate::{MomentRef, Storage};

/// An array on its way to a file.
pub(super) struct Array<'a> {
    values: MomentRef<'a>,
    shape: [usize; 1],
}

impl<'a> Array<'a> {
    pub(super) fn of(values: MomentRef<'a>) -> Self {
        Self { values, shape: [values.len()] }
    }
}

fn dtype(storage: Storage) -> Dtype {
    match storage {
        Storage::F32 => Dtype::F32,
        Storage::F64 => Dtype::F64,
        Storage::Bf16 => Dtype::BF16,
        Storage::F16 => Dtype::F16,
        Storage::Q8 => Dtype::U8,
    }
}

impl View for Array<'_> {
    fn dtype(&self) -> Dtype {
        dtype(self.values.storage())
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        self.values.to_le_bytes()
    }

    fn data_len(&self) -> usize {
        self.values.len() * self.values.storage().bytes()
    }
}

/// Descriptions of an array in a file and of `values`, if their types or lengths differ. The array may have any rank.
pub(super) fn mismatch(
    values: MomentRef<'_>,
    info: &TensorInfo,
    bytes: &[u8],
) -> Option<[String; 2]> {
    let expected = Array::of(values);
    let fits = (info.dtype, bytes.len()) == (expected.dtype(), expected.data_len());
    let describe = |dtype: Dtype, shape: &[usize]| format!("{dtype:?} of shape {shape:?}");
    (!fits)
        .then(|| [describe(info.dtype, &info.shape), describe(expected.dtype(), &expected.shape)])
}
