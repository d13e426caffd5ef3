//! The scaling of a call's gradients: their norm, their factor, and whether the step is left out.

use super::StepOptions;
use crate::{Error, norm::clip_factor};

/// Refuses a factor that is 0 or subnormal in a type of the step, to which it is rounded.
#[inline]
pub(crate) fn check_factor(factor: f64, any_f32: bool, any_f64: bool) -> Result<(), Error> {
    let allowed = "a normal number over 0 in the type of the step, with clipping, too";
    let fits = (!any_f64 || factor.is_normal()) && (!any_f32 || (factor as f32).is_normal());
    match fits {
        true => Ok(()),
        false => Err(Error::Option { name: "grad_factor", value: factor, allowed }),
    }
}

/// The norm and the factor of the gradients of a call.
pub(crate) struct Scaling {
    /// Their norm, with [`StepOptions::grad_factor`], if the options need it.
    pub grad_norm: Option<f64>,
    /// The factor of the gradients: `grad_factor`, times the factor of clipping.
    pub factor: f64,
    /// Whether the step is left out.
    pub leaves_out: bool,
}

impl StepOptions<'_> {
    /// Refuses options that are out of their range.
    #[inline]
    pub(crate) fn check(&self) -> Result<(), Error> {
        let Self { grad_factor, max_norm, grad_norm, .. } = *self;
        let refuse = |name, value, allowed| Err(Error::Option { name, value, allowed });
        if !(grad_factor.is_normal() && grad_factor > 0.0) {
            return refuse("grad_factor", grad_factor, "a normal number over 0");
        }
        if let Some(max_norm) = max_norm
            && (max_norm.is_nan() || max_norm <= 0.0)
        {
            return refuse("max_norm", max_norm, "over 0");
        }
        if let Some(grad_norm) = grad_norm
            && grad_norm < 0.0
        {
            return refuse("grad_norm", grad_norm, "at least 0, infinite or NaN");
        }
        Ok(())
    }

    /// The norm and the factor of the gradients. `norm` computes their norm, and is called if it is needed.
    #[inline]
    pub(crate) fn scaling(&self, norm: impl FnOnce() -> f64) -> Scaling {
        let grad_norm = match self.grad_norm {
            Some(norm) => Some(norm),
            None if self.max_norm.is_some() || self.skip_nonfinite => Some(norm()),
            None => None,
        }
        .map(|norm| norm * self.grad_factor);
        let leaves_out = grad_norm.is_some_and(|norm| !norm.is_finite());
        let factor = match (grad_norm, self.max_norm) {
            (Some(norm), Some(max_norm)) if !leaves_out => {
                self.grad_factor * clip_factor(norm, max_norm)
            }
            _ => self.grad_factor,
        };
        Scaling { grad_norm, factor, leaves_out }
    }
}
