//! Steps of rows as tensors: the gradient of each is the row's sum. For arrays that are not all of the type that is
//! computed in, and for optimizers without a [loop over rows](crate::rule::Rule::ROWS_IN_LOOP).

use core::ops::Range;

use half::{bf16, f16};

use super::{
    SortedRows, Table,
    order::Occurrences,
    sums::{RowElement, RowFloat, RowGrad, Values},
    sweep::{rows_ahead, share},
};
use crate::{
    Storage, Threads,
    array::{GradArray, MomentArray, elements_mut, len_of},
    dispatch::Rows,
    isa::Cpu,
    kernel::{Pass, TypedRows},
    mixed::Runs,
    rule::MOMENTS,
    simd::{Simd, TILE, WithSimd, prefetch_row},
    tensor::{TensorArrays, TypedArrays},
};

/// Takes the step of a rule on rows, each as if it were a tensor.
pub(super) type StepRows<'a> = dyn Fn(&Pass, Rows<'_>) + Sync + 'a;

/// Takes a step of the listed rows that is computed in `F`; table and gradients were found to go together, and
/// `is_mixed` says whether one of their arrays is not simply an `F`. The rule is known to `step` alone, so this is not
/// compiled for each rule.
pub(super) fn run<F: RowFloat>(
    cpu: Cpu,
    step: &StepRows<'_>,
    pass: &Pass,
    table: Table<'_>,
    grads: &SortedRows<'_>,
    is_mixed: bool,
    threads: Threads<'_>,
) {
    // As of a tensor: the loop over f32 does not look for subnormals.
    let flushes_in_loop = F::STORAGE == Storage::F64 || !pass.flush_subnormals;
    match grads.values_of::<F>() {
        Some(values) if !is_mixed && flushes_in_loop => {
            run_typed(cpu, step, pass, table, (values, grads.listed), threads);
        }
        _ => run_mixed(cpu, step, pass, &table, grads, threads),
    }
}

/// Takes the step in `f32`, whatever the arrays hold.
fn run_mixed(
    cpu: Cpu,
    step: &StepRows<'_>,
    pass: &Pass,
    table: &Table<'_>,
    grads: &SortedRows<'_>,
    threads: Threads<'_>,
) {
    let grads = Grads {
        values: &grads.values,
        width: grads.width,
        stride: grads.stride,
        listed: grads.listed,
    };
    share(threads, grads.listed, grads.width, &|listed| {
        let walk = Walk::new(listed, grads.width, table.bytes_of_row());
        let (grads, sums) = (Grads { listed, ..grads }, [0.0; TILE]);
        step(pass, Rows::Mixed(&mut MixedRows { cpu, table, grads, walk, sums }));
    });
}

/// Takes the step of a table whose arrays are all of the type that is computed in.
fn run_typed<F: RowFloat>(
    cpu: Cpu,
    step: &StepRows<'_>,
    pass: &Pass,
    table: Table<'_>,
    (values, listed): (Values<'_, F>, Occurrences<'_>),
    threads: Threads<'_>,
) {
    let factor = F::from_f64(pass.grad_factor);
    // The rows multiply their gradients.
    let pass = Pass { grad_factor: 1.0, ..*pass };
    let (width, row_bytes) = (table.width, table.bytes_of_row());
    let (param, moments) = table.slices::<F>();
    // Rules have as many elements of a moment as parameters, or none; `RowWiseAdam` alone has one for each row, and no
    // steps of tensors.
    assert!(moments.iter().all(|moment| moment.is_empty() || moment.len() == param.len()));
    share(threads, listed, width, &|listed| {
        let rows = listed.row(0)..listed.row(listed.len() - 1) + 1;
        let first = rows.start;
        let elements = rows.start * width..rows.end * width;
        // SAFETY: `share` gives each thread rows of its own. They are in ascending order, so no row is within
        // the ranges of two threads. A moment that is not empty is as long as the parameters.
        #[allow(unsafe_code, reason = "threads share a table, each for rows of its own")]
        let (param, moments) = unsafe {
            let moments = moments.each_ref().map(|moment| match len_of(moment) {
                0 => &mut [][..],
                _ => elements_mut(moment, elements.clone()),
            });
            (elements_mut(&param, elements), moments)
        };
        let walk = Walk::new(listed, width, row_bytes);
        let tile = [F::default(); TILE];
        let mut rows = ListedRows { cpu, param, moments, first, values, factor, walk, tile };
        step(&pass, F::rows(&mut rows));
    });
}

/// A way through listed rows, and through the columns of each.
struct Walk<'a> {
    listed: Occurrences<'a>,
    width: usize,
    /// The occurrences of the row, and its next column.
    start: usize,
    end: usize,
    column: usize,
    /// The number of occurrences whose memory was prefetched.
    asked: usize,
    ahead: usize,
}

impl<'a> Walk<'a> {
    fn new(listed: Occurrences<'a>, width: usize, row_bytes: usize) -> Self {
        Self { listed, width, start: 0, end: 0, column: 0, asked: 0, ahead: rows_ahead(row_bytes) }
    }

    /// The occurrences of the row whose columns are next. Prefetches the gradients of later occurrences, by their
    /// positions, and their rows.
    #[inline(always)]
    fn occurrences(
        &mut self,
        ask_for_grad: impl Fn(usize),
        ask_for_row: impl Fn(usize),
    ) -> Option<Occurrences<'a>> {
        if self.column == self.width {
            (self.start, self.column) = (self.end, 0);
        }
        if self.start == self.listed.len() {
            return None;
        }
        if self.column == 0 {
            self.end = self.listed.end_of_run(self.start);
            let end = (self.end + self.ahead).min(self.listed.len());
            for index in self.asked..end {
                ask_for_grad(self.listed.position(index));
                let row = self.listed.row(index);
                if index == 0 || row != self.listed.row(index - 1) {
                    ask_for_row(row);
                }
            }
            self.asked = end.max(self.asked);
        }
        Some(self.listed.slice(self.start..self.end))
    }

    /// The range of the next `count` columns.
    #[inline(always)]
    fn columns(&mut self, count: usize) -> Range<usize> {
        let start = self.column;
        self.column += count;
        start..self.column
    }
}

/// Some rows that nobody else uses, with arrays of one type.
struct ListedRows<'a, F> {
    cpu: Cpu,
    param: &'a mut [F],
    moments: [&'a mut [F]; MOMENTS],
    /// The number of the arrays' first row.
    first: usize,
    values: Values<'a, F>,
    factor: F,
    walk: Walk<'a>,
    tile: [F; TILE],
}

impl<F: RowFloat> TypedRows<F> for ListedRows<'_, F> {
    fn next(&mut self) -> Option<TypedArrays<'_, F>> {
        let Self { cpu, param, moments, first, values, factor, walk, tile } = self;
        let width = walk.width;
        let occurrences = walk.occurrences(
            |position| values.prefetch(position),
            |row| {
                let row = (row - *first) * width;
                prefetch_row(param, row, width);
                for moment in moments.iter().filter(|moment| !moment.is_empty()) {
                    prefetch_row(moment, row, width);
                }
            },
        )?;
        let start = walk.column;
        let grad = if occurrences.len() == 1 && *factor == F::from_f64(1.0) {
            &values.row(occurrences.position(0))[start..]
        } else {
            let len = (width - start).min(TILE);
            let (values, factor) = (*values, *factor);
            F::sum(*cpu, SumOfRow(RowGrad { values, occurrences, factor, tile }, start));
            &tile[..len]
        };
        let columns = walk.columns(grad.len());
        let row = (occurrences.row(0) - *first) * width;
        let elements = row + columns.start..row + columns.end;
        Some(TypedArrays {
            param: &mut param[elements.clone()],
            grad,
            moments: moments.each_mut().map(|moment| match moment.is_empty() {
                true => &mut [][..],
                false => &mut moment[elements.clone()],
            }),
        })
    }
}

/// Adds up the gradients of a row from a column on.
pub struct SumOfRow<'a, F: RowFloat>(RowGrad<'a, F>, usize);

impl<F: RowFloat> WithSimd for SumOfRow<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self(mut grad, start) = self;
        grad.from(simd, start);
    }
}

/// The gradients of some rows.
#[derive(Clone, Copy)]
struct Grads<'a> {
    values: &'a GradArray<'a>,
    width: usize,
    stride: usize,
    listed: Occurrences<'a>,
}

/// Some rows that nobody else uses, one after the other.
struct MixedRows<'a> {
    cpu: Cpu,
    table: &'a Table<'a>,
    grads: Grads<'a>,
    walk: Walk<'a>,
    sums: [f32; TILE],
}

impl Runs for MixedRows<'_> {
    #[allow(unsafe_code, reason = "threads share a table, each for rows of its own")]
    fn next(&mut self) -> Option<TensorArrays<'_>> {
        let Grads { values, width, stride, .. } = self.grads;
        let Table { param, moments, first, .. } = self.table;
        let listed = self.walk.occurrences(
            |position| values.prefetch(position * stride, width),
            |row| {
                param.0.prefetch(row * width, width);
                for moment in moments.iter().filter(|moment| !moment.is_empty()) {
                    moment.0.prefetch(row * width, width);
                }
            },
        )?;
        let columns = self.walk.columns(TILE.min(width - self.walk.column));
        let grad = if listed.len() == 1 {
            let row = listed.position(0) * stride;
            // SAFETY: gradients of rows are only read.
            unsafe { values.part(row + columns.start..row + columns.end) }
        } else {
            let sums = &mut self.sums[..columns.len()];
            let grads = Grads { listed, ..self.grads };
            self.cpu.run(SumColumns { grads, start: columns.start, sums });
            GradArray::F32(sums)
        };
        let row = listed.row(0) * width;
        let elements = row + columns.start..row + columns.end;
        // SAFETY: nobody else uses these rows. All arrays are as long as the parameters, or empty; rows
        // with moments of 8 bits are whole blocks: `Table::check`. So are tiles of them.
        unsafe {
            Some(TensorArrays {
                param: param.0.part(elements.clone()),
                grad,
                moments: moments.each_ref().map(|moment| match moment.is_empty() {
                    true => MomentArray::F32(&mut []),
                    false => moment.0.part(elements.clone()),
                }),
                first: first.wrapping_add(elements.start as u64),
            })
        }
    }
}

/// The sums of some columns of a row, of whatever type the gradients are.
struct SumColumns<'a> {
    grads: Grads<'a>,
    start: usize,
    sums: &'a mut [f32],
}

impl SumColumns<'_> {
    #[inline(always)]
    fn sum<S: Simd, E: RowElement<Sum = f32>>(self, simd: S, values: &[E]) {
        let Grads { width, stride, listed, .. } = self.grads;
        Values { values, width, stride }.sum_columns(simd, listed, self.start, self.sums);
    }
}

impl WithSimd for SumColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.grads.values {
            GradArray::F32(values) => self.sum::<S, f32>(simd, values),
            GradArray::Bf16(values) => self.sum::<S, bf16>(simd, values),
            GradArray::F16(values) => self.sum::<S, f16>(simd, values),
            _ => {
                unreachable!("tables in f64 have steps in f64, and gradients of rows are only read")
            }
        }
    }
}
