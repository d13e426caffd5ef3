//! The report that a step must give: the norm, and whether it was taken.

use adamant::{Outcome, Report, StepOptions, norm::clip_factor};

use super::super::same_bits;

/// Whether a step must be left out because of the norm that the caller passes.
pub fn leaves_out(options: &StepOptions<'_>) -> bool {
    options.grad_norm.is_some_and(|norm| !(norm * options.grad_factor).is_finite())
}

/// The factor of the gradients; `None` if the step must be left out. `norm` is the one in the report.
pub fn factor_of(options: &StepOptions<'_>, norm: Option<f64>) -> Option<f64> {
    let clip = match (norm, options.max_norm) {
        (Some(norm), _) if !norm.is_finite() => return None,
        (Some(norm), Some(max_norm)) => clip_factor(norm, max_norm),
        _ => 1.0,
    };
    Some(options.grad_factor * clip)
}

/// The outcome of a step whose gradients have this factor.
pub fn outcome_of(factor: Option<f64>) -> Outcome {
    if factor.is_some() { Outcome::Taken } else { Outcome::LeftOut }
}

/// Whether the step must compute the norm.
pub fn needs_norm(options: &StepOptions<'_>) -> bool {
    options.grad_norm.is_none() && (options.max_norm.is_some() || options.skip_nonfinite)
}

#[track_caller]
pub fn assert_same_norm(found: &Report, elsewhere: &Report) {
    let [found, elsewhere] = [found, elsewhere].map(|report| report.grad_norm.expect("a norm"));
    assert!(same_bits(found, elsewhere), "norm {found}, elsewhere {elsewhere}");
}

/// Fails unless a report has the norm of the gradients, if the options need it. It may be off by 1e-10, as the plain
/// sum of a million squares is, with which it is compared.
#[track_caller]
pub fn check_norm<G: Copy + Into<f64>>(report: &Report, options: &StepOptions<'_>, grads: &[G]) {
    if let Some(norm) = options.grad_norm {
        let found = report.grad_norm.expect("the caller's norm");
        assert!(same_bits(found, norm * options.grad_factor), "norm {found}, passed {norm}");
        return;
    }
    assert_eq!(report.grad_norm.is_some(), needs_norm(options));
    let Some(found) = report.grad_norm else { return };
    let truth = plain_norm(grads) * options.grad_factor;
    let is_near = (found - truth).abs() <= 1e-10 * truth;
    assert!(is_near || !(found.is_finite() || truth.is_finite()), "norm {found}, truth {truth}");
}

/// The norm of gradients, by the plain sum of their squares.
pub(super) fn plain_norm<G: Copy + Into<f64>>(grads: &[G]) -> f64 {
    let grads = grads.iter().map(|&grad| grad.into());
    // Scaled by a power of two, no square overflows in f64, and no square that matters underflows.
    let largest = grads.clone().fold(0.0, |largest, grad| f64::max(largest, grad.abs()));
    let scale = if largest > 1e100 { 2_f64.powi(-600) } else { 1.0 };
    let scale = if largest < 1e-100 { 2_f64.powi(600) } else { scale };
    grads.map(|grad| (grad * scale).powi(2)).sum::<f64>().sqrt() / scale
}
