//! Steps on some rows with the results of steps on all.

use core::ops::Range;

use super::DenseEquivalent;
use crate::{
    Adam, Error, Outcome, Param, Report, State, StepOptions,
    array::Float,
    float_modes::with_default_float_modes,
    rule::Rule,
    step::Scaling,
    table::{
        RowGrads, RowIndex, RowLayout, SortedRows, Table,
        behind::{Behind, EveryRow},
        lazy::{constants_of_rows, scaling_of_rows},
        sweep::{Every, ListedBehind, RowSpan, Update},
    },
};

impl Adam {
    /// Takes the next step of all rows of a table, at the cost of the listed ones. Rows that are not listed have a
    /// gradient of zero; see [`DenseEquivalent`], which counts the steps as the state does.
    ///
    /// The rows are as wide as those of the gradient.
    ///
    /// # Errors
    ///
    /// Those of [`RowOptimizer`](crate::table::RowOptimizer#errors), [`Error::RowCountMismatch`] if `waiting`
    /// is for a table with another number of rows, [`Error::StepMismatch`] if it has not taken the steps
    /// of the state, and [`Error::HyperParameter`] if [`CatchUp::Series`](crate::table::CatchUp::Series) cannot
    /// take these. On `Err`, no buffer has changed.
    pub fn step_rows_dense_equivalent<I: RowIndex, F: Float>(
        &self,
        param: &mut [F],
        grads: RowGrads<'_, I, F>,
        state: &mut State,
        waiting: &mut DenseEquivalent<F>,
    ) -> Result<(), Error> {
        let (table, steps, scratch) = state.table_parts(F::param(param), grads.width);
        let grads = grads.sort(table.rows(), scratch)?;
        // With the default options nothing is left out.
        waiting.count_with(steps, self, table, grads, &StepOptions::default()).map(|_| ())
    }

    /// [`step_rows_dense_equivalent`](Self::step_rows_dense_equivalent) with options, and with gradients
    /// that were sorted before. A step that is left out changes nothing, and is not counted.
    ///
    /// # Errors
    ///
    /// As [`step_rows_dense_equivalent`](Self::step_rows_dense_equivalent), and [`Error::Option`] for an
    /// option that is out of its range; [`StepOptions::flush_subnormals`] must be false.
    pub fn step_rows_dense_equivalent_with<F: Float>(
        &self,
        param: Param<'_>,
        grads: SortedRows<'_>,
        state: &mut State,
        waiting: &mut DenseEquivalent<F>,
        options: &StepOptions<'_>,
    ) -> Result<Report, Error> {
        let (table, steps, _) = state.table_parts(param, grads.width);
        waiting.count_with(steps, self, table, grads, options)
    }

    /// [`step_rows_dense_equivalent_with`](Self::step_rows_dense_equivalent_with) in the caller's memory.
    ///
    /// # Errors
    ///
    /// As [`step_rows_dense_equivalent_with`](Self::step_rows_dense_equivalent_with).
    pub fn step_rows_dense_equivalent_on<F: Float>(
        &self,
        table: Table<'_>,
        grads: SortedRows<'_>,
        waiting: &mut DenseEquivalent<F>,
        options: &StepOptions<'_>,
    ) -> Result<Report, Error> {
        // Constants and norms, too, depend on the modes.
        with_default_float_modes(|| waiting.step_rows(self, table, grads, options))
    }
}

impl<F: Float> DenseEquivalent<F> {
    /// Takes a step that the state counts, too.
    fn count_with(
        &mut self,
        steps: &mut u64,
        adam: &Adam,
        table: Table<'_>,
        grads: SortedRows<'_>,
        options: &StepOptions<'_>,
    ) -> Result<Report, Error> {
        let [of_state, of_rows] = [*steps, self.step];
        if of_state != of_rows {
            return Err(Error::StepMismatch { state: of_state, rows: of_rows });
        }
        let report = adam.step_rows_dense_equivalent_on(table, grads, self, options)?;
        *steps = self.step;
        Ok(report)
    }

    fn step_rows(
        &mut self,
        adam: &Adam,
        table: Table<'_>,
        mut grads: SortedRows<'_>,
        options: &StepOptions<'_>,
    ) -> Result<Report, Error> {
        let now = self.step;
        let t = now.checked_add(1).ok_or(Error::StepOverflow)?;
        let (cpu, threads) = (options.exec.cpu()?, options.exec.threads);
        adam.check()?;
        let constants = constants_of_rows::<_, F>(adam, t)?;
        self.history.check(adam)?;
        options.check()?;
        if options.flush_subnormals {
            let allowed = "false in dense-equivalent steps: rows that wait are not flushed";
            return Err(Error::Option { name: "flush_subnormals", value: 1.0, allowed });
        }
        table.check(&RowLayout::of(adam, table.width))?;
        table.check_grads(&grads)?;
        let mut table = self.typed(table)?;
        let Scaling { grad_norm, factor, leaves_out } =
            scaling_of_rows::<F>(cpu, &mut grads, options)?;
        let Some(values) = grads.values_of::<F>() else {
            return Err(Self::wrong_storage("grad", grads.storage()));
        };
        if leaves_out {
            return Ok(Report { outcome: Outcome::LeftOut, grad_norm });
        }

        if !self.history.goes_on_with(adam) {
            let before = Behind::new(cpu, &self.history, &mut self.at, now, now);
            F::call::<Every<'_, '_>>((EveryRow { table: table.reborrow(), before }, threads));
            self.history.clear();
        }
        let before = Behind::new(cpu, &self.history, &mut self.at, now, t);
        let factor = F::from_f64(factor);
        let update =
            Some(Update { constants: &constants, values, factor, flush_subnormals: false });
        let (rule, listed) = (*adam, grads.listed);
        let span = RowSpan { cpu, rule, update, table: table.reborrow(), first: 0, before, listed };
        F::call::<ListedBehind<'_, '_, '_>>((span, threads));

        self.history.push(adam, t);
        self.step = t;
        let due = self.due();
        let before = Behind::new(cpu, &self.history, &mut self.at[due.clone()], t, t);
        F::call::<Every<'_, '_>>((EveryRow { table: table.rows_mut(adam, due), before }, threads));
        Ok(Report { outcome: Outcome::Taken, grad_norm })
    }

    /// The rows that catch up at this step although nobody needs them, so that none waits for longer than the history
    /// lasts.
    fn due(&self) -> Range<usize> {
        let reach = self.history.reach() as u64;
        let rows = self.at.len() as u128;
        let before = |turn: u64| (u128::from(turn) * rows / u128::from(reach)) as usize;
        let turn = self.step % reach;
        before(turn)..before(turn + 1)
    }
}
