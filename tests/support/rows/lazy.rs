//! Lazy steps.

use std::fmt::Debug;

use adamant::{
    Error, Exec, Report, StepOptions,
    reference::RowReference,
    rule::Float,
    table::{RowIndex, RowOptimizer, RowScratch, SortedRows, Table},
};

use super::{
    super::Guarded,
    Listed, Misfit, RowColumns,
    arrays::Arrays,
    check_report, expected_norm,
    faults::Faults,
    listed::{WithRows, with_rows},
};

/// Takes lazy steps, the first with number `t`. Fails unless they give the bits of the reference and write nothing
/// else.
#[track_caller]
pub fn check_lazy<R: RowReference + Debug, F: Float>(
    rule: &R,
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
pub fn check_lazy_with<R: RowReference + Debug, F: Float>(
    rule: &R,
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
pub fn check_lazy_or_refused<'a, R: RowReference + Debug, F: Float>(
    rule: &R,
    t: u64,
    before: &RowColumns<F>,
    steps: impl IntoIterator<Item = (&'a Listed<F>, Option<Misfit>)>,
    options: StepOptions<'static>,
    offset: usize,
) -> Vec<Error> {
    let steps: Vec<_> = steps.into_iter().collect();
    check_lazy_by(rule, t, before, &steps, options, offset)
}

/// The methods of a rule that the check of lazy steps uses, behind a pointer: if the check were compiled for each
/// rule and type of indices, it would take most of the time of compiling the tests.
trait LazyRule<F>: Debug {
    fn find_faults(&self, faults: &mut Faults, t: u64, sizes: &(usize, Vec<usize>));

    fn step(
        &self,
        t: u64,
        table: Table<'_>,
        grads: SortedRows<'_>,
        options: &StepOptions<'_>,
    ) -> Result<Report, Error>;

    fn reference(
        &self,
        table: &mut RowColumns<F>,
        t: u64,
        listed: &Listed<F>,
        options: &StepOptions<'_>,
    );
}

impl<R: RowReference + Debug, F: Float> LazyRule<F> for R {
    fn find_faults(&self, faults: &mut Faults, t: u64, sizes: &(usize, Vec<usize>)) {
        faults.of_rule::<R, F>(self, t);
        faults.of_table(self, sizes);
    }

    fn step(
        &self,
        t: u64,
        table: Table<'_>,
        grads: SortedRows<'_>,
        options: &StepOptions<'_>,
    ) -> Result<Report, Error> {
        self.step_rows_lazy_on(t, table, grads, options)
    }

    fn reference(
        &self,
        table: &mut RowColumns<F>,
        t: u64,
        listed: &Listed<F>,
        options: &StepOptions<'_>,
    ) {
        table.reference(self, t, listed, options);
    }
}

#[track_caller]
fn check_lazy_by<F: Float>(
    rule: &dyn LazyRule<F>,
    t: u64,
    before: &RowColumns<F>,
    steps: &[(&Listed<F>, Option<Misfit>)],
    options: StepOptions<'static>,
    offset: usize,
) -> Vec<Error> {
    struct Step<'a, F> {
        rule: &'a dyn LazyRule<F>,
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
            rule.find_faults(&mut faults, t, &self.arrays.sizes(misfit));
            let table = self.arrays.table(misfit);
            faults.of_grads(&grads, table.width());
            faults.of_indices(rows, table.rows());
            let found = grads
                .sort(table.rows(), self.scratch)
                .and_then(|grads| rule.step(t, table, grads, &options));
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
    for (&(listed, misfit), later) in steps.iter().zip(0..) {
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
                    rule.reference(&mut expected, t, listed, &options);
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
