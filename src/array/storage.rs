//! The storages, and the types of elements.

use core::fmt;

use half::{bf16, f16};

use super::{Grad, GradArray, Param, ParamArray};
use crate::BufferElement;

/// The storage of the elements of an array.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Storage {
    /// `f32`: 4 bytes an element.
    #[default]
    F32,
    /// `f64`: 8 bytes. Only together with parameters in `f64`, whose steps are computed in `f64`.
    F64,
    /// bf16: 2 bytes. Moments are rounded up or down at random. Rounded to nearest, a moment would not
    /// change if a step changes it by less than 2^-9 of itself.
    Bf16,
    /// 8 bits and a scale for each 256 elements, rounded at random: 1 byte and a bit. For moments. See
    /// [`Q8`](crate::Q8).
    Q8,
    /// f16: 2 bytes. Moments are rounded up or down at random, and must be between 2^-24 (6e-8) and 65,504. A
    /// smaller denominator becomes 2^-24, which shortens steps. A larger one becomes infinite, and its
    /// parameter then stays as it is. So gradients should be around 1;
    /// [`StepOptions::grad_factor`](crate::StepOptions::grad_factor) can scale them.
    F16,
}

impl Storage {
    /// The name: `f32`, `f64`, `bf16`, `f16` or `q8`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Q8 => "q8",
        }
    }

    /// The bytes of an element; in 8 bits, without its share of a scale.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::Q8 => 1,
        }
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A type of parameters and gradients: `f32`, `f64`, `bf16` or `f16`. Sealed.
pub trait Element: BufferElement {
    /// The storage of an array of these.
    const STORAGE: Storage;

    /// Borrows an array as parameters that are rounded to nearest, ties to even.
    fn param(array: &mut [Self]) -> Param<'_>;

    /// Borrows an array as gradients.
    fn grad(array: &[Self]) -> Grad<'_>;

    /// Borrows an array as gradients that a step sets to zero: see [`Grad::zeroed`].
    fn zeroed_grad(array: &mut [Self]) -> Grad<'_>;
}

macro_rules! elements {
    ($($element:ident: $storage:ident, $to_zero:ident);+) => {$(
        impl Element for $element {
            const STORAGE: Storage = Storage::$storage;

            #[inline]
            fn param(array: &mut [Self]) -> Param<'_> {
                Param(ParamArray::$storage(array))
            }

            #[inline]
            fn grad(array: &[Self]) -> Grad<'_> {
                Grad(GradArray::$storage(array))
            }

            #[inline]
            fn zeroed_grad(array: &mut [Self]) -> Grad<'_> {
                Grad(GradArray::$to_zero(array))
            }
        }
    )+};
}

elements!(f32: F32, F32ToZero; f64: F64, F64ToZero; bf16: Bf16, Bf16ToZero; f16: F16, F16ToZero);
