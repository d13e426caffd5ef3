//! Moments.

use core::{fmt, ops::Range};

use half::{bf16, f16};

use super::{
    Q8, Storage,
    half_float::nearest_f16,
    shared::{elements_mut, parts, scales_of},
};
use crate::{Buffer, Error, float_modes::with_default_float_modes, isa::Cpu};

/// A moment of a [`Tensor`](crate::Tensor), borrowed. A slice of `f32`, `f64`, bf16 or f16 becomes one by
/// `into()`; see also [`q8`](Self::q8) and [`none`](Self::none).
///
/// Before the first step, all elements have the value of [`Rule::start`](crate::rule::Rule::start), which mostly is 0.
pub struct Moment<'a>(pub(crate) MomentArray<'a>);

/// The arrays of [`Moment`].
#[derive(Debug)]
pub enum MomentArray<'a> {
    F32(&'a mut [f32]),
    F64(&'a mut [f64]),
    Bf16(&'a mut [bf16]),
    F16(&'a mut [f16]),
    Q8(&'a mut [u8], &'a mut [f32]),
}

/// A moment that is only read.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum MomentRef<'a> {
    /// `f32`.
    F32(&'a [f32]),
    /// `f64`.
    F64(&'a [f64]),
    /// bf16.
    Bf16(&'a [bf16]),
    /// f16.
    F16(&'a [f16]),
    /// Codes, and a scale for each 256 of them: see [`Q8`].
    Q8(&'a [u8], &'a [f32]),
}

impl<'a> Moment<'a> {
    /// A moment of 8 bits: codes, and [`Q8::scales`] scales.
    pub fn q8(codes: &'a mut [u8], scales: &'a mut [f32]) -> Self {
        Self(MomentArray::Q8(codes, scales))
    }

    /// No elements: for a moment that the optimizer, or its settings, do not use.
    #[inline]
    pub const fn none() -> Self {
        Self(MomentArray::F32(&mut []))
    }

    /// The number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no elements.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The storage of the elements.
    #[inline]
    pub fn storage(&self) -> Storage {
        match &self.0 {
            MomentArray::F32(_) => Storage::F32,
            MomentArray::F64(_) => Storage::F64,
            MomentArray::Bf16(_) => Storage::Bf16,
            MomentArray::F16(_) => Storage::F16,
            MomentArray::Q8(..) => Storage::Q8,
        }
    }

    /// The same elements, to be read.
    pub fn read(&self) -> MomentRef<'_> {
        match &self.0 {
            MomentArray::F32(moment) => MomentRef::F32(moment),
            MomentArray::F64(moment) => MomentRef::F64(moment),
            MomentArray::Bf16(moment) => MomentRef::Bf16(moment),
            MomentArray::F16(moment) => MomentRef::F16(moment),
            MomentArray::Q8(codes, scales) => MomentRef::Q8(codes, scales),
        }
    }

    /// Copies the elements of a moment in the same storage, to restore a checkpoint. A moment without elements
    /// fits every storage.
    ///
    /// # Errors
    ///
    /// [`Error::TypeMismatch`] for another storage, [`Error::LengthMismatch`] or
    /// [`Error::ScalesMismatch`] for other lengths.
    pub fn copy_from(&mut self, saved: MomentRef<'_>) -> Result<(), Error> {
        let (storage, len) = (self.storage(), self.len());
        // A state keeps no array of a moment without elements, whatever its storage.
        if len == 0 && saved.is_empty() {
            return Ok(());
        }
        if saved.storage() != storage {
            let (argument, found) = ("saved moment", saved.storage());
            return Err(Error::TypeMismatch { tensor: 0, argument, found, expected: storage });
        }
        if saved.len() != len {
            let (argument, len, expected) = ("saved moment", saved.len(), len);
            return Err(Error::LengthMismatch { tensor: 0, argument, len, expected });
        }
        match (&mut self.0, saved) {
            (MomentArray::F32(moment), MomentRef::F32(saved)) => moment.copy_from_slice(saved),
            (MomentArray::F64(moment), MomentRef::F64(saved)) => moment.copy_from_slice(saved),
            (MomentArray::Bf16(moment), MomentRef::Bf16(saved)) => moment.copy_from_slice(saved),
            (MomentArray::F16(moment), MomentRef::F16(saved)) => moment.copy_from_slice(saved),
            (MomentArray::Q8(codes, scales), MomentRef::Q8(saved, saved_scales)) => {
                let (len, expected) = (saved_scales.len(), scales.len());
                if len != expected {
                    let moment = "saved moment";
                    return Err(Error::ScalesMismatch { tensor: 0, moment, len, expected });
                }
                codes.copy_from_slice(saved);
                scales.copy_from_slice(saved_scales);
            }
            // The storages are the same.
            _ => {}
        }
        Ok(())
    }

    /// Gives all elements the same value, as a new [`State`](crate::State) does with the value that the optimizer
    /// has for them ([`DynOptimizer::moment_start`](crate::DynOptimizer::moment_start)).
    ///
    /// The value is rounded to nearest. In f16 and 8 bits, a denominator that is not 0 does not become 0. `format`
    /// says whether the moment is a denominator: it is the optimizer's
    /// [`DynOptimizer::moment_format`](crate::DynOptimizer::moment_format).
    pub fn fill(&mut self, value: f64, format: Q8) {
        with_default_float_modes(|| {
            let single = value as f32;
            match &mut self.0 {
                MomentArray::F32(moment) => moment.fill(single),
                MomentArray::F64(moment) => moment.fill(value),
                MomentArray::Bf16(moment) => moment.fill(bf16::from_f32(single)),
                MomentArray::F16(moment) => moment.fill(nearest_f16(format, single)),
                MomentArray::Q8(codes, scales) => format.fill(single, codes, scales),
            }
        });
    }

    /// Rounds numbers to nearest and keeps them, as when a checkpoint in `f32` is restored into another
    /// storage. `format` is the one of 8 bits.
    pub(crate) fn set_f32(&mut self, values: &[f32], format: Q8) -> Result<(), Error> {
        let (argument, len, expected) = ("saved moment", values.len(), self.len());
        if len != expected {
            return Err(Error::LengthMismatch { tensor: 0, argument, len, expected });
        }
        with_default_float_modes(|| {
            match &mut self.0 {
                MomentArray::F32(moment) => moment.copy_from_slice(values),
                MomentArray::F64(moment) => {
                    for (moment, &value) in moment.iter_mut().zip(values) {
                        *moment = value.into();
                    }
                }
                MomentArray::Bf16(moment) => {
                    for (moment, &value) in moment.iter_mut().zip(values) {
                        *moment = bf16::from_f32(value);
                    }
                }
                MomentArray::F16(moment) => {
                    for (moment, &value) in moment.iter_mut().zip(values) {
                        *moment = nearest_f16(format, value);
                    }
                }
                MomentArray::Q8(codes, scales) => {
                    format.encode_with(values, codes, scales, Cpu::of_conversions())?
                }
            }
            Ok(())
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        let scales = match self.storage() {
            Storage::Q8 => 4 * Q8::scales(self.len()),
            _ => 0,
        };
        self.storage().bytes() * self.len() + scales
    }
}

impl fmt::Debug for Moment<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl MomentRef<'_> {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(moment) => moment.len(),
            Self::F64(moment) => moment.len(),
            Self::Bf16(moment) => moment.len(),
            Self::F16(moment) => moment.len(),
            Self::Q8(codes, _) => codes.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The storage of the elements.
    pub fn storage(&self) -> Storage {
        match self {
            Self::F32(_) => Storage::F32,
            Self::F64(_) => Storage::F64,
            Self::Bf16(_) => Storage::Bf16,
            Self::F16(_) => Storage::F16,
            Self::Q8(..) => Storage::Q8,
        }
    }

    /// The elements as `f32`; `format` is the one of 8 bits.
    pub(crate) fn to_f32(self, format: Q8) -> Result<Vec<f32>, Error> {
        with_default_float_modes(|| {
            Ok(match self {
                Self::F32(moment) => moment.to_vec(),
                Self::F64(moment) => moment.iter().map(|&value| value as f32).collect(),
                Self::Bf16(moment) => moment.iter().map(|value| value.to_f32()).collect(),
                Self::F16(moment) => moment.iter().map(|value| value.to_f32()).collect(),
                Self::Q8(codes, scales) => {
                    let mut values = vec![0.0; codes.len()];
                    format.decode_with(codes, scales, &mut values, Cpu::of_conversions())?;
                    values
                }
            })
        })
    }
}

impl Default for Moment<'_> {
    fn default() -> Self {
        Self::none()
    }
}

macro_rules! moments {
    ($($element:ident: $storage:ident),+) => {$(
        impl<'a> From<&'a mut [$element]> for Moment<'a> {
            #[inline]
            fn from(moment: &'a mut [$element]) -> Self {
                Self(MomentArray::$storage(moment))
            }
        }

        impl<'a> From<&'a mut Vec<$element>> for Moment<'a> {
            fn from(moment: &'a mut Vec<$element>) -> Self {
                Self(MomentArray::$storage(moment))
            }
        }

        impl<'a> From<&'a mut Buffer<$element>> for Moment<'a> {
            fn from(moment: &'a mut Buffer<$element>) -> Self {
                Self(MomentArray::$storage(moment))
            }
        }

        impl<'a, const N: usize> From<&'a mut [$element; N]> for Moment<'a> {
            fn from(moment: &'a mut [$element; N]) -> Self {
                Self(MomentArray::$storage(moment))
            }
        }
    )+};
}

moments!(f32: F32, f64: F64, bf16: Bf16, f16: F16);

parts!(MomentArray {
    F32(mut moment),
    F64(mut moment),
    Bf16(mut moment),
    F16(mut moment),
    Q8(mut codes, scales => scales_of),
});
