//! Rows of tables with an optimizer that was chosen by name.

use super::{RowGrads, RowIndex, RowOptimizer, SortedRows, Table, count_lazy, sort_and_count};
use crate::{
    AnyOptimizer, Element, Error, Param, Report, State, StepOptions, Storage,
    rule::{BuiltIn, WithOptimizer},
};

/// The methods of [`RowOptimizer`] that do not need the optimizer's type.
impl AnyOptimizer {
    /// As [`RowOptimizer::row_state`].
    ///
    /// # Panics
    ///
    /// If the moments take more than `isize::MAX` bytes, as `Vec` does.
    pub fn row_state(&self, rows: usize, width: usize) -> State {
        self.row_state_in(Storage::F32, rows, width)
    }

    /// As [`RowOptimizer::row_state_in`].
    ///
    /// # Panics
    ///
    /// As [`row_state`](Self::row_state).
    pub fn row_state_in(&self, storage: Storage, rows: usize, width: usize) -> State {
        struct Make {
            storage: Storage,
            rows: usize,
            width: usize,
        }

        impl WithOptimizer for Make {
            type Output = State;

            fn run<R: BuiltIn>(self, rule: R) -> State {
                rule.row_state_in(self.storage, self.rows, self.width)
            }
        }

        self.with(Make { storage, rows, width })
    }

    /// As [`RowOptimizer::step_rows_lazy`].
    ///
    /// # Examples
    ///
    /// ```
    /// use adamant::{AnyOptimizer, table::RowGrads};
    ///
    /// let adagrad = AnyOptimizer::new("adagrad")?;
    /// let mut table = vec![1.0_f32; 10 * 2];
    /// let mut state = adagrad.row_state(10, 2);
    /// let grads = RowGrads::new(&[7_u32], &[0.1_f32, -0.1], 2);
    /// adagrad.step_rows_lazy(&mut table, grads, &mut state)?;
    /// assert_eq!(table[14..16], [0.99, 1.01]);
    /// # Ok::<(), adamant::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [Those of a table](RowOptimizer#errors).
    pub fn step_rows_lazy<I: RowIndex, E: Element>(
        &self,
        param: &mut [E],
        grads: RowGrads<'_, I, E>,
        state: &mut State,
    ) -> Result<(), Error> {
        sort_and_count(param, grads, state, |t, table, grads, options| {
            self.step_rows_lazy_on(t, table, grads, options)
        })
    }

    /// As [`RowOptimizer::step_rows_lazy_with`].
    ///
    /// # Errors
    ///
    /// [Those of a table](RowOptimizer#errors), and [`Error::Option`] for an option that is out of its range.
    pub fn step_rows_lazy_with(
        &self,
        param: Param<'_>,
        grads: SortedRows<'_>,
        state: &mut State,
        options: &StepOptions<'_>,
    ) -> Result<Report, Error> {
        let (table, steps, _) = state.table_parts(param, grads.width());
        count_lazy(steps, |t| self.step_rows_lazy_on(t, table, grads, options))
    }

    /// As [`RowOptimizer::step_rows_lazy_on`].
    ///
    /// # Errors
    ///
    /// As [`step_rows_lazy_with`](Self::step_rows_lazy_with).
    pub fn step_rows_lazy_on(
        &self,
        t: u64,
        table: Table<'_>,
        grads: SortedRows<'_>,
        options: &StepOptions<'_>,
    ) -> Result<Report, Error> {
        struct Step<'a> {
            t: u64,
            table: Table<'a>,
            grads: SortedRows<'a>,
            options: &'a StepOptions<'a>,
        }

        impl WithOptimizer for Step<'_> {
            type Output = Result<Report, Error>;

            fn run<R: BuiltIn>(self, rule: R) -> Self::Output {
                rule.step_rows_lazy_on(self.t, self.table, self.grads, self.options)
            }
        }

        self.with(Step { t, table, grads, options })
    }
}
