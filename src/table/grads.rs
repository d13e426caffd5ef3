//! The gradients of some rows.

use core::fmt;

use crate::{Error, Float, simd::prefetch_row};

/// The gradient of some rows of a table: their indices, and for each index a row of values.
///
/// Indices may come in any order, and a row any number of times: its gradients are added up first,
/// and the row is stepped once with the sum. 16 gradients are added up in the order in which they are
/// listed, and such sums in pairs, so that the error does not grow with their number.
///
/// # Examples
///
/// Rows 7 and 2 of a table that is three wide:
///
/// ```
/// use adamant::RowGrads;
///
/// let rows = [7_u32, 2];
/// let values = [0.1_f32, 0.2, 0.3, 1.1, 1.2, 1.3];
/// let grads = RowGrads::new(&rows, &values, 3);
/// assert_eq!(grads.stride, 3);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RowGrads<'a, I: RowIndex, F: Float> {
    /// The rows' indices, from 0.
    pub rows: &'a [I],
    /// For each index a row of gradients, `stride` after the one before; `width` of them are used.
    pub values: &'a [F],
    /// The number of parameters in a row, as in the table.
    pub width: usize,
    /// The number of elements from the start of a row of `values` to the start of the next: at least
    /// `width`.
    pub stride: usize,
}

impl<'a, I: RowIndex, F: Float> RowGrads<'a, I, F> {
    /// Rows of values that follow each other without gaps.
    pub fn new(rows: &'a [I], values: &'a [F], width: usize) -> Self {
        Self { rows, values, width, stride: width }
    }

    pub(super) fn check(&self, width: usize) -> Result<(), Error> {
        let Self { rows, values, stride, .. } = *self;
        if self.width != width {
            return Err(Error::WidthMismatch { width: self.width, expected: width });
        }
        if stride < width {
            return Err(Error::StrideTooSmall { stride, width });
        }
        // What follows the last row may be there or not.
        let expected = match rows.len() {
            0 => Some(0..=0),
            count => stride.checked_mul(count).map(|most| most - (stride - width)..=most),
        };
        match expected {
            Some(expected) if expected.contains(&values.len()) => Ok(()),
            _ => {
                Err(Error::ValuesMismatch { len: values.len(), indices: rows.len(), width, stride })
            }
        }
    }
}

/// A type of row indices: `u32`, `u64`, `usize`, `i32` or `i64`; sealed.
pub trait RowIndex: index::Sealed + Copy + fmt::Debug + Send + Sync {
    /// The row, if it is one of the first `rows`.
    fn below(self, rows: usize) -> Option<usize>;

    /// The number as it is, for errors.
    fn value(self) -> i128;
}

mod index {
    pub trait Sealed {}
}

macro_rules! row_index {
    ($($index:ty),+) => {$(
        impl index::Sealed for $index {}

        impl RowIndex for $index {
            #[inline(always)]
            fn below(self, rows: usize) -> Option<usize> {
                usize::try_from(self).ok().filter(|&row| row < rows)
            }

            fn value(self) -> i128 {
                self as i128
            }
        }
    )+};
}

row_index!(u32, u64, usize, i32, i64);

/// The values of a gradient, whatever the type of its indices.
#[derive(Clone, Copy)]
pub(super) struct Values<'a, F> {
    pub(super) values: &'a [F],
    width: usize,
    stride: usize,
}

impl<'a, I: RowIndex, F: Float> From<RowGrads<'a, I, F>> for Values<'a, F> {
    fn from(RowGrads { values, width, stride, .. }: RowGrads<'a, I, F>) -> Self {
        Self { values, width, stride }
    }
}

impl<'a, F: Float> Values<'a, F> {
    #[inline(always)]
    pub(super) fn row(self, position: usize) -> &'a [F] {
        &self.values[position * self.stride..][..self.width]
    }

    #[inline(always)]
    pub(super) fn prefetch(self, position: usize) {
        prefetch_row(self.values, position * self.stride, self.width);
    }
}
