//! The ways in for tables of which a step touches some rows: embeddings.

mod arrays;
mod dense_equivalent;
mod grads;
mod history;
mod order;
mod row_wise;
mod series;
mod sum;
mod sweep;

pub use arrays::Table;
pub use dense_equivalent::{CatchUp, DenseEquivalent};
pub use grads::{RowGrads, RowIndex};
pub use order::RowScratch;
pub use row_wise::RowWiseAdam;

use crate::{
    Error, Exec, Float, State, Storage, kernel::Step, pieces::with_default_float_modes, state::Plan,
};

use arrays::table_of;
use grads::Values;
use order::Occurrences;
use sweep::RowUpdate;
pub(crate) use sweep::{RowFloat, RowSpan};

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
