//! A [`DenseEquivalent`], and a model of it.

use std::collections::BTreeSet;

use adamant::{
    Adam, Error, Exec, Report, StepOptions,
    reference::{self, Reference},
    rule::Float,
    table::{CatchUp, DenseEquivalent, RowIndex, RowScratch},
};

use super::{
    super::Guarded,
    IndexType, Listed, Misfit, RowColumns,
    arrays::Arrays,
    check_report, expected_norm,
    faults::Faults,
    listed::{WithRows, places, with_rows},
};

/// A call for a table with a [`DenseEquivalent`].
#[derive(Clone, Debug)]
pub enum Event<F> {
    Step(Adam, Listed<F>),
    CatchUp(IndexType, Vec<i128>),
    CatchUpAll,
    SetStep(u64),
}

/// Makes the calls, and then catches up all rows. Fails unless this gives the bits of the reference and writes
/// nothing else.
#[track_caller]
pub fn check_dense_equivalent<F: Float>(
    way: CatchUp,
    start: u64,
    before: &RowColumns<F>,
    events: &[Event<F>],
    exec: Exec<'static>,
    offset: usize,
) {
    let options = StepOptions { exec, ..StepOptions::default() };
    check_dense_equivalent_with(way, start, before, events, options, offset);
}

/// As [`check_dense_equivalent`], with options.
#[track_caller]
pub fn check_dense_equivalent_with<F: Float>(
    way: CatchUp,
    start: u64,
    before: &RowColumns<F>,
    events: &[Event<F>],
    options: StepOptions<'static>,
    offset: usize,
) {
    let events = events.iter().map(|event| (event, None));
    let refusals = check_dense_equivalent_or_refused(way, start, before, events, options, offset);
    assert_eq!(refusals, [], "valid calls");
}

/// Makes the calls, and then catches up all rows. Fails unless each call gives the bits of the reference and writes
/// nothing else, or is refused for a fault that it has and changes nothing. Returns the errors.
#[track_caller]
pub fn check_dense_equivalent_or_refused<'a, F: Float>(
    way: CatchUp,
    start: u64,
    before: &RowColumns<F>,
    events: impl IntoIterator<Item = (&'a Event<F>, Option<Misfit>)>,
    options: StepOptions<'static>,
    offset: usize,
) -> Vec<Error> {
    let mut model = Model::new(way, start, before.clone());
    let mut arrays = Arrays::new(before, offset);
    let mut waiting = DenseEquivalent::new(before.rows(), way);
    waiting.set_step(start);
    let mut refusals = vec![];
    for (event, misfit) in events.into_iter().chain([(&Event::CatchUpAll, None)]) {
        let (arrays, waiting) = (&mut arrays, &mut waiting);
        let norm = match event {
            Event::Step(_, listed) if listed.fits(before) => {
                expected_norm(&before.sums(listed), &options)
            }
            _ => None,
        };
        let (step, report) = (None, None);
        let mut call = Call { way, options, offset, misfit, arrays, waiting, step, norm, report };
        let refusal = call.make(event);
        if refusal.is_none() {
            let factor = match call.report {
                Some(report) => check_report(&report, norm, &options),
                None => Some(1.0),
            };
            if let Some(factor) = factor {
                model.go_through(event, factor);
            }
        }
        assert_eq!(waiting.step(), model.now, "after {event:?}");
        // A step leaves rows to later ones.
        if refusal.is_some() || !matches!(event, Event::Step(..)) {
            let context = || format!("{way:?}, {options:?}, {offset}, {event:?}, {refusal:?}");
            arrays.check(&model.columns, &context);
            let skipped = (0..=before.rows()).map(|row| waiting.skipped(row));
            assert!(skipped.eq(model.skipped()), "rows wait for as long: {}", context());
        }
        refusals.extend(refusal);
    }
    refusals
}

/// A call of a [`DenseEquivalent`].
struct Call<'a, F: Float> {
    way: CatchUp,
    options: StepOptions<'static>,
    offset: usize,
    misfit: Option<Misfit>,
    arrays: &'a mut Arrays<F>,
    waiting: &'a mut DenseEquivalent<F>,
    step: Option<(&'a Adam, &'a Listed<F>)>,
    /// The norm that the report of a step must have.
    norm: Option<f64>,
    report: Option<Report>,
}

impl<'a, F: Float> Call<'a, F> {
    fn make(&mut self, event: &'a Event<F>) -> Option<Error> {
        match event {
            Event::Step(adam, listed) => {
                self.step = Some((adam, listed));
                with_rows(listed.index_type, &listed.rows, self)
            }
            Event::CatchUp(index_type, rows) => with_rows(*index_type, rows, self),
            Event::CatchUpAll => {
                let (exec, faults) = (self.options.exec, self.faults());
                faults.judge(self.waiting.catch_up_all_with(self.arrays.table(self.misfit), exec))
            }
            Event::SetStep(step) => {
                self.waiting.set_step(*step);
                None
            }
        }
    }

    /// The faults that any call can have.
    fn faults(&self) -> Faults {
        let mut faults = Faults::default();
        faults.of_exec(self.options.exec);
        let (width, lens) = self.arrays.sizes(self.misfit);
        let rows = lens[0].checked_div(width).unwrap_or(0);
        faults.of_table::<F>(&Adam::default(), &(width, lens));
        faults.of_row_count(rows, self.waiting.rows());
        faults
    }
}

impl<F: Float> WithRows for Call<'_, F> {
    fn run<I: RowIndex>(&mut self, rows: &[I]) -> Option<Error> {
        let (options, own_width) = (self.options, self.arrays.width);
        let mut faults = self.faults();
        let (waiting, table) = (&mut *self.waiting, self.arrays.table(self.misfit));
        faults.of_indices(rows, waiting.rows());
        let Some((adam, listed)) = self.step else {
            return faults.judge(waiting.catch_up_with(table, rows, options.exec));
        };
        faults.of_options::<F>(&options, self.norm);
        faults.add(waiting.step() == u64::MAX, Error::StepOverflow);
        faults.of_rule::<F>(adam, waiting.step().saturating_add(1));
        if self.way == CatchUp::Series {
            faults.of_series(adam);
        }
        let values = Guarded::new(&listed.values, self.offset);
        let grads = listed.grads(rows, values.get(), own_width, self.misfit);
        faults.of_grads(&grads, table.width());
        let mut scratch = RowScratch::default();
        let found = (grads.sort(waiting.rows(), &mut scratch))
            .and_then(|grads| adam.step_rows_dense_equivalent_on(table, grads, waiting, &options));
        self.report = found.as_ref().ok().copied();
        faults.judge(found.map(|_| ()))
    }
}

/// What a [`DenseEquivalent`] does, in plain code that is slow.
struct Model<F> {
    way: CatchUp,
    columns: RowColumns<F>,
    now: u64,
    /// The step that each row is at.
    at: Vec<u64>,
    /// The steps since the rule last changed, or all rows were last brought to the same step.
    steps: Vec<(u64, Adam)>,
}

impl<F: Float> Model<F> {
    fn new(way: CatchUp, start: u64, columns: RowColumns<F>) -> Self {
        let at = vec![start; columns.rows()];
        Self { way, columns, now: start, at, steps: vec![] }
    }

    /// With gradients multiplied by a factor.
    fn go_through(&mut self, event: &Event<F>, grad_factor: f64) {
        match event {
            Event::CatchUpAll => {
                self.catch_up(0..self.columns.rows());
                self.steps.clear();
            }
            Event::CatchUp(_, rows) => self.catch_up(places(rows).into_iter()),
            Event::SetStep(step) => {
                self.now = *step;
                self.at.fill(*step);
                self.steps.clear();
            }
            Event::Step(adam, listed) => {
                let regime = |adam: &Adam| {
                    let weight_decay = f64::from(adam.weight_decay != 0.0);
                    Adam { lr: 0.0, weight_decay, ..*adam }
                };
                if self.steps.last().is_some_and(|(_, last)| regime(last) != regime(adam)) {
                    self.catch_up(0..self.columns.rows());
                    self.steps.clear();
                }
                let rows: BTreeSet<_> = places(&listed.rows).into_iter().collect();
                self.catch_up(rows.iter().copied());
                self.now += 1;
                let options = StepOptions { grad_factor, ..StepOptions::default() };
                self.columns.reference(adam, self.now, listed, &options);
                self.steps.push((self.now, *adam));
                rows.iter().for_each(|&row| self.at[row] = self.now);
                // No row waits for more than 4,096 steps: each has its turn.
                let turn = self.now % 4096;
                let before = |turn: u64| turn as usize * self.columns.rows() / 4096;
                self.catch_up(before(turn)..before(turn + 1));
            }
        }
    }

    /// How many steps each row has to catch up with; there is no row after the last one.
    fn skipped(&self) -> impl Iterator<Item = Option<u64>> {
        self.at.iter().map(|at| Some(self.now - at)).chain([None])
    }

    fn catch_up(&mut self, rows: impl Iterator<Item = usize>) {
        for row in rows {
            let skipped = (self.now - self.at[row]) as usize;
            self.at[row] = self.now;
            let (param, moments) = self.columns.row(row);
            let [exp_avg, exp_avg_sq] = moments.try_into().expect("the moments of Adam");
            match self.way {
                CatchUp::Series => {
                    reference::series(&self.steps, skipped, param, exp_avg, exp_avg_sq);
                }
                CatchUp::Replay => {
                    let zeros = vec![F::default(); param.len()];
                    for (t, adam) in &self.steps[self.steps.len() - skipped..] {
                        adam.reference(*t, param, &zeros, [exp_avg, exp_avg_sq]);
                    }
                }
                other => panic!("{other:?} has no reference"),
            }
        }
    }
}
