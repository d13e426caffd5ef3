//! The ways in for tensors whose arrays are not all of the type that is computed in.

mod arrays;
mod lot;
mod padding;
mod span;
mod state;
mod sweep;
mod tensor;

use crate::{
    Arity, Error, Exec, Many, Rule,
    element::{BLOCK, Random},
    kernel::Step,
    partition::{self, TensorStep, Tensors},
};
pub use arrays::{Grad, Moment, MomentRef, Param};
pub use state::{MixedState, Storage};
use sweep::{MixedStep, Sweep};
pub use tensor::MixedTensor;

/// What a step does on its way, besides the step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pass {
    /// What gradients are multiplied by as they are read: to undo the scale of a loss, to clip
    /// ([`clip_factor`](crate::clip_factor)), to average. Finite. Default 1.
    pub grad_factor: f64,
    /// The norm of all gradients, times any factor, if the step is to be left out where it is infinite
    /// or NaN ([`MixedTensor::grad_norm`], [`grad_norm`](crate::grad_norm)): what a loss scaler does.
    /// Default `None`.
    pub grad_norm: Option<f64>,
    /// Whether moments that are subnormal (below 1.2e-38) become 0, and -0 with them: many CPUs take
    /// long for subnormal numbers. Default false.
    pub flush_subnormals: bool,
    /// What random bits begin with. Default 0.
    pub seed: u64,
}

/// What became of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a step that was left out is not to be counted"]
pub enum Outcome {
    /// It was taken.
    Taken,
    /// It was left out, and nothing was written, since [`Pass::grad_norm`] is not finite.
    LeftOut,
}

impl Default for Pass {
    fn default() -> Self {
        Self { grad_factor: 1.0, grad_norm: None, flush_subnormals: false, seed: 0 }
    }
}

/// Steps with a [`Rule`] in mixed precision; every rule has these methods.
///
/// # The types
///
/// Steps are computed in `f32`, from whatever the arrays hold and to it: registers are widened as they
/// are read and narrowed as they are written, in one pass over memory. Every [`Param`] goes with every
/// [`Grad`] and [`Moment`].
///
/// # What rounding costs
///
/// The loss after 4,000 noisy steps of AdamW (`tests/mixed.rs`), over that with everything in `f32`: 0.1 %
/// with moments in bf16, 1.3 % with moments of 8 bits, 0.1 % with parameters in two halves, 32 % with
/// everything in bf16, since parameters of 8 bits of precision come no closer.
///
/// # The same bits
///
/// As for [`Optimizer`](crate::Optimizer), on every instruction set and thread count; random bits too,
/// which depend on the seed, the step and the element alone. The two moments that most optimizers have,
/// and parameters, use different bits.
///
/// # Errors
///
/// All methods find every error before the first write; on `Err`, no buffer has changed. They are those
/// of [`Optimizer`](crate::Optimizer#errors), and [`Error::ScalesMismatch`] if a moment of 8 bits has not
/// one scale for each 256 elements.
pub trait MixedOptimizer: Rule {
    /// Moments for `len` parameters, as they are before the first step, all kept alike.
    ///
    /// A model of several tensors has one state for each: see [`MixedState::tensor`] and
    /// [`MixedState::set_first`].
    ///
    /// # Panics
    ///
    /// If a moment takes more than `isize::MAX` bytes, as `Vec` does.
    fn mixed_state(&self, len: usize, storage: Storage) -> MixedState<Self> {
        self.mixed_state_of(len, Self::Moments::from_fn(|_| storage))
    }

    /// [`mixed_state`](Self::mixed_state), each moment kept in its own way: in the order of
    /// [`Rule::MOMENT_NAMES`].
    ///
    /// # Panics
    ///
    /// As [`mixed_state`](Self::mixed_state).
    fn mixed_state_of(
        &self,
        len: usize,
        storage: Many<Self::Moments, Storage>,
    ) -> MixedState<Self> {
        MixedState::new(self, len, &storage)
    }

    /// Takes the next step of `state`, and counts it unless it is left out.
    ///
    /// # Examples
    ///
    /// Parameters and gradients in bf16, moments of 8 bits, gradients clipped on the way:
    ///
    /// ```
    /// use adamant::{
    ///     Adam, Grad, MixedOptimizer, Outcome, Param, Pass, Storage, clip_factor, grad_norm,
    /// };
    /// use half::bf16;
    ///
    /// let (mut params, mut grads) = (vec![bf16::ONE; 1000], vec![bf16::ONE; 1000]);
    /// let adam = Adam { lr: 0.1, ..Adam::default() };
    /// let mut state = adam.mixed_state(params.len(), Storage::Q8);
    ///
    /// let norm = grad_norm(&[&grads])?;
    /// let pass =
    ///     Pass { grad_norm: Some(norm), grad_factor: clip_factor(norm, 1.0), ..Pass::default() };
    /// let (param, grad) = (Param::Bf16Stochastic(&mut params), Grad::Bf16ToZero(&mut grads));
    /// match adam.step_with(param, grad, pass, &mut state)? {
    ///     Outcome::Taken => assert_eq!(state.step(), 1),
    ///     Outcome::LeftOut => println!("a gradient is not finite"),
    /// }
    /// assert!(params[0] < bf16::ONE && grads[0] == bf16::ZERO);
    /// # Ok::<(), adamant::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`step_mixed`](Self::step_mixed), and [`Error::StepOverflow`] if the state can't count the
    /// step.
    fn step_with(
        &self,
        param: Param<'_>,
        grad: Grad<'_>,
        pass: Pass,
        state: &mut MixedState<Self>,
    ) -> Result<Outcome, Error> {
        self.step_with_on(Exec::selected()?, param, grad, pass, state)
    }

    /// [`step_with`](Self::step_with), run as told.
    ///
    /// # Errors
    ///
    /// As [`step_with`](Self::step_with).
    fn step_with_on(
        &self,
        exec: Exec,
        param: Param<'_>,
        grad: Grad<'_>,
        pass: Pass,
        state: &mut MixedState<Self>,
    ) -> Result<Outcome, Error> {
        let t = state.step().checked_add(1).ok_or(Error::StepOverflow)?;
        let outcome = self.step_mixed(exec, t, pass, &mut [state.tensor(param, grad)])?;
        if outcome == Outcome::Taken {
            state.set_step(t);
        }
        Ok(outcome)
    }

    /// Takes step `t`, counted from 1, of any number of tensors in one parallel region.
    ///
    /// # Examples
    ///
    /// Half the bytes: bf16 parameters and gradients, and moments in bf16, too:
    ///
    /// ```
    /// use adamant::{Adam, Exec, Grad, MixedOptimizer, MixedTensor, Moment, Outcome, Param, Pass};
    /// use half::bf16;
    ///
    /// let (mut param, mut grad) = (vec![bf16::ONE; 100], vec![bf16::ONE; 100]);
    /// let (mut m, mut v) = (vec![bf16::ZERO; 100], vec![bf16::ZERO; 100]);
    /// let tensor = MixedTensor::<Adam> {
    ///     param: Param::Bf16Stochastic(&mut param),
    ///     grad: Grad::Bf16ToZero(&mut grad),
    ///     moments: [Moment::Bf16(&mut m), Moment::Bf16(&mut v)],
    ///     first: 0,
    /// };
    /// let pass = Pass { grad_factor: 1.0 / 1024.0, ..Pass::default() };
    /// let adam = Adam { lr: 0.1, ..Adam::default() };
    /// let outcome = adam.step_mixed(Exec::selected()?, 1, pass, &mut [tensor])?;
    /// assert_eq!(outcome, Outcome::Taken);
    /// assert!(param[0] < bf16::ONE && grad[0] == bf16::ZERO);
    /// # Ok::<(), adamant::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [As above](Self#errors), and [`Error::HyperParameter`] if [`Pass::grad_factor`] is not finite in
    /// `f32`.
    fn step_mixed(
        &self,
        exec: Exec,
        t: u64,
        pass: Pass,
        tensors: &mut [MixedTensor<'_, Self>],
    ) -> Result<Outcome, Error> {
        let step = Step::new::<f32>(self, exec, t)?;
        let leaves_out = pass.grad_norm.is_some_and(|norm| !norm.is_finite());
        let grad_factor = pass.grad_factor as f32;
        if !leaves_out && !grad_factor.is_finite() {
            let (name, allowed) = ("grad_factor", "finite in f32");
            return Err(Error::HyperParameter { name, value: pass.grad_factor, allowed });
        }
        let (mut len, mut bytes) = (0, 0);
        for (index, tensor) in tensors.iter().enumerate() {
            tensor.check_lengths(self, index)?;
            len += tensor.len();
            bytes += tensor.bytes();
        }
        if leaves_out {
            return Ok(Outcome::LeftOut);
        }
        let random = Random::new(pass.seed, t);
        // With fewer bytes an element, the CPU computes for longer than it waits.
        let prefetch = bytes > LAST_CACHE && bytes > 8 * len;
        let step = MixedStep { step, pass, grad_factor, random, prefetch };
        partition::run(exec.parallel, Tensors::new(&step, tensors, len));
        Ok(Outcome::Taken)
    }
}

impl<R: Rule> MixedOptimizer for R {}

/// What many CPUs have room for in all caches, in bytes: from beyond, the kernel asks ahead.
const LAST_CACHE: usize = 32 << 20;

impl<R: Rule> TensorStep for MixedStep<R> {
    type Tensor<'x> = MixedTensor<'x, R>;
    /// For whole blocks of moments of 8 bits.
    const GRAIN: usize = BLOCK;

    fn len(tensor: &MixedTensor<'_, R>) -> usize {
        tensor.len()
    }

    fn empty<'x>() -> MixedTensor<'x, R> {
        MixedTensor {
            param: Param::F32(&mut []),
            grad: Grad::F32(&[]),
            moments: R::Moments::from_fn(|_| Moment::F32(&mut [])),
            first: 0,
        }
    }

    fn reborrow<'b>(tensor: &'b mut MixedTensor<'_, R>) -> MixedTensor<'b, R> {
        tensor.reborrow()
    }

    fn split_at<'x>(tensor: Self::Tensor<'x>, mid: usize) -> (Self::Tensor<'x>, Self::Tensor<'x>) {
        tensor.split_at(mid)
    }

    fn run(&self, tensors: &mut [MixedTensor<'_, R>]) {
        self.step.cpu.run(Sweep { step: self, tensors });
    }
}
