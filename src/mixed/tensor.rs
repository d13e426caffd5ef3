//! A tensor of a call in mixed precision.

use core::fmt;

use super::{Grad, Moment, Param};
use crate::{Arity, Error, Exec, Many, Rule, element::Q8, norm};

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

    pub(super) fn len(&self) -> usize {
        self.param.len()
    }

    /// The memory of all arrays.
    pub(super) fn bytes(&self) -> usize {
        let moments = self.moments.as_ref().iter().map(Moment::bytes);
        self.param.bytes() + self.grad.bytes() + moments.sum::<usize>()
    }

    /// Cuts the tensor in two: the first `mid` elements, which are whole blocks, and the others.
    pub(super) fn split_at(self, mid: usize) -> (Self, Self) {
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

    pub(super) fn reborrow(&mut self) -> MixedTensor<'_, R> {
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

    pub(super) fn check_lengths(&self, rule: &R, tensor: usize) -> Result<(), Error> {
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
