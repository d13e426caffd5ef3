//! The one loop over the listed rows of a table.

use core::{marker::PhantomData, ops::Range};

use super::{
    behind::{Behind, EveryRow},
    order::Occurrences,
    sums::{RowFloat, RowGrad, Values},
    typed::TypedTable,
};
use crate::{
    Adam, Threads,
    array::{EachFloat, Float},
    isa::Cpu,
    kernel::flush,
    pieces,
    rule::{Arity, Many, outside_unit_tests},
    simd::{Simd, TILE, Vector, WithSimd},
    table::RowRule,
};

/// Steps listed rows. Where the rule is one of this crate, both functions are compiled in this crate only.
pub(super) struct Listed<'a, 't, R>(PhantomData<(&'a (), &'t (), R)>);

impl<'a, 't, R: RowRule + 'a> EachFloat for Listed<'a, 't, R> {
    type Input<F: Float> = (RowSpan<'a, R, F>, Threads<'t>);

    fn f32((rows, threads): Self::Input<f32>) {
        R::run_f32(rows, threads);
    }

    fn f64((rows, threads): Self::Input<f64>) {
        R::run_f64(rows, threads);
    }
}

/// Steps listed rows, or none, after they have caught up. Compiled in this crate only.
pub(super) struct ListedBehind<'a, 'b, 't>(PhantomData<(&'a (), &'b (), &'t ())>);

impl<'a, 'b, 't> EachFloat for ListedBehind<'a, 'b, 't> {
    type Input<F: Float> = (RowSpan<'a, Adam, F, Behind<'b, F>>, Threads<'t>);

    fn f32((rows, threads): Self::Input<f32>) {
        outside_unit_tests!(rows.run(threads));
    }

    fn f64((rows, threads): Self::Input<f64>) {
        outside_unit_tests!(rows.run(threads));
    }
}

/// Every row catches up. Compiled in this crate only.
pub(super) struct Every<'a, 't>(PhantomData<(&'a (), &'t ())>);

impl<'a, 't> EachFloat for Every<'a, 't> {
    type Input<F: Float> = (EveryRow<'a, F>, Threads<'t>);

    fn f32((rows, threads): Self::Input<f32>) {
        outside_unit_tests!(rows.run(threads));
    }

    fn f64((rows, threads): Self::Input<f64>) {
        outside_unit_tests!(rows.run(threads));
    }
}

/// The work on each listed row before its step: none, or [catching up](super::behind::Behind).
pub trait Before<R: RowRule, F: Float>: Sync {
    /// The same work for some of the rows.
    type Part<'b>: Before<R, F>
    where
        Self: 'b;

    /// The work for some of the rows, for one thread.
    ///
    /// # Safety
    ///
    /// Until the result is dropped, nobody else uses it for these rows.
    #[allow(unsafe_code, reason = "threads share a table, each for rows of its own")]
    unsafe fn part(&self, rows: Range<usize>) -> Self::Part<'_>;

    /// Asks for the memory that [`prefetch`](Self::prefetch) reads.
    fn prefetch_early(&self, row: usize);

    /// Asks for the memory that [`before`](Self::before) reads, apart from the table.
    fn prefetch(&self, row: usize);

    fn before(&mut self, row: usize, table: &mut TypedTable<'_, R, F>);
}

impl<R: RowRule, F: Float> Before<R, F> for () {
    type Part<'b> = ();

    #[allow(unsafe_code, reason = "there is nothing to share")]
    unsafe fn part(&self, _rows: Range<usize>) {}

    #[inline(always)]
    fn prefetch_early(&self, _row: usize) {}

    #[inline(always)]
    fn prefetch(&self, _row: usize) {}

    #[inline(always)]
    fn before(&mut self, _row: usize, _table: &mut TypedTable<'_, R, F>) {}
}

/// A step of listed rows.
pub(super) struct Update<'a, R: RowRule, F: Float> {
    pub constants: &'a Many<R::RowConstants, f64>,
    pub values: Values<'a, F>,
    /// The factor of the gradients.
    pub factor: F,
    pub flush_subnormals: bool,
}

impl<R: RowRule, F: Float> Clone for Update<'_, R, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R: RowRule, F: Float> Copy for Update<'_, R, F> {}

/// Consecutive rows of a table, and the listed ones among them.
pub struct RowSpan<'a, R: RowRule, F: Float, B = ()> {
    pub(super) cpu: Cpu,
    pub(super) rule: R,
    /// The step that each listed row takes, if any.
    pub(super) update: Option<Update<'a, R, F>>,
    pub(super) table: TypedTable<'a, R, F>,
    /// The number of the table's first row.
    pub(super) first: usize,
    pub(super) before: B,
    pub(super) listed: Occurrences<'a>,
}

impl<R: RowRule, F: RowFloat, B: Before<R, F>> RowSpan<'_, R, F, B> {
    /// Steps the listed rows, on the calling thread and its helpers.
    #[allow(unsafe_code, reason = "threads share a table, each for rows of its own")]
    pub(crate) fn run(self, threads: Threads<'_>) {
        let Self { cpu, rule, update, table, first, before, listed } = self;
        share(threads, listed, table.width, &|listed| {
            let rows = listed.row(0) - first..listed.row(listed.len() - 1) - first + 1;
            // SAFETY: `share` gives each thread rows of its own. They are in ascending order, so no row
            // is within the ranges of two threads.
            let (table, before) =
                unsafe { (table.part(&rule, rows.clone()), before.part(rows.clone())) };
            let first = first + rows.start;
            cpu.run(RowSpan { cpu, rule, update, table, first, before, listed });
        });
    }
}

/// Shares listed rows among the calling thread and its helpers. Each call of `step` gets some of the rows,
/// at least one, with all their occurrences.
pub(super) fn share(
    threads: Threads<'_>,
    listed: Occurrences<'_>,
    width: usize,
    step: &(dyn Fn(Occurrences<'_>) + Sync),
) {
    // The memory of rows is mostly far away, so each element takes as long as several of a dense step.
    let row_len = width.saturating_mul(4).saturating_add(64);
    let elements = listed.len().saturating_mul(row_len);
    let place = |element: usize| match element == elements {
        true => listed.len(),
        false => listed.end_of_run_within((element / row_len).min(listed.len())),
    };
    // Threads have ranges of their own, `pieces::run` promises, and so occurrences of their own, of which
    // those of a row stay together.
    pieces::run(threads, elements, &|ranges| {
        for range in ranges {
            let listed = listed.slice(place(range.start)..place(range.end));
            if listed.len() > 0 {
                step(listed);
            }
        }
    });
}

/// How many occurrences ahead memory is prefetched, for rows of `row_bytes` bytes.
pub(super) fn rows_ahead(row_bytes: usize) -> usize {
    /// The number of bytes that are prefetched ahead.
    const AHEAD: usize = 8 << 10;
    (AHEAD / row_bytes.max(1)).clamp(2, 64)
}

impl<R: RowRule, F: RowFloat, B: Before<R, F>> WithSimd for RowSpan<'_, R, F, B> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut tile = [F::default(); TILE];
        let arrays = 2 + R::ROW_MOMENT_NAMES.as_ref().len();
        let row_bytes = self.table.width.saturating_mul(size_of::<F>() * arrays);
        let ahead = rows_ahead(row_bytes);
        let constants = self.update.map(|update| update.constants.as_ref());
        let k = R::RowConstants::from_fn(
            #[inline(always)]
            |i| Vector::nearest(simd, constants.map_or(0.0, |constants| constants[i])),
        );
        self.rule.specialise_rows::<S>(
            #[inline(always)]
            |rule| {
                let (mut start, mut asked) = (0, 0);
                while start < self.listed.len() {
                    let end = self.listed.end_of_run(start);
                    while asked < (end + ahead).min(self.listed.len()) {
                        self.prefetch(asked, ahead);
                        asked += 1;
                    }
                    let row = self.listed.row(start) - self.first;
                    self.before.before(row, &mut self.table);
                    if let Some(Update { values, factor, flush_subnormals, .. }) = self.update {
                        let occurrences = self.listed.slice(start..end);
                        let mut grad = RowGrad { values, occurrences, factor, tile: &mut tile };
                        let mut row = self.table.rows_mut(&rule, row..row + 1);
                        rule.update_row(simd, &k, row.reborrow(), &mut grad);
                        if flush_subnormals {
                            flush(row.moments.as_mut());
                        }
                    }
                    start = end;
                }
            },
        );
    }
}

impl<R: RowRule, F: RowFloat, B: Before<R, F>> RowSpan<'_, R, F, B> {
    /// Prefetches a listed row, and the data by which the row `ahead` of it is found.
    #[inline(always)]
    fn prefetch(&self, index: usize, ahead: usize) {
        if index + ahead < self.listed.len() {
            self.before.prefetch_early(self.listed.row(index + ahead) - self.first);
        }
        if let Some(Update { values, .. }) = self.update {
            values.prefetch(self.listed.position(index));
        }
        let row = self.listed.row(index);
        if index == 0 || row != self.listed.row(index - 1) {
            self.before.prefetch(row - self.first);
            self.table.prefetch(&self.rule, row - self.first);
        }
    }
}
