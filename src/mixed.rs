//! The ways in for tensors whose arrays are not all of the type that is computed in.

mod arrays;
mod state;
mod tile;

use core::fmt;

use crate::{
    Arity, Error, Exec, Many, Rule,
    element::{BLOCK, Q8, Random},
    kernel::Step,
    norm,
    partition::{self, TensorStep, Tensors},
};
pub use arrays::{Grad, Moment, MomentRef, Param};
pub use state::{MixedState, Storage};
use tile::{MixedStep, Sweep};

/// One tensor of a call in mixed precision: arrays of one length, all borrowed, each of its own type.
pub struct MixedTensor<'a, R: Rule> {
    /// The parameters.
    pub param: Param<'a>,
    /// The gradient of the loss for each parameter.
    pub grad: Grad<'a>,
    /// The rule's moments, in the order of [`Rule::MOMENT_NAMES`]; one that the rule does without is
    /// empty.
    pub moments: Many<R::Moments, Moment<'a>>,
    /// The number of the tensor's first element among all elements of the model. Random bits go by it:
    /// a tensor of which a part is passed gets the same ones.
    pub first: u64,
}

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

impl<'a, R: Rule> MixedTensor<'a, R> {
    /// The Euclidean norm of the gradients of some tensors, each of which may be of a type of its own:
    /// what a training loop asks for just before the step.
    ///
    /// It reads nothing but the gradients. All else is as in [`grad_norm`](crate::grad_norm): the same
    /// bits on every instruction set and thread count, and those of `grad_norm` where all gradients are
    /// of one type.
    ///
    /// # Examples
    ///
    /// ```
    /// use adamant::{Exec, Grad, MixedOptimizer, MixedTensor, Param, Pass, Sgd, Storage, clip_factor};
    /// use half::bf16;
    ///
    /// let sgd = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() };
    /// let (mut weight, mut weight_grad) = (vec![bf16::ONE; 4], vec![bf16::from_f32(3072.0); 4]);
    /// let (mut bias, mut bias_grad) = (vec![1.0_f32; 4], vec![-4096.0_f32; 4]);
    /// let mut weight_state = sgd.mixed_state(4, Storage::Bf16);
    /// let mut bias_state = sgd.mixed_state(4, Storage::F32);
    ///
    /// let (exec, loss_scale) = (Exec::selected()?, 1024.0);
    /// let mut tensors = [
    ///     weight_state.tensor(Param::Bf16(&mut weight), Grad::Bf16ToZero(&mut weight_grad)),
    ///     bias_state.tensor(Param::F32(&mut bias), Grad::F32ToZero(&mut bias_grad)),
    /// ];
    /// let norm = MixedTensor::grad_norm(exec, &tensors)? / loss_scale;
    /// assert_eq!(norm, 10.0);
    /// let grad_factor = clip_factor(norm, 1.0) / loss_scale;
    /// let pass = Pass { grad_factor, grad_norm: Some(norm), ..Pass::default() };
    /// let outcome = sgd.step_mixed(exec, 1, pass, &mut tensors)?;
    /// # assert_eq!(outcome, adamant::Outcome::Taken);
    /// # Ok::<(), adamant::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::IsaUnavailable`] for the instruction set.
    pub fn grad_norm(exec: Exec, tensors: &[Self]) -> Result<f64, Error> {
        norm::norm(exec, tensors)
    }

    fn len(&self) -> usize {
        self.param.len()
    }

    /// Cuts the tensor in two: the first `mid` elements, which are whole blocks, and the others.
    fn split_at(self, mid: usize) -> (Self, Self) {
        let (param, param_rest) = self.param.split_at(mid);
        let (grad, grad_rest) = self.grad.split_at(mid);
        let mut rests = R::Moments::from_fn(|_| Moment::F32(&mut []));
        let mut slots = rests.as_mut().iter_mut();
        let moments = R::Moments::map(self.moments, |moment| {
            // One that the rule does without is empty.
            let mid = mid.min(moment.len());
            let (moment, rest) = moment.split_at(mid);
            if let Some(slot) = slots.next() {
                *slot = rest;
            }
            moment
        });
        let first = self.first.wrapping_add(mid as u64);
        (
            Self { param, grad, moments, first: self.first },
            Self { param: param_rest, grad: grad_rest, moments: rests, first },
        )
    }

    fn reborrow(&mut self) -> MixedTensor<'_, R> {
        let mut moments = self.moments.as_mut().iter_mut();
        MixedTensor {
            param: self.param.reborrow(),
            grad: self.grad.reborrow(),
            moments: R::Moments::from_fn(|_| match moments.next() {
                Some(moment) => moment.reborrow(),
                None => Moment::F32(&mut []),
            }),
            first: self.first,
        }
    }

    fn check_lengths(&self, rule: &R, tensor: usize) -> Result<(), Error> {
        let expected = self.len();
        let same = |argument, len| match len == expected {
            true => Ok(()),
            false => Err(Error::LengthMismatch { tensor, argument, len, expected }),
        };
        match &self.param {
            Param::F32AndBf16(_, copy) => same("copy of param", copy.len())?,
            Param::F32AndF16(_, copy) => same("copy of param", copy.len())?,
            Param::Split(_, low) => same("low half of param", low.len())?,
            Param::F32(_) | Param::Bf16(_) | Param::Bf16Stochastic(_) | Param::F16(_) => {}
        }
        same("grad", self.grad.len())?;
        let names = R::MOMENT_NAMES;
        for (moment, (array, &name)) in self.moments.as_ref().iter().zip(names.as_ref()).enumerate()
        {
            match (rule.start(moment), array.len()) {
                (Some(_), len) => same(name, len)?,
                (None, 0) => {}
                (None, len) => return Err(Error::UnusedMoment { tensor, moment: name, len }),
            }
            if let Moment::Q8(codes, scales) = array {
                let (len, expected) = (scales.len(), Q8::scales(codes.len()));
                if len != expected {
                    return Err(Error::ScalesMismatch { tensor, moment: name, len, expected });
                }
            }
        }
        Ok(())
    }
}

impl<R: Rule> fmt::Debug for MixedTensor<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("MixedTensor");
        fields.field("first", &self.first).field("param", &self.param).field("grad", &self.grad);
        for (name, moment) in R::MOMENT_NAMES.into_iter().zip(self.moments.as_ref()) {
            fields.field(name, moment);
        }
        fields.finish()
    }
}

/// Steps with a [`Rule`] in mixed precision; every rule has these methods.
///
/// # The types
///
/// Steps are computed in `f32`, from whatever the arrays hold and to it: a tile that fits into the
/// first cache is widened, stepped and narrowed back, in one pass over memory. Every [`Param`] goes with
/// every [`Grad`] and [`Moment`].
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
/// of [`Optimizer`](crate::Optimizer#errors).
pub trait MixedOptimizer: Rule {
    /// Moments for `len` parameters, as they are before the first step, all kept alike.
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
        let mut len = 0;
        for (index, tensor) in tensors.iter().enumerate() {
            tensor.check_lengths(self, index)?;
            len += tensor.len();
        }
        if leaves_out {
            return Ok(Outcome::LeftOut);
        }
        let random = Random::new(pass.seed, t);
        let step = MixedStep { step, pass, grad_factor, random };
        partition::run(exec.parallel, Tensors::new(&step, tensors, len));
        Ok(Outcome::Taken)
    }
}

impl<R: Rule> MixedOptimizer for R {}

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
