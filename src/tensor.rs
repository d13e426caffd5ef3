//! The tensors of a call, and their groups.

use core::{fmt, ops::Range};

use crate::{
    Arity, DynOptimizer, Error, Float, Grad, Many, Moment, Param, Rule, Storage,
    array::{BLOCK, GradArray, MomentArray, ParamArray, Q8, elements_mut, len_of},
    optimizer::MomentLayout,
};

/// The largest number of moments that an optimizer has.
pub const MOMENTS: usize = 4;

/// One tensor of a call: parameters, gradients and moments, all borrowed and of the same length, and the
/// number of steps that the tensor has taken.
///
/// Each array has a type of its own. If the parameters are `f32`, bf16 or f16, gradients and moments can be of
/// any type but `f64`. If the parameters are `f64`, all arrays are. Arrays can have any length and any
/// alignment that their type allows.
///
/// [`State::tensor`](crate::State::tensor) makes a tensor whose moments adamant owns.
///
/// # Examples
///
/// Two tensors in memory of the caller's, the second one in half precision, in one call:
///
/// ```
/// use adamant::{Adam, Grad, Moment, Optimizer, Param, StepOptions, Tensor};
/// use half::bf16;
///
/// let (mut weight, weight_grad) = (vec![1.0_f32; 300], vec![0.1_f32; 300]);
/// let (mut weight_m, mut weight_v) = (vec![0.0_f32; 300], vec![0.0_f32; 300]);
/// let (mut bias, mut bias_grad) = (vec![bf16::ONE; 10], vec![bf16::ONE; 10]);
/// let (mut bias_m, mut bias_v) = (vec![bf16::ZERO; 10], vec![0.0_f32; 10]);
/// let (mut weight_steps, mut bias_steps) = (0, 0);
///
/// for _ in 0..3 {
///     let weight = Tensor::new(&mut weight, &weight_grad, &mut weight_steps)
///         .with_moments([Moment::from(&mut weight_m), Moment::from(&mut weight_v)]);
///     let bias = Tensor::new(
///         Param::stochastic(&mut bias),
///         Grad::zeroed(&mut bias_grad),
///         &mut bias_steps,
///     )
///     .with_moments([Moment::from(&mut bias_m), Moment::from(&mut bias_v)])
///     .with_first(300);
///     let _ = Adam::default().step_tensors(&mut [weight, bias], &StepOptions::default())?;
/// }
/// assert!(weight[0] < 1.0 && bias_grad[0] == bf16::ZERO);
/// assert_eq!((weight_steps, bias_steps), (3, 3));
/// # Ok::<(), adamant::Error>(())
/// ```
pub struct Tensor<'a> {
    pub(crate) param: Param<'a>,
    pub(crate) grad: Grad<'a>,
    pub(crate) moments: [Moment<'a>; MOMENTS],
    /// The number of moments in the call of `with_moments`.
    pub(crate) passed: usize,
    /// The names of the moments, where a state knows them.
    pub(crate) names: Option<[&'static str; MOMENTS]>,
    pub(crate) steps: &'a mut u64,
    /// Where the caller numbers elements.
    pub(crate) first: Option<u64>,
    /// The number of the first element in this call, by which random bits go.
    pub(crate) first_in_call: u64,
}

impl<'a> Tensor<'a> {
    /// A tensor without moments. `steps` is the number of steps that it has taken so far. Each step adds 1
    /// to it.
    #[inline]
    pub fn new(param: impl Into<Param<'a>>, grad: impl Into<Grad<'a>>, steps: &'a mut u64) -> Self {
        Self {
            param: param.into(),
            grad: grad.into(),
            moments: [Moment::none(), Moment::none(), Moment::none(), Moment::none()],
            passed: 0,
            names: None,
            steps,
            first: None,
            first_in_call: 0,
        }
    }

    /// Adds the moments, in the order of [`Rule::MOMENT_NAMES`](crate::Rule::MOMENT_NAMES). A moment that the
    /// settings do not use is [`Moment::none`].
    ///
    /// A call refuses a tensor that has more moments than its optimizer.
    #[inline]
    pub fn with_moments(mut self, moments: impl IntoIterator<Item = Moment<'a>>) -> Self {
        for moment in moments {
            if let Some(place) = self.moments.get_mut(self.passed) {
                *place = moment;
            }
            self.passed += 1;
        }
        self
    }

    /// With the number of the tensor's first element among all elements of the model. Random bits go by
    /// it: a tensor of which a part is passed gets the same ones, and two tensors get different ones.
    ///
    /// Without, it is the number of elements of the tensors before this one in the call, through all
    /// groups: so the tensors of a call have bits of their own, whatever the threads. Number the tensors
    /// where their order or their cuts change from call to call, and a run is to have the bits of another.
    #[inline]
    pub fn with_first(mut self, first: u64) -> Self {
        self.first = Some(first);
        self
    }

    /// The number of parameters.
    #[inline]
    pub fn len(&self) -> usize {
        self.param.len()
    }

    /// Whether there are no parameters.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of steps taken so far.
    pub fn steps(&self) -> u64 {
        *self.steps
    }

    /// The size of all arrays, in bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> usize {
        let [a, b, c, d] = &self.moments;
        self.param.bytes() + self.grad.bytes() + a.bytes() + b.bytes() + c.bytes() + d.bytes()
    }

    /// Which kernel steps the tensor. Its arrays were checked.
    #[inline]
    pub(crate) fn precision(&self) -> Precision {
        match (&self.param.0, &self.grad.0) {
            (ParamArray::F64(_), _) => Precision::F64,
            (ParamArray::F32(_), GradArray::F32(_))
                if (self.moments.iter())
                    .all(|moment| matches!(moment.0, MomentArray::F32(_)) || moment.is_empty()) =>
            {
                Precision::F32
            }
            _ => Precision::Mixed,
        }
    }

    /// Checks the lengths, types and names of all arrays.
    #[inline]
    pub(crate) fn check(&self, optimizer: &MomentLayout, tensor: usize) -> Result<(), Error> {
        let expected = self.len();
        let same = |argument, len| match len == expected {
            true => Ok(()),
            false => Err(Error::LengthMismatch { tensor, argument, len, expected }),
        };
        let is_f64 = match &self.param.0 {
            ParamArray::F64(_) => true,
            ParamArray::F32AndBf16(_, copy) => same("copy of param", copy.len()).map(|()| false)?,
            ParamArray::F32AndF16(_, copy) => same("copy of param", copy.len()).map(|()| false)?,
            ParamArray::Halves(_, low) => same("low half of param", low.len()).map(|()| false)?,
            _ => false,
        };
        let goes_with = |argument, found| match (found == Storage::F64) == is_f64 {
            true => Ok(()),
            false => {
                let expected = self.param.storage();
                Err(Error::TypeMismatch { tensor, argument, found, expected })
            }
        };
        same("grad", self.grad.len())?;
        goes_with("grad", self.grad.storage())?;
        let count = optimizer.count;
        if let Some(names) = &self.names {
            let both = names.iter().zip(&optimizer.names);
            for (&found, &expected) in both.take(count.max(self.passed)) {
                if !core::ptr::eq(found, expected) && found != expected {
                    return Err(Error::StateMismatch { tensor, found, expected });
                }
            }
        }
        if self.passed > count {
            return Err(Error::TooManyMoments { tensor, passed: self.passed, optimizer: count });
        }
        for (position, moment) in self.moments.iter().enumerate().take(count) {
            let name = optimizer.names[position];
            match (optimizer.used[position], moment.len()) {
                (true, len) => same(name, len)?,
                (false, 0) => continue,
                (false, len) => return Err(Error::UnusedMoment { tensor, moment: name, len }),
            }
            if expected > 0 {
                goes_with(name, moment.storage())?;
            }
            if let MomentArray::Q8(codes, scales) = &moment.0 {
                let (len, expected) = (scales.len(), Q8::scales(codes.len()));
                if len != expected {
                    return Err(Error::ScalesMismatch { tensor, moment: name, len, expected });
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tensor")
            .field("steps", &self.steps)
            .field("first", &self.first)
            .field("param", &self.param)
            .field("grad", &self.grad)
            .field("moments", &self.moments)
            .finish()
    }
}

/// Which kernel steps a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    /// Everything is `f32`.
    F32,
    /// Everything is `f64`.
    F64,
    /// Arrays of several types are widened to registers of `f32`.
    Mixed,
}

/// Tensors that one optimizer steps with the same settings: one of PyTorch's `param_groups`.
pub struct Group<'a, 'x> {
    pub(crate) optimizer: &'a dyn DynOptimizer,
    pub(crate) tensors: &'a mut [Tensor<'x>],
}

impl<'a, 'x> Group<'a, 'x> {
    /// Makes a group of any number of tensors.
    pub fn new(optimizer: &'a dyn DynOptimizer, tensors: &'a mut [Tensor<'x>]) -> Self {
        Self { optimizer, tensors }
    }
}

impl fmt::Debug for Group<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Group").field("tensors", &self.tensors).finish_non_exhaustive()
    }
}

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
        let grad = F::grad_of(&tensor.grad.0);
        // SAFETY: by `Run::new` nobody else uses these elements; all arrays are as long as the
        // parameters, or empty: `Tensor::check`.
        unsafe {
            Slices {
                param: elements_of(param, range),
                grad: grad.map_or(&[], |grad| &grad[range.clone()]),
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

/// Parameters, gradients and moments of one length, each of its own type; a moment that the rule does
/// without is empty.
pub struct TensorArrays<'a> {
    pub param: ParamArray<'a>,
    pub grad: GradArray<'a>,
    pub moments: [MomentArray<'a>; MOMENTS],
    /// The number of the first element, for random bits.
    pub first: u64,
}

/// Conversions from an array of any type to one of this type.
pub trait Typed: Sized {
    #[doc(hidden)]
    fn param_of<'s, 'x>(array: &'s ParamArray<'x>) -> Option<&'s &'x mut [Self]>;
    #[doc(hidden)]
    fn param_mut_of<'x>(array: ParamArray<'x>) -> Option<&'x mut [Self]>;
    #[doc(hidden)]
    fn grad_of<'s>(array: &'s GradArray<'_>) -> Option<&'s [Self]>;
    #[doc(hidden)]
    fn moment_of<'s, 'x>(array: &'s MomentArray<'x>) -> Option<&'s &'x mut [Self]>;
    #[doc(hidden)]
    fn moment_mut_of<'x>(array: MomentArray<'x>) -> Option<&'x mut [Self]>;
}

macro_rules! typed {
    ($($float:ty: $variant:ident, $to_zero:ident);+) => {$(
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
        }
    )+};
}

typed!(f32: F32, F32ToZero; f64: F64, F64ToZero);

/// Tensors are cut at multiples of this many elements, so that no block of an 8-bit moment is cut.
pub(crate) const GRAIN: usize = BLOCK;
