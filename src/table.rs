//! Steps on some rows of a table: embeddings.
//!
//! A batch uses a few rows of an embedding table. A step reads and writes these rows alone, so its cost does not
//! depend on the size of the table. [`RowOptimizer`] has the steps, [`RowGrads`] the gradients:
//!
//! ```
//! use adamant::{
//!     Adam,
//!     table::{RowGrads, RowOptimizer},
//! };
//!
//! let (rows, width) = (10_000, 64);
//! let adam = Adam { lr: 1e-3, ..Adam::default() };
//! let mut table = vec![1.0_f32; rows * width];
//! let mut state = adam.row_state(rows, width);
//! let (ids, grads) = ([7_u32, 4096, 7], vec![0.1; 3 * width]);
//! adam.step_rows_lazy(&mut table, RowGrads::new(&ids, &grads, width), &mut state)?;
//! # Ok::<(), adamant::Error>(())
//! ```
//!
//! | | rows that are not listed | for |
//! |---|---|---|
//! | [`step_rows_lazy`](RowOptimizer#lazy) | stay as they are: PyTorch's `SparseAdam` | every optimizer |
//! | [`step_rows_dense_equivalent`](DenseEquivalent) | catch up when they are next needed: TensorFlow's Adam | Adam, AdamW |
//!
//! Rows that catch up take the dense steps that they have missed, each with a gradient of zero.
//!
//! The second way needs more: a [`DenseEquivalent`] beside the state, a call of
//! [`catch_up`](DenseEquivalent::catch_up) before each forward pass, and a call of
//! [`catch_up_all`](DenseEquivalent::catch_up_all) before the table is saved or evaluated. Only
//! [`CatchUp::Replay`] has the bits of dense steps. With [`CatchUp::Series`], saving changes the roundings of
//! the steps that follow.
//!
//! The first way takes arrays of any type, the second `f32` or `f64`. Both take [`StepOptions`]. To clip a model
//! with tables by one norm, [sort](RowGrads::sort) the gradients of the tables first.
//!
//! A method whose name ends in `_with` takes options as its last argument. One that ends in `_on` takes a [`Table`],
//! which is in the caller's memory, in place of parameters and a [`State`].
//!
//! [`RowWiseAdam`] keeps one second moment for a whole row. A table in a [`Buffer`](crate::Buffer) lies on huge
//! pages.

mod any;
mod arrays;
mod as_tensors;
mod behind;
mod dense_equivalent;
mod grads;
mod history;
mod layout;
mod lazy;
mod norm;
mod order;
mod row_wise;
mod series;
mod sums;
mod sweep;
mod typed;
mod update;

pub use arrays::Table;
pub use dense_equivalent::{CatchUp, DenseEquivalent};
pub use grads::{RowGrads, RowIndex, SortedRows};
pub use order::RowScratch;
pub use row_wise::RowWiseAdam;
pub(crate) use sweep::RowSpan;

use crate::{
    Element, Error, Outcome, Param, Report, State, StepOptions, Storage,
    float_modes::with_default_float_modes, rule::MOMENTS, state::Plan,
};
use layout::RowLayout;
use lazy::step_listed;
use update::RowUpdate;

/// An optimizer that can step the rows of a table: every [`Rule`](crate::rule::Rule), and [`RowWiseAdam`],
/// which keeps one moment for a whole row. Sealed.
///
/// Its moments are [`Rule::MOMENT_NAMES`](crate::rule::Rule::MOMENT_NAMES) for a rule, and those of
/// [`Adam`](crate::Adam) for [`RowWiseAdam`].
pub trait RowRule: Copy + Send + Sync + RowUpdate {}

impl<R: RowUpdate> RowRule for R {}

/// Steps on some rows of a table; every [`Rule`](crate::rule::Rule), and [`RowWiseAdam`], has these methods.
/// Sealed.
///
/// # Lazy
///
/// Rows that a call does not list keep their parameters and moments exactly as they are, whatever
/// the optimizer. Adam's authors describe this for sparse gradients; so do PyTorch's `SparseAdam` and
/// TensorFlow's `LazyAdam`. The bias correction, and everything else that depends on the step, counts the steps of
/// the table and not those of the row. Weight decay of either kind touches the listed rows only: a row that
/// is rarely listed hardly decays.
///
/// A dense step with zeros for the rows that are not listed has other results: moments decay, and
/// parameters move on. [`DenseEquivalent`] has those results.
///
/// # Types
///
/// Parameters, moments and gradients are of the types that a [`Tensor`](crate::Tensor) takes, in any mix:
/// with [`step_rows_lazy_with`](Self::step_rows_lazy_with) and a [`Param`], also parameters in bf16 that are
/// rounded at random, in two halves, or with a copy. A listed row is stepped as a tensor of its elements, with
/// the row's sum as its gradient, and gets the random bits of its place in the table. Two kinds of table
/// take fewer types:
///
/// - Moments of [8 bits](crate::Q8) need rows of a multiple of 256 parameters, since 256 elements share a
///   scale, and a row must not change the scale of another.
/// - [`RowWiseAdam`] and [`DenseEquivalent`] take arrays that are all in `f32`, or all in `f64`.
///
/// # Cost
///
/// A step reads and writes the listed rows and their moments once, and sorts the indices. Its cost does not
/// depend on the size of the table. A factor for gradients costs one more pass over the gradient of each row,
/// in cache; a norm costs one pass over all gradients. Threads share the work as in
/// [`Optimizer`](crate::Optimizer).
///
/// # Errors
///
/// All methods find every error before the first write; on `Err`, no buffer has changed:
///
/// - [`Error::HyperParameter`] or [`Error::ConstantOverflow`] for a hyper-parameter;
/// - [`Error::ZeroWidth`] or [`Error::TableShape`] if the parameters do not fill rows of `width`,
///   [`Error::MomentMismatch`] if a moment does not fit them, [`Error::TooManyMoments`] if there should be fewer,
///   [`Error::StateMismatch`] for a state whose moments have other names;
/// - [`Error::TypeMismatch`] if one of the arrays is `f64` and another one is not,
///   [`Error::TableStorage`] if [`RowWiseAdam`] does not take the type of an array,
///   [`Error::RowsInBlocks`] if a moment is in 8 bits and the width is not a multiple of 256,
///   [`Error::LengthMismatch`] for the copy or the lower half of parameters,
///   [`Error::ScalesMismatch`] for the scales of moments;
/// - [`Error::WidthMismatch`], [`Error::StrideTooSmall`], [`Error::ValuesMismatch`] or
///   [`Error::RowCountMismatch`] for a gradient that does not fit table or indices;
/// - [`Error::RowOutOfRange`] for an index that is negative, or not less than the number of rows,
///   [`Error::TooManyRows`] if indices and rows together take more than 64 bits to number;
/// - [`Error::ZeroStep`] if `t` is 0, [`Error::StepOverflow`] if a state cannot count the step;
/// - [`Error::UnknownIsa`] or [`Error::IsaUnavailable`] for the instruction set.
pub trait RowOptimizer: RowRule {
    /// Moments in `f32` for a table of `rows` by `width` parameters, as they are before the first step. Tables in `f64`
    /// need moments in `f64`: see [`row_state_in`](Self::row_state_in).
    ///
    /// # Panics
    ///
    /// If the moments take more than `isize::MAX` bytes, as `Vec` does.
    fn row_state(&self, rows: usize, width: usize) -> State {
        self.row_state_in(Storage::F32, rows, width)
    }

    /// [`row_state`](Self::row_state) in a storage: `f64` for tables in `f64`, and any other for all others.
    ///
    /// # Panics
    ///
    /// As [`row_state`](Self::row_state).
    fn row_state_in(&self, storage: Storage, rows: usize, width: usize) -> State {
        self.row_state_of(&[storage; MOMENTS], rows, width)
    }

    /// [`row_state`](Self::row_state) with a storage for each moment, in the order of
    /// [`Rule::MOMENT_NAMES`](crate::rule::Rule::MOMENT_NAMES). Moments beyond the end of `storages` are in `f32`.
    ///
    /// # Panics
    ///
    /// As [`row_state`](Self::row_state).
    fn row_state_of(&self, storages: &[Storage], rows: usize, width: usize) -> State {
        let RowLayout { count, names, widths } = RowLayout::of(self, width);
        let plan = |moment| Plan {
            name: names[moment],
            format: self.moment_format(moment),
            len: rows.saturating_mul(widths[moment]),
            start: self.moment_start(moment),
            storage: storages.get(moment).copied().unwrap_or_default(),
        };
        State::new(rows.saturating_mul(width), (0..count).map(plan).collect())
    }

    /// Takes the next step of `state`, on the listed rows of a table only ([lazy](Self#lazy)), and
    /// counts it.
    ///
    /// The rows are as wide as those of the gradient.
    ///
    /// # Examples
    ///
    /// ```
    /// use adamant::{
    ///     Adam,
    ///     table::{RowGrads, RowOptimizer},
    /// };
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
    fn step_rows_lazy<I: RowIndex, E: Element>(
        &self,
        param: &mut [E],
        grads: RowGrads<'_, I, E>,
        state: &mut State,
    ) -> Result<(), Error> {
        sort_and_count(param, grads, state, |t, table, grads, options| {
            self.step_rows_lazy_on(t, table, grads, options)
        })
    }

    /// [`step_rows_lazy`](Self::step_rows_lazy) with options, and with gradients that were sorted
    /// before; counts the step unless it is left out.
    ///
    /// The norm of the options is that of the gradients of the listed rows, after the gradients of each row
    /// were added up. To clip by the norm of a whole model, pass that norm in [`StepOptions::grad_norm`]:
    /// [`RowGrads::sort`] has an example. Gradients are only read, so [`StepOptions::keep_grads`] changes nothing.
    ///
    /// # Examples
    ///
    /// Rows without duplicates, clipped by their norm:
    ///
    /// ```
    /// use adamant::{
    ///     Adam, Outcome, StepOptions,
    ///     table::{RowGrads, RowOptimizer, RowScratch},
    /// };
    ///
    /// let adam = Adam::default();
    /// let mut table = vec![1.0_f32; 10 * 2];
    /// let mut state = adam.row_state(10, 2);
    /// let mut scratch = RowScratch::default();
    /// let options = StepOptions { max_norm: Some(1.0), ..StepOptions::default() };
    /// let grads = RowGrads::new(&[7_u32, 2], &[3.0_f32, 0.0, 0.0, 4.0], 2).sort(10, &mut scratch)?;
    /// let report = adam.step_rows_lazy_with((&mut table).into(), grads, &mut state, &options)?;
    /// assert_eq!((report.outcome, report.grad_norm), (Outcome::Taken, Some(5.0)));
    ///
    /// let grads = RowGrads::new(&[7_u32], &[f32::NAN, 0.0], 2).sort(10, &mut scratch)?;
    /// let report = adam.step_rows_lazy_with((&mut table).into(), grads, &mut state, &options)?;
    /// assert_eq!((report.outcome, state.steps()), (Outcome::LeftOut, 1));
    /// # Ok::<(), adamant::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [As above](Self#errors), and [`Error::Option`] for an option that is out of its range.
    fn step_rows_lazy_with(
        &self,
        param: Param<'_>,
        grads: SortedRows<'_>,
        state: &mut State,
        options: &StepOptions<'_>,
    ) -> Result<Report, Error> {
        let (table, steps, _) = state.table_parts(param, grads.width());
        count_lazy(steps, |t| self.step_rows_lazy_on(t, table, grads, options))
    }

    /// Takes step `t`, counted from 1, on the listed rows of a table only ([lazy](Self#lazy)), in the
    /// caller's memory: [`Table`] has an example.
    ///
    /// # Errors
    ///
    /// As [`step_rows_lazy_with`](Self::step_rows_lazy_with).
    fn step_rows_lazy_on(
        &self,
        t: u64,
        table: Table<'_>,
        grads: SortedRows<'_>,
        options: &StepOptions<'_>,
    ) -> Result<Report, Error> {
        // Constants and norms, too, depend on the modes.
        with_default_float_modes(|| {
            let cpu = options.exec.cpu()?;
            self.check_rule()?;
            let moments = RowLayout::of(self, table.width);
            table.check(&moments)?;
            table.check_grads(&grads)?;
            options.check()?;
            match table.is_f64() {
                true => step_listed::<Self, f64>(*self, cpu, t, table, &moments, grads, options),
                false => step_listed::<Self, f32>(*self, cpu, t, table, &moments, grads, options),
            }
        })
    }
}

/// Sorts gradients, takes the next step of a state with them and the default options, and counts it.
fn sort_and_count<I: RowIndex, E: Element>(
    param: &mut [E],
    grads: RowGrads<'_, I, E>,
    state: &mut State,
    step: impl FnOnce(u64, Table<'_>, SortedRows<'_>, &StepOptions<'_>) -> Result<Report, Error>,
) -> Result<(), Error> {
    let (table, steps, scratch) = state.table_parts(E::param(param), grads.width);
    let grads = grads.sort(table.rows(), scratch)?;
    // With the default options nothing is left out.
    count_lazy(steps, |t| step(t, table, grads, &StepOptions::default())).map(|_| ())
}

/// Takes the next step of a state, and counts it unless it is left out.
fn count_lazy(
    steps: &mut u64,
    step: impl FnOnce(u64) -> Result<Report, Error>,
) -> Result<Report, Error> {
    let t = steps.checked_add(1).ok_or(Error::StepOverflow)?;
    let report = step(t)?;
    if report.outcome == Outcome::Taken {
        *steps = t;
    }
    Ok(report)
}

impl<R: RowRule> RowOptimizer for R {}
