//! The rows of a call in ascending order, and how often each occurs.

use super::RowIndex;
use crate::Error;

/// Memory in which the rows of a call are sorted; it is kept for the next call.
///
/// 16 bytes for each index of the largest call so far, and 8 more where norms are computed.
#[derive(Clone, Debug, Default)]
pub struct RowScratch {
    keys: Vec<u64>,
    spare: Vec<u64>,
    /// See [`Occurrences::find_starts`].
    starts: Vec<usize>,
}

/// Sorted keys: the row in the upper bits, the position in the call in the lower ones. So the occurrences of a row are
/// together, in the order in which the call lists them.
#[derive(Clone, Copy)]
pub(crate) struct Occurrences<'a> {
    keys: &'a [u64],
    shift: u32,
}

impl RowScratch {
    /// Sorts the rows, with `O(rows.len())` work, and returns memory for where each row starts. Each
    /// row must be below `rows_in_table`.
    pub(super) fn sort<I: RowIndex>(
        &mut self,
        rows: &[I],
        rows_in_table: usize,
    ) -> Result<(Occurrences<'_>, &mut Vec<usize>), Error> {
        let bits = |count: usize| usize::BITS - count.saturating_sub(1).leading_zeros();
        let (shift, row_bits) = (bits(rows.len()), bits(rows_in_table));
        if shift + row_bits > u64::BITS {
            return Err(Error::TooManyRows { indices: rows.len(), rows: rows_in_table });
        }
        self.keys.clear();
        self.keys.reserve(rows.len());
        let (mut last, mut ascending) = (0, true);
        for (position, &row) in rows.iter().enumerate() {
            let Some(row) = row.below(rows_in_table) else {
                let row = row.value();
                return Err(Error::RowOutOfRange { position, row, rows: rows_in_table });
            };
            ascending &= last <= row;
            last = row;
            self.keys.push((row as u64) << shift | position as u64);
        }
        if !ascending {
            self.sort_keys(shift, row_bits);
        }
        Ok((Occurrences { keys: &self.keys, shift }, &mut self.starts))
    }

    /// Sorts by the bits above `shift`, of which `row_bits` may be set: a radix sort from the least digit on, which
    /// keeps the order of equal keys.
    fn sort_keys(&mut self, shift: u32, row_bits: u32) {
        /// Counters that fit into the first cache.
        const DIGIT: u32 = 11;
        /// For fewer keys, a sort by comparison is faster than counting.
        const FEW: usize = 256;
        if self.keys.len() < FEW {
            return self.keys.sort_unstable();
        }
        self.spare.resize(self.keys.len(), 0);
        let digit_bits = row_bits.div_ceil(row_bits.div_ceil(DIGIT));
        let mut sorted = 0;
        while sorted < row_bits {
            let digit = |key: u64| (key >> (shift + sorted)) as usize & ((1 << digit_bits) - 1);
            let mut ends = [0_usize; 1 << DIGIT];
            for &key in &self.keys {
                ends[digit(key)] += 1;
            }
            let mut start = 0;
            for end in &mut ends[..1 << digit_bits] {
                (*end, start) = (start, start + *end);
            }
            for &key in &self.keys {
                let place = &mut ends[digit(key)];
                self.spare[*place] = key;
                *place += 1;
            }
            core::mem::swap(&mut self.keys, &mut self.spare);
            sorted += digit_bits;
        }
    }
}

impl<'a> Occurrences<'a> {
    pub(crate) fn len(self) -> usize {
        self.keys.len()
    }

    #[inline(always)]
    pub(crate) fn row(self, index: usize) -> usize {
        (self.keys[index] >> self.shift) as usize
    }

    /// The position in the call.
    #[inline(always)]
    pub(crate) fn position(self, index: usize) -> usize {
        (self.keys[index] & !(u64::MAX << self.shift)) as usize
    }

    #[inline(always)]
    pub(crate) fn slice(self, range: core::ops::Range<usize>) -> Self {
        Self { keys: &self.keys[range], ..self }
    }

    /// The end of the run of equal rows that begins at `start`.
    #[inline(always)]
    pub(crate) fn end_of_run(self, start: usize) -> usize {
        let row = self.row(start);
        let mut end = start + 1;
        while end < self.len() && self.row(end) == row {
            end += 1;
        }
        end
    }

    /// Writes where the occurrences of each row begin, and where the last ones end.
    pub(crate) fn find_starts(self, starts: &mut Vec<usize>) {
        starts.clear();
        let mut start = 0;
        while start < self.len() {
            starts.push(start);
            start = self.end_of_run(start);
        }
        starts.push(start);
    }

    /// A place between two rows: `index`, or the end of the run that it is within.
    pub(crate) fn end_of_run_within(self, index: usize) -> usize {
        match index {
            0 => 0,
            _ => {
                let row = self.row(index - 1);
                let later = &self.keys[index..];
                index + later.partition_point(|key| (key >> self.shift) as usize == row)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both sorts, few and many rows of a table, several digits.
    #[test]
    fn rows_come_in_ascending_order_and_their_occurrences_in_the_order_of_the_call() {
        let mut scratch = RowScratch::default();
        let many = if cfg!(miri) { 300 } else { 1000 };
        let sizes = [(0, 1), (1, 1), (100, 7), (many, 1), (many, 40), (3 * many, 1 << 33)];
        for (count, rows) in sizes {
            let listed: Vec<u64> =
                (0..count).map(|i: u64| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % rows).collect();
            let (order, _) = scratch.sort(&listed, rows as usize).expect("rows in range");
            let found: Vec<_> =
                (0..order.len()).map(|i| (order.row(i) as u64, order.position(i))).collect();
            let mut expected: Vec<_> =
                listed.iter().enumerate().map(|(position, &row)| (row, position)).collect();
            expected.sort();
            assert_eq!(found, expected, "{count} of {rows}");
        }
    }

    #[test]
    fn a_cut_keeps_all_gradients_of_a_row_together() {
        let mut scratch = RowScratch::default();
        let (order, starts) = scratch.sort(&[3_u32, 1, 1, 3, 1, 2], 4).expect("rows in range");
        order.find_starts(starts);
        assert_eq!(*starts, [0, 3, 4, 6]);
        let cut = |index| order.end_of_run_within(index);
        assert_eq!([0, 1, 2, 3, 4, 5, 6].map(cut), [0, 3, 3, 3, 4, 6, 6]);
    }

    #[test]
    fn indices_and_rows_that_a_sort_key_cannot_hold_are_refused() {
        let error = RowScratch::default().sort(&[0_u32; 5], usize::MAX).err();
        assert_eq!(error, Some(Error::TooManyRows { indices: 5, rows: usize::MAX }));
    }
}
