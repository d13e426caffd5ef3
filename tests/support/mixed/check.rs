//! The checker of the bits of steps in mixed precision.

use adamant::{DynOptimizer, Error, Isa, Optimizer, Report, StepOptions};

use super::{
    super::{DenseRule, Misfit, Way, exec},
    MixedColumns, assert_same_norm, check_norm, factor_of, needs_norm, outcome_of,
};

fn pieces(tensors: &[MixedColumns], way: &Way) -> Vec<MixedColumns> {
    tensors.iter().flat_map(|tensor| tensor.pieces(way)).collect()
}

/// What does not depend on the instruction set and the threads of steps, so that a test in many ways computes it once.
#[derive(Default)]
pub struct Known {
    /// The factor of the gradients in each step, which the reference takes with it, and what it makes of the tensors.
    expected: Option<(Vec<Option<f64>>, Vec<MixedColumns>)>,
    /// The report of each step on the scalar instruction set by the calling thread.
    elsewhere: Vec<Report>,
}

/// Takes steps of some tensors in the way that is given. Fails unless:
///
/// - each step gives the bits of the reference, is counted, and writes nothing else;
/// - a step that must be left out changes nothing but gradients that are to be zeroed;
/// - the norm of the gradients is right, and has the same bits everywhere.
#[track_caller]
pub fn check_mixed(
    rule: &dyn DenseRule<f32>,
    steps: impl IntoIterator<Item = u64>,
    options: StepOptions<'static>,
    before: &[MixedColumns],
    way: &Way,
) {
    check_mixed_with(&mut Known::default(), rule, steps, options, before, way);
}

/// As [`check_mixed`], after others with the same arguments but for the instruction set, the threads, the offset and
/// [`StepOptions::skip_nonfinite`].
#[track_caller]
pub fn check_mixed_with(
    known: &mut Known,
    rule: &dyn DenseRule<f32>,
    steps: impl IntoIterator<Item = u64>,
    options: StepOptions<'static>,
    before: &[MixedColumns],
    way: &Way,
) {
    let options = StepOptions { exec: way.exec, ..options };
    let mut found = pieces(before, way);
    let steps: Vec<_> = steps.into_iter().collect();
    let mut factors = vec![];
    for (number, &t) in steps.iter().enumerate() {
        for columns in &mut found {
            columns.steps = t - 1;
        }
        let grads: Vec<f32> = found.iter().flat_map(MixedColumns::grads).collect();
        if needs_norm(&options) && known.elsewhere.len() == number {
            let elsewhere = StepOptions { exec: exec(Isa::Scalar, false), ..options };
            known.elsewhere.push(take(rule, &mut found.clone(), &elsewhere));
        }
        let mut report = None;
        let in_a_call = if way.at_once { found.len().max(1) } else { 1 };
        for call in found.chunks_mut(in_a_call) {
            let of_call = take(rule, call, &options);
            let first = report.get_or_insert(of_call);
            let tells = |report: &Report| (report.outcome, report.grad_norm.map(f64::to_bits));
            assert_eq!(tells(first), tells(&of_call), "all calls do the same");
        }
        // No tensors, no report.
        let Some(report) = report else { continue };
        check_norm(&report, &options, &grads);
        if needs_norm(&options) {
            assert_same_norm(&report, &known.elsewhere[number]);
        }
        let factor = factor_of(&options, report.grad_norm);
        assert_eq!(report.outcome, outcome_of(factor));
        factors.push(factor);
    }
    if known.expected.as_ref().is_none_or(|(of_expected, _)| *of_expected != factors) {
        let mut expected = before.to_vec();
        for (t, factor) in steps.iter().zip(&factors) {
            for columns in &mut expected {
                columns.steps = t - 1;
                match *factor {
                    Some(grad_factor) => {
                        columns.reference(rule, &StepOptions { grad_factor, ..options });
                    }
                    None => columns.leave_out(&options),
                }
            }
        }
        known.expected = Some((factors, expected));
    }
    let expected = known.expected.iter().flat_map(|(_, expected)| expected);
    let expected = expected.flat_map(|tensor| tensor.pieces(way));
    for (found, expected) in found.iter().zip(expected) {
        let types = expected.types;
        found.assert_same_bits(&expected, &|| format!("{rule:?}, {types:?}, {way:?}, {options:?}"));
        found.check_guards();
    }
}

fn take(
    rule: &dyn DynOptimizer,
    tensors: &mut [MixedColumns],
    options: &StepOptions<'_>,
) -> Report {
    let mut tensors: Vec<_> = tensors.iter_mut().map(MixedColumns::tensor).collect();
    rule.step_tensors(&mut tensors, options).expect("a valid step")
}

/// Takes one step of all pieces, after `steps` steps, with one array of a wrong length. Fails unless the step is
/// refused, writes nothing and is not counted. Returns the error.
#[track_caller]
pub fn check_mixed_refused(
    rule: &dyn DenseRule<f32>,
    steps: u64,
    options: StepOptions<'static>,
    before: &[MixedColumns],
    way: &Way,
    misfit: Option<&Misfit>,
) -> Error {
    let options = StepOptions { exec: way.exec, ..options };
    let mut found = pieces(before, way);
    if let Some(misfit) = misfit {
        let count = found.len();
        found[misfit.tensor % count].put(misfit);
    }
    found.iter_mut().for_each(|columns| columns.steps = steps);
    let expected = found.clone();
    let result = {
        let mut tensors: Vec<_> = found.iter_mut().map(MixedColumns::tensor).collect();
        rule.step_tensors(&mut tensors, &options)
    };
    let context = || format!("{rule:?}, after {steps} steps, {options:?}, {way:?}, {misfit:?}");
    let error = result.err().unwrap_or_else(|| panic!("not refused: {}", context()));
    for (found, expected) in found.iter().zip(&expected) {
        found.assert_same_bits(expected, &context);
        found.check_guards();
    }
    error
}
