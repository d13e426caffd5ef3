//! The norm of the gradients of rows.

use core::ops::Range;

use super::{
    order::Occurrences,
    sums::{RowElement, Values},
};
use crate::{
    norm::{BLOCK, Gradients, Sum},
    simd::{Simd, WithSimd},
};

/// The sums of the listed rows, in ascending order and without gaps, as one tensor.
pub(super) struct SumsOfRows<'a, E> {
    pub values: Values<'a, E>,
    pub listed: Occurrences<'a>,
    /// Where the occurrences of each row begin, and where the last ones end.
    pub starts: &'a [usize],
}

impl<E: RowElement> Gradients for SumsOfRows<'_, E> {
    fn len(&self) -> usize {
        self.starts.len().saturating_sub(1).saturating_mul(self.values.width)
    }

    fn are_f64(&self) -> bool {
        size_of::<E>() == 8
    }

    fn sum_squares(&self, sum: Sum) -> f64 {
        sum.of_blocks_by(self.len(), &|elements| {
            sum.cpu().run(OfBlock { rows: self, sum, elements })
        })
    }
}

/// The sum of the squares of a block, or another one: see [`Sum`].
struct OfBlock<'a, E> {
    rows: &'a SumsOfRows<'a, E>,
    sum: Sum,
    elements: Range<usize>,
}

impl<E: RowElement> WithSimd for OfBlock<'_, E> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let Self { rows: &SumsOfRows { values, listed, starts }, sum, elements } = self;
        let mut block = [<E::Sum>::default(); BLOCK];
        let mut rest = &mut block[..elements.len()];
        let (mut row, mut column) = (elements.start / values.width, elements.start % values.width);
        while !rest.is_empty() {
            let (sums, after) = rest.split_at_mut(rest.len().min(values.width - column));
            let occurrences = listed.slice(starts[row]..starts[row + 1]);
            values.sum_columns(simd, occurrences, column, sums);
            (rest, row, column) = (after, row + 1, 0);
        }
        sum.of_block_with(simd, &block[..elements.len()])
    }
}
