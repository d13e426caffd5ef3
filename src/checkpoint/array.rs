//! The arrays of a file: written, checked and copied.

use std::borrow::Cow;

use half::{bf16, f16};
use safetensors::{Dtype, View, tensor::TensorInfo};

use crate::{Moment, MomentRef, Storage, array::MomentArray};

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
        match self.values {
            MomentRef::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            MomentRef::F64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            MomentRef::Bf16(values) => {
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            }
            MomentRef::F16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            MomentRef::Q8(codes, _) => Cow::Borrowed(codes),
        }
    }

    fn data_len(&self) -> usize {
        self.values.len() * bytes_of(self.values.storage())
    }
}

fn bytes_of(storage: Storage) -> usize {
    match storage {
        Storage::F64 => 8,
        Storage::F32 => 4,
        Storage::Bf16 | Storage::F16 => 2,
        Storage::Q8 => 1,
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

/// Copies the bytes of an array that fits, and those of its scales if it has them.
pub(super) fn copy(bytes: &[u8], scales_bytes: Option<&[u8]>, to: &mut Moment<'_>) {
    match &mut to.0 {
        MomentArray::F32(to) => from_bytes(to, bytes, f32::from_le_bytes),
        MomentArray::F64(to) => from_bytes(to, bytes, f64::from_le_bytes),
        MomentArray::Bf16(to) => from_bytes(to, bytes, bf16::from_le_bytes),
        MomentArray::F16(to) => from_bytes(to, bytes, f16::from_le_bytes),
        MomentArray::Q8(codes, scales) => {
            codes.copy_from_slice(bytes);
            from_bytes(scales, scales_bytes.unwrap_or_default(), f32::from_le_bytes);
        }
    }
}

fn from_bytes<T, const N: usize>(to: &mut [T], bytes: &[u8], number: fn([u8; N]) -> T) {
    for (to, &bytes) in to.iter_mut().zip(bytes.as_chunks().0) {
        *to = number(bytes);
    }
}
