//! The arrays of a table in a call.

use std::iter;

use adamant::{rule::Float, table::Table};

use super::{super::Guarded, Misfit, RowColumns};

/// The arrays of a call, with guards around them.
pub(super) struct Arrays<F> {
    pub(super) width: usize,
    pub(super) param: Guarded<F>,
    pub(super) moments: Vec<Guarded<F>>,
}

impl<F: Float> Arrays<F> {
    pub(super) fn new(columns: &RowColumns<F>, offset: usize) -> Self {
        let guarded = |column: &Vec<F>| Guarded::new(column, offset);
        Self {
            width: columns.width,
            param: guarded(&columns.param),
            moments: columns.moments.iter().map(guarded).collect(),
        }
    }

    /// The width and the lengths of the parameters and moments, with the misfit in place, if there is
    /// one.
    pub(super) fn sizes(&self, misfit: Option<Misfit>) -> (usize, Vec<usize>) {
        let (arrays, rows) = (1 + self.moments.len(), self.param.len / self.width);
        let width = if let Some(Misfit::Width(width)) = misfit { width } else { self.width };
        let all = iter::once(&self.param).chain(&self.moments).enumerate();
        let lens = all.map(|(position, Guarded { buffer, start, len, .. })| {
            let len = match misfit {
                Some(Misfit::Len { array, len }) if array % arrays == position => len,
                Some(Misfit::Rows(other)) => other * len.checked_div(rows).unwrap_or(width),
                _ => *len,
            };
            // The guards stand in for what an array does not have.
            len.min(buffer.len() - *start)
        });
        (width, lens.collect())
    }

    /// With the misfit in place, if there is one.
    pub(super) fn table(&mut self, misfit: Option<Misfit>) -> Table<'_> {
        let (width, lens) = self.sizes(misfit);
        let all = iter::once(&mut self.param).chain(&mut self.moments).zip(lens);
        let mut slices =
            all.map(|(Guarded { buffer, start, .. }, len)| &mut buffer[*start..][..len]);
        let param = slices.next().expect("the parameters");
        Table::new(F::param(param), width).with_moments(slices.map(|moment| F::moment(moment)))
    }

    #[track_caller]
    pub(super) fn check(&self, expected: &RowColumns<F>, context: &dyn Fn() -> String) {
        let found = RowColumns {
            width: self.width,
            param: self.param.get().to_vec(),
            moments: self.moments.iter().map(|moment| moment.get().to_vec()).collect(),
        };
        found.assert_same_bits(expected, context);
        self.param.check_guards("param");
        self.moments.iter().for_each(|moment| moment.check_guards("moment"));
    }
}
