//! Parameters.

use core::{fmt, ops::Range};

use half::{bf16, f16};

use super::{
    Element, Storage, narrow,
    shared::{elements_mut, parts},
};
use crate::{
    Buffer, Error,
    simd::{Scalar, Vector},
};

/// The parameters of a [`Tensor`](crate::Tensor), borrowed. A slice of `f32`, `f64`, bf16 or f16 becomes one by
/// `into()`; the methods below make the other forms.
///
/// Steps are computed in `f64` for parameters in `f64`, and in `f32` for all others.
///
/// Parameters in bf16 and f16 are rounded to nearest, ties to even, in each step. So an update is lost if it is
/// less than 2^-9 of a parameter in bf16, or 2^-12 in f16. Three forms do not lose updates:
/// [`stochastic`](Self::stochastic), [`with_copy`](Self::with_copy) and [`from_halves`](Self::from_halves).
pub struct Param<'a>(pub(crate) ParamArray<'a>);

/// The arrays of [`Param`].
#[derive(Debug)]
pub enum ParamArray<'a> {
    F32(&'a mut [f32]),
    F64(&'a mut [f64]),
    F32AndBf16(&'a mut [f32], &'a mut [bf16]),
    F32AndF16(&'a mut [f32], &'a mut [f16]),
    Halves(&'a mut [bf16], &'a mut [u16]),
    Bf16(&'a mut [bf16]),
    Bf16Stochastic(&'a mut [bf16]),
    F16(&'a mut [f16]),
    F16Stochastic(&'a mut [f16]),
}

/// A 16-bit type that parameters can be rounded to: `bf16` or `f16`. Sealed.
pub trait HalfElement: Element {
    #[doc(hidden)]
    fn copied<'a>(param: &'a mut [f32], copy: &'a mut [Self]) -> Param<'a>;
    #[doc(hidden)]
    fn stochastic(param: &mut [Self]) -> Param<'_>;
}

impl HalfElement for bf16 {
    fn copied<'a>(param: &'a mut [f32], copy: &'a mut [Self]) -> Param<'a> {
        Param(ParamArray::F32AndBf16(param, copy))
    }

    fn stochastic(param: &mut [Self]) -> Param<'_> {
        Param(ParamArray::Bf16Stochastic(param))
    }
}

impl HalfElement for f16 {
    fn copied<'a>(param: &'a mut [f32], copy: &'a mut [Self]) -> Param<'a> {
        Param(ParamArray::F32AndF16(param, copy))
    }

    fn stochastic(param: &mut [Self]) -> Param<'_> {
        Param(ParamArray::F16Stochastic(param))
    }
}

impl<'a> Param<'a> {
    /// Parameters in `f32`, and a copy in 16 bits for the forward pass. Each step writes the copy, rounded to
    /// nearest, ties to even. 6 bytes an element.
    pub fn with_copy<H: HalfElement>(param: &'a mut [f32], copy: &'a mut [H]) -> Self {
        H::copied(param, copy)
    }

    /// Parameters in bf16 or f16, rounded up or down at random, so that no update is lost on average.
    ///
    /// In f16, the update of a parameter below 2^-14 is first rounded to a multiple of 2^-37. A parameter beyond
    /// 65,504, the largest number, can become infinite.
    pub fn stochastic<H: HalfElement>(param: &'a mut [H]) -> Self {
        H::stochastic(param)
    }

    /// Parameters in `f32`, in two halves, 4 bytes an element in all. The forward pass uses the upper half,
    /// which is the number rounded to the nearest bf16, ties away from zero. The lower half has the lower 16
    /// bits of the number. With the lower half as a signed number `l`, the bits of the
    /// `f32` are those of the upper one times 2^16, plus `l`.
    ///
    /// A step has the bits of a step on `f32`, except that it makes every NaN quiet. [`Param::split`] makes
    /// the halves of an `f32`, and [`Param::join`] the `f32` of them.
    pub fn from_halves(high: &'a mut [bf16], low: &'a mut [u16]) -> Self {
        Self(ParamArray::Halves(high, low))
    }

    /// The number of parameters.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The storage of the parameters, without the copy or the lower halves.
    #[inline]
    pub fn storage(&self) -> Storage {
        match &self.0 {
            ParamArray::F32(_) | ParamArray::F32AndBf16(..) | ParamArray::F32AndF16(..) => {
                Storage::F32
            }
            ParamArray::F64(_) => Storage::F64,
            ParamArray::Halves(..) | ParamArray::Bf16(_) | ParamArray::Bf16Stochastic(_) => {
                Storage::Bf16
            }
            ParamArray::F16(_) | ParamArray::F16Stochastic(_) => Storage::F16,
        }
    }

    /// The bytes of all arrays.
    pub(crate) fn bytes(&self) -> usize {
        let each = match &self.0 {
            ParamArray::F64(_) => 8,
            ParamArray::F32AndBf16(..) | ParamArray::F32AndF16(..) => 6,
            ParamArray::F32(_) | ParamArray::Halves(..) => 4,
            ParamArray::Bf16(_) | ParamArray::Bf16Stochastic(_) => 2,
            ParamArray::F16(_) | ParamArray::F16Stochastic(_) => 2,
        };
        each * self.len()
    }

    /// Turns numbers into the halves of [`from_halves`](Self::from_halves); every NaN becomes a quiet
    /// one.
    ///
    /// # Examples
    ///
    /// A checkpoint is kept in `f32`:
    ///
    /// ```
    /// use adamant::Param;
    /// use half::bf16;
    ///
    /// let checkpoint = [1.0_f32, -0.1, 3e-40];
    /// let (mut high, mut low) = ([bf16::ZERO; 3], [0; 3]);
    /// Param::split(&checkpoint, &mut high, &mut low)?;
    /// assert_eq!(high, checkpoint.map(bf16::from_f32));
    ///
    /// let mut again = [0.0; 3];
    /// Param::join(&high, &low, &mut again)?;
    /// assert_eq!(again, checkpoint);
    /// # Ok::<(), adamant::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::LengthMismatch`] if the halves are not as long as the values.
    pub fn split(values: &[f32], high: &mut [bf16], low: &mut [u16]) -> Result<(), Error> {
        check_halves(high.len(), low.len(), values.len())?;
        let simd = Scalar::new();
        for ((high, low), value) in high.chunks_mut(1).zip(low.chunks_mut(1)).zip(values.chunks(1))
        {
            narrow::split(high, low, Vector::read(simd, value));
        }
        Ok(())
    }

    /// Turns the halves of [`from_halves`](Self::from_halves) into numbers: the inverse of
    /// [`split`](Self::split).
    ///
    /// # Errors
    ///
    /// As [`split`](Self::split).
    pub fn join(high: &[bf16], low: &[u16], values: &mut [f32]) -> Result<(), Error> {
        check_halves(high.len(), low.len(), values.len())?;
        let simd = Scalar::new();
        for ((value, high), low) in values.chunks_mut(1).zip(high.chunks(1)).zip(low.chunks(1)) {
            narrow::join(simd, high, low).write(value);
        }
        Ok(())
    }
}

fn check_halves(high: usize, low: usize, expected: usize) -> Result<(), Error> {
    let same = |argument, len| match len == expected {
        true => Ok(()),
        false => Err(Error::LengthMismatch { tensor: 0, argument, len, expected }),
    };
    same("high half of param", high)?;
    same("low half of param", low)
}

impl fmt::Debug for Param<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'a, F: Element> From<&'a mut [F]> for Param<'a> {
    fn from(param: &'a mut [F]) -> Self {
        F::param(param)
    }
}

impl<'a, F: Element> From<&'a mut Vec<F>> for Param<'a> {
    fn from(param: &'a mut Vec<F>) -> Self {
        F::param(param)
    }
}

impl<'a, F: Element, const N: usize> From<&'a mut [F; N]> for Param<'a> {
    fn from(param: &'a mut [F; N]) -> Self {
        F::param(param)
    }
}

impl<'a, F: Element> From<&'a mut Buffer<F>> for Param<'a> {
    fn from(param: &'a mut Buffer<F>) -> Self {
        F::param(param)
    }
}

parts!(ParamArray {
    F32(mut param),
    F64(mut param),
    F32AndBf16(mut param, copy),
    F32AndF16(mut param, copy),
    Halves(mut high, low),
    Bf16(mut param),
    Bf16Stochastic(mut param),
    F16(mut param),
    F16Stochastic(mut param),
});
