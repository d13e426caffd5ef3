//! The gradient of a row: the sum of the values of all its occurrences, in the order of the call.

use half::{bf16, f16};

use super::order::Occurrences;
use crate::{
    Element, Float,
    array::Narrow,
    simd::{Register, Simd, TILE, Vector, prefetch_row},
};

/// A type of gradients of rows.
pub trait RowElement: Element {
    /// The type that gradients of a row are added up in.
    type Sum: Float;

    /// A register of gradients, or of fewer and zeros.
    fn read<S: Simd>(simd: S, values: &[Self]) -> Vector<S, Self::Sum>;
}

macro_rules! row_elements {
    ($($element:ty: $sum:ty, $read:expr);+) => {$(
        impl RowElement for $element {
            type Sum = $sum;

            #[inline(always)]
            fn read<S: Simd>(simd: S, values: &[Self]) -> Vector<S, $sum> {
                ($read)(simd, values)
            }
        }
    )+};
}

row_elements!(
    f32: f32, Vector::read;
    f64: f64, Vector::read;
    bf16: f32, bf16::widen;
    f16: f32, f16::widen
);

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
    /// Writes the sums of some columns of a row, from one on, as many as there are `sums`.
    #[inline(always)]
    pub(super) fn sum_columns<S: Simd>(
        self,
        simd: S,
        occurrences: Occurrences<'_>,
        start: usize,
        sums: &mut [E::Sum],
    ) {
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
}

/// The gradient of a row, as its step reads it.
pub struct RowGrad<'a, F: Float> {
    pub(super) values: Values<'a, F>,
    pub(super) occurrences: Occurrences<'a>,
    /// What the sum is multiplied by.
    pub(super) factor: F,
    pub(super) tile: &'a mut [F; TILE],
}

impl<F: Float + RowElement<Sum = F>> RowGrad<'_, F> {
    /// Some columns, from one on: all others, or [`TILE`] of them.
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
