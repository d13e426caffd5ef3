//! The gradient of a row: the sum of the values of all its occurrences.

use core::ops::Range;

use half::{bf16, f16};

use super::{as_tensors::SumOfRow, order::Occurrences};
use crate::{
    Element,
    array::{Float, Narrow},
    dispatch::Rows,
    isa::Cpu,
    kernel::TypedRows,
    norm::Summed,
    simd::{Register, Simd, TILE, Vector, prefetch_row},
};

/// The number of gradients that are added up one after the other. These sums are added in pairs, their sums in pairs
/// again, and so on. So the error grows only with the logarithm of the number of gradients.
const IN_ORDER: usize = 16;

/// The number of levels of pairs: enough for as many indices as memory can hold.
const LEVELS: usize = if usize::BITS == 64 { 44 } else { 32 };

/// The number of columns that are added in pairs at a time: the sums of all levels then take a part of the first cache.
const COLUMNS: usize = 32;

/// A type of gradients of rows.
pub trait RowElement: Element {
    /// The type that gradients of a row are added up in.
    type Sum: RowFloat;

    /// A register of gradients. If there are fewer, the rest is zeros.
    fn read<S: Simd>(simd: S, values: &[Self]) -> Vector<S, Self::Sum>;

    /// One gradient.
    fn widened(self) -> Self::Sum;
}

macro_rules! row_elements {
    ($($element:ty: $sum:ty, $read:expr, $one:expr);+) => {$(
        impl RowElement for $element {
            type Sum = $sum;

            #[inline(always)]
            fn read<S: Simd>(simd: S, values: &[Self]) -> Vector<S, $sum> {
                ($read)(simd, values)
            }

            #[inline(always)]
            fn widened(self) -> $sum {
                ($one)(self)
            }
        }
    )+};
}

row_elements!(
    f32: f32, Vector::read, f32::from;
    f64: f64, Vector::read, f64::from;
    bf16: f32, bf16::widen, bf16::to_f32;
    f16: f32, f16::widen, f16::to_f32
);

/// A type that steps of rows are computed in.
pub trait RowFloat: Float + Summed + RowElement<Sum = Self> {
    /// Adds up the gradients of a row. Compiled in this crate only.
    fn sum(cpu: Cpu, row: SumOfRow<'_, Self>);

    /// The rows, as a variant of [`Rows`].
    fn rows(rows: &mut dyn TypedRows<Self>) -> Rows<'_>;
}

impl RowFloat for f32 {
    fn sum(cpu: Cpu, row: SumOfRow<'_, Self>) {
        cpu.run(row);
    }

    fn rows(rows: &mut dyn TypedRows<Self>) -> Rows<'_> {
        Rows::F32(rows)
    }
}

impl RowFloat for f64 {
    fn sum(cpu: Cpu, row: SumOfRow<'_, Self>) {
        cpu.run(row);
    }

    fn rows(rows: &mut dyn TypedRows<Self>) -> Rows<'_> {
        Rows::F64(rows)
    }
}

/// The values of a gradient, whatever the type of its indices.
#[derive(Clone, Copy)]
pub(super) struct Values<'a, E> {
    pub values: &'a [E],
    pub width: usize,
    pub stride: usize,
}

impl<'a, E> Values<'a, E> {
    #[inline(always)]
    pub(super) fn row(self, position: usize) -> &'a [E] {
        &self.values[position * self.stride..][..self.width]
    }

    #[inline(always)]
    pub(super) fn prefetch(self, position: usize) {
        prefetch_row(self.values, position * self.stride, self.width);
    }
}

impl<E: RowElement> Values<'_, E> {
    /// Writes the sums of a row's columns to `sums`, from column `start` on. The order of the additions depends on the
    /// number of occurrences alone.
    #[inline(always)]
    pub(super) fn sum_columns<S: Simd>(
        self,
        simd: S,
        occurrences: Occurrences<'_>,
        start: usize,
        sums: &mut [E::Sum],
    ) {
        if occurrences.len() > IN_ORDER {
            for (number, sums) in sums.chunks_mut(COLUMNS).enumerate() {
                self.sum_in_pairs(occurrences, start + number * COLUMNS, sums);
            }
            return;
        }
        let lanes = <E::Sum>::lanes::<S>();
        let len = sums.len();
        for index in 0..occurrences.len() {
            let row = &self.row(occurrences.position(index))[start..][..len];
            for (sums, values) in sums.chunks_mut(lanes).zip(row.chunks(lanes)) {
                let mut sum = E::read(simd, values);
                if index > 0 {
                    sum = Vector::read(simd, sums) + sum;
                }
                sum.write(sums);
            }
        }
    }

    /// [`sum_columns`](Self::sum_columns) in pairs, for at most [`COLUMNS`] columns. Not inlined into the loop over
    /// rows: it is long and rarely needed.
    #[inline(never)]
    fn sum_in_pairs(self, occurrences: Occurrences<'_>, start: usize, sums: &mut [E::Sum]) {
        let count = occurrences.len();
        // The set bits of the number of blocks so far are the levels with a sum that waits for a second one.
        let mut waiting = [[<E::Sum>::default(); COLUMNS]; LEVELS];
        let blocks = count.div_ceil(IN_ORDER);
        for block in 0..blocks {
            let first = block * IN_ORDER;
            self.sum_in_order(occurrences, first..(first + IN_ORDER).min(count), start, sums);
            let mut level = 0;
            while block >> level & 1 == 1 {
                add(sums, &waiting[level]);
                level += 1;
            }
            waiting[level][..sums.len()].copy_from_slice(sums);
        }
        // `sums` already holds the sum of the lowest level.
        let higher = waiting.iter().enumerate().skip(blocks.trailing_zeros() as usize + 1);
        for (_, waiting) in higher.filter(|&(level, _)| blocks >> level & 1 == 1) {
            add(sums, waiting);
        }
    }

    fn sum_in_order(
        self,
        occurrences: Occurrences<'_>,
        range: Range<usize>,
        start: usize,
        sums: &mut [E::Sum],
    ) {
        sums.fill(<E::Sum>::default());
        for index in range.clone() {
            let row = &self.row(occurrences.position(index))[start..][..sums.len()];
            for (sum, value) in sums.iter_mut().zip(row) {
                let value = value.widened();
                // Not from 0 on, since 0 + -0 is no -0.
                *sum = if index == range.start { value } else { *sum + value };
            }
        }
    }
}

/// Adds the sums of earlier gradients, as the first operand.
fn add<F: Float>(sums: &mut [F], before: &[F]) {
    for (sum, &before) in sums.iter_mut().zip(before) {
        *sum = before + *sum;
    }
}

/// The gradient of a row, as its step reads it.
pub struct RowGrad<'a, F: Float> {
    pub(super) values: Values<'a, F>,
    pub(super) occurrences: Occurrences<'a>,
    /// The factor of the sum.
    pub(super) factor: F,
    pub(super) tile: &'a mut [F; TILE],
}

impl<F: RowFloat> RowGrad<'_, F> {
    /// The gradient from column `start` on: of all remaining columns, or of [`TILE`] of them.
    #[inline(always)]
    pub(super) fn from<S: Simd>(&mut self, simd: S, start: usize) -> &[F] {
        let (values, occurrences, factor) = (self.values, self.occurrences, self.factor);
        let rest = &values.row(occurrences.position(0))[start..];
        let is_scaled = factor != F::from_f64(1.0);
        if occurrences.len() == 1 && !is_scaled {
            return rest;
        }
        let tile = &mut self.tile[..rest.len().min(TILE)];
        values.sum_columns(simd, occurrences, start, tile);
        if is_scaled {
            let factor = Vector::splat(simd, factor);
            for sums in tile.chunks_mut(F::lanes::<S>()) {
                (Vector::read(simd, sums) * factor).write(sums);
            }
        }
        tile
    }
}
