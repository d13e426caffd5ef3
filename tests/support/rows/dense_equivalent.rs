//! A [`DenseEquivalent`], and a model of it.

use std::collections::BTreeSet;

use adamant::{
    Adam, CatchUp, DenseEquivalent, Error, Exec, Float, RowIndex, Table,
    reference::{self, Reference},
};

use super::{
    super::Guarded, Arrays, Faults, IndexType, Listed, Misfit, RowColumns, WithRows, places,
    with_rows,
};

/// Something that a table with a [`DenseEquivalent`] goes through.
#[derive(Clone, Debug)]
pub enum Event<F> {
    Step(Adam, Listed<F>),
    CatchUp(IndexType, Vec<i128>),
    CatchUpAll,
    SetStep(u64),
}

/// Fails unless the events, and then catching up with the whole table, give the bits of the
/// reference and write nothing else.
#[track_caller]
pub fn check_dense_equivalent<F: Float>(
    way: CatchUp,
    start: u64,
    before: &RowColumns<F>,
    events: &[Event<F>],
    exec: Exec,
    offset: usize,
) {
    let events = events.iter().map(|event| (event, None));
    let refusals = check_dense_equivalent_or_refused(way, start, before, events, exec, offset);
    assert_eq!(refusals, [], "valid calls");
}

/// Fails unless the events, and then catching up with the whole table, give the bits of the
/// reference and write nothing else, or are refused for a reason that they have and change nothing;
/// returns the errors.
#[track_caller]
pub fn check_dense_equivalent_or_refused<'a, F: Float>(
    way: CatchUp,
    start: u64,
    before: &RowColumns<F>,
    events: impl IntoIterator<Item = (&'a Event<F>, Option<Misfit>)>,
    exec: Exec,
    offset: usize,
) -> Vec<Error> {
    let mut model = Model::new(way, start, before.clone());
    let mut arrays = Arrays::new(before, offset);
    let mut waiting = DenseEquivalent::new(before.rows(), way);
    waiting.set_step(start);
    let mut refusals = vec![];
    for (event, misfit) in events.into_iter().chain([(&Event::CatchUpAll, None)]) {
        let (arrays, waiting) = (&mut arrays, &mut waiting);
        let mut call = Call { way, exec, offset, misfit, arrays, waiting, step: None };
        let refusal = call.make(event);
        if refusal.is_none() {
            model.go_through(event);
        }
        assert_eq!(waiting.step(), model.now, "after {event:?}");
        // A step leaves rows to later ones.
        if refusal.is_some() || !matches!(event, Event::Step(..)) {
            let context = || format!("{way:?}, {exec:?}, {offset}, {event:?}, {refusal:?}");
            arrays.check(&model.columns, context);
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
    exec: Exec,
    offset: usize,
    misfit: Option<Misfit>,
    arrays: &'a mut Arrays<F>,
    waiting: &'a mut DenseEquivalent<F>,
    step: Option<(&'a Adam, &'a Listed<F>)>,
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
                let table = self.arrays.table(self.misfit);
                let faults = Self::faults(self.exec, &table, self.waiting);
                faults.judge(self.waiting.catch_up_all_on(self.exec, table))
            }
            Event::SetStep(step) => {
                self.waiting.set_step(*step);
                None
            }
        }
    }

    /// Those that all calls may have.
    fn faults(exec: Exec, table: &Table<'_, Adam, F>, waiting: &DenseEquivalent<F>) -> Faults {
        let mut faults = Faults::default();
        faults.of_exec(exec);
        faults.of_table(&Adam::default(), table);
        faults.of_row_count(table, waiting.rows());
        faults
    }
}

impl<F: Float> WithRows for Call<'_, F> {
    fn run<I: RowIndex>(&mut self, rows: &[I]) -> Option<Error> {
        let (exec, width, waiting) = (self.exec, self.arrays.width, &mut *self.waiting);
        let table = self.arrays.table::<Adam>(self.misfit);
        let mut faults = Self::faults(exec, &table, waiting);
        faults.of_indices(rows, waiting.rows());
        let Some((adam, listed)) = self.step else {
            return faults.judge(waiting.catch_up_on(exec, table, rows));
        };
        faults.add(waiting.step() == u64::MAX, Error::StepOverflow);
        faults.of_rule::<_, F>(adam, waiting.step().saturating_add(1));
        if self.way == CatchUp::Series {
            faults.of_series(adam);
        }
        let values = Guarded::new(&listed.values, self.offset);
        let grads = listed.grads(rows, values.get(), width, self.misfit);
        faults.of_grads(&grads, table.width);
        faults.judge(adam.step_rows_dense_equivalent_on(exec, table, grads, waiting))
    }
}

/// What a [`DenseEquivalent`] does, written down without care for its cost.
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

    fn go_through(&mut self, event: &Event<F>) {
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
                self.columns.reference(adam, self.now, listed);
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
            let (param, [exp_avg, exp_avg_sq]) = self.columns.row::<Adam>(row);
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
            }
        }
    }
}
