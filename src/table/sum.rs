//! The sum of the gradients of a row that is listed more than once.

use core::ops::Range;

use crate::Float;

/// So many gradients are added up one after the other; sums of so many in pairs, and those in pairs
/// again. So the error grows with the logarithm of their number, not with the number.
const IN_ORDER: usize = 16;

/// As many as a number of indices has bits that memory can hold.
const LEVELS: usize = if usize::BITS == 64 { 44 } else { 32 };

/// The columns that are added up at a time where pairs are: their sums of all levels are a part of the
/// first cache.
const COLUMNS: usize = 32;

/// Sets `sums` to the sums of the first columns of `count` rows, at least one.
#[inline(always)]
pub(super) fn sum<'a, F: Float>(count: usize, row: &impl Fn(usize) -> &'a [F], sums: &mut [F]) {
    if count <= IN_ORDER {
        return in_order(0..count, row, sums);
    }
    for (number, sums) in sums.chunks_mut(COLUMNS).enumerate() {
        in_pairs(count, &|index| &row(index)[number * COLUMNS..], sums);
    }
}

#[inline(always)]
fn in_order<'a, F: Float>(range: Range<usize>, row: &impl Fn(usize) -> &'a [F], sums: &mut [F]) {
    sums.copy_from_slice(&row(range.start)[..sums.len()]);
    for index in range.start + 1..range.end {
        add(sums, row(index), |sum, value| sum + value);
    }
}

#[inline(always)]
fn add<F: Float>(sums: &mut [F], values: &[F], add: impl Fn(F, F) -> F) {
    for (sum, &value) in sums.iter_mut().zip(values) {
        *sum = add(*sum, value);
    }
}

/// Of at most [`COLUMNS`]. Rare and long: apart from the loop over the rows.
#[inline(never)]
fn in_pairs<'a, F: Float>(count: usize, row: &impl Fn(usize) -> &'a [F], sums: &mut [F]) {
    // The bits of the number of blocks so far say which levels hold a sum that waits for its like.
    let mut waiting = [[F::default(); COLUMNS]; LEVELS];
    let blocks = count.div_ceil(IN_ORDER);
    for block in 0..blocks {
        let start = block * IN_ORDER;
        in_order(start..(start + IN_ORDER).min(count), row, sums);
        let mut level = 0;
        while block >> level & 1 == 1 {
            add(sums, &waiting[level], |sum, before| before + sum);
            level += 1;
        }
        waiting[level][..sums.len()].copy_from_slice(sums);
    }
    // `sums` holds what the lowest of the levels does.
    let higher = waiting.iter().enumerate().skip(blocks.trailing_zeros() as usize + 1);
    for (_, waiting) in higher.filter(|&(level, _)| blocks >> level & 1 == 1) {
        add(sums, waiting, |sum, before| before + sum);
    }
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn millions_of_ones_are_added_up_without_loss() {
        // One after the other they would end at 2^24.
        let count = (1 << 24) + 999;
        let mut sums = [0.0_f32];
        sum(count, &|_| &[1.0], &mut sums);
        assert_eq!(sums, [count as f32]);
    }

    #[test]
    fn the_error_of_a_sum_does_not_grow_with_its_length() {
        for count in [17, 1000, 4_000_000] {
            let mut sums = [0.0_f32; 3];
            sum(count, &|_| &[0.1, -0.3, 1e-3], &mut sums);
            for (found, value) in sums.into_iter().zip([0.1_f32, -0.3, 1e-3]) {
                let right = f64::from(value) * count as f64;
                let error = (f64::from(found) / right - 1.0).abs();
                // 16 additions, and one for each doubling.
                let most = 40.0 * f64::from(f32::EPSILON) / 2.0;
                assert!(error <= most, "{count} times {value}: {found}, error {error:e}");
            }
        }
    }
}
