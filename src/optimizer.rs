//! The methods of every optimizer.

use core::any::TypeId;

use crate::{
    Element, Error, Grad, Group, Param, Report, State, StepOptions, Storage, Tensor,
    array::Q8,
    dispatch::Rows,
    isa::Cpu,
    kernel::{Pass, fit_constants_to},
    rule::{Arity, MOMENTS, Many, Rule, moment_format},
    step,
    tensor::Run,
};

/// The largest number of constants that a rule has.
pub(crate) const CONSTANTS: usize = 16;

/// The constants of a step, for any rule.
pub(crate) type Constants = [f64; CONSTANTS];

/// An optimizer of any type, behind a pointer: `&dyn DynOptimizer` or `Box<dyn DynOptimizer>`.
///
/// Every [`Rule`] implements this, and so does [`AnyOptimizer`](crate::AnyOptimizer). [`Optimizer`] has the
/// methods to step with it. Sealed.
pub trait DynOptimizer: Send + Sync {
    /// The number of moments.
    fn moment_count(&self) -> usize;

    /// The name of a moment, by its position.
    ///
    /// # Panics
    ///
    /// If `moment` is not below [`moment_count`](Self::moment_count).
    fn moment_name(&self, moment: usize) -> &'static str;

    /// The value that a moment starts from; `None` if the settings do not use the moment.
    ///
    /// # Panics
    ///
    /// May panic if `moment` is not below [`moment_count`](Self::moment_count).
    fn moment_start(&self, moment: usize) -> Option<f64>;

    /// The format of a moment that is kept in 8 bits.
    ///
    /// # Panics
    ///
    /// As [`moment_start`](Self::moment_start).
    fn moment_format(&self, moment: usize) -> Q8;

    /// What the check of every tensor asks for, in one call.
    #[doc(hidden)]
    fn moment_layout(&self) -> MomentLayout;

    /// Checks the settings.
    fn check_settings(&self) -> Result<(), Error>;

    /// Writes the constants of step `t`, and returns their number.
    #[doc(hidden)]
    fn step_constants(&self, t: u64, constants: &mut Constants) -> usize;

    /// Takes a step of some elements, which were checked.
    #[doc(hidden)]
    fn run(&self, cpu: Cpu, pass: &Pass, known: Known<'_>, run: Run<'_, '_>);

    /// Takes step `t` of one small tensor, without options. The settings were checked. If a constant is too large,
    /// nothing is written.
    #[doc(hidden)]
    fn run_small(&self, cpu: Cpu, t: u64, tensor: Rows<'_>) -> Result<(), Error>;

    #[doc(hidden)]
    fn as_dyn(&self) -> &dyn DynOptimizer;
}

/// The constants of one step, so that they need not be computed again for tensors that take the same step.
#[derive(Clone, Copy)]
pub struct Known<'a> {
    /// The number of the step; 0 if none is known.
    pub(crate) t: u64,
    /// Whether the constants were [fitted](fit_constants_to) to `f64`, or to `f32`.
    pub(crate) is_f64: bool,
    pub(crate) constants: &'a Constants,
}

/// The moments of an optimizer, as the check of a tensor needs them.
#[derive(Clone, Copy)]
pub struct MomentLayout {
    /// The type of the optimizer, which has their names.
    pub(crate) rule: TypeId,
    pub(crate) count: usize,
    /// Whether the settings use the moment.
    pub(crate) used: [bool; MOMENTS],
}

impl<R: Rule> DynOptimizer for R {
    #[inline]
    fn moment_count(&self) -> usize {
        const { check_counts::<R::Moments, R::Constants>() }
        R::MOMENT_NAMES.as_ref().len()
    }

    #[inline]
    fn moment_name(&self, moment: usize) -> &'static str {
        R::MOMENT_NAMES.as_ref()[moment]
    }

    #[inline]
    fn moment_start(&self, moment: usize) -> Option<f64> {
        self.start(moment)
    }

    fn moment_format(&self, moment: usize) -> Q8 {
        moment_format(self, moment)
    }

    #[inline]
    fn moment_layout(&self) -> MomentLayout {
        let count = R::MOMENT_NAMES.as_ref().len();
        let mut used = [false; MOMENTS];
        for (moment, used) in used.iter_mut().enumerate().take(count) {
            *used = self.start(moment).is_some();
        }
        MomentLayout { rule: TypeId::of::<R>(), count, used }
    }

    #[inline]
    fn check_settings(&self) -> Result<(), Error> {
        self.check()
    }

    #[inline]
    fn step_constants(&self, t: u64, constants: &mut Constants) -> usize {
        let found = self.constants(t);
        let found = found.as_ref();
        // A loop, since the copy of a slice would be a call of a function.
        for (constant, &found) in constants.iter_mut().zip(found) {
            *constant = found;
        }
        found.len()
    }

    fn run(&self, cpu: Cpu, pass: &Pass, known: Known<'_>, run: Run<'_, '_>) {
        self.run_elements(cpu, pass, known, run);
    }

    fn run_small(&self, cpu: Cpu, t: u64, tensor: Rows<'_>) -> Result<(), Error> {
        let mut constants = self.constants(t);
        let is_f64 = matches!(tensor, Rows::F64(_) | Rows::OneF64(_));
        fit_constants_to(is_f64, constants.as_mut())?;
        self.run_rows(cpu, &constants, t, &Pass::DEFAULT, tensor);
        Ok(())
    }

    fn as_dyn(&self) -> &dyn DynOptimizer {
        self
    }
}

/// Refuses a rule with too many moments or constants, when it is compiled.
pub(crate) const fn check_counts<M: Arity, C: Arity>() {
    // As many bytes as there are moments, and constants.
    assert!(size_of::<Many<M, u8>>() <= MOMENTS, "a rule has at most 4 moments");
    assert!(size_of::<Many<C, u8>>() <= CONSTANTS, "a rule has at most 16 constants");
}

/// The methods that take steps. Every [`Rule`] and every [`DynOptimizer`] has them. Sealed.
///
/// # Threads
///
/// A large call is shared among the threads that [`StepOptions::exec`] chooses. A small one stays on the
/// calling thread, since waking another thread would take longer than the call.
///
/// # Errors
///
/// All methods find every error before the first write. If a method returns an error, no buffer has changed:
///
/// - [`Error::HyperParameter`] or [`Error::ConstantOverflow`] for a setting;
/// - [`Error::LengthMismatch`] for an array that is not as long as the parameters of its tensor;
/// - [`Error::UnusedMoment`] for a moment that the settings do not use and that is not empty;
/// - [`Error::TooManyMoments`] for a tensor with more moments than the optimizer has;
/// - [`Error::ScalesMismatch`] for a moment of 8 bits without one scale for each 256 elements;
/// - [`Error::TypeMismatch`] for a tensor with some arrays in `f64` and others not;
/// - [`Error::StateMismatch`] for a state whose moments have other names than those of the optimizer. A state of
///   another optimizer whose moments have the same names is taken: Adam, NAdam, RAdam, ADOPT and Yogi share theirs;
/// - [`Error::StepOverflow`] if a step cannot be counted;
/// - [`Error::UnknownIsa`] or [`Error::IsaUnavailable`] for the instruction set.
///
/// Infinities and NaN are not errors. They stay in their own element, except in moments of 8 bits, of which 256
/// elements share a scale: a NaN makes all of them NaN, and beside an infinite element, or one that is larger by
/// far, the others keep hardly any of their digits. [`StepOptions::skip_nonfinite`] leaves such steps out.
///
/// If all gradients so far were below half the largest number of the type, also with weight decay that is part of them,
/// if parameters are finite, the learning rate is over 0 and at most 1, and epsilon is not 0, no result is NaN. An
/// average of squares that is too large for its type becomes infinite, and its parameter stays as it is. Decoupled
/// weight decay makes an infinite parameter NaN.
pub trait Optimizer: DynOptimizer {
    /// Makes the moments of `len` parameters before the first step, in `f32`. Parameters in `f64` need moments in
    /// `f64`: see [`state_in`](Self::state_in).
    ///
    /// # Panics
    ///
    /// If a moment takes more than `isize::MAX` bytes, as `Vec` does.
    fn state(&self, len: usize) -> State {
        self.state_in(Storage::F32, len)
    }

    /// Makes the moments of `len` parameters before the first step, all in one storage: [`Storage::F64`] for parameters
    /// in `f64`, and any other for all others.
    ///
    /// # Panics
    ///
    /// As [`state`](Self::state).
    fn state_in(&self, storage: Storage, len: usize) -> State {
        self.state_of(&[storage; MOMENTS], len)
    }

    /// Makes the moments of `len` parameters before the first step, each in a storage of its own: `storages`
    /// has the order of [`Rule::MOMENT_NAMES`], and moments beyond its end are in `f32`.
    ///
    /// # Panics
    ///
    /// As [`state`](Self::state).
    fn state_of(&self, storages: &[Storage], len: usize) -> State {
        State::of_tensor(self.as_dyn(), storages, len)
    }

    /// Takes the next step of one tensor whose parameters and gradients are of one type, without options, and counts it
    /// in the state. For slices of `f64`, the state must be from `state_in(Storage::F64, len)`.
    ///
    /// # Examples
    ///
    /// ```
    /// use adamant::{Adam, Optimizer};
    ///
    /// let adam = Adam { lr: 1e-3, ..Adam::default() };
    /// let (mut params, grads) = (vec![1.0_f32; 1000], vec![0.1; 1000]);
    /// let mut state = adam.state(params.len());
    /// adam.step(&mut params, &grads, &mut state)?;
    /// assert_eq!((params[0], state.steps()), (0.999, 1));
    /// # Ok::<(), adamant::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [As above](Self#errors).
    #[inline]
    fn step<F: Element>(
        &self,
        param: &mut [F],
        grad: &[F],
        state: &mut State,
    ) -> Result<(), Error> {
        if step::step_small(self.as_dyn(), param, grad, state) {
            return Ok(());
        }
        let mut tensors = [state.tensor(F::param(param), F::grad(grad))];
        let groups = &mut [Group::new(self.as_dyn(), &mut tensors)];
        // With the default options, no step is left out.
        step::step(groups, &StepOptions::default()).map(|_| ())
    }

    /// Takes the next step of any number of tensors in one parallel region, and counts it in each tensor.
    /// [`step`](fn@crate::step) does the same for several groups.
    ///
    /// # Errors
    ///
    /// [As above](Self#errors), and those of [`step`](fn@crate::step) for the options.
    fn step_tensors(
        &self,
        tensors: &mut [Tensor<'_>],
        options: &StepOptions<'_>,
    ) -> Result<Report, Error> {
        step::step(&mut [Group::new(self.as_dyn(), tensors)], options)
    }

    /// Takes the next step of one tensor whose arrays can be of different types, with options. The state
    /// counts the step unless it was left out.
    ///
    /// # Examples
    ///
    /// Parameters and gradients in bf16, moments of 8 bits, gradients clipped on the way:
    ///
    /// ```
    /// use adamant::{Adam, Grad, Optimizer, Outcome, Param, StepOptions, Storage};
    /// use half::bf16;
    ///
    /// let (mut params, mut grads) = (vec![bf16::ONE; 1000], vec![bf16::ONE; 1000]);
    /// let adam = Adam { lr: 0.1, ..Adam::default() };
    /// let mut state = adam.state_in(Storage::Q8, params.len());
    ///
    /// let options = StepOptions { max_norm: Some(1.0), ..StepOptions::default() };
    /// let (param, grad) = (Param::stochastic(&mut params), Grad::zeroed(&mut grads));
    /// let report = adam.step_with(param, grad, &mut state, &options)?;
    /// match report.outcome {
    ///     Outcome::Taken => assert_eq!(state.steps(), 1),
    ///     Outcome::LeftOut => println!("a gradient is not finite"),
    /// }
    /// assert!(params[0] < bf16::ONE && grads[0] == bf16::ZERO);
    /// # Ok::<(), adamant::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [As above](Self#errors), and those of [`step`](fn@crate::step) for the options.
    fn step_with(
        &self,
        param: Param<'_>,
        grad: Grad<'_>,
        state: &mut State,
        options: &StepOptions<'_>,
    ) -> Result<Report, Error> {
        self.step_tensors(&mut [state.tensor(param, grad)], options)
    }
}

impl<O: DynOptimizer + ?Sized> Optimizer for O {}

/// The constants of a rule, of its own number.
#[inline(always)]
pub(crate) fn of_rule<R: Rule>(constants: &Constants) -> Many<R::Constants, f64> {
    R::Constants::from_fn(|i| constants[i])
}
