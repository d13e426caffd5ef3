//! What every optimizer can do: the one way into the kernels that calls take.

use crate::{
    Arity, Element, Error, Grad, Group, MOMENTS, Many, Param, Report, Rule, State, StepOptions,
    Storage, Tensor, array::Q8, isa::Cpu, kernel::Pass, step, tensor::Run,
};

/// The most constants that a rule has.
pub(crate) const CONSTANTS: usize = 16;

/// Everything that depends on a step alone, for any rule.
pub(crate) type Constants = [f64; CONSTANTS];

/// An optimizer behind a pointer: `&dyn DynOptimizer` or `Box<dyn DynOptimizer>` stands for any of them.
///
/// Every [`Rule`] is one, and so is [`AnyOptimizer`](crate::AnyOptimizer), which is chosen when the program
/// runs; sealed. [`Optimizer`] has the methods.
pub trait DynOptimizer: Send + Sync {
    /// The number of moments.
    fn moment_count(&self) -> usize;

    /// The name of a moment.
    fn moment_name(&self, moment: usize) -> &'static str;

    /// What a moment starts from; `None` if the settings do without it.
    fn moment_start(&self, moment: usize) -> Option<f64>;

    /// The format of a moment that is kept in 8 bits.
    fn moment_format(&self, moment: usize) -> Q8;

    /// Finds what is wrong with the settings.
    fn check_settings(&self) -> Result<(), Error>;

    /// The constants of step `t`, and how many there are.
    #[doc(hidden)]
    fn step_constants(&self, t: u64, constants: &mut Constants) -> usize;

    /// Takes a step of some elements; nothing can be wrong with them. `known` are the constants of a
    /// step, of the elements or others.
    #[doc(hidden)]
    fn run(&self, cpu: Cpu, pass: &Pass, known: (u64, &Constants), run: Run<'_, '_>);

    #[doc(hidden)]
    fn as_dyn(&self) -> &dyn DynOptimizer;
}

impl<R: Rule> DynOptimizer for R {
    #[inline]
    fn moment_count(&self) -> usize {
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
        Q8::of(self, moment)
    }

    #[inline]
    fn check_settings(&self) -> Result<(), Error> {
        self.check()
    }

    #[inline]
    fn step_constants(&self, t: u64, constants: &mut Constants) -> usize {
        let found = self.constants(t);
        let found = found.as_ref();
        // No copy of a slice, which would be a call.
        for (constant, &found) in constants.iter_mut().zip(found) {
            *constant = found;
        }
        found.len()
    }

    fn run(&self, cpu: Cpu, pass: &Pass, known: (u64, &Constants), run: Run<'_, '_>) {
        self.run_elements(cpu, pass, known, run);
    }

    fn as_dyn(&self) -> &dyn DynOptimizer {
        self
    }
}

/// Steps with an optimizer; every [`Rule`] and every [`DynOptimizer`] has these methods.
///
/// # Threads
///
/// A large call is shared among threads, as [`StepOptions::exec`] says; small ones stay on the calling
/// thread, where waking another one would cost more than it saves.
///
/// # Errors
///
/// All methods find every error before the first write; on `Err`, no buffer has changed:
///
/// - [`Error::HyperParameter`] or [`Error::ConstantOverflow`] for a setting;
/// - [`Error::LengthMismatch`] if an array is not as long as its tensor's parameters,
///   [`Error::UnusedMoment`] if it should be empty, [`Error::TooManyMoments`] if there should be fewer,
///   [`Error::ScalesMismatch`] if a moment of 8 bits has not one scale for each 256 elements;
/// - [`Error::TypeMismatch`] if one of a tensor's arrays is `f64` and another one is not;
/// - [`Error::StateMismatch`] for a state of another optimizer;
/// - [`Error::StepOverflow`] if a step cannot be counted;
/// - [`Error::UnknownIsa`] or [`Error::IsaUnavailable`] for the instruction set.
///
/// Infinities and NaN are data. They stay in their own element, but for NaN in moments of 8 bits, of
/// which 256 share a scale.
///
/// Finite gradients below half the largest number of the type, and finite moments, never give NaN where
/// epsilon is not 0. An average of squares that its type cannot hold is infinite, and leaves its
/// parameter alone.
pub trait Optimizer: DynOptimizer {
    /// Moments in `f32` for `len` parameters, as they are before the first step.
    ///
    /// # Panics
    ///
    /// If a moment takes more than `isize::MAX` bytes, as `Vec` does.
    fn state(&self, len: usize) -> State {
        self.state_in(Storage::F32, len)
    }

    /// Moments for `len` parameters, all in one storage, as they are before the first step.
    ///
    /// # Panics
    ///
    /// As [`state`](Self::state).
    fn state_in(&self, storage: Storage, len: usize) -> State {
        self.state_of(&[storage; MOMENTS], len)
    }

    /// Moments for `len` parameters, each in a storage of its own, in the order of
    /// [`Rule::MOMENT_NAMES`]; those beyond the list are in `f32`.
    ///
    /// # Panics
    ///
    /// As [`state`](Self::state).
    fn state_of(&self, storages: &[Storage], len: usize) -> State {
        State::of_tensor(self.as_dyn(), storages, len)
    }

    /// Takes the next step of one tensor, and counts it: parameters and gradients of one type, moments
    /// in a state, no options.
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
        let mut tensors = [state.tensor(F::param(param), F::grad(grad))];
        let groups = &mut [Group::new(self.as_dyn(), &mut tensors)];
        // With the default options nothing is left out.
        step::step(groups, &StepOptions::default()).map(|_| ())
    }

    /// Takes the next step of any number of tensors in one parallel region, and counts it in each:
    /// large tensors are cut, small ones put together. See [`step`](fn@crate::step) for several groups.
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

    /// Takes the next step of one tensor whose arrays may be of different types, and counts it unless
    /// it is left out.
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

/// Constants as a rule has them.
#[inline(always)]
pub(crate) fn of_rule<R: Rule>(constants: &Constants) -> Many<R::Constants, f64> {
    R::Constants::from_fn(|i| constants[i])
}
