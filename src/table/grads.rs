//! The gradients of some rows.

use core::fmt;

use super::{
    RowScratch,
    order::Occurrences,
    sums::{RowElement, Values},
};
use crate::{
    Element, Error, Exec, Storage,
    array::{Float, GradArray},
    norm::{NormOrder, Norms},
};

/// The gradient of some rows of a table: their indices, and for each index a row of values.
///
/// Indices may come in any order, and a row may be listed any number of times: its gradients are added up
/// first, and the row is stepped once with the sum. Each 16 gradients are added up in the order in which they
/// are listed, then these sums in pairs, so that the error does not grow with their number.
///
/// Values are of `f32`, `f64`, bf16 or f16. Those of 16 bits are added up in `f32`.
///
/// # Examples
///
/// Rows 7 and 2 of a table that is three wide:
///
/// ```
/// use adamant::table::RowGrads;
///
/// let rows = [7_u32, 2];
/// let values = [0.1_f32, 0.2, 0.3, 1.1, 1.2, 1.3];
/// let grads = RowGrads::new(&rows, &values, 3);
/// assert_eq!(grads.stride, 3);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct RowGrads<'a, I: RowIndex, E: Element> {
    /// The rows' indices, from 0.
    pub rows: &'a [I],
    /// For each index a row of `width` gradients. Each row starts `stride` elements after the row before.
    pub values: &'a [E],
    /// The number of parameters in a row, as in the table.
    pub width: usize,
    /// The number of elements from the start of a row of `values` to the start of the next: at least
    /// `width`.
    pub stride: usize,
}

impl<'a, I: RowIndex, E: Element> RowGrads<'a, I, E> {
    /// Rows of values that follow each other without gaps.
    pub fn new(rows: &'a [I], values: &'a [E], width: usize) -> Self {
        Self { rows, values, width, stride: width }
    }

    /// Sorts the gradients by row, for a table of `rows` rows.
    ///
    /// [`step_rows_lazy`](crate::table::RowOptimizer::step_rows_lazy) sorts by itself. Sort first if you need the norm
    /// of the gradients before the step, for example to clip by the norm of a whole model.
    ///
    /// # Examples
    ///
    /// Weights and an embedding table, clipped by their common norm:
    ///
    /// ```
    /// use adamant::{
    ///     Adam, Exec, Optimizer, StepOptions,
    ///     norm::{NormOrder, grad_norm},
    ///     table::{RowGrads, RowOptimizer, RowScratch},
    /// };
    ///
    /// let adam = Adam::default();
    /// let (mut weight, weight_grad) = (vec![1.0_f32; 3], vec![2.0_f32; 3]);
    /// let mut table = vec![1.0_f32; 10 * 2];
    /// let (mut weight_state, mut table_state) = (adam.state(3), adam.row_state(10, 2));
    /// let mut scratch = RowScratch::default();
    ///
    /// // Row 7 is listed twice: its gradient is 2 and 0.
    /// let grads = RowGrads::new(&[7_u32, 7], &[1.0_f32, -1.0, 1.0, 1.0], 2);
    /// let mut sorted = grads.sort(10, &mut scratch)?;
    /// let of_rows = sorted.grad_norm(NormOrder::Two, Exec::default())?;
    /// assert_eq!(of_rows, 2.0);
    ///
    /// let grad_norm = grad_norm(&[&weight_grad])?.hypot(of_rows);
    /// let options = StepOptions {
    ///     grad_norm: Some(grad_norm),
    ///     max_norm: Some(1.0),
    ///     ..StepOptions::default()
    /// };
    /// let param = (&mut weight).into();
    /// let dense = adam.step_with(param, (&weight_grad).into(), &mut weight_state, &options)?;
    /// let param = (&mut table).into();
    /// let rows = adam.step_rows_lazy_with(param, sorted, &mut table_state, &options)?;
    /// assert_eq!((dense, rows.grad_norm), (rows, Some(4.0)));
    /// # Ok::<(), adamant::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Error::ZeroWidth`], [`Error::StrideTooSmall`] or [`Error::ValuesMismatch`] for values that do
    ///   not fit the indices;
    /// - [`Error::RowOutOfRange`] for an index that is negative or not below `rows`,
    ///   [`Error::TooManyRows`] if indices and rows together take more than 64 bits to number.
    pub fn sort(self, rows: usize, scratch: &'a mut RowScratch) -> Result<SortedRows<'a>, Error> {
        self.check()?;
        let (listed, starts) = scratch.sort(self.rows, rows)?;
        let Self { values, width, stride, .. } = self;
        Ok(SortedRows { values: E::grad(values).0, width, stride, listed, starts, rows })
    }

    fn check(&self) -> Result<(), Error> {
        let Self { rows, values, width, stride } = *self;
        if width == 0 {
            return Err(Error::ZeroWidth);
        }
        if stride < width {
            return Err(Error::StrideTooSmall { stride, width });
        }
        // The gap after the last row may be there or not.
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

/// The gradients of some rows of a table, sorted by row: see [`RowGrads::sort`].
pub struct SortedRows<'a> {
    pub(super) values: GradArray<'a>,
    pub(super) width: usize,
    pub(super) stride: usize,
    pub(super) listed: Occurrences<'a>,
    starts: &'a mut Vec<usize>,
    /// The number of rows of the table.
    pub(super) rows: usize,
}

impl SortedRows<'_> {
    /// The number of parameters in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// A norm of the gradients. If a row is listed more than once, its gradients are added up first.
    ///
    /// It has the bits of [`grad_norms`](crate::norm::grad_norms) of one tensor that holds the sums of the
    /// listed rows, in ascending order and without gaps: PyTorch's `grad.coalesce().values()`. The
    /// Euclidean norm of a model is the root of the sum of the squares of its parts' norms.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownIsa`] or [`Error::IsaUnavailable`] for the instruction set.
    pub fn grad_norm(&mut self, order: NormOrder, exec: Exec<'_>) -> Result<f64, Error> {
        Ok(self.norm(Norms { order, cpu: exec.cpu()?, threads: exec.threads }))
    }

    pub(super) fn norm(&mut self, norms: Norms<'_>) -> f64 {
        self.listed.find_starts(self.starts);
        match self.values {
            GradArray::F32(values) => self.norm_of(norms, values),
            GradArray::F64(values) => self.norm_of(norms, values),
            GradArray::Bf16(values) => self.norm_of(norms, values),
            GradArray::F16(values) => self.norm_of(norms, values),
            _ => unreachable!("gradients of rows are only read"),
        }
    }

    fn norm_of<E: RowElement>(&self, norms: Norms<'_>, values: &[E]) -> f64 {
        let Self { width, stride, listed, .. } = *self;
        let values = Values { values, width, stride };
        let sums = super::norm::SumsOfRows { values, listed, starts: self.starts };
        norms.of_all(core::slice::from_ref(&sums))
    }

    /// The storage of the values.
    pub(super) fn storage(&self) -> Storage {
        match self.values {
            GradArray::F64(_) | GradArray::F64ToZero(_) => Storage::F64,
            GradArray::Bf16(_) | GradArray::Bf16ToZero(_) => Storage::Bf16,
            GradArray::F16(_) | GradArray::F16ToZero(_) => Storage::F16,
            GradArray::F32(_) | GradArray::F32ToZero(_) => Storage::F32,
        }
    }

    /// The values, if they are of `F`.
    pub(super) fn values_of<F: Float>(&self) -> Option<Values<'_, F>> {
        let Self { width, stride, .. } = *self;
        F::grad_of(&self.values).map(|values| Values { values, width, stride })
    }
}

impl fmt::Debug for SortedRows<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SortedRows")
            .field("width", &self.width)
            .field("indices", &self.listed.len())
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

/// A type of row indices: `u32`, `u64`, `usize`, `i32` or `i64`. Sealed.
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
