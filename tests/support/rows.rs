//! One checker of steps on rows: of their bits, and of what they refuse.

mod dense_equivalent;
mod faults;

use std::{fmt::Debug, iter};

use adamant::{
    Error, Exec, Float, Many, RowGrads, RowIndex, RowOptimizer, RowRule, RowScratch, Table,
    reference::{self, RowReference},
};

use super::{Columns, Guarded, same_bits};
#[allow(unused_imports, reason = "each test takes what it needs")]
pub use dense_equivalent::{Event, check_dense_equivalent, check_dense_equivalent_or_refused};
use faults::Faults;
pub use faults::Misfit;

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

    /// The number of this type that is nearest to another.
    pub fn nearest(self, row: i128) -> i128 {
        let (least, most) = match self {
            Self::U32 => (0, u32::MAX.into()),
            Self::U64 => (0, u64::MAX.into()),
            Self::Usize => (0, usize::MAX as i128),
            Self::I32 => (i32::MIN.into(), i32::MAX.into()),
            Self::I64 => (i64::MIN.into(), i64::MAX.into()),
        };
        row.clamp(least, most)
    }
}

/// Something to do with indices of any type; may be refused.
trait WithRows {
    fn run<I: RowIndex>(&mut self, rows: &[I]) -> Option<Error>;
}

fn with_rows(index_type: IndexType, rows: &[i128], with: &mut impl WithRows) -> Option<Error> {
    macro_rules! as_type {
        ($index:ty) => {{
            let index = |&row| <$index>::try_from(row).expect("an index of the type");
            let rows: Vec<_> = rows.iter().map(index).collect();
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
    /// Those of the table, or any others of the type.
    pub rows: Vec<i128>,
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
        let rows = rows.into_iter().map(|row| row as i128).collect();
        Self { index_type, rows, values, stride }
    }

    fn grads<'a, I: RowIndex>(
        &self,
        rows: &'a [I],
        values: &'a [F],
        width: usize,
        misfit: Option<Misfit>,
    ) -> RowGrads<'a, I, F> {
        let width = if let Some(Misfit::GradWidth(width)) = misfit { width } else { width };
        RowGrads { rows, values, width, stride: self.stride }
    }
}

/// Indices that are all in the table.
fn places(rows: &[i128]) -> Vec<usize> {
    rows.iter().map(|&row| row as usize).collect()
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
    pub fn reference<R: RowReference + Debug>(&mut self, rule: &R, t: u64, listed: &Listed<F>) {
        let Listed { rows, values, stride, .. } = listed;
        for (row, grad) in reference::sum_rows(&places(rows), values, self.width, *stride) {
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

    /// With the misfit in place, if there is one.
    fn table<R: RowRule>(&mut self, misfit: Option<Misfit>) -> Table<'_, R, F> {
        let (arrays, rows) = (1 + self.moments.len(), self.param.len / self.width);
        let width = if let Some(Misfit::Width(width)) = misfit { width } else { self.width };
        let all = iter::once(&mut self.param).chain(&mut self.moments);
        let mut slices = all.enumerate().map(|(position, Guarded { buffer, start, len, .. })| {
            let len = match misfit {
                Some(Misfit::Len { array, len }) if array % arrays == position => len,
                Some(Misfit::Rows(other)) => other * len.checked_div(rows).unwrap_or(width),
                _ => *len,
            };
            // The guards stand in for what an array does not have.
            let most = buffer.len() - *start;
            &mut buffer[*start..][..len.min(most)]
        });
        let param = slices.next().expect("the parameters");
        Table { param, moments: many_rows::<R, F>(slices), width }
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
pub fn check_lazy<R: RowReference + Debug, F: Float>(
    rule: &R,
    t: u64,
    before: &RowColumns<F>,
    steps: &[Listed<F>],
    exec: Exec,
    offset: usize,
) {
    let steps = steps.iter().map(|listed| (listed, None));
    assert_eq!(check_lazy_or_refused(rule, t, before, steps, exec, offset), [], "valid steps");
}

/// Fails unless lazy steps, the first of which is `t`, give the bits of the reference and write
/// nothing else, or are refused for a reason that they have and write nothing; returns the errors.
#[track_caller]
pub fn check_lazy_or_refused<'a, R: RowReference + Debug, F: Float>(
    rule: &R,
    t: u64,
    before: &RowColumns<F>,
    steps: impl IntoIterator<Item = (&'a Listed<F>, Option<Misfit>)>,
    exec: Exec,
    offset: usize,
) -> Vec<Error> {
    struct Step<'a, R, F> {
        rule: &'a R,
        t: u64,
        exec: Exec,
        arrays: &'a mut Arrays<F>,
        listed: &'a Listed<F>,
        values: &'a [F],
        misfit: Option<Misfit>,
        scratch: &'a mut RowScratch,
    }
    impl<R: RowRule, F: Float> WithRows for Step<'_, R, F> {
        fn run<I: RowIndex>(&mut self, rows: &[I]) -> Option<Error> {
            let Self { rule, t, exec, misfit, .. } = *self;
            let grads = self.listed.grads(rows, self.values, self.arrays.width, misfit);
            let table = self.arrays.table::<R>(misfit);
            let mut faults = Faults::default();
            faults.of_exec(exec);
            faults.of_rule::<R, F>(rule, t);
            faults.of_table(rule, &table);
            faults.of_grads(&grads, table.width);
            faults.of_indices(rows, table.rows());
            faults.judge(rule.step_rows_lazy_on(exec, t, table, grads, self.scratch))
        }
    }

    let context =
        || format!("{rule:?}, first step {t}, {exec:?}, offset {offset}, width {}", before.width);
    let mut expected = before.clone();
    let mut arrays = Arrays::new(before, offset);
    let mut scratch = RowScratch::default();
    let mut refusals = vec![];
    for ((listed, misfit), later) in steps.into_iter().zip(0..) {
        let t = t.saturating_add(later);
        let values = Guarded::new(&listed.values, offset);
        let (arrays, scratch, values) = (&mut arrays, &mut scratch, values.get());
        let mut step = Step { rule, t, exec, arrays, listed, values, misfit, scratch };
        match with_rows(listed.index_type, &listed.rows, &mut step) {
            None => expected.reference(rule, t, listed),
            Some(error) => {
                arrays.check(&expected, || format!("refused: {error}, {}", context()));
                refusals.push(error);
            }
        }
    }
    arrays.check(&expected, context);
    refusals
}

/// Fails unless a table holds the bits of another.
#[track_caller]
pub fn assert_same_tables<F: Float>(found: &[F], expected: &[F]) {
    assert_eq!(found.len(), expected.len());
    for (place, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        assert!(same_bits(found, expected), "element {place}: {found:?}, expected {expected:?}");
    }
}
