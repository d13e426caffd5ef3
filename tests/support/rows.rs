//! One checker of steps on rows: of their bits and their errors.

mod arrays;
mod columns;
mod dense_equivalent;
mod faults;
mod lazy;
mod listed;

use adamant::{
    Exec, Grad, Report, StepOptions,
    norm::{NormOrder, grad_norms},
    rule::Float,
};

use super::{
    mixed::{factor_of, needs_norm, outcome_of},
    same_bits,
};
pub use columns::RowColumns;
#[allow(unused_imports, reason = "each test takes what it needs")]
pub use dense_equivalent::{
    Event, check_dense_equivalent, check_dense_equivalent_or_refused, check_dense_equivalent_with,
};
pub use faults::Misfit;
#[allow(unused_imports, reason = "each test takes what it needs")]
pub use lazy::{check_lazy, check_lazy_or_refused, check_lazy_with};
pub use listed::{IndexType, Listed};

/// The norm that the report of a step with these options must have; `None` if it must have none. `sums` are the
/// sums of the gradients of each row.
fn expected_norm<F: Float>(sums: &[Vec<F>], options: &StepOptions<'_>) -> Option<f64> {
    let norm = if needs_norm(options) {
        let sums = sums.concat();
        let exec = Exec { isa: Some(adamant::Isa::Scalar), threads: adamant::Threads::Serial };
        let norm = grad_norms(NormOrder::Two, exec, &[Grad::from(&sums)], &mut [0.0]);
        Some(norm.expect("a norm"))
    } else {
        options.grad_norm
    };
    norm.map(|norm| norm * options.grad_factor)
}

/// Fails unless a report has the norm and the outcome of a step. Returns the factor of the gradients, or `None` if
/// the step is left out.
#[track_caller]
pub fn check_report(report: &Report, norm: Option<f64>, options: &StepOptions<'_>) -> Option<f64> {
    let bits = |norm: Option<f64>| norm.map(|norm| if norm.is_nan() { 0 } else { norm.to_bits() });
    assert_eq!(
        bits(report.grad_norm),
        bits(norm),
        "norm {:?}, expected {norm:?}",
        report.grad_norm
    );
    let factor = factor_of(options, norm);
    assert_eq!(report.outcome, outcome_of(factor));
    factor
}

/// Fails unless a table holds the bits of another.
#[track_caller]
pub fn assert_same_tables<F: Float>(found: &[F], expected: &[F]) {
    assert_eq!(found.len(), expected.len());
    for (place, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        assert!(same_bits(found, expected), "element {place}: {found:?}, expected {expected:?}");
    }
}
