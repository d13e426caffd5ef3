//! How rows catch up with the steps in which they were not listed.

use core::ops::Range;

use super::{
    history::{BehindRow, History},
    sweep::Before,
    typed::TypedTable,
};
use crate::{
    Adam, Threads,
    array::{Float, elements_mut},
    isa::Cpu,
    pieces,
    simd::prefetch_near,
};

/// The rows of a table, and the step that each of them is at.
pub struct Behind<'a, F: Float> {
    cpu: Cpu,
    history: &'a History<F>,
    /// The steps that the rows are at.
    at: &'a mut [u32],
    /// The latest step of the history, and the step that rows are at once they were used.
    now: u32,
    then: u32,
}

impl<'a, F: Float> Behind<'a, F> {
    pub(super) fn new(
        cpu: Cpu,
        history: &'a History<F>,
        at: &'a mut [u32],
        now: u64,
        then: u64,
    ) -> Self {
        // Modulo 2^32: no row waits for that many steps.
        Self { cpu, history, at, now: now as u32, then: then as u32 }
    }

    /// How many steps rows wait, by a sample of three.
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
        prefetch_near(self.at, row, 0);
    }

    #[inline(always)]
    fn prefetch(&self, row: usize) {
        self.history.prefetch(self.lag(row));
    }

    #[inline(always)]
    fn before(&mut self, row: usize, table: &mut TypedTable<'_, Adam, F>) {
        let lag = self.lag(row);
        if lag > 0 {
            let row = table.rows_mut(&Adam::default(), row..row + 1);
            BehindRow { history: self.history, lag, row }.run(self.cpu);
        }
        self.at[row] = self.then;
    }
}

/// All rows of a table, to catch up one after the other.
pub struct EveryRow<'a, F: Float> {
    pub(super) table: TypedTable<'a, Adam, F>,
    pub(super) before: Behind<'a, F>,
}

impl<F: Float> EveryRow<'_, F> {
    /// Catches up, on the calling thread and its helpers.
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
