//! The tensors of a call, and their groups.

mod run;

use core::{any::TypeId, fmt};

use crate::{
    DynOptimizer, Error, Grad, Moment, Param, Storage,
    array::{BLOCK, GradArray, MomentArray, ParamArray, Q8},
    optimizer::MomentLayout,
    rule::MOMENTS,
};

pub(crate) use run::{Part, Slices};
pub use run::{Place, Run, TensorArrays, TypedArrays};

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
/// Two tensors in memory of the caller, the second one in half precision, in one call:
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
    /// The names of the moments, if they are those of a state.
    pub(crate) names: Option<&'a Names>,
    pub(crate) steps: &'a mut u64,
    /// The number of the first element, if the caller set it.
    pub(crate) first: Option<u64>,
    /// The number of the first element in this call, on which random bits depend.
    pub(crate) first_in_call: u64,
    /// Which kernel steps the tensor in this call.
    pub(crate) precision_in_call: Precision,
}

impl<'a> Tensor<'a> {
    /// Makes a tensor without moments. `steps` is the number of steps that the tensor has taken so far. Each
    /// step adds 1 to it.
    #[inline]
    pub fn new(param: impl Into<Param<'a>>, grad: impl Into<Grad<'a>>, steps: &'a mut u64) -> Self {
        Self {
            param: param.into(),
            grad: grad.into(),
            moments: [const { Moment::none() }; MOMENTS],
            passed: 0,
            names: None,
            steps,
            first: None,
            first_in_call: 0,
            precision_in_call: Precision::Mixed,
        }
    }

    /// Adds the moments, in the order of [`Rule::MOMENT_NAMES`](crate::rule::Rule::MOMENT_NAMES). A moment that the
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

    /// Sets the number of the tensor's first element among all elements of the model. The random bits of an
    /// element depend on its number. So a part of a tensor gets the same bits as the whole tensor does, and
    /// two tensors get different bits.
    ///
    /// Without this method, the number is that of the elements before this tensor in the call, through all
    /// groups. So the tensors of a call have bits of their own. Set it if the order of tensors, or the way
    /// they are cut, changes from call to call, and the results must not depend on that.
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
        let arrays =
            [self.param.bytes(), self.grad.bytes(), a.bytes(), b.bytes(), c.bytes(), d.bytes()];
        // Tensors may share a gradient: on 32 bits the sum may not fit.
        arrays.into_iter().fold(0, usize::saturating_add)
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
    pub(crate) fn check(
        &self,
        optimizer: &dyn DynOptimizer,
        layout: &MomentLayout,
        tensor: usize,
    ) -> Result<(), Error> {
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
        let count = layout.count;
        if let Some(names) = self.names
            && names.rule != Some(layout.rule)
        {
            names.check(&names_of(optimizer), tensor)?;
        }
        if self.passed > count {
            return Err(Error::TooManyMoments { tensor, passed: self.passed, optimizer: count });
        }
        for (position, moment) in self.moments.iter().enumerate().take(count) {
            let name = optimizer.moment_name(position);
            let (is_used, len) = (layout.used[position], moment.len());
            if is_used {
                same(name, len)?;
                if expected > 0 {
                    goes_with(name, moment.storage())?;
                }
            } else if len > 0 {
                return Err(Error::UnusedMoment { tensor, moment: name, len });
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

/// The names of the moments of a state.
#[derive(Clone)]
pub(crate) struct Names {
    /// The type of the optimizer that has made the state of a tensor.
    pub(crate) rule: Option<TypeId>,
    /// Empty behind the last moment.
    pub(crate) all: [&'static str; MOMENTS],
}

impl Names {
    /// Refuses an optimizer whose moments have other names than these.
    pub(crate) fn check(
        &self,
        expected: &[&'static str; MOMENTS],
        tensor: usize,
    ) -> Result<(), Error> {
        match self.all.iter().zip(expected).find(|(found, expected)| found != expected) {
            Some((found, expected)) => Err(Error::StateMismatch { tensor, found, expected }),
            None => Ok(()),
        }
    }
}

/// The names of the moments; empty behind the last one.
fn names_of(optimizer: &dyn DynOptimizer) -> [&'static str; MOMENTS] {
    let mut names = [""; MOMENTS];
    for (moment, name) in names.iter_mut().enumerate().take(optimizer.moment_count()) {
        *name = optimizer.moment_name(moment);
    }
    names
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

/// Tensors are cut at multiples of this many elements, so that no block of an 8-bit moment is cut.
pub(crate) const GRAIN: usize = BLOCK;
