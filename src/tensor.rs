//! A tensor of a call.

use core::fmt;

use crate::{Arity, Error, Float, Many, Rule};

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

    pub(crate) fn check_lengths(&self, rule: &R, tensor: usize) -> Result<(), Error> {
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
