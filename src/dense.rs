//! The ways in for dense tensors: what a call looks like, and every error it can make.

use core::fmt;

use crate::{Arity, Error, Float, Isa, Many, Rule, State, isa::Cpu, partition};

/// One tensor of a call: parameters, gradients and moments, all borrowed, all of one length.
///
/// Any length and any alignment that the type has will do.
///
/// # Examples
///
/// ```
/// use adamant::{Adam, Optimizer, Tensor};
///
/// let (mut weight, weight_grad) = (vec![1.0_f32; 300], vec![0.1; 300]);
/// let (mut bias, bias_grad) = (vec![0.0_f32; 10], vec![-0.1; 10]);
/// let (mut weight_m, mut weight_v) = (vec![0.0; 300], vec![0.0; 300]);
/// let (mut bias_m, mut bias_v) = (vec![0.0; 10], vec![0.0; 10]);
///
/// for t in 1..=3 {
///     let weight = Tensor::<Adam, f32> {
///         param: &mut weight,
///         grad: &weight_grad,
///         moments: [&mut weight_m, &mut weight_v],
///     };
///     let bias = Tensor::<Adam, f32> {
///         param: &mut bias,
///         grad: &bias_grad,
///         moments: [&mut bias_m, &mut bias_v],
///     };
///     Adam::default().step_many(t, &mut [weight, bias])?;
/// }
/// assert!(weight[0] < 1.0 && bias[0] > 0.0);
/// # Ok::<(), adamant::Error>(())
/// ```
pub struct Tensor<'a, R: Rule, F: Float> {
    /// The parameters.
    pub param: &'a mut [F],
    /// The gradient of the loss for each parameter.
    pub grad: &'a [F],
    /// The rule's moments, in the order of [`Rule::MOMENT_NAMES`]. Before the first step each holds
    /// [`Rule::start`]: zeros mostly. One that the rule does without is empty.
    pub moments: Many<R::Moments, &'a mut [F]>,
}

impl<'a, R: Rule, F: Float> Tensor<'a, R, F> {
    pub(crate) fn len(&self) -> usize {
        self.param.len()
    }

    #[inline(always)]
    pub(crate) fn reborrow(&mut self) -> Tensor<'_, R, F> {
        let mut moments = self.moments.as_mut().iter_mut();
        Tensor {
            param: self.param,
            grad: self.grad,
            moments: R::Moments::from_fn(
                #[inline(always)]
                |_| moments.next().map_or(&mut [][..], |moment| &mut **moment),
            ),
        }
    }

    /// Cuts the tensor in two: the first `mid` elements, and the others.
    ///
    /// # Panics
    ///
    /// If `mid` is beyond the end of the parameters or gradients, as for slices.
    pub fn split_at(self, mid: usize) -> (Self, Self) {
        let (param, param_rest) = self.param.split_at_mut(mid);
        let (grad, grad_rest) = self.grad.split_at(mid);
        let mut rests = R::Moments::from_fn(|_| -> &mut [F] { &mut [] });
        let mut slots = rests.as_mut().iter_mut();
        let moments = R::Moments::map(self.moments, |moment| {
            // One that the rule does without is empty.
            let (moment, rest) = moment.split_at_mut(mid.min(moment.len()));
            if let Some(slot) = slots.next() {
                *slot = rest;
            }
            moment
        });
        (Self { param, grad, moments }, Self { param: param_rest, grad: grad_rest, moments: rests })
    }

    fn check_lengths(&self, rule: &R, tensor: usize) -> Result<(), Error> {
        let expected = self.len();
        let same = |argument, len| match len == expected {
            true => Ok(()),
            false => Err(Error::LengthMismatch { tensor, argument, len, expected }),
        };
        same("grad", self.grad.len())?;
        let names = R::MOMENT_NAMES;
        for (moment, (array, &name)) in self.moments.as_ref().iter().zip(names.as_ref()).enumerate()
        {
            match rule.start(moment) {
                Some(_) => same(name, array.len())?,
                None if array.is_empty() => {}
                None => return Err(Error::UnusedMoment { tensor, moment: name, len: array.len() }),
            }
        }
        Ok(())
    }
}

impl<R: Rule, F: Float> fmt::Debug for Tensor<'_, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Tensor");
        fields.field("param", &self.param).field("grad", &self.grad);
        for (name, moment) in R::MOMENT_NAMES.into_iter().zip(self.moments.as_ref()) {
            fields.field(name, moment);
        }
        fields.finish()
    }
}

/// How a call runs: on which instruction set, and on one thread or many. The results are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exec {
    /// The instruction set.
    pub isa: Isa,
    /// Whether large calls may share their work with the threads of the rayon pool that the caller
    /// is in (the global pool, if it is in none). No effect without the feature `rayon`.
    pub parallel: bool,
}

impl Exec {
    /// What calls use when no `Exec` is passed: [`Isa::selected`], on many threads.
    ///
    /// # Errors
    ///
    /// As [`Isa::selected`].
    pub fn selected() -> Result<Self, Error> {
        Ok(Self { isa: Isa::selected()?, parallel: true })
    }
}

/// Steps with a [`Rule`]; every rule has these methods.
///
/// # Threads
///
/// A large call is shared among the threads of the rayon pool that the caller is in; small ones,
/// where waking a thread would cost more than it saves, stay on the calling thread. From inside the
/// pool (`pool.install(|| train())`, or the body of any parallel iterator) sharing costs less and so
/// begins at smaller sizes than from outside. [`Exec`] keeps a call on its thread.
///
/// # Errors
///
/// All methods find every error before the first write; on `Err`, no buffer has changed:
///
/// - [`Error::HyperParameter`] or [`Error::ConstantOverflow`] for a hyper-parameter;
/// - [`Error::LengthMismatch`] if an array is not as long as its tensor's parameters,
///   [`Error::UnusedMoment`] if it should be empty;
/// - [`Error::ZeroStep`] if `t` is 0, [`Error::StepOverflow`] if a state can't count the step;
/// - [`Error::UnknownIsa`] or [`Error::IsaUnavailable`] for the instruction set.
///
/// Infinities and NaN are data: they stay in their own element.
pub trait Optimizer: Rule {
    /// Moments for `len` parameters, as they are before the first step.
    ///
    /// # Panics
    ///
    /// If the moments take more than `isize::MAX` bytes, as `Vec` does.
    fn state<F: Float>(&self, len: usize) -> State<Self, F> {
        State::new(self, len)
    }

    /// Takes the next step of `state`, and counts it.
    ///
    /// # Errors
    ///
    /// [As above](Self#errors).
    fn step<F: Float>(
        &self,
        param: &mut [F],
        grad: &[F],
        state: &mut State<Self, F>,
    ) -> Result<(), Error> {
        self.step_on(Exec::selected()?, param, grad, state)
    }

    /// [`step`](Self::step), run as told.
    ///
    /// # Errors
    ///
    /// [As above](Self#errors).
    fn step_on<F: Float>(
        &self,
        exec: Exec,
        param: &mut [F],
        grad: &[F],
        state: &mut State<Self, F>,
    ) -> Result<(), Error> {
        let t = state.step().checked_add(1).ok_or(Error::StepOverflow)?;
        let tensor = Tensor { param, grad, moments: state.moments_mut() };
        self.step_many_on(exec, t, &mut [tensor])?;
        state.set_step(t);
        Ok(())
    }

    /// Takes step `t`, counted from 1, of any number of tensors in one parallel region: large ones
    /// are cut, small ones put together.
    ///
    /// # Errors
    ///
    /// [As above](Self#errors).
    fn step_many<F: Float>(
        &self,
        t: u64,
        tensors: &mut [Tensor<'_, Self, F>],
    ) -> Result<(), Error> {
        self.step_many_on(Exec::selected()?, t, tensors)
    }

    /// [`step_many`](Self::step_many), run as told.
    ///
    /// # Errors
    ///
    /// [As above](Self#errors).
    fn step_many_on<F: Float>(
        &self,
        exec: Exec,
        t: u64,
        tensors: &mut [Tensor<'_, Self, F>],
    ) -> Result<(), Error> {
        let step = validate(self, exec, t, tensors)?;
        partition::run(exec.parallel, &step, tensors);
        Ok(())
    }
}

impl<R: Rule> Optimizer for R {}

/// A step that nothing can be wrong with any more.
pub(crate) struct Step<R: Rule> {
    pub cpu: Cpu,
    pub rule: R,
    pub constants: Many<R::Constants, f64>,
    /// See [`Sweep`](crate::kernel::Sweep).
    pub prefetch: bool,
}

/// What most CPUs have room for close to a core, in bytes.
const SECOND_CACHE: usize = 1 << 20;

#[inline]
fn validate<R: Rule, F: Float>(
    rule: &R,
    exec: Exec,
    t: u64,
    tensors: &[Tensor<'_, R, F>],
) -> Result<Step<R>, Error> {
    let cpu = exec.isa.cpu()?;
    rule.check()?;
    if t == 0 {
        return Err(Error::ZeroStep);
    }
    let constants = rule.constants(t);
    for &value in constants.as_ref() {
        if !F::from_f64(value).is_finite() {
            return Err(Error::ConstantOverflow { value, float: F::NAME });
        }
    }
    let mut len = 0;
    for (index, tensor) in tensors.iter().enumerate() {
        tensor.check_lengths(rule, index)?;
        len += tensor.len();
    }
    let arrays = 2 + R::MOMENT_NAMES.as_ref().len();
    let prefetch = len * size_of::<F>() > SECOND_CACHE / arrays;
    Ok(Step { cpu, rule: *rule, constants, prefetch })
}
