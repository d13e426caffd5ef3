//! The scale of a loss in f16.

use core::ops::Bound;

use crate::{Error, Outcome, rule::check};

/// A dynamic scale for a loss whose gradients would be too small for f16. It grows while all gradients are
/// finite, and shrinks when one is not (Micikevicius et al., 2018).
///
/// ```text
/// after a step that was left out:           scale = scale * backoff_factor, at least 2^-126
/// after growth_interval steps in a row:     scale = scale * growth_factor, at most 2^126
/// ```
///
/// Multiply the loss by [`scale`](Self::scale), step with [`grad_factor`](Self::grad_factor) and
/// [`skip_nonfinite`](crate::StepOptions::skip_nonfinite), and give the outcome to [`update`](Self::update).
/// Names and defaults are those of `torch.amp.GradScaler`.
///
/// # Examples
///
/// ```
/// use adamant::{Grad, LossScaler, Optimizer, Sgd, StepOptions};
/// use half::f16;
///
/// let sgd = Sgd { lr: 0.5, ..Sgd::default() };
/// let (mut params, mut state) = (vec![1.0_f32; 4], sgd.state(4));
/// let mut scaler = LossScaler::default();
/// for _ in 0..3 {
///     // The gradients of scale * loss, of which the first ones overflow.
///     let scaled = (1.5 * scaler.scale) as f32;
///     let mut grads = vec![f16::from_f32(scaled); 4];
///     let options = StepOptions {
///         grad_factor: scaler.grad_factor(),
///         skip_nonfinite: true,
///         ..StepOptions::default()
///     };
///     let (param, grad) = ((&mut params).into(), Grad::zeroed(&mut grads));
///     let report = sgd.step_with(param, grad, &mut state, &options)?;
///     scaler.update(report.outcome)?;
/// }
/// // 1.5 * 65536 is infinite in f16; at half the scale steps are taken.
/// assert_eq!((scaler.scale, state.steps()), (32768.0, 2));
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossScaler {
    /// The factor for the loss: 2^-126 to 2^126, so that its inverse, too, is a normal number of `f32`. Default 65536.
    pub scale: f64,
    /// The factor by which the scale grows: at least 1. Default 2.
    pub growth_factor: f64,
    /// The factor of the scale after a step that was left out: over 0, less than 1. Default 0.5.
    pub backoff_factor: f64,
    /// The scale grows after this many taken steps in a row: at least 1. Default 2000.
    pub growth_interval: u64,
    /// After this many steps in a row that were left out, [`update`](Self::update) returns an error, since
    /// the training no longer moves. Default 100.
    pub patience: u64,
    /// The number of taken steps since the last one that was left out or the last growth. Save it in
    /// checkpoints.
    pub taken: u64,
    /// The number of steps that were left out since the last taken one. Save it in checkpoints.
    pub left_out: u64,
}

impl Default for LossScaler {
    fn default() -> Self {
        Self {
            scale: 65536.0,
            growth_factor: 2.0,
            backoff_factor: 0.5,
            growth_interval: 2000,
            patience: 100,
            taken: 0,
            left_out: 0,
        }
    }
}

impl LossScaler {
    /// The inverse of the scale, for [`StepOptions::grad_factor`](crate::StepOptions::grad_factor).
    pub fn grad_factor(&self) -> f64 {
        1.0 / self.scale
    }

    /// Adapts the scale to the outcome of a step.
    ///
    /// # Errors
    ///
    /// [`Error::HyperParameter`] for a field that is out of its range; nothing has changed then.
    /// [`Error::TrainingStalled`] if [`patience`](Self::patience) steps in a row were left out: gradients
    /// that are not finite at any scale have another cause than the scale.
    pub fn update(&mut self, outcome: Outcome) -> Result<(), Error> {
        // The inverses of all scales between these are normal numbers of f32, too.
        const SMALLEST: f64 = f32::MIN_POSITIVE as f64;
        const LARGEST: f64 = 1.0 / f32::MIN_POSITIVE as f64;
        check("scale", self.scale, SMALLEST..=LARGEST, "2^-126 to 2^126")?;
        check("growth_factor", self.growth_factor, 1.0..=f64::MAX, "finite and at least 1")?;
        let share = (Bound::Excluded(0.0), Bound::Excluded(1.0));
        check("backoff_factor", self.backoff_factor, share, "over 0 and less than 1")?;
        check("growth_interval", self.growth_interval as f64, 1.0.., "at least 1")?;
        match outcome {
            Outcome::Taken => {
                (self.taken, self.left_out) = (self.taken.saturating_add(1), 0);
                if self.taken >= self.growth_interval {
                    self.taken = 0;
                    self.scale = (self.scale * self.growth_factor).min(LARGEST);
                }
                Ok(())
            }
            Outcome::LeftOut => {
                (self.taken, self.left_out) = (0, self.left_out.saturating_add(1));
                self.scale = (self.scale * self.backoff_factor).max(SMALLEST);
                match self.left_out < self.patience {
                    true => Ok(()),
                    false => Err(Error::TrainingStalled { steps: self.left_out }),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_falls_with_each_step_left_out_and_grows_after_enough_that_were_not() {
        let mut scaler = LossScaler { growth_interval: 3, ..LossScaler::default() };
        let mut scales = vec![];
        for outcome in [
            Outcome::LeftOut,
            Outcome::Taken,
            Outcome::Taken,
            Outcome::LeftOut,
            Outcome::Taken,
            Outcome::Taken,
            Outcome::Taken,
            Outcome::Taken,
        ] {
            assert_eq!(scaler.update(outcome), Ok(()));
            scales.push(scaler.scale / 65536.0);
        }
        assert_eq!(scales, [0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.5, 0.5]);
    }

    #[test]
    fn the_scale_stays_within_the_normal_numbers_of_f32() {
        let mut scaler = LossScaler { patience: u64::MAX, ..LossScaler::default() };
        for _ in 0..200 {
            assert_eq!(scaler.update(Outcome::LeftOut), Ok(()));
        }
        assert_eq!(scaler.scale, f64::from(f32::MIN_POSITIVE));
        assert!((scaler.grad_factor() as f32).is_normal());
        scaler.growth_interval = 1;
        for _ in 0..400 {
            assert_eq!(scaler.update(Outcome::Taken), Ok(()));
        }
        assert_eq!(scaler.scale, 2_f64.powi(126));
        assert!((scaler.grad_factor() as f32).is_normal());
    }

    #[test]
    fn training_that_stands_still_is_an_error() {
        let mut scaler = LossScaler { patience: 3, ..LossScaler::default() };
        assert_eq!(scaler.update(Outcome::LeftOut), Ok(()));
        assert_eq!(scaler.update(Outcome::LeftOut), Ok(()));
        let stalled = Err(Error::TrainingStalled { steps: 3 });
        assert_eq!(scaler.update(Outcome::LeftOut), stalled);
        assert_eq!(scaler.update(Outcome::Taken), Ok(()));
    }

    #[test]
    fn a_field_out_of_its_range_is_refused() {
        for scaler in [
            LossScaler { scale: 0.0, ..LossScaler::default() },
            LossScaler { scale: f64::INFINITY, ..LossScaler::default() },
            LossScaler { scale: 2_f64.powi(127), ..LossScaler::default() },
            LossScaler { growth_factor: 0.5, ..LossScaler::default() },
            LossScaler { backoff_factor: 1.0, ..LossScaler::default() },
            LossScaler { backoff_factor: f64::NAN, ..LossScaler::default() },
            LossScaler { growth_interval: 0, ..LossScaler::default() },
        ] {
            let mut changed = scaler;
            let refused = changed.update(Outcome::Taken);
            assert!(matches!(refused, Err(Error::HyperParameter { .. })), "{scaler:?}");
        }
    }
}
