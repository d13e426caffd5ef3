//! Gradients.

use core::{fmt, ops::Range};

use half::{bf16, f16};

use super::{
    Element, Storage,
    shared::{elements_mut, parts},
};
use crate::Buffer;

/// The gradients of a [`Tensor`](crate::Tensor), borrowed. A slice of `f32`, `f64`, bf16 or f16 becomes one by
/// `into()` or by [`zeroed`](Self::zeroed).
pub struct Grad<'a>(pub(crate) GradArray<'a>);

/// The arrays of [`Grad`].
#[derive(Debug)]
pub enum GradArray<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
    Bf16(&'a [bf16]),
    F16(&'a [f16]),
    F32ToZero(&'a mut [f32]),
    F64ToZero(&'a mut [f64]),
    Bf16ToZero(&'a mut [bf16]),
    F16ToZero(&'a mut [f16]),
}

impl<'a> Grad<'a> {
    /// Gradients that the step sets to zero after it has read them, so that the gradients of the next batch
    /// can be added.
    ///
    /// A step that is [left out](crate::Outcome::LeftOut) sets them to zero, too, unless
    /// [`StepOptions::keep_grads`](crate::StepOptions::keep_grads) is set.
    pub fn zeroed<F: Element>(grad: &'a mut [F]) -> Self {
        F::zeroed_grad(grad)
    }

    /// The number of gradients.
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no gradients.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The storage of the gradients.
    #[inline]
    pub fn storage(&self) -> Storage {
        match &self.0 {
            GradArray::F32(_) | GradArray::F32ToZero(_) => Storage::F32,
            GradArray::F64(_) | GradArray::F64ToZero(_) => Storage::F64,
            GradArray::Bf16(_) | GradArray::Bf16ToZero(_) => Storage::Bf16,
            GradArray::F16(_) | GradArray::F16ToZero(_) => Storage::F16,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        let each = match self.storage() {
            Storage::F64 => 8,
            Storage::F32 => 4,
            _ => 2,
        };
        each * self.len()
    }

    /// Sets gradients that are to be zeroed to zero.
    pub(crate) fn zero(&mut self) {
        match &mut self.0 {
            GradArray::F32(_) | GradArray::F64(_) | GradArray::Bf16(_) | GradArray::F16(_) => {}
            GradArray::F32ToZero(grad) => grad.fill(0.0),
            GradArray::F64ToZero(grad) => grad.fill(0.0),
            GradArray::Bf16ToZero(grad) => grad.fill(bf16::ZERO),
            GradArray::F16ToZero(grad) => grad.fill(f16::ZERO),
        }
    }
}

impl fmt::Debug for Grad<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'a, F: Element> From<&'a [F]> for Grad<'a> {
    fn from(grad: &'a [F]) -> Self {
        F::grad(grad)
    }
}

impl<'a, F: Element> From<&'a Vec<F>> for Grad<'a> {
    fn from(grad: &'a Vec<F>) -> Self {
        F::grad(grad)
    }
}

impl<'a, F: Element, const N: usize> From<&'a [F; N]> for Grad<'a> {
    fn from(grad: &'a [F; N]) -> Self {
        F::grad(grad)
    }
}

impl<'a, F: Element> From<&'a Buffer<F>> for Grad<'a> {
    fn from(grad: &'a Buffer<F>) -> Self {
        F::grad(grad)
    }
}

parts!(GradArray {
    F32(ref grad),
    F64(ref grad),
    Bf16(ref grad),
    F16(ref grad),
    F32ToZero(mut grad),
    F64ToZero(mut grad),
    Bf16ToZero(mut grad),
    F16ToZero(mut grad),
});
