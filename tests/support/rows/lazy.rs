//! Lazy steps.

use adamant::{
    Error, Exec, Report, StepOptions,
    rule::Float,
    table::{RowIndex, RowScratch},
};

use super::{
    super::{Guarded, RowsRule},
    Listed, Misfit, RowColumns,
    arrays::Arrays,
    check_report, expected_norm,
    faults::Faults,
    listed::{WithRows, with_rows},
};

/// Takes lazy steps, the first with number `t`. Fails unless they give the bits of the reference and write nothing
/// else.
#[track_caller]
pub fn check_lazy<F: Float>(
    rule: &dyn RowsRule<F>,
    t: u64,
    before: &RowColumns<F>,
    steps: &[Listed<F>],
    exec: Exec<'static>,
    offset: usize,
) {
    let options = StepOptions { exec, ..StepOptions::default() };
    check_lazy_with(rule, t, before, steps, options, offset);
}

/// As [`check_lazy`], with options.
#[track_caller]
pub fn check_lazy_with<F: Float>(
    rule: &dyn RowsRule<F>,
    t: u64,
    before: &RowColumns<F>,
    steps: &[Listed<F>],
    options: StepOptions<'static>,
    offset: usize,
) {
    let steps = steps.iter().map(|listed| (listed, None));
    assert_eq!(check_lazy_or_refused(rule, t, before, steps, options, offset), [], "valid steps");
}

/// Takes lazy steps, the first with number `t`. Fails unless each gives the bits of the reference and writes nothing
/// else, or is refused for a fault that it has and writes nothing. Returns the errors.
#[track_caller]
pub fn check_lazy_or_refused<'a, F: Float>(
    rule: &dyn RowsRule<F>,
    t: u64,
    before: &RowColumns<F>,
    steps: impl IntoIterator<Item = (&'a Listed<F>, Option<Misfit>)>,
    options: StepOptions<'static>,
    offset: usize,
) -> Vec<Error> {
    struct Step<'a, F> {
        rule: &'a dyn RowsRule<F>,
        t: u64,
        options: StepOptions<'static>,
        arrays: &'a mut Arrays<F>,
        listed: &'a Listed<F>,
        values: &'a [F],
        misfit: Option<Misfit>,
        scratch: &'a mut RowScratch,
        norm: Option<f64>,
        report: Option<Report>,
    }
    impl<F: Float> WithRows for Step<'_, F> {
        fn run<I: RowIndex>(&mut self, rows: &[I]) -> Option<Error> {
            let Self { rule, t, options, misfit, norm, .. } = *self;
            let grads = self.listed.grads(rows, self.values, self.arrays.width, misfit);
            let mut faults = Faults::default();
            faults.of_options::<F>(&options, norm);
            faults.of_rule(rule, t);
            faults.of_table(rule, &self.arrays.sizes(misfit));
            let table = self.arrays.table(misfit);
            faults.of_grads(&grads, table.width());
            faults.of_indices(rows, table.rows());
            let found = grads
                .sort(table.rows(), self.scratch)
                .and_then(|grads| rule.step_listed(t, table, grads, &options));
            self.report = found.as_ref().ok().copied();
            faults.judge(found.map(|_| ()))
        }
    }

    let context = || {
        format!("{rule:?}, first step {t}, {options:?}, offset {offset}, width {}", before.width)
    };
    let mut expected = before.clone();
    let mut arrays = Arrays::new(before, offset);
    let mut scratch = RowScratch::default();
    let mut refusals = vec![];
    for ((listed, misfit), later) in steps.into_iter().zip(0..) {
        let t = t.saturating_add(later);
        let values = Guarded::new(&listed.values, offset);
        let (arrays, scratch, values) = (&mut arrays, &mut scratch, values.get());
        // A gradient that does not fit is refused before its norm is taken.
        let sums = if listed.fits(&expected) { expected.sums(listed) } else { vec![] };
        let norm = expected_norm(&sums, &options);
        let report = None;
        let mut step =
            Step { rule, t, options, arrays, listed, values, misfit, scratch, norm, report };
        let error = with_rows(listed.index_type, &listed.rows, &mut step);
        match (error, step.report) {
            (None, Some(report)) => {
                if let Some(grad_factor) = check_report(&report, norm, &options) {
                    let options = StepOptions { grad_factor, ..options };
                    expected.reference(rule, t, listed, &options);
                }
            }
            (error, _) => {
                let error = error.expect("an error or a report");
                arrays.check(&expected, &|| format!("refused: {error}, {}", context()));
                refusals.push(error);
            }
        }
    }
    arrays.check(&expected, &context);
    refusals
}
