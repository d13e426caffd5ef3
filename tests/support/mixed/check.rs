//! The checker of the bits of steps in mixed precision.

use std::fmt::Debug;

use adamant::{Error, Isa, Optimizer, Report, StepOptions, reference::Reference};

use super::{
    super::{Misfit, Way, exec},
    MixedColumns, assert_same_norm, check_norm, factor_of, needs_norm, outcome_of,
};

fn pieces(tensors: &[MixedColumns], way: &Way) -> Vec<MixedColumns> {
    tensors.iter().flat_map(|tensor| tensor.pieces(way)).collect()
}

/// Takes steps of some tensors in the way that is given. Fails unless:
///
/// - each step gives the bits of the reference, is counted, and writes nothing else;
/// - a step that must be left out changes nothing but gradients that are to be zeroed;
/// - the norm of the gradients is right, and has the same bits everywhere.
#[track_caller]
pub fn check_mixed<R: Reference + Debug>(
    rule: &R,
    steps: impl Iterator<Item = u64> + Clone,
    options: StepOptions<'static>,
    before: &[MixedColumns],
    way: &Way,
) {
    let options = StepOptions { exec: way.exec, ..options };
    let mut expected = before.to_vec();
    let mut found = pieces(before, way);
    for t in steps {
        for columns in found.iter_mut().chain(&mut expected) {
            columns.steps = t - 1;
        }
        let grads: Vec<f32> = found.iter().flat_map(MixedColumns::grads).collect();
        let elsewhere = StepOptions { exec: exec(Isa::Scalar, false), ..options };
        let elsewhere = needs_norm(&options).then(|| take(rule, &mut found.clone(), &elsewhere));
        let mut report = None;
        let in_a_call = if way.at_once { found.len().max(1) } else { 1 };
        for call in found.chunks_mut(in_a_call) {
            let of_call = take(rule, call, &options);
            let first = report.get_or_insert(of_call);
            let tells = |report: &Report| (report.outcome, report.grad_norm.map(f64::to_bits));
            assert_eq!(tells(first), tells(&of_call), "all calls do the same");
        }
        let Some(report) = report else { continue };
        check_norm(&report, &options, grads.iter().map(|&grad| grad.into()));
        if let Some(elsewhere) = elsewhere {
            assert_same_norm(&report, &elsewhere);
        }
        let factor = factor_of(&options, report.grad_norm);
        assert_eq!(report.outcome, outcome_of(factor));
        for columns in &mut expected {
            match factor {
                Some(grad_factor) => {
                    columns.reference(rule, &StepOptions { grad_factor, ..options });
                }
                None => columns.leave_out(&options),
            }
        }
    }
    for (found, expected) in found.iter().zip(&pieces(&expected, way)) {
        let types = expected.types;
        found.assert_same_bits(expected, &|| format!("{rule:?}, {types:?}, {way:?}, {options:?}"));
        found.check_guards();
    }
}

fn take<R: Reference>(rule: &R, tensors: &mut [MixedColumns], options: &StepOptions<'_>) -> Report {
    let mut tensors: Vec<_> = tensors.iter_mut().map(MixedColumns::tensor).collect();
    rule.step_tensors(&mut tensors, options).expect("a valid step")
}

/// Takes one step of all pieces, after `steps` steps, with one array of a wrong length. Fails unless the step is
/// refused, writes nothing and is not counted. Returns the error.
#[track_caller]
pub fn check_mixed_refused<R: Reference + Debug>(
    rule: &R,
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
