//! One checker of steps on rows: of their bits, and of what they refuse.

mod dense_equivalent;
mod faults;

use std::{fmt::Debug, iter};

use adamant::{
    Error, Exec, Float, Grad, Many, NormOrder, Report, RowGrads, RowIndex, RowOptimizer, RowRule,
    RowScratch, SortedRows, StepOptions, Table, grad_norms,
    reference::{self, RowReference},
};

use super::{
    Columns, Guarded,
    mixed::{factor_of, needs_norm, outcome_of},
    same_bits,
};
#[allow(unused_imports, reason = "each test takes what it needs")]
pub use dense_equivalent::{
    Event, check_dense_equivalent, check_dense_equivalent_or_refused, check_dense_equivalent_with,
};
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

    /// Whether all rows are in the table, and have values.
    fn fits(&self, table: &RowColumns<F>) -> bool {
        let Self { rows, values, stride, .. } = self;
        let (count, width) = (rows.len(), table.width);
        let needed = count.saturating_sub(1).saturating_mul(*stride).saturating_add(width);
        let in_table = |row: &i128| (0..table.rows() as i128).contains(row);
        rows.iter().all(in_table) && *stride >= width && (count == 0 || values.len() >= needed)
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

/// The norm that a report is to tell of a step with options, if any; `sums` are the gradients of the
/// rows, each added up.
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

/// Fails unless a report tells the norm and the outcome of a step; returns what gradients are
/// multiplied by, or `None` if the step is left out.
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
        let state = rule.row_state_in(F::STORAGE, rows, width);
        // The state leaves out moments that the rule does without.
        let len = |name| state.moment(name).map_or(0, |moment| moment.len());
        Self {
            width,
            param: column(0, rows * width),
            moments: (R::ROW_MOMENT_NAMES.into_iter().zip(2..))
                .map(|(name, position)| column(position, len(name)))
                .collect(),
        }
    }

    pub fn rows(&self) -> usize {
        self.param.len() / self.width
    }

    pub fn table(&mut self) -> Table<'_> {
        let moments = self.moments.iter_mut().map(|moment| F::moment(moment));
        Table::new(F::param(&mut self.param), self.width).with_moments(moments)
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

    /// The gradients of the listed rows, each added up.
    pub fn sums(&self, listed: &Listed<F>) -> Vec<Vec<F>> {
        let Listed { rows, values, stride, .. } = listed;
        reference::sum_rows(&places(rows), values, self.width, *stride).into_values().collect()
    }

    /// What the reference makes of the listed rows, with gradients multiplied by `grad_factor`.
    pub fn reference<R: RowReference + Debug>(
        &mut self,
        rule: &R,
        t: u64,
        listed: &Listed<F>,
        options: &StepOptions<'_>,
    ) {
        let Listed { rows, values, stride, .. } = listed;
        let factor = F::from_f64(options.grad_factor);
        let smallest = F::from_f64(match size_of::<F>() {
            4 => f32::MIN_POSITIVE.into(),
            _ => f64::MIN_POSITIVE,
        });
        for (row, mut grad) in reference::sum_rows(&places(rows), values, self.width, *stride) {
            if options.grad_factor != 1.0 {
                grad.iter_mut().for_each(|grad| *grad = *grad * factor);
            }
            let (param, moments) = self.row::<R>(row);
            rule.reference_row(t, param, &grad, moments);
            if options.flush_subnormals {
                let (_, mut moments) = self.row::<R>(row);
                for value in moments.as_mut().iter_mut().flat_map(|moment| moment.iter_mut()) {
                    if value.abs() < smallest {
                        *value = F::default();
                    }
                }
            }
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

    /// The width and the lengths of the parameters and moments, with the misfit in place, if there is
    /// one.
    fn sizes(&self, misfit: Option<Misfit>) -> (usize, Vec<usize>) {
        let (arrays, rows) = (1 + self.moments.len(), self.param.len / self.width);
        let width = if let Some(Misfit::Width(width)) = misfit { width } else { self.width };
        let all = iter::once(&self.param).chain(&self.moments).enumerate();
        let lens = all.map(|(position, Guarded { buffer, start, len, .. })| {
            let len = match misfit {
                Some(Misfit::Len { array, len }) if array % arrays == position => len,
                Some(Misfit::Rows(other)) => other * len.checked_div(rows).unwrap_or(width),
                _ => *len,
            };
            // The guards stand in for what an array does not have.
            len.min(buffer.len() - *start)
        });
        (width, lens.collect())
    }

    /// With the misfit in place, if there is one.
    fn table(&mut self, misfit: Option<Misfit>) -> Table<'_> {
        let (width, lens) = self.sizes(misfit);
        let all = iter::once(&mut self.param).chain(&mut self.moments).zip(lens);
        let mut slices =
            all.map(|(Guarded { buffer, start, .. }, len)| &mut buffer[*start..][..len]);
        let param = slices.next().expect("the parameters");
        Table::new(F::param(param), width).with_moments(slices.map(|moment| F::moment(moment)))
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

/// Fails unless lazy steps, the first of which is `t`, give the bits of the reference and write
/// nothing else, or are refused for a reason that they have and write nothing; returns the errors.
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

/// What the check of lazy steps needs of a rule. By a pointer: compiled for each rule and type of indices, the check
/// would take most of the time of compiling the tests.
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
