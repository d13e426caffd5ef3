//! Steps on some rows with the results of steps on all.

use core::{fmt, ops::Range};

use super::{
    RowGrads, RowIndex, RowScratch, Table, Values,
    history::{BehindRow, History},
    sweep::{Before, RowSpan},
    table_of,
};
use crate::{
    Adam, Error, Exec, Float, State, Threads,
    array::elements_mut,
    isa::Cpu,
    kernel::Step,
    pieces::{self, with_default_float_modes},
    simd::prefetch,
};

/// How a row catches up with the steps in which it was not listed; see [`DenseEquivalent`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CatchUp {
    /// All skipped steps at once, by a series: the cost does not depend on how many there are, and
    /// the error is like that of the dense steps.
    #[default]
    Series,
    /// The skipped steps one by one: the bits of the dense steps, and their cost, which has to be paid
    /// for every row sooner or later.
    Replay,
}

/// What [`Adam`] needs to know of a table's rows for steps that touch a few of them, and have the
/// results of dense steps with gradients of zero for all others: those of TensorFlow's and Keras's
/// Adam, and of PyTorch's with dense gradients.
///
/// In a dense step moments decay and parameters move on, gradient or not. Here a row does so when it
/// is next needed, and until then the table holds the row as it was when it was last needed. So, for
/// each batch:
///
/// 1. [`catch_up`](Self::catch_up) with the rows that the forward pass will read;
/// 2. forward and backward pass;
/// 3. [`Adam::step_rows_dense_equivalent`] on the rows that have a gradient; it catches up by itself
///    with those that are not current yet.
///
/// Before the whole table is read, for an evaluation or a checkpoint,
/// [`catch_up_all`](Self::catch_up_all). A checkpoint then is parameters, moments and
/// [`step`](Self::step), and is restored by [`set_step`](Self::set_step).
///
/// Learning rate and strength of weight decay may change from step to step. With decoupled weight
/// decay (AdamW) rows decay in the steps that they skip, too. A change of anything else, such as of
/// the betas, or of a weight decay from or to 0, is allowed, but the step that brings it first catches
/// up with the whole table.
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
/// with the step's size s and epsilon e. r^j fades before x_j has moved far from x_1, and so
/// 1 / (sqrt(v) + x_j) is expanded around 1 / (sqrt(v) + x_1), to 6 terms in `f32` and 12 in `f64`,
/// whose coefficients are the same for all parameters that waited equally long, and are kept up to
/// date from step to step, in `f64`.
///
/// - The series is cut where what is left out is less than a quarter of a rounding (2^-26 in `f32`)
///   of the way that the parameter goes; so the error of catching up is that of the handful of
///   roundings of its last formula, where the dense steps round each time. Against dense steps in
///   higher precision, that of `f32` is mostly smaller than theirs, however long the wait, and at most
///   1.5 times as large (`tests/series.rs`: the root mean square over parameters of all sizes, each
///   relative to where it came from and how far it went). That of `f64` is some roundings larger, since
///   the coefficients are `f64` themselves.
/// - Steps count until r^j is below 2^-64 (424 steps for the default betas). Later ones add 2^-64 of
///   their usual length, which is nothing, unless the learning rate has grown a millionfold meanwhile.
/// - Up to three skipped steps are replayed, bits and all.
/// - For the default betas it converges so fast for every v, m and epsilon, once the epsilon of the
///   step hardly changes: always with [`Epsilon::Hat`](crate::Epsilon::Hat), and after the first
///   340 steps (950 in `f64`) with [`Epsilon::Standard`](crate::Epsilon::Standard). In general it does
///   where `beta1 < beta2^3.5` by a margin (`beta2^6.5` in `f64`). Elsewhere it does for parameters
///   with `sqrt(v)` well above the epsilon, which is the rule; the few others take the skipped steps
///   one by one, of which no more count than it takes r^j to fade.
/// - It serves `beta1 < 0.995 sqrt(beta2)`, weight decay that is decoupled, and
///   `lr * weight_decay < 1`. Anything else is an error; replay serves it.
/// - Infinite moments stay infinite, where dense steps make them NaN.
///
/// Training amplifies roundings: each batch is computed from the parameters that the last ones left,
/// and Adam divides by small roots. A run with the series ends about as far from a dense run as does
/// a dense run from one whose initial values differ by a rounding. Where two runs are to have the same
/// bits, replay. With the series the bits also depend on when a row catches up: twice five steps are not
/// rounded like ten.
///
/// # Cost
///
/// 4 bytes a row, and a history of the latest 4,096 steps, or as many as a 64th of the rows if that
/// is more: 192 bytes a step for the series in `f32`, 224 in `f64`, 32 and 64 for replay. A large table
/// so takes 7 bytes a row in all (7.5 in `f64`). A row that was not needed for as long as the history
/// goes back catches up then; it is the turn of at most 64 rows or so in a step.
///
/// So with the series the cost of a step does not depend on the size of the table. It adds the upkeep
/// of the coefficients, a microsecond or two a step with the default betas, 40 for `beta1 = 0.99`. With
/// replay, rows that nobody needs cost in the end what dense steps cost, a few of them in each step.
///
/// # Examples
///
/// ```
/// use adamant::{Adam, CatchUp, DenseEquivalent, RowGrads, RowOptimizer};
///
/// let (rows, width) = (100, 2);
/// let adam = Adam::default();
/// let mut param = vec![1.0_f32; rows * width];
/// let mut state = adam.row_state(rows, width);
/// let mut waiting = DenseEquivalent::new(rows, CatchUp::Series);
/// for step in 0..10 {
///     let ids = [step, step + 1];
///     // The forward pass reads current rows.
///     waiting.catch_up(state.table(&mut param, width)?, &ids)?;
///     let grads = RowGrads::new(&ids, &[0.1, 0.1, 0.2, 0.2], width);
///     adam.step_rows_dense_equivalent(&mut param, grads, &mut state, &mut waiting)?;
/// }
/// waiting.catch_up_all(state.table(&mut param, width)?)?;
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
    /// For a table of `rows` rows that has taken no step yet.
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

    /// Sets the number of steps taken, as when a checkpoint is restored; takes all rows to be at that
    /// step. What rows had yet to catch up with is forgotten: see [`catch_up_all`](Self::catch_up_all).
    pub fn set_step(&mut self, step: u64) {
        self.step = step;
        self.history.clear();
        self.at.fill(step as u32);
    }

    /// How many steps a row has to catch up with; `None` if the table has no such row.
    ///
    /// For checks that a forward pass reads current rows only.
    pub fn skipped(&self, row: usize) -> Option<u64> {
        self.at.get(row).map(|&at| (self.step as u32).wrapping_sub(at).into())
    }

    /// Brings the listed rows to the present step, before they are read.
    ///
    /// # Errors
    ///
    /// - [`Error::ZeroWidth`], [`Error::TableShape`], [`Error::MomentMismatch`] or
    ///   [`Error::RowCountMismatch`] for a table that does not fit;
    /// - [`Error::RowOutOfRange`] or [`Error::TooManyRows`] for the indices;
    /// - [`Error::UnknownIsa`] or [`Error::IsaUnavailable`] for the instruction set.
    ///
    /// Nothing has changed then.
    pub fn catch_up<I: RowIndex>(
        &mut self,
        table: Table<'_, Adam, F>,
        rows: &[I],
    ) -> Result<(), Error> {
        self.catch_up_on(Exec::default(), table, rows)
    }

    /// [`catch_up`](Self::catch_up), run as told.
    ///
    /// # Errors
    ///
    /// As [`catch_up`](Self::catch_up).
    pub fn catch_up_on<I: RowIndex>(
        &mut self,
        exec: Exec<'_>,
        mut table: Table<'_, Adam, F>,
        rows: &[I],
    ) -> Result<(), Error> {
        let cpu = exec.cpu()?;
        let rule = Adam::default();
        self.check_table(&table)?;
        let listed = self.scratch.sort(rows, self.at.len())?;
        let before = Behind::new(cpu, &self.history, &mut self.at, self.step, self.step);
        let table = table.reborrow();
        let span = RowSpan { cpu, rule, update: None, table, first: 0, before, listed };
        F::run_listed_behind(span, exec.threads);
        Ok(())
    }

    /// Brings all rows to the present step, before the table is evaluated or saved.
    ///
    /// # Errors
    ///
    /// As [`catch_up`](Self::catch_up).
    pub fn catch_up_all(&mut self, table: Table<'_, Adam, F>) -> Result<(), Error> {
        self.catch_up_all_on(Exec::default(), table)
    }

    /// [`catch_up_all`](Self::catch_up_all), run as told.
    ///
    /// # Errors
    ///
    /// As [`catch_up`](Self::catch_up).
    pub fn catch_up_all_on(
        &mut self,
        exec: Exec<'_>,
        mut table: Table<'_, Adam, F>,
    ) -> Result<(), Error> {
        let cpu = exec.cpu()?;
        self.check_table(&table)?;
        let before = Behind::new(cpu, &self.history, &mut self.at, self.step, self.step);
        F::run_every_row(EveryRow { table: table.reborrow(), before }, exec.threads);
        // What comes is the same as after a restart from here.
        self.history.clear();
        Ok(())
    }

    fn check_table(&self, table: &Table<'_, Adam, F>) -> Result<(), Error> {
        table.check(&Adam::default())?;
        match (table.rows(), self.at.len()) {
            (rows, expected) if rows == expected => Ok(()),
            (rows, expected) => Err(Error::RowCountMismatch { rows, expected }),
        }
    }

    fn step_rows<I: RowIndex>(
        &mut self,
        exec: Exec<'_>,
        adam: &Adam,
        mut table: Table<'_, Adam, F>,
        grads: RowGrads<'_, I, F>,
    ) -> Result<(), Error> {
        let now = self.step;
        let t = now.checked_add(1).ok_or(Error::StepOverflow)?;
        let cpu = exec.cpu()?;
        let step = with_default_float_modes(|| Step::new::<F>(adam, cpu, t))?;
        self.history.check(adam)?;
        self.check_table(&table)?;
        grads.check(table.width)?;
        let listed = self.scratch.sort(grads.rows, self.at.len())?;

        if !self.history.goes_on_with(adam) {
            let before = Behind::new(cpu, &self.history, &mut self.at, now, now);
            F::run_every_row(EveryRow { table: table.reborrow(), before }, exec.threads);
            self.history.clear();
        }
        let before = Behind::new(cpu, &self.history, &mut self.at, now, t);
        let update = Some((&step, Values::from(grads)));
        let listed =
            RowSpan { cpu, rule: *adam, update, table: table.reborrow(), first: 0, before, listed };
        F::run_listed_behind(listed, exec.threads);

        with_default_float_modes(|| self.history.push(adam, step.constants));
        self.step = t;
        let due = self.due();
        let before = Behind::new(cpu, &self.history, &mut self.at[due.clone()], t, t);
        F::run_every_row(EveryRow { table: table.rows_mut(adam, due), before }, exec.threads);
        Ok(())
    }

    /// The rows whose turn it is to catch up at this step, so that none ever waits for longer than
    /// the history goes back.
    fn due(&self) -> Range<usize> {
        let reach = self.history.reach() as u64;
        let rows = self.at.len() as u128;
        let before = |turn: u64| (u128::from(turn) * rows / u128::from(reach)) as usize;
        let turn = self.step % reach;
        before(turn)..before(turn + 1)
    }
}

impl Adam {
    /// Takes the next step on all rows of a table, of which the listed ones have a gradient and the
    /// others one of zero, at the cost of the listed ones; see [`DenseEquivalent`], which counts the
    /// steps, and the state with it.
    ///
    /// The rows are as wide as those of the gradient.
    ///
    /// # Errors
    ///
    /// Those of [`RowOptimizer`](crate::RowOptimizer#errors), [`Error::RowCountMismatch`] if `waiting`
    /// is for a table with another number of rows, [`Error::StepMismatch`] if it has not taken the steps
    /// of the state, and [`Error::HyperParameter`] if [`CatchUp::Series`] does not serve these. On `Err`,
    /// no buffer has changed.
    pub fn step_rows_dense_equivalent<I: RowIndex, F: Float>(
        &self,
        param: &mut [F],
        grads: RowGrads<'_, I, F>,
        state: &mut State,
        waiting: &mut DenseEquivalent<F>,
    ) -> Result<(), Error> {
        let (table, steps, _) = table_of(param, grads.width, state)?;
        let [of_state, of_rows] = [*steps, waiting.step];
        if of_state != of_rows {
            return Err(Error::StepMismatch { state: of_state, rows: of_rows });
        }
        waiting.step_rows(Exec::default(), self, table, grads)?;
        *steps = waiting.step;
        Ok(())
    }

    /// [`step_rows_dense_equivalent`](Self::step_rows_dense_equivalent) with memory that is all the
    /// caller's, run as told.
    ///
    /// # Errors
    ///
    /// As [`step_rows_dense_equivalent`](Self::step_rows_dense_equivalent).
    pub fn step_rows_dense_equivalent_on<I: RowIndex, F: Float>(
        &self,
        exec: Exec<'_>,
        table: Table<'_, Self, F>,
        grads: RowGrads<'_, I, F>,
        waiting: &mut DenseEquivalent<F>,
    ) -> Result<(), Error> {
        waiting.step_rows(exec, self, table, grads)
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

/// Rows that are caught up with before they are used.
pub struct Behind<'a, F: Float> {
    cpu: Cpu,
    history: &'a History<F>,
    /// The steps that the rows are at.
    at: &'a mut [u32],
    /// The latest step of the history, and the one that the rows are at afterwards.
    now: u32,
    then: u32,
}

impl<'a, F: Float> Behind<'a, F> {
    fn new(cpu: Cpu, history: &'a History<F>, at: &'a mut [u32], now: u64, then: u64) -> Self {
        // Modulo 2^32: no row waits for as long.
        Self { cpu, history, at, now: now as u32, then: then as u32 }
    }

    /// How long rows wait, about.
    fn usual_lag(&self) -> usize {
        let last = self.at.len().saturating_sub(1);
        let some = [0, last / 2, last].into_iter().filter(|&row| row < self.at.len());
        some.map(|row| self.lag(row)).max().unwrap_or(0)
    }

    #[inline(always)]
    fn lag(&self, row: usize) -> usize {
        self.now.wrapping_sub(self.at[row]) as usize
    }
}

impl<F: Float> Before<Adam, F> for Behind<'_, F> {
    type Part<'b>
        = Behind<'b, F>
    where
        Self: 'b;

    #[allow(unsafe_code, reason = "threads share a table, each for rows of its own")]
    unsafe fn part(&self, rows: Range<usize>) -> Behind<'_, F> {
        // SAFETY: there are as many steps as rows; not aliased: the caller's promise.
        let at = unsafe { elements_mut(&self.at, rows) };
        Behind { cpu: self.cpu, at, history: self.history, now: self.now, then: self.then }
    }

    #[inline(always)]
    fn prefetch_early(&self, row: usize) {
        prefetch(self.at, row, 0);
    }

    #[inline(always)]
    fn prefetch(&self, row: usize) {
        self.history.prefetch(self.lag(row));
    }

    #[inline(always)]
    fn before(&mut self, row: usize, table: &mut Table<'_, Adam, F>) {
        let lag = self.lag(row);
        if lag > 0 {
            let row = table.rows_mut(&Adam::default(), row..row + 1);
            BehindRow { history: self.history, lag, row }.run(self.cpu);
        }
        self.at[row] = self.then;
    }
}

/// Catching up with all rows of a table, one after the other.
pub struct EveryRow<'a, F: Float> {
    table: Table<'a, Adam, F>,
    before: Behind<'a, F>,
}

impl<F: Float> EveryRow<'_, F> {
    /// Catches up, on the calling thread and those that are worth asking.
    #[allow(unsafe_code, reason = "threads share a table, each for rows of its own")]
    pub(super) fn run(self, threads: Threads<'_>) {
        let Self { table, before } = self;
        let rows = before.at.len();
        let steps = before.history.steps_to_take(before.usual_lag());
        let elements = table.param.len().saturating_mul(steps);
        let row = |element: usize| match element == elements {
            true => rows,
            false => (element as u128 * rows as u128 / elements as u128) as usize,
        };
        pieces::run(threads, elements, &|ranges| {
            for range in ranges {
                let rows = row(range.start)..row(range.end);
                if rows.is_empty() {
                    continue;
                }
                // SAFETY: threads have ranges of their own, `pieces::run` promises, and so rows of their
                // own.
                let (table, before) = unsafe {
                    let table = table.part(&Adam::default(), rows.clone());
                    (table, Before::<Adam, F>::part(&before, rows))
                };
                EveryRow { table, before }.catch_up();
            }
        });
    }

    fn catch_up(mut self) {
        for row in 0..self.before.at.len() {
            self.before.before(row, &mut self.table);
        }
    }
}
