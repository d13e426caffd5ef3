//! The elements of tensors that one thread steps.

use core::ops::Range;

use super::Tensor;
use crate::{
    array::{Float, GradArray, MomentArray, ParamArray, elements_mut, len_of},
    rule::{Arity, MOMENTS, Many, Rule},
};

/// A position in a list of tensors: the number of a tensor, and of an element in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub tensor: usize,
    pub element: usize,
}

/// The elements between two positions in a list of tensors: the end of one tensor, any number of whole
/// ones, and the beginning of another.
#[derive(Clone)]
pub struct Run<'a, 'x> {
    tensors: &'a [Tensor<'x>],
    start: Place,
    end: Place,
}

impl<'a, 'x> Run<'a, 'x> {
    /// The tensor of the next elements.
    #[inline]
    pub(crate) fn peek(&self) -> Option<&'a Tensor<'x>> {
        let Place { tensor: mut index, mut element } = self.start;
        loop {
            let tensor = self.tensors.get(index).filter(|_| index <= self.end.tensor)?;
            let end = if index == self.end.tensor { self.end.element } else { tensor.len() };
            if element < end {
                return Some(tensor);
            }
            (index, element) = (index + 1, 0);
        }
    }

    /// # Safety
    ///
    /// Nobody else uses these elements until the run and all parts of it are dropped.
    #[inline]
    #[allow(unsafe_code, reason = "threads share tensors, each for elements of its own")]
    pub(crate) unsafe fn new(tensors: &'a [Tensor<'x>], start: Place, end: Place) -> Self {
        Self { tensors, start, end }
    }

    /// All elements of the tensors.
    ///
    /// # Safety
    ///
    /// As [`new`](Self::new).
    #[inline]
    #[allow(unsafe_code, reason = "threads share tensors, each for elements of its own")]
    pub(crate) unsafe fn whole(tensors: &'a [Tensor<'x>]) -> Self {
        let (start, end) =
            (Place { tensor: 0, element: 0 }, Place { tensor: tensors.len(), element: 0 });
        // SAFETY: the caller's promise.
        unsafe { Self::new(tensors, start, end) }
    }

    /// The next elements, all of one tensor. `None` if there are no more, or if `wanted` is false for their
    /// tensor; then they stay the next ones.
    #[inline(always)]
    pub(crate) fn next_if(&mut self, wanted: impl Fn(&Tensor<'_>) -> bool) -> Option<Part<'a, 'x>> {
        loop {
            let Place { tensor: index, element } = self.start;
            if index > self.end.tensor {
                return None;
            }
            // `None` after the last tensor: the end can be the position after it.
            let tensor = self.tensors.get(index)?;
            let end = if index == self.end.tensor { self.end.element } else { tensor.len() };
            if element < end && !wanted(tensor) {
                return None;
            }
            self.start = Place { tensor: index + 1, element: 0 };
            if element < end {
                return Some(Part { tensor, range: element..end });
            }
        }
    }
}

/// A range of elements of one tensor, for one thread.
pub(crate) struct Part<'a, 'x> {
    tensor: &'a Tensor<'x>,
    range: Range<usize>,
}

impl<'a, 'x> Part<'a, 'x> {
    /// The elements of all arrays of type `F`. An array of another type is empty.
    #[inline(always)]
    #[allow(unsafe_code, reason = "threads share tensors, each for elements of its own")]
    pub(crate) fn slices<R: Rule, F: Float>(&self) -> Slices<'a, R, F> {
        let Self { tensor, range } = self;
        let param = F::param_of(&tensor.param.0);
        // SAFETY: by `Run::new` nobody else uses these elements; all arrays are as long as the
        // parameters, or empty: `Tensor::check`.
        unsafe {
            Slices {
                param: elements_of(param, range),
                // Not a part of the whole: other threads zero theirs.
                grad: F::grad_in(tensor.grad.0.part(range.clone())).unwrap_or(&[]),
                moments: R::Moments::from_fn(
                    #[inline(always)]
                    |moment| elements_of(F::moment_of(&tensor.moments[moment].0), range),
                ),
            }
        }
    }

    /// The elements, in whatever types the arrays have.
    #[inline]
    #[allow(unsafe_code, reason = "threads share tensors, each for elements of its own")]
    pub(crate) fn arrays(&self) -> TensorArrays<'a> {
        let Self { tensor, range } = self;
        // SAFETY: by `Run::new` nobody else uses these elements, and runs begin with a block.
        unsafe {
            TensorArrays {
                param: tensor.param.0.part(range.clone()),
                grad: tensor.grad.0.part(range.clone()),
                moments: tensor.moments.each_ref().map(|moment| match moment.is_empty() {
                    true => MomentArray::F32(&mut []),
                    false => moment.0.part(range.clone()),
                }),
                first: tensor.first_in_call.wrapping_add(range.start as u64),
            }
        }
    }

    /// Sets gradients in `f64` to zero if they are to be zeroed.
    #[inline(always)]
    #[allow(unsafe_code, reason = "threads share tensors, each for elements of its own")]
    pub(crate) fn zero_grad(&self) {
        if let GradArray::F64ToZero(grad) = &self.tensor.grad.0 {
            // SAFETY: by `Run::new` nobody else uses these elements.
            unsafe { elements_mut(grad, self.range.clone()) }.fill(0.0);
        }
    }
}

/// A range of elements of an array; empty if the array is, since the rule does not use it.
///
/// # Safety
///
/// As [`elements_mut`], if there are any.
#[inline(always)]
#[allow(unsafe_code, reason = "threads share tensors, each for elements of its own")]
#[allow(clippy::mut_from_ref, reason = "the caller promises that nobody else uses these elements")]
unsafe fn elements_of<'s, F>(array: Option<&'s &mut [F]>, range: &Range<usize>) -> &'s mut [F] {
    match array {
        // SAFETY: the caller's promise.
        Some(array) if len_of(array) > 0 => unsafe { elements_mut(array, range.clone()) },
        _ => &mut [],
    }
}

/// Parameters, gradients and moments of one type and one length. A moment that the rule does not use is empty.
pub(crate) struct Slices<'a, R: Rule, F: Float> {
    pub param: &'a mut [F],
    pub grad: &'a [F],
    pub moments: Many<R::Moments, &'a mut [F]>,
}

impl<R: Rule, F: Float> Slices<'_, R, F> {
    #[inline(always)]
    pub(crate) fn reborrow(&mut self) -> Slices<'_, R, F> {
        let mut moments = self.moments.as_mut().iter_mut();
        Slices {
            param: self.param,
            grad: self.grad,
            moments: R::Moments::from_fn(
                #[inline(always)]
                |_| moments.next().map_or(&mut [][..], |moment| &mut **moment),
            ),
        }
    }
}

/// Parameters, gradients and moments of one length, each of its own type. A moment that the rule does not
/// use is empty.
pub struct TensorArrays<'a> {
    pub param: ParamArray<'a>,
    pub grad: GradArray<'a>,
    pub moments: [MomentArray<'a>; MOMENTS],
    /// The number of the first element, for random bits.
    pub first: u64,
}

/// Parameters, gradients and moments of one type and one length. A moment that the rule does not use is empty.
pub struct TypedArrays<'a, F> {
    pub param: &'a mut [F],
    pub grad: &'a [F],
    pub moments: [&'a mut [F]; MOMENTS],
}

impl<'a, F: Float> TypedArrays<'a, F> {
    /// The same arrays, borrowed for a shorter time.
    #[inline(always)]
    pub(crate) fn reborrow(&mut self) -> TypedArrays<'_, F> {
        let Self { param, grad, moments: [a, b, c, d] } = self;
        TypedArrays { param, grad, moments: [a, b, c, d] }
    }

    #[inline(always)]
    pub(crate) fn slices<R: Rule>(self) -> Slices<'a, R, F> {
        let mut moments = self.moments.into_iter();
        Slices {
            param: self.param,
            grad: self.grad,
            moments: R::Moments::from_fn(
                #[inline(always)]
                |_| moments.next().unwrap_or_default(),
            ),
        }
    }
}
