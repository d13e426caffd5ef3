//! Moments as bytes, for files.

use std::borrow::Cow;

use half::{bf16, f16};

use super::{Moment, MomentArray, MomentRef, Q8, Storage};
use crate::Error;

impl<'a> MomentRef<'a> {
    /// The elements as little-endian bytes, as files in the format safetensors have them. The scales of 8 bits
    /// are an array of their own.
    ///
    /// # Examples
    ///
    /// ```
    /// use adamant::{Moment, MomentRef};
    ///
    /// let bytes = MomentRef::F32(&[1.0, -2.0]).to_le_bytes();
    /// assert_eq!(*bytes, [0, 0, 128, 63, 0, 0, 0, 192]);
    /// let mut restored = [0.0_f32; 2];
    /// Moment::from(&mut restored).copy_from_le_bytes(&bytes, &[])?;
    /// assert_eq!(restored, [1.0, -2.0]);
    /// # Ok::<(), adamant::Error>(())
    /// ```
    pub fn to_le_bytes(self) -> Cow<'a, [u8]> {
        match self {
            Self::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Bf16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::F16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            Self::Q8(codes, _) => Cow::Borrowed(codes),
        }
    }
}

impl Moment<'_> {
    /// Copies elements from the bytes of [`MomentRef::to_le_bytes`]. `scales` are the bytes of the scales in 8 bits,
    /// and empty in every other storage.
    ///
    /// # Errors
    ///
    /// [`Error::LengthMismatch`] for another number of bytes; then nothing has changed.
    pub fn copy_from_le_bytes(&mut self, bytes: &[u8], scales: &[u8]) -> Result<(), Error> {
        let same = |argument, len, expected| match len == expected {
            true => Ok(()),
            false => Err(Error::LengthMismatch { tensor: 0, argument, len, expected }),
        };
        let expected = match self.storage() {
            Storage::Q8 => Storage::F32.bytes() * Q8::scales(self.len()),
            _ => 0,
        };
        same("saved bytes", bytes.len(), self.storage().bytes() * self.len())?;
        same("saved bytes of scales", scales.len(), expected)?;
        self.put_le_bytes(bytes, scales);
        Ok(())
    }

    /// [`copy_from_le_bytes`](Self::copy_from_le_bytes), for bytes whose numbers were checked.
    pub(crate) fn put_le_bytes(&mut self, bytes: &[u8], scales_bytes: &[u8]) {
        match &mut self.0 {
            MomentArray::F32(to) => put(to, bytes, f32::from_le_bytes),
            MomentArray::F64(to) => put(to, bytes, f64::from_le_bytes),
            MomentArray::Bf16(to) => put(to, bytes, bf16::from_le_bytes),
            MomentArray::F16(to) => put(to, bytes, f16::from_le_bytes),
            MomentArray::Q8(codes, scales) => {
                codes.copy_from_slice(bytes);
                put(scales, scales_bytes, f32::from_le_bytes);
            }
        }
    }
}

fn put<T, const N: usize>(to: &mut [T], bytes: &[u8], number: fn([u8; N]) -> T) {
    for (to, &bytes) in to.iter_mut().zip(bytes.as_chunks().0) {
        *to = number(bytes);
    }
}
