//! The types that steps are computed in.

use super::{Element, Moment, Typed};
use crate::simd::{Lanes, Register};

/// A floating-point type that steps are computed in: `f32` or `f64`. Sealed.
///
/// A number is a register of one lane: [`reference`](crate::reference) is written in these.
pub trait Float: Lanes<Mask = bool> + Register + Element + Typed + PartialOrd {
    /// `"f32"` or `"f64"`.
    const NAME: &'static str;

    /// Rounds to nearest even.
    fn from_f64(value: f64) -> Self;

    /// Rounds a constant of a step to nearest even. If a constant that is not 0 would become 0, it becomes the smallest
    /// number instead: even the smallest epsilon keeps the denominator from 0.
    fn constant(value: f64) -> Self;

    /// Widens, exactly.
    fn to_f64(self) -> f64;

    /// Whether it is neither infinite nor NaN.
    fn is_finite(self) -> bool;

    /// Borrows an array as a moment.
    fn moment(array: &mut [Self]) -> Moment<'_>;

    /// Calls the function of this type.
    #[doc(hidden)]
    fn call<C: EachFloat>(input: C::Input<Self>);
}

/// A function for each of the two types, for code that is generic over [`Float`].
pub trait EachFloat {
    /// The argument of the function.
    type Input<F: Float>;

    fn f32(input: Self::Input<f32>);

    fn f64(input: Self::Input<f64>);
}

macro_rules! floats {
    ($($float:ident),+) => {$(
        impl Float for $float {
            const NAME: &'static str = stringify!($float);

            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                Self::nearest(value)
            }

            #[inline(always)]
            fn constant(value: f64) -> Self {
                Self::rounded(value)
            }

            #[inline(always)]
            fn to_f64(self) -> f64 {
                self.into()
            }

            #[inline(always)]
            fn is_finite(self) -> bool {
                self.is_finite()
            }

            #[inline]
            fn moment(array: &mut [Self]) -> Moment<'_> {
                array.into()
            }

            fn call<C: EachFloat>(input: C::Input<Self>) {
                C::$float(input);
            }
        }
    )+};
}

floats!(f32, f64);
