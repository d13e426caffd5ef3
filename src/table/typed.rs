//! A table whose arrays are all of the type that its steps are computed in.

use core::ops::Range;

use super::RowRule;
use crate::{
    array::{Float, elements_mut, len_of},
    rule::{Arity, Many},
    simd::prefetch_row,
};

/// The parameters and moments of some rows; a moment that the rule does not use is empty.
pub struct TypedTable<'a, R: RowRule, F: Float> {
    pub(super) param: &'a mut [F],
    pub(super) moments: Many<R::RowMoments, &'a mut [F]>,
    pub(super) width: usize,
}

impl<R: RowRule, F: Float> TypedTable<'_, R, F> {
    /// The same rows for a shorter time.
    #[inline(always)]
    pub(super) fn reborrow(&mut self) -> TypedTable<'_, R, F> {
        let mut moments = self.moments.as_mut().iter_mut();
        TypedTable {
            param: self.param,
            moments: R::RowMoments::from_fn(
                #[inline(always)]
                |_| moments.next().map_or(&mut [][..], |moment| &mut **moment),
            ),
            width: self.width,
        }
    }

    /// The parameters and moments of some rows, for one thread.
    ///
    /// # Safety
    ///
    /// Until the result is dropped, nobody else uses these rows.
    #[allow(unsafe_code, reason = "threads share a table, each for rows of its own")]
    pub(super) unsafe fn part(&self, rule: &R, rows: Range<usize>) -> TypedTable<'_, R, F> {
        let width = self.width;
        let of = |width: usize| rows.start * width..rows.end * width;
        let moments = self.moments.as_ref();
        TypedTable {
            // SAFETY: within the arrays, which have as many rows; not aliased: the caller's promise.
            param: unsafe { elements_mut(&self.param, of(width)) },
            moments: R::RowMoments::from_fn(|position| {
                let moment = &moments[position];
                // A rule of a user may say now that it uses a moment, and said the opposite when the table was checked.
                let part = of(rule.moment_width(position, width));
                assert!(part.end <= len_of(moment), "the rule changed its mind on a moment");
                // SAFETY: as above.
                unsafe { elements_mut(moment, part) }
            }),
            width,
        }
    }

    /// The parameters and moments of some rows.
    #[inline(always)]
    pub(super) fn rows_mut(&mut self, rule: &R, rows: Range<usize>) -> TypedTable<'_, R, F> {
        let width = self.width;
        let mut moments = self.moments.as_mut().iter_mut();
        TypedTable {
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
    pub(super) fn prefetch(&self, rule: &R, row: usize) {
        prefetch_row(self.param, row * self.width, self.width);
        for (position, moment) in self.moments.as_ref().iter().enumerate() {
            let width = rule.moment_width(position, self.width);
            prefetch_row(moment, row * width, width);
        }
    }
}
