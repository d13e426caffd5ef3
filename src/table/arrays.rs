//! The parameters and moments of a table.

use core::fmt;

use crate::{Arity, Error, Float, MOMENTS, Many, State, array::elements_mut, simd::prefetch_row};

use super::{RowRule, RowScratch};

/// A table of parameters, with its moments: rows of `width` elements, one after the other.
pub struct Table<'a, R: RowRule, F: Float> {
    /// The parameters: rows times `width`.
    pub param: &'a mut [F],
    /// The moments, each as long as the parameters, or as many elements as there are rows where the
    /// moment is [one a row](crate::RowWiseAdam). Before the first step each holds what
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

    pub(super) fn check(&self, rule: &R) -> Result<(), Error> {
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
    pub(super) unsafe fn part(&self, rule: &R, rows: core::ops::Range<usize>) -> Table<'_, R, F> {
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
    pub(super) fn rows_mut(&mut self, rule: &R, rows: core::ops::Range<usize>) -> Table<'_, R, F> {
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
    pub(super) fn prefetch(&self, rule: &R, row: usize) {
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

/// A table of parameters and the moments of a state, with its step count and what sorts rows.
pub(super) fn table_of<'a, R: RowRule, F: Float>(
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
