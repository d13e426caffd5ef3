//! One checker of the bits of steps on rows.

use std::{collections::BTreeSet, fmt::Debug};

use adamant::{
    Adam, CatchUp, DenseEquivalent, Error, Exec, Float, Many, RowGrads, RowIndex, RowOptimizer,
    RowRule, RowScratch, RowWiseAdam, Table, reference,
};

use super::{Columns, Guarded, Specified, same_bits};

/// A rule for rows, and the reference that its kernels answer to.
pub trait SpecifiedRows: RowRule + Debug {
    /// A step of one row.
    fn reference_row<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        moments: Many<Self::RowMoments, &mut [F]>,
    );
}

impl<R: Specified + Debug> SpecifiedRows for R {
    fn reference_row<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        moments: Many<R::Moments, &mut [F]>,
    ) {
        self.reference(t, param, grad, moments);
    }
}

impl SpecifiedRows for RowWiseAdam {
    fn reference_row<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        [exp_avg, exp_avg_sq]: [&mut [F]; 2],
    ) {
        reference::row_wise_adam(self, t, param, grad, exp_avg, &mut exp_avg_sq[0]);
    }
}

/// As many slices as a rule for rows has moments.
fn many_rows<'a, R: RowRule, F: Float>(
    slices: impl IntoIterator<Item = &'a mut [F]>,
) -> Many<R::RowMoments, &'a mut [F]> {
    use adamant::Arity;
    let mut slices = slices.into_iter();
    R::RowMoments::from_fn(|_| slices.next().expect("a slice for each moment"))
}

/// The type of a call's indices.
#[derive(Clone, Copy, Debug)]
pub enum IndexType {
    U32,
    U64,
    Usize,
    I32,
    I64,
}

impl IndexType {
    pub const ALL: [Self; 5] = [Self::U32, Self::U64, Self::Usize, Self::I32, Self::I64];
}

/// Something to do with indices of any type.
trait WithRows {
    fn run<I: RowIndex>(&mut self, rows: &[I]) -> Result<(), Error>;
}

fn with_rows(index_type: IndexType, rows: &[i128], with: &mut impl WithRows) -> Result<(), Error> {
    macro_rules! as_type {
        ($index:ty) => {{
            let rows: Vec<_> = rows.iter().map(|&row| row as $index).collect();
            with.run(&rows)
        }};
    }
    match index_type {
        IndexType::U32 => as_type!(u32),
        IndexType::U64 => as_type!(u64),
        IndexType::Usize => as_type!(usize),
        IndexType::I32 => as_type!(i32),
        IndexType::I64 => as_type!(i64),
    }
}

/// A gradient of some rows, as a call passes it.
#[derive(Clone, Debug)]
pub struct Listed<F> {
    pub index_type: IndexType,
    pub rows: Vec<usize>,
    pub values: Vec<F>,
    pub stride: usize,
}

impl<F: Float> Listed<F> {
    /// Values from a function of their position.
    pub fn new(
        index_type: IndexType,
        rows: Vec<usize>,
        stride: usize,
        value: impl FnMut(usize) -> F,
    ) -> Self {
        let values = (0..rows.len() * stride).map(value).collect();
        Self { index_type, rows, values, stride }
    }

    fn indices(&self) -> Vec<i128> {
        self.rows.iter().map(|&row| row as i128).collect()
    }
}

/// A table with its moments, and how it is laid out.
#[derive(Clone, Debug)]
pub struct RowColumns<F> {
    pub width: usize,
    pub param: Vec<F>,
    pub moments: Vec<Vec<F>>,
}

impl<F: Float> RowColumns<F> {
    /// A table for a rule, each element the `value` of its column and place.
    pub fn new<R: RowRule>(
        rule: &R,
        rows: usize,
        width: usize,
        mut value: impl FnMut(usize, usize) -> F,
    ) -> Self {
        let mut column = |column, len| (0..len).map(|place| value(column, place)).collect();
        let state = rule.row_state::<F>(rows, width);
        Self {
            width,
            param: column(0, rows * width),
            moments: (state.moments().into_iter().zip(2..))
                .map(|(moment, position)| column(position, moment.len()))
                .collect(),
        }
    }

    pub fn rows(&self) -> usize {
        self.param.len() / self.width
    }

    pub fn table<R: RowRule>(&mut self) -> Table<'_, R, F> {
        let moments = self.moments.iter_mut().map(Vec::as_mut_slice);
        Table { param: &mut self.param, moments: many_rows::<R, F>(moments), width: self.width }
    }

    /// The parameters and moments of a row.
    fn row<R: RowRule>(&mut self, row: usize) -> (&mut [F], Many<R::RowMoments, &mut [F]>) {
        let rows = self.rows();
        let moments = self.moments.iter_mut().map(|moment| {
            let width = moment.len() / rows;
            &mut moment[row * width..][..width]
        });
        (&mut self.param[row * self.width..][..self.width], many_rows::<R, F>(moments))
    }

    /// What the reference makes of the listed rows.
    pub fn reference<R: SpecifiedRows>(&mut self, rule: &R, t: u64, listed: &Listed<F>) {
        let Listed { rows, values, stride, .. } = listed;
        for (row, grad) in reference::sum_rows(rows, values, self.width, *stride) {
            let (param, moments) = self.row::<R>(row);
            rule.reference_row(t, param, &grad, moments);
        }
    }

    /// Fails at the first element whose bits differ; every NaN is like every other.
    #[track_caller]
    pub fn assert_same_bits(&self, expected: &Self, context: impl Fn() -> String) {
        let columns = |columns: &Self| Columns {
            param: columns.param.clone(),
            grad: vec![],
            moments: columns.moments.clone(),
        };
        columns(self).assert_same_bits(&columns(expected), context);
    }
}

/// The arrays of a call, with guards around them.
struct Arrays<F> {
    width: usize,
    param: Guarded<F>,
    moments: Vec<Guarded<F>>,
}

impl<F: Float> Arrays<F> {
    fn new(columns: &RowColumns<F>, offset: usize) -> Self {
        let guarded = |column: &Vec<F>| Guarded::new(column, offset);
        Self {
            width: columns.width,
            param: guarded(&columns.param),
            moments: columns.moments.iter().map(guarded).collect(),
        }
    }

    fn table<R: RowRule>(&mut self) -> Table<'_, R, F> {
        let moments = self.moments.iter_mut().map(Guarded::get_mut);
        Table {
            param: self.param.get_mut(),
            moments: many_rows::<R, F>(moments),
            width: self.width,
        }
    }

    #[track_caller]
    fn check(&self, expected: &RowColumns<F>, context: impl Fn() -> String) {
        let found = RowColumns {
            width: self.width,
            param: self.param.get().to_vec(),
            moments: self.moments.iter().map(|moment| moment.get().to_vec()).collect(),
        };
        found.assert_same_bits(expected, context);
        self.param.check_guards("param");
        self.moments.iter().for_each(|moment| moment.check_guards("moment"));
    }
}

/// Fails unless lazy steps, the first of which is `t`, give the bits of the reference and write
/// nothing else.
#[track_caller]
pub fn check_lazy<R: SpecifiedRows, F: Float>(
    rule: &R,
    t: u64,
    before: &RowColumns<F>,
    steps: &[Listed<F>],
    exec: Exec,
    offset: usize,
) {
    struct Step<'a, R, F> {
        rule: &'a R,
        t: u64,
        exec: Exec,
        arrays: &'a mut Arrays<F>,
        listed: &'a Listed<F>,
        values: &'a [F],
        scratch: &'a mut RowScratch,
    }
    impl<R: RowRule, F: Float> WithRows for Step<'_, R, F> {
        fn run<I: RowIndex>(&mut self, rows: &[I]) -> Result<(), Error> {
            let (width, stride) = (self.arrays.width, self.listed.stride);
            let grads = RowGrads { rows, values: self.values, width, stride };
            let table = self.arrays.table::<R>();
            self.rule.step_rows_lazy_on(self.exec, self.t, table, grads, self.scratch)
        }
    }

    let mut expected = before.clone();
    let mut arrays = Arrays::new(before, offset);
    let mut scratch = RowScratch::default();
    for (t, listed) in (t..).zip(steps) {
        expected.reference(rule, t, listed);
        let values = Guarded::new(&listed.values, offset);
        let (arrays, scratch) = (&mut arrays, &mut scratch);
        let mut step = Step { rule, t, exec, arrays, listed, values: values.get(), scratch };
        with_rows(listed.index_type, &listed.indices(), &mut step).expect("a valid step");
    }
    arrays.check(&expected, || {
        format!("{rule:?}, step {t}, {exec:?}, offset {offset}, width {}", before.width)
    });
}

/// Something that a table with a [`DenseEquivalent`] goes through.
#[derive(Clone, Debug)]
pub enum Event<F> {
    Step(Adam, Listed<F>),
    CatchUp(IndexType, Vec<usize>),
    CatchUpAll,
}

/// Fails unless the events, and then catching up with the whole table, give the bits of the
/// reference.
#[track_caller]
pub fn check_dense_equivalent<F: Float>(
    way: CatchUp,
    start: u64,
    before: &RowColumns<F>,
    events: &[Event<F>],
    exec: Exec,
    offset: usize,
) {
    struct Call<'a, F: Float> {
        exec: Exec,
        arrays: &'a mut Arrays<F>,
        waiting: &'a mut DenseEquivalent<F>,
        step: Option<(Adam, &'a [F], usize)>,
    }
    impl<F: Float> WithRows for Call<'_, F> {
        fn run<I: RowIndex>(&mut self, rows: &[I]) -> Result<(), Error> {
            let width = self.arrays.width;
            let (exec, table) = (self.exec, self.arrays.table::<Adam>());
            match self.step {
                None => self.waiting.catch_up_on(exec, table, rows),
                Some((adam, values, stride)) => {
                    let grads = RowGrads { rows, values, width, stride };
                    adam.step_rows_dense_equivalent_on(exec, table, grads, self.waiting)
                }
            }
        }
    }

    let mut model = Model::new(way, start, before.clone());
    let mut arrays = Arrays::new(before, offset);
    let mut waiting = DenseEquivalent::new(before.rows(), way);
    waiting.set_step(start);
    for event in events.iter().chain([&Event::CatchUpAll]) {
        model.go_through(event);
        let (arrays, waiting) = (&mut arrays, &mut waiting);
        match event {
            Event::Step(adam, listed) => {
                let values = Guarded::new(&listed.values, offset);
                let step = Some((*adam, values.get(), listed.stride));
                let mut call = Call { exec, arrays, waiting, step };
                with_rows(listed.index_type, &listed.indices(), &mut call)
            }
            Event::CatchUp(index_type, rows) => {
                let rows: Vec<_> = rows.iter().map(|&row| row as i128).collect();
                let mut call = Call { exec, arrays, waiting, step: None };
                with_rows(*index_type, &rows, &mut call)
            }
            Event::CatchUpAll => waiting.catch_up_all_on(exec, arrays.table()),
        }
        .expect("a valid call");
    }
    arrays.check(&model.columns, || format!("{way:?}, {exec:?}, offset {offset}, {events:?}"));
}

/// What a [`DenseEquivalent`] does, written down without care for its cost.
struct Model<F> {
    way: CatchUp,
    columns: RowColumns<F>,
    now: u64,
    /// The step that each row is at.
    at: Vec<u64>,
    /// The steps since the rule last changed.
    steps: Vec<(u64, Adam)>,
}

impl<F: Float> Model<F> {
    fn new(way: CatchUp, start: u64, columns: RowColumns<F>) -> Self {
        let at = vec![start; columns.rows()];
        Self { way, columns, now: start, at, steps: vec![] }
    }

    fn go_through(&mut self, event: &Event<F>) {
        match event {
            Event::CatchUpAll => self.catch_up(0..self.columns.rows()),
            Event::CatchUp(_, rows) => self.catch_up(rows.iter().copied()),
            Event::Step(adam, listed) => {
                let regime = |adam: &Adam| {
                    let weight_decay = f64::from(adam.weight_decay != 0.0);
                    Adam { lr: 0.0, weight_decay, ..*adam }
                };
                if self.steps.last().is_some_and(|(_, last)| regime(last) != regime(adam)) {
                    self.catch_up(0..self.columns.rows());
                    self.steps.clear();
                }
                let rows: BTreeSet<_> = listed.rows.iter().copied().collect();
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
                        reference::adam(adam, *t, param, &zeros, exp_avg, exp_avg_sq);
                    }
                }
            }
        }
    }
}

/// Fails unless a table holds the bits of another.
#[track_caller]
pub fn assert_same_tables<F: Float>(found: &[F], expected: &[F]) {
    assert_eq!(found.len(), expected.len());
    for (place, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        assert!(same_bits(found, expected), "element {place}: {found:?}, expected {expected:?}");
    }
}
