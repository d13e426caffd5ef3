//! Arrays of any type as arrays of one type.

use super::{GradArray, MomentArray, ParamArray};
use crate::{dispatch::Rows, tensor::TypedArrays};

/// Conversions from an array of any type to one of this type.
pub trait Typed: Sized {
    #[doc(hidden)]
    fn param_of<'s, 'x>(array: &'s ParamArray<'x>) -> Option<&'s &'x mut [Self]>;
    #[doc(hidden)]
    fn param_mut_of<'x>(array: ParamArray<'x>) -> Option<&'x mut [Self]>;
    #[doc(hidden)]
    fn grad_of<'s>(array: &'s GradArray<'_>) -> Option<&'s [Self]>;
    #[doc(hidden)]
    fn grad_in<'x>(array: GradArray<'x>) -> Option<&'x [Self]>;
    #[doc(hidden)]
    fn moment_of<'s, 'x>(array: &'s MomentArray<'x>) -> Option<&'s &'x mut [Self]>;
    #[doc(hidden)]
    fn moment_mut_of<'x>(array: MomentArray<'x>) -> Option<&'x mut [Self]>;
    #[doc(hidden)]
    fn param_in_mut<'s>(array: &'s mut ParamArray<'_>) -> Option<&'s mut [Self]>;
    #[doc(hidden)]
    fn moment_in_mut<'s>(array: &'s mut MomentArray<'_>) -> Option<&'s mut [Self]>;
    #[doc(hidden)]
    fn row<'a>(arrays: &'a mut TypedArrays<'a, Self>) -> Rows<'a>;
}

macro_rules! typed {
    ($($float:ty: $variant:ident, $to_zero:ident, $row:ident);+) => {$(
        impl Typed for $float {
            #[inline(always)]
            fn param_of<'s, 'x>(array: &'s ParamArray<'x>) -> Option<&'s &'x mut [Self]> {
                match array {
                    ParamArray::$variant(param) => Some(param),
                    _ => None,
                }
            }

            fn param_mut_of<'x>(array: ParamArray<'x>) -> Option<&'x mut [Self]> {
                match array {
                    ParamArray::$variant(param) => Some(param),
                    _ => None,
                }
            }

            #[inline(always)]
            fn grad_of<'s>(array: &'s GradArray<'_>) -> Option<&'s [Self]> {
                match array {
                    GradArray::$variant(grad) => Some(grad),
                    GradArray::$to_zero(grad) => Some(grad),
                    _ => None,
                }
            }

            #[inline(always)]
            fn grad_in<'x>(array: GradArray<'x>) -> Option<&'x [Self]> {
                match array {
                    GradArray::$variant(grad) => Some(grad),
                    GradArray::$to_zero(grad) => Some(grad),
                    _ => None,
                }
            }

            #[inline(always)]
            fn moment_of<'s, 'x>(array: &'s MomentArray<'x>) -> Option<&'s &'x mut [Self]> {
                match array {
                    MomentArray::$variant(moment) => Some(moment),
                    _ => None,
                }
            }

            fn moment_mut_of<'x>(array: MomentArray<'x>) -> Option<&'x mut [Self]> {
                match array {
                    MomentArray::$variant(moment) => Some(moment),
                    _ => None,
                }
            }

            #[inline(always)]
            fn param_in_mut<'s>(array: &'s mut ParamArray<'_>) -> Option<&'s mut [Self]> {
                match array {
                    ParamArray::$variant(param) => Some(param),
                    _ => None,
                }
            }

            #[inline(always)]
            fn moment_in_mut<'s>(array: &'s mut MomentArray<'_>) -> Option<&'s mut [Self]> {
                match array {
                    MomentArray::$variant(moment) => Some(moment),
                    _ => None,
                }
            }

            #[inline(always)]
            fn row<'a>(arrays: &'a mut TypedArrays<'a, Self>) -> Rows<'a> {
                Rows::$row(arrays)
            }
        }
    )+};
}

typed!(f32: F32, F32ToZero, OneF32; f64: F64, F64ToZero, OneF64);
