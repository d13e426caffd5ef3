//! The arrays of a tensor in mixed precision.

use half::{bf16, f16};

use crate::{Error, element::BLOCK, reference};

/// The parameters of a [`MixedTensor`](crate::MixedTensor); steps are computed in `f32` whatever their type.
#[derive(Debug)]
pub enum Param<'a> {
    /// `f32`.
    F32(&'a mut [f32]),
    /// `f32`, and a copy of 16 bits that each step writes, for the forward pass to use: rounded to
    /// nearest, ties to even.
    F32AndBf16(&'a mut [f32], &'a mut [bf16]),
    /// As [`F32AndBf16`](Self::F32AndBf16), of the other 16-bit type.
    F32AndF16(&'a mut [f32], &'a mut [f16]),
    /// An `f32` in two halves, 4 bytes in all: the forward pass uses the upper one, which is the number
    /// rounded to the nearest bf16, ties away from zero; the lower one is the lower half of the
    /// number's bits. With the lower half as a signed number `l`, the bits of the `f32` are those of
    /// the upper one times 2^16, plus `l`.
    ///
    /// A step has the bits of a step on `f32`, but that it makes every NaN quiet.
    /// [`Param::split`] makes the halves of an `f32`, and [`Param::join`] the `f32` of them.
    Split(&'a mut [bf16], &'a mut [u16]),
    /// bf16, rounded to nearest, ties to even. Updates of less than half a rounding, 2^-9 of the
    /// parameter, are lost.
    Bf16(&'a mut [bf16]),
    /// bf16, rounded up or down at random, so that no update is lost on average.
    Bf16Stochastic(&'a mut [bf16]),
    /// f16, rounded to nearest, ties to even.
    F16(&'a mut [f16]),
}

impl Param<'_> {
    /// Turns numbers into the halves of [`Param::Split`]; every NaN becomes a quiet one.
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
        for ((high, low), &value) in high.iter_mut().zip(low).zip(values) {
            (*high, *low) = reference::split(value);
        }
        Ok(())
    }

    /// Turns the halves of [`Param::Split`] into numbers: the inverse of [`split`](Self::split).
    ///
    /// # Errors
    ///
    /// As [`split`](Self::split).
    pub fn join(high: &[bf16], low: &[u16], values: &mut [f32]) -> Result<(), Error> {
        check_halves(high.len(), low.len(), values.len())?;
        for ((value, &high), &low) in values.iter_mut().zip(high).zip(low) {
            *value = reference::join(high, low);
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

/// The gradients of a [`MixedTensor`](crate::MixedTensor).
#[derive(Debug)]
pub enum Grad<'a> {
    /// `f32`.
    F32(&'a [f32]),
    /// bf16.
    Bf16(&'a [bf16]),
    /// f16.
    F16(&'a [f16]),
    /// `f32`; each step leaves zeros.
    F32ToZero(&'a mut [f32]),
    /// bf16; each step leaves zeros.
    Bf16ToZero(&'a mut [bf16]),
    /// f16; each step leaves zeros.
    F16ToZero(&'a mut [f16]),
}

/// A moment of a [`MixedTensor`](crate::MixedTensor).
#[derive(Debug)]
pub enum Moment<'a> {
    /// `f32`.
    F32(&'a mut [f32]),
    /// bf16, rounded up or down at random: rounded to nearest, a moment that moves by less than 2^-9 of
    /// itself a step stands still.
    Bf16(&'a mut [bf16]),
    /// 8 bits and a scale for each 256 elements, rounded at random: codes and scales, see
    /// [`Q8`](crate::Q8).
    Q8(&'a mut [u8], &'a mut [f32]),
}

/// A moment of a [`MixedState`](crate::MixedState), to be read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MomentRef<'a> {
    /// As [`Moment::F32`].
    F32(&'a [f32]),
    /// As [`Moment::Bf16`].
    Bf16(&'a [bf16]),
    /// Codes and scales, as [`Moment::Q8`].
    Q8(&'a [u8], &'a [f32]),
}

/// A slice, shared or not, that can be cut in two.
trait Cut: Sized {
    type Short<'b>
    where
        Self: 'b;

    fn cut(self, mid: usize) -> (Self, Self);
    fn shorten(&mut self) -> Self::Short<'_>;
}

impl<T> Cut for &mut [T] {
    type Short<'b>
        = &'b mut [T]
    where
        Self: 'b;

    fn cut(self, mid: usize) -> (Self, Self) {
        self.split_at_mut(mid)
    }

    fn shorten(&mut self) -> &mut [T] {
        self
    }
}

impl<'a, T> Cut for &'a [T] {
    type Short<'b>
        = &'a [T]
    where
        Self: 'b;

    fn cut(self, mid: usize) -> (Self, Self) {
        self.split_at(mid)
    }

    fn shorten(&mut self) -> &'a [T] {
        self
    }
}

/// What arrays of several types have in common; the first slice of each variant is as long as the
/// array, and the names are those of errors.
macro_rules! arrays {
    ($array:ident { $($variant:ident($slice:ident $(, $beside:ident $(=> $block:ident)?)?)),+ }) => {
        impl<'a> $array<'a> {
            pub(crate) fn len(&self) -> usize {
                match self {
                    $(Self::$variant($slice, ..) => $slice.len(),)+
                }
            }

            pub(super) fn bytes(&self) -> usize {
                match self {
                    $(Self::$variant($slice $(, $beside)?) => {
                        size_of_val(&**$slice) $(+ size_of_val(&**$beside))?
                    })+
                }
            }

            pub(super) fn split_at(self, mid: usize) -> (Self, Self) {
                match self {
                    $(Self::$variant($slice $(, $beside)?) => {
                        let $slice = $slice.cut(mid);
                        $(let $beside = $beside.cut(mid $(.div_ceil($block))?);)?
                        (
                            Self::$variant($slice.0 $(, $beside.0)?),
                            Self::$variant($slice.1 $(, $beside.1)?),
                        )
                    })+
                }
            }

            pub(super) fn reborrow(&mut self) -> $array<'_> {
                match self {
                    $(Self::$variant($slice $(, $beside)?) => {
                        $array::$variant($slice.shorten() $(, $beside.shorten())?)
                    })+
                }
            }
        }
    };
}

arrays!(Param {
    F32(param),
    F32AndBf16(param, copy),
    F32AndF16(param, copy),
    Split(high, low),
    Bf16(param),
    Bf16Stochastic(param),
    F16(param)
});
arrays!(Grad {
    F32(grad),
    Bf16(grad),
    F16(grad),
    F32ToZero(grad),
    Bf16ToZero(grad),
    F16ToZero(grad)
});
arrays!(Moment {
    F32(moment),
    Bf16(moment),
    Q8(codes, scales => BLOCK)
});
