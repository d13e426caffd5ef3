//! Rows that take the steps of all rows when they are needed: how they catch up.

mod step;

use core::fmt;

use super::{
    RowIndex, RowLayout, RowScratch, Table,
    behind::{Behind, EveryRow},
    history::History,
    sweep::{Every, ListedBehind, RowSpan},
    typed::TypedTable,
};
use crate::{Adam, Error, Exec, array::Float, float_modes::with_default_float_modes};

/// How a row catches up with the steps in which it was not listed; see [`DenseEquivalent`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CatchUp {
    /// All skipped steps at once, by a series: the cost does not depend on how many there are, and
    /// the error is like that of the dense steps.
    #[default]
    Series,
    /// The skipped steps one by one: the bits of the dense steps, and their cost, which every row has to pay
    /// sooner or later.
    Replay,
}

/// The state of a table's rows for [`Adam`] steps that touch a few rows, with the results of dense steps whose
/// gradients are zero for all other rows: those of TensorFlow's and Keras's Adam, and of PyTorch's with dense
/// gradients.
///
/// In a dense step, moments decay and parameters move even if the gradient is zero. Here a row takes these steps
/// when it is next needed. Until then, the table has the row as it was when it was last needed. So, for each batch:
///
/// 1. [`catch_up`](Self::catch_up) with the rows that the forward pass will read;
/// 2. forward and backward pass;
/// 3. [`Adam::step_rows_dense_equivalent`] on the rows that have a gradient. Rows that have not caught up do so
///    first.
///
/// Before the whole table is read, for an evaluation or a checkpoint, call [`catch_up_all`](Self::catch_up_all). A
/// checkpoint has the parameters, the moments and [`step`](Self::step), and is restored by
/// [`set_step`](Self::set_step).
///
/// The learning rate and the weight decay may change from step to step. With decoupled weight decay (AdamW), rows
/// decay in the steps that they skip, too. Other settings may change as well, and so may a weight decay from or to 0,
/// but then the whole table catches up first.
///
/// # The ways to catch up
///
/// [`CatchUp::Replay`] takes the skipped steps one by one. The results have the bits of the dense
/// steps ([`Reference`](crate::reference::Reference)); each skipped step costs a square root and a
/// division for each parameter.
///
/// [`CatchUp::Series`] takes them all at once, for one square root and one division. With no gradient
/// m and v decay geometrically, so that step a + j moves a parameter that was at step a by
///
/// ```text
/// s_j beta1^j m / (sqrt(v beta2^j) + e_j) = s_j r^j m / (sqrt(v) + x_j)
/// r = beta1 / sqrt(beta2)    x_j = e_j beta2^(-j/2)
/// ```
///
/// with the step's size s and epsilon e. r^j becomes small before x_j has moved far from x_1. So
/// 1 / (sqrt(v) + x_j) is expanded around 1 / (sqrt(v) + x_1), to 6 terms in `f32` and 12 in `f64`. The
/// coefficients are the same for all parameters that waited equally long. They are updated in each step, in `f64`.
///
/// - The terms that are left out are less than a quarter of a rounding (2^-26 in `f32`) of the parameter's way. So
///   the error is that of a few roundings, while dense steps round in each step. In `f32`, compared with dense
///   steps in `f64`, it is mostly smaller than that of dense steps, however long the wait, and at most 1.5 times as
///   large (`tests/suite/series.rs`: the root mean square over parameters of all sizes, each relative to where it came
///   from and how far it went). In `f64`, it is some roundings larger, since the coefficients are `f64` themselves.
/// - Steps are counted until r^j is below 2^-64 (424 steps for the default betas). Later ones would add 2^-64 of
///   their usual length, which matters only if the learning rate has grown a millionfold since.
/// - Up to three skipped steps are replayed, with the bits of dense steps.
/// - With the default betas, the series converges for every v, m and epsilon once the epsilon of the step hardly
///   changes: always with [`Epsilon::Hat`](crate::Epsilon::Hat), and after the first 340 steps (950 in `f64`) with
///   [`Epsilon::Standard`](crate::Epsilon::Standard). In general it does if `beta1` is well below `beta2^3.5`
///   (`beta2^6.5` in `f64`). With other betas it converges for parameters with `sqrt(v)` well above the epsilon,
///   which most have. The others take the skipped steps one by one, until r^j is below 2^-64.
/// - It needs `beta1 < 0.995 sqrt(beta2)`, decoupled weight decay, and `lr * weight_decay < 1`. Other settings are an
///   error; [`CatchUp::Replay`] takes them.
/// - Infinite moments stay infinite. Dense steps make them NaN.
///
/// Training amplifies roundings: each batch is computed from the parameters of the batch before, and Adam divides by
/// small roots. A run with the series ends about as far from a dense run as a dense run whose initial values differ
/// by a rounding. If two runs must have the same bits, use [`CatchUp::Replay`]. With the series, the bits also depend
/// on when a row catches up: two times five steps are not rounded like ten.
///
/// # Cost
///
/// 4 bytes a row, and a history of the last steps: 4,096, or a 64th of the number of rows if that is more. With the
/// series, each step in it takes 200 bytes in `f32` and 240 in `f64`; with replay, 40 and 80. So a large table takes
/// 7.1 bytes a row in all with the series (7.8 in `f64`), and 4.6 with replay (5.3). A row that was not needed for
/// the whole history catches up at its end: about 64 rows at most in each step.
///
/// So with the series the cost of a step does not depend on the size of the table. To update the coefficients takes
/// one or two microseconds a step with the default betas, 40 for `beta1 = 0.99`. With replay, rows that are never
/// listed cost as much as dense steps in the end, a few of them in each step.
///
/// # Examples
///
/// ```
/// use adamant::{
///     Adam,
///     table::{CatchUp, DenseEquivalent, RowGrads, RowOptimizer},
/// };
///
/// let (rows, width) = (100, 2);
/// let adam = Adam::default();
/// let mut param = vec![1.0_f32; rows * width];
/// let mut state = adam.row_state(rows, width);
/// let mut waiting = DenseEquivalent::new(rows, CatchUp::Series);
/// for step in 0..10 {
///     let ids = [step, step + 1];
///     // The forward pass reads current rows.
///     waiting.catch_up(state.table(&mut param, width), &ids)?;
///     let grads = RowGrads::new(&ids, &[0.1_f32, 0.1, 0.2, 0.2], width);
///     adam.step_rows_dense_equivalent(&mut param, grads, &mut state, &mut waiting)?;
/// }
/// waiting.catch_up_all(state.table(&mut param, width))?;
/// // A dense step moves a row on after its last gradient.
/// assert!(param[0] < 0.996);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone)]
pub struct DenseEquivalent<F: Float> {
    /// The number of steps taken.
    step: u64,
    /// The step that each row is at, modulo 2^32.
    at: Vec<u32>,
    history: History<F>,
    scratch: RowScratch,
}

impl<F: Float> DenseEquivalent<F> {
    /// Makes the state of a table of `rows` rows before its first step.
    ///
    /// # Panics
    ///
    /// If 4 bytes for each row are more than `isize::MAX`, as `Vec` does.
    pub fn new(rows: usize, way: CatchUp) -> Self {
        let reach = (rows / 64).clamp(4096, 1 << 31);
        Self {
            step: 0,
            at: vec![0; rows],
            history: History::new(way, reach),
            scratch: RowScratch::default(),
        }
    }

    /// The number of rows of the table.
    pub fn rows(&self) -> usize {
        self.at.len()
    }

    /// The number of steps taken.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Sets the number of steps taken, as when a checkpoint is restored. All rows are then at that step: steps that
    /// rows had yet to catch up with are forgotten, so call [`catch_up_all`](Self::catch_up_all) before.
    pub fn set_step(&mut self, step: u64) {
        self.step = step;
        self.history.clear();
        self.at.fill(step as u32);
    }

    /// The number of steps that a row has to catch up with; `None` if the table has no such row.
    ///
    /// Use it to check that a forward pass reads only rows that have caught up.
    pub fn skipped(&self, row: usize) -> Option<u64> {
        self.at.get(row).map(|&at| (self.step as u32).wrapping_sub(at).into())
    }

    /// Brings the listed rows to the present step. Call it before they are read.
    ///
    /// # Errors
    ///
    /// - [`Error::ZeroWidth`], [`Error::TableShape`], [`Error::MomentMismatch`],
    ///   [`Error::StateMismatch`], [`Error::TableStorage`] or [`Error::RowCountMismatch`] for a table that
    ///   does not fit;
    /// - [`Error::RowOutOfRange`] or [`Error::TooManyRows`] for the indices;
    /// - [`Error::UnknownIsa`] or [`Error::IsaUnavailable`] for the instruction set.
    ///
    /// On an error, nothing has changed.
    pub fn catch_up<I: RowIndex>(&mut self, table: Table<'_>, rows: &[I]) -> Result<(), Error> {
        self.catch_up_with(table, rows, Exec::default())
    }

    /// [`catch_up`](Self::catch_up) with chosen threads and a chosen instruction set.
    ///
    /// # Errors
    ///
    /// As [`catch_up`](Self::catch_up).
    pub fn catch_up_with<I: RowIndex>(
        &mut self,
        table: Table<'_>,
        rows: &[I],
        exec: Exec<'_>,
    ) -> Result<(), Error> {
        let cpu = exec.cpu()?;
        let rule = Adam::default();
        let table = self.typed(table)?;
        let (listed, _) = self.scratch.sort(rows, self.at.len())?;
        let before = Behind::new(cpu, &self.history, &mut self.at, self.step, self.step);
        let span = RowSpan { cpu, rule, update: None, table, first: 0, before, listed };
        with_default_float_modes(|| F::call::<ListedBehind<'_, '_, '_>>((span, exec.threads)));
        Ok(())
    }

    /// Brings all rows to the present step, before the table is evaluated or saved.
    ///
    /// # Errors
    ///
    /// As [`catch_up`](Self::catch_up).
    pub fn catch_up_all(&mut self, table: Table<'_>) -> Result<(), Error> {
        self.catch_up_all_with(table, Exec::default())
    }

    /// [`catch_up_all`](Self::catch_up_all) with chosen threads and a chosen instruction set.
    ///
    /// # Errors
    ///
    /// As [`catch_up`](Self::catch_up).
    pub fn catch_up_all_with(&mut self, table: Table<'_>, exec: Exec<'_>) -> Result<(), Error> {
        let cpu = exec.cpu()?;
        let table = self.typed(table)?;
        let before = Behind::new(cpu, &self.history, &mut self.at, self.step, self.step);
        let all = EveryRow { table, before };
        with_default_float_modes(|| F::call::<Every<'_, '_>>((all, exec.threads)));
        // So the next steps have the bits of a run that is restarted from here.
        self.history.clear();
        Ok(())
    }

    /// A table that fits, as slices.
    fn typed<'a>(&self, table: Table<'a>) -> Result<TypedTable<'a, Adam, F>, Error> {
        let moments = RowLayout::of(&Adam::default(), table.width);
        table.check(&moments)?;
        let (rows, expected) = (table.rows(), self.at.len());
        if rows != expected {
            return Err(Error::RowCountMismatch { rows, expected });
        }
        match table.not_of::<F>(&moments) {
            None => Ok(table.typed()),
            Some((argument, found)) => Err(Self::wrong_storage(argument, found)),
        }
    }

    fn wrong_storage(argument: &'static str, found: crate::Storage) -> Error {
        Error::TableStorage { argument, found, method: "DenseEquivalent", expected: F::STORAGE }
    }
}

impl<F: Float> fmt::Debug for DenseEquivalent<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DenseEquivalent")
            .field("rows", &self.rows())
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::rule::AdamConstants;

    /// The docs of [`DenseEquivalent`](super::DenseEquivalent) say what a step of the history takes.
    #[test]
    fn the_constants_of_a_step_take_40_bytes_in_f32_and_80_in_f64() {
        assert_eq!(size_of::<[f32; AdamConstants::COUNT]>(), 40);
        assert_eq!(size_of::<[f64; AdamConstants::COUNT]>(), 80);
    }
}
