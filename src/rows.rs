//! The ways in for tables of which a step touches some rows: embeddings.

mod dense_equivalent;
mod history;
mod order;
mod row_wise;
mod series;
mod sweep;

pub use dense_equivalent::{CatchUp, DenseEquivalent};
pub use order::RowScratch;
pub use row_wise::RowWiseAdam;

use core::fmt;

use crate::{
    Arity, Error, Exec, Float, MOMENTS, Many, State, Storage, array::elements_mut, kernel::Step,
    pieces::with_default_float_modes, prefetch::prefetch_row, state::Plan,
};

use order::Occurrences;
use sweep::RowUpdate;
pub(crate) use sweep::{RowFloat, RowSpan};

/// The gradient of some rows of a table: their indices, and for each index a row of values.
///
/// Indices may come in any order, and a row any number of times: its gradients are added up first,
/// in the order in which they are listed, and the row is stepped once with the sum.
///
/// # Examples
///
/// Rows 7 and 2 of a table that is three wide:
///
/// ```
/// use adamant::RowGrads;
///
/// let rows = [7_u32, 2];
/// let values = [0.1_f32, 0.2, 0.3, 1.1, 1.2, 1.3];
/// let grads = RowGrads::new(&rows, &values, 3);
/// assert_eq!(grads.stride, 3);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RowGrads<'a, I: RowIndex, F: Float> {
    /// The rows' indices, from 0.
    pub rows: &'a [I],
    /// For each index a row of gradients, `stride` after the one before; `width` of them are used.
    pub values: &'a [F],
    /// The number of parameters in a row, as in the table.
    pub width: usize,
    /// The number of elements from the start of a row of `values` to the start of the next: at least
    /// `width`.
    pub stride: usize,
}

impl<'a, I: RowIndex, F: Float> RowGrads<'a, I, F> {
    /// Rows of values that follow each other without gaps.
    pub fn new(rows: &'a [I], values: &'a [F], width: usize) -> Self {
        Self { rows, values, width, stride: width }
    }

    fn check(&self, width: usize) -> Result<(), Error> {
        let Self { rows, values, stride, .. } = *self;
        if self.width != width {
            return Err(Error::WidthMismatch { width: self.width, expected: width });
        }
        if stride < width {
            return Err(Error::StrideTooSmall { stride, width });
        }
        // What follows the last row may be there or not.
        let expected = match rows.len() {
            0 => Some(0..=0),
            count => stride.checked_mul(count).map(|most| most - (stride - width)..=most),
        };
        match expected {
            Some(expected) if expected.contains(&values.len()) => Ok(()),
            _ => {
                Err(Error::ValuesMismatch { len: values.len(), indices: rows.len(), width, stride })
            }
        }
    }
}

/// A type of row indices: `u32`, `u64`, `usize`, `i32` or `i64`; sealed.
pub trait RowIndex: index::Sealed + Copy + fmt::Debug + Send + Sync {
    /// The row, if it is one of the first `rows`.
    fn below(self, rows: usize) -> Option<usize>;

    /// The number as it is, for errors.
    fn value(self) -> i128;
}

mod index {
    pub trait Sealed {}
}

macro_rules! row_index {
    ($($index:ty),+) => {$(
        impl index::Sealed for $index {}

        impl RowIndex for $index {
            #[inline(always)]
            fn below(self, rows: usize) -> Option<usize> {
                usize::try_from(self).ok().filter(|&row| row < rows)
            }

            fn value(self) -> i128 {
                self as i128
            }
        }
    )+};
}

row_index!(u32, u64, usize, i32, i64);

/// A table of parameters, with its moments: rows of `width` elements, one after the other.
pub struct Table<'a, R: RowRule, F: Float> {
    /// The parameters: rows times `width`.
    pub param: &'a mut [F],
    /// The moments, each as long as the parameters, or as many elements as there are rows where the
    /// moment is [one a row](RowWiseAdam). Before the first step each holds what
    /// [`Rule::start`](crate::Rule::start) says: zeros mostly. One that the rule does without is empty.
    pub moments: Many<R::RowMoments, &'a mut [F]>,
    /// The number of parameters in a row: at least 1.
    pub width: usize,
}

impl<'a, R: RowRule, F: Float> Table<'a, R, F> {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.param.len().checked_div(self.width).unwrap_or(0)
    }

    fn check(&self, rule: &R) -> Result<(), Error> {
        let (width, len) = (self.width, self.param.len());
        if width == 0 {
            return Err(Error::ZeroWidth);
        }
        if !len.is_multiple_of(width) {
            return Err(Error::TableShape { len, width });
        }
        let rows = self.rows();
        let names = R::ROW_MOMENT_NAMES;
        for (position, (moment, &name)) in
            self.moments.as_ref().iter().zip(names.as_ref()).enumerate()
        {
            let (len, expected) = (moment.len(), rows * rule.moment_width(position, width));
            if len != expected {
                return Err(Error::MomentMismatch { moment: name, len, rows, width, expected });
            }
        }
        Ok(())
    }

    /// The same table for a shorter time, since a step takes it by value.
    pub fn reborrow(&mut self) -> Table<'_, R, F> {
        let mut moments = self.moments.as_mut().iter_mut();
        Table {
            param: self.param,
            moments: R::RowMoments::from_fn(|_| {
                moments.next().map_or(&mut [][..], |moment| &mut **moment)
            }),
            width: self.width,
        }
    }

    /// The parameters and moments of some rows, for one thread.
    ///
    /// # Safety
    ///
    /// Until the result is dropped, nobody else uses these rows.
    #[allow(unsafe_code, reason = "threads share a table, each for rows of its own")]
    unsafe fn part(&self, rule: &R, rows: core::ops::Range<usize>) -> Table<'_, R, F> {
        let width = self.width;
        let of = |width: usize| rows.start * width..rows.end * width;
        let moments = self.moments.as_ref();
        Table {
            // SAFETY: within the arrays, which have as many rows; not aliased: the caller's promise.
            param: unsafe { elements_mut(&self.param, of(width)) },
            moments: R::RowMoments::from_fn(|position| {
                // SAFETY: as above.
                unsafe { elements_mut(&moments[position], of(rule.moment_width(position, width))) }
            }),
            width,
        }
    }

    /// The parameters and moments of some rows.
    #[inline(always)]
    fn rows_mut(&mut self, rule: &R, rows: core::ops::Range<usize>) -> Table<'_, R, F> {
        let width = self.width;
        let mut moments = self.moments.as_mut().iter_mut();
        Table {
            param: &mut self.param[rows.start * width..rows.end * width],
            moments: R::RowMoments::from_fn(
                #[inline(always)]
                |position| {
                    let width = rule.moment_width(position, width);
                    let moment = moments.next().map_or(&mut [][..], |moment| &mut **moment);
                    &mut moment[rows.start * width..rows.end * width]
                },
            ),
            width,
        }
    }

    /// Asks for the memory of a row.
    #[inline(always)]
    fn prefetch(&self, rule: &R, row: usize) {
        prefetch_row(self.param, row * self.width, self.width);
        for (position, moment) in self.moments.as_ref().iter().enumerate() {
            let width = rule.moment_width(position, self.width);
            prefetch_row(moment, row * width, width);
        }
    }
}

impl<R: RowRule, F: Float> fmt::Debug for Table<'_, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("Table");
        fields.field("width", &self.width).field("param", &self.param);
        for (name, moment) in R::ROW_MOMENT_NAMES.into_iter().zip(self.moments.as_ref()) {
            fields.field(name, moment);
        }
        fields.finish()
    }
}

/// What can step the rows of a table: every [`Rule`](crate::Rule), which takes each parameter for
/// itself, and [`RowWiseAdam`], which keeps a moment for the row as a whole; sealed.
///
/// `RowMoments` is [`Rule::Moments`](crate::Rule::Moments) for a rule, and so
/// [`Count<2>`](crate::Count) for [`Adam`](crate::Adam), and [`Count<2>`](crate::Count) for
/// [`RowWiseAdam`]: `Many<R::RowMoments, &mut [f32]>` is an array of as many slices.
pub trait RowRule: Copy + Send + Sync + RowUpdate {}

impl<R: RowUpdate> RowRule for R {}

/// Steps on some rows of a table; every [`Rule`](crate::Rule), and [`RowWiseAdam`], has these methods.
///
/// # Lazy
///
/// Rows that a call does not list keep their parameters and moments exactly as they are, whatever
/// the optimizer: what Adam's authors describe for sparse gradients, PyTorch's `SparseAdam` and
/// TensorFlow's `LazyAdam`. Everything that depends on the step, such as the bias correction, counts
/// the steps of the table, not those of the row. Weight decay, of either kind, touches the listed
/// rows only: a row that is rarely listed hardly decays.
///
/// A dense step with zeros for the rows that are not listed is something else, since there moments
/// decay and parameters move on; [`DenseEquivalent`] has its results.
///
/// # Cost
///
/// A step costs what it touches: the listed rows and their moments, once, and a sort of the indices.
/// It does not depend on the size of the table. Threads share the work as in
/// [`Optimizer`](crate::Optimizer).
///
/// # Errors
///
/// All methods find every error before the first write; on `Err`, no buffer has changed:
///
/// - [`Error::HyperParameter`] or [`Error::ConstantOverflow`] for a hyper-parameter;
/// - [`Error::ZeroWidth`] or [`Error::TableShape`] if the parameters are no rows of `width`,
///   [`Error::MomentMismatch`] if a moment does not fit them;
/// - [`Error::WidthMismatch`], [`Error::StrideTooSmall`] or [`Error::ValuesMismatch`] for a gradient
///   that does not fit table or indices;
/// - [`Error::RowOutOfRange`] for an index beyond the table or negative,
///   [`Error::TooManyRows`] if indices and rows together take more than 64 bits to number;
/// - [`Error::ZeroStep`] if `t` is 0, [`Error::StepOverflow`] if a state can't count the step;
/// - [`Error::UnknownIsa`] or [`Error::IsaUnavailable`] for the instruction set.
pub trait RowOptimizer: RowRule {
    /// Moments for a table of `rows` by `width` parameters, as they are before the first step.
    ///
    /// # Panics
    ///
    /// If the moments take more than `isize::MAX` bytes, as `Vec` does.
    fn row_state(&self, rows: usize, width: usize) -> State {
        self.row_state_in(Storage::F32, rows, width)
    }

    /// [`row_state`](Self::row_state) in a storage: `f32` for tables in `f32`, `f64` for those in `f64`.
    ///
    /// # Panics
    ///
    /// As [`row_state`](Self::row_state).
    fn row_state_in(&self, storage: Storage, rows: usize, width: usize) -> State {
        let names = Self::ROW_MOMENT_NAMES;
        let plans = names.as_ref().iter().enumerate().map(|(moment, &name)| Plan {
            name,
            format: self.moment_format(moment),
            len: rows.saturating_mul(self.moment_width(moment, width)),
            start: self.moment_start(moment),
            storage,
        });
        State::new(rows.saturating_mul(width), plans)
    }

    /// Takes the next step of `state`, on the listed rows of a table only ([lazy](Self#lazy)), and
    /// counts it.
    ///
    /// The rows are as wide as those of the gradient.
    ///
    /// # Examples
    ///
    /// ```
    /// use adamant::{Adam, RowGrads, RowOptimizer};
    ///
    /// let adam = Adam::default();
    /// let mut table = vec![1.0_f32; 10 * 2];
    /// let mut state = adam.row_state(10, 2);
    /// let grads = RowGrads::new(&[7_u32, 2, 7], &[0.1, 0.1, 0.2, 0.2, 0.3, 0.3], 2);
    /// adam.step_rows_lazy(&mut table, grads, &mut state)?;
    /// assert_eq!(table[4..6], [0.999, 0.999]);
    /// assert_eq!(table[14..16], [0.999, 0.999]);
    /// assert_eq!(table.iter().filter(|&&param| param == 1.0).count(), 16);
    /// # Ok::<(), adamant::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [As above](Self#errors).
    fn step_rows_lazy<I: RowIndex, F: Float>(
        &self,
        param: &mut [F],
        grads: RowGrads<'_, I, F>,
        state: &mut State,
    ) -> Result<(), Error> {
        let (table, steps, scratch) = table_of(param, grads.width, state)?;
        let t = steps.checked_add(1).ok_or(Error::StepOverflow)?;
        self.step_rows_lazy_on(Exec::default(), t, table, grads, scratch)?;
        *steps = t;
        Ok(())
    }

    /// Takes step `t`, counted from 1, on the listed rows of a table only ([lazy](Self#lazy)), with
    /// memory that is all the caller's; run as told.
    ///
    /// # Examples
    ///
    /// ```
    /// use adamant::{Exec, Lion, RowGrads, RowOptimizer, RowScratch, Table};
    ///
    /// let (mut param, mut exp_avg) = (vec![1.0_f32; 10 * 2], vec![0.0; 10 * 2]);
    /// let mut scratch = RowScratch::default();
    /// for t in 1..=3 {
    ///     let table = Table { param: &mut param, moments: [&mut exp_avg[..]], width: 2 };
    ///     let grads = RowGrads::new(&[7_i64, 2], &[0.1, 0.1, -0.2, -0.2], 2);
    ///     Lion::default().step_rows_lazy_on(Exec::default(), t, table, grads, &mut scratch)?;
    /// }
    /// assert!(param[14] < 1.0 && param[4] > 1.0);
    /// # Ok::<(), adamant::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [As above](Self#errors).
    fn step_rows_lazy_on<I: RowIndex, F: Float>(
        &self,
        exec: Exec<'_>,
        t: u64,
        mut table: Table<'_, Self, F>,
        grads: RowGrads<'_, I, F>,
        scratch: &mut RowScratch,
    ) -> Result<(), Error> {
        let cpu = exec.cpu()?;
        let step = with_default_float_modes(|| Step::new::<F>(self, cpu, t))?;
        table.check(self)?;
        grads.check(table.width)?;
        let listed = scratch.sort(grads.rows, table.rows())?;
        step_listed(exec, *self, &step, table.reborrow(), grads.into(), listed);
        Ok(())
    }
}

/// Whatever does not depend on the type of the indices; compiled once for all of them.
fn step_listed<'a, R: RowRule, F: Float>(
    exec: Exec<'_>,
    rule: R,
    step: &'a Step<R>,
    table: Table<'a, R, F>,
    values: Values<'a, F>,
    listed: Occurrences<'a>,
) {
    let (cpu, update) = (step.cpu, Some((step, values)));
    let span = RowSpan { cpu, rule, update, table, first: 0, before: (), listed };
    F::run_listed(span, exec.threads);
}

impl<R: RowRule> RowOptimizer for R {}

/// A table of parameters and the moments of a state, with its step count and what sorts rows.
fn table_of<'a, R: RowRule, F: Float>(
    param: &'a mut [F],
    width: usize,
    state: &'a mut State,
) -> Result<(Table<'a, R, F>, &'a mut u64, &'a mut RowScratch), Error> {
    let names = R::ROW_MOMENT_NAMES;
    let (found, steps, scratch) = state.typed_parts_mut::<F>();
    let mut slices: [&mut [F]; MOMENTS] = Default::default();
    for (position, (name, storage, moment)) in found.into_iter().enumerate() {
        let expected = names.as_ref().get(position).copied().unwrap_or_default();
        if name != expected {
            return Err(Error::StateMismatch { tensor: 0, found: name, expected });
        }
        match moment {
            Some(moment) => slices[position] = moment,
            None => {
                let (argument, expected) = (name, F::STORAGE);
                return Err(Error::TypeMismatch { tensor: 0, argument, found: storage, expected });
            }
        }
    }
    let mut slices = slices.into_iter();
    let moments = R::RowMoments::from_fn(|_| slices.next().unwrap_or_default());
    Ok((Table { param, moments, width }, steps, scratch))
}

impl State {
    /// A table of these moments and the given parameters, in rows of `width`.
    ///
    /// # Errors
    ///
    /// [`Error::StateMismatch`] if the moments are those of another optimizer,
    /// [`Error::TypeMismatch`] if they are not kept in the type of the parameters.
    pub fn table<'a, R: RowRule, F: Float>(
        &'a mut self,
        param: &'a mut [F],
        width: usize,
    ) -> Result<Table<'a, R, F>, Error> {
        table_of(param, width, self).map(|(table, ..)| table)
    }
}

/// The values of a gradient, whatever the type of its indices.
#[derive(Clone, Copy)]
struct Values<'a, F> {
    values: &'a [F],
    width: usize,
    stride: usize,
}

impl<'a, I: RowIndex, F: Float> From<RowGrads<'a, I, F>> for Values<'a, F> {
    fn from(RowGrads { values, width, stride, .. }: RowGrads<'a, I, F>) -> Self {
        Self { values, width, stride }
    }
}

impl<'a, F: Float> Values<'a, F> {
    #[inline(always)]
    fn row(self, position: usize) -> &'a [F] {
        &self.values[position * self.stride..][..self.width]
    }

    #[inline(always)]
    fn prefetch(self, position: usize) {
        prefetch_row(self.values, position * self.stride, self.width);
    }
}
