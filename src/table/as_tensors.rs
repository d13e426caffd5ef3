//! Steps of rows whose arrays are not all of the type that is computed in: each row is a tensor whose
//! gradient is the row's sum.

use core::ops::Range;

use half::{bf16, f16};

use super::{
    RowRule, SortedRows, Table,
    order::Occurrences,
    sums::{RowElement, Values},
    sweep::{rows_ahead, share},
};
use crate::{
    Threads,
    array::{GradArray, MomentArray},
    isa::Cpu,
    kernel::{Pass, Step},
    mixed::Runs,
    simd::{Simd, TILE, WithSimd},
    tensor::TensorArrays,
};

/// Takes step `t` of the listed rows; table and gradients were found to go together.
pub(super) fn run<R: RowRule>(
    rule: R,
    step: &Step<R>,
    t: u64,
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
        let ahead = rows_ahead(table.bytes_of_row());
        let grads = Grads { listed, ..grads };
        let sums = [0.0; TILE];
        let rows = &mut Rows {
            cpu: step.cpu,
            table,
            grads,
            start: 0,
            end: 0,
            column: 0,
            asked: 0,
            ahead,
            sums,
        };
        rule.run_mixed(step.cpu, &step.constants, t, pass, rows);
    });
}

/// The gradients of some rows.
#[derive(Clone, Copy)]
struct Grads<'a> {
    values: &'a GradArray<'a>,
    width: usize,
    stride: usize,
    listed: Occurrences<'a>,
}

impl Grads<'_> {
    /// The place of some columns of an occurrence among the values.
    fn place(&self, index: usize, columns: &Range<usize>) -> Range<usize> {
        let start = self.listed.position(index) * self.stride;
        start + columns.start..start + columns.end
    }
}

/// Some rows that nobody else uses, one after the other.
struct Rows<'a> {
    cpu: Cpu,
    table: &'a Table<'a>,
    grads: Grads<'a>,
    /// The occurrences of the row, and its next column.
    start: usize,
    end: usize,
    column: usize,
    /// The occurrences whose memory was asked for.
    asked: usize,
    ahead: usize,
    sums: [f32; TILE],
}

impl Runs for Rows<'_> {
    #[allow(unsafe_code, reason = "threads share a table, each for rows of its own")]
    fn next(&mut self) -> Option<TensorArrays<'_>> {
        let Grads { values, width, listed, .. } = self.grads;
        if self.column == width {
            (self.start, self.column) = (self.end, 0);
        }
        if self.start == listed.len() {
            return None;
        }
        if self.column == 0 {
            self.end = listed.end_of_run(self.start);
            self.prefetch();
        }
        let columns = self.column..(self.column + TILE).min(width);
        self.column = columns.end;
        let grad = if self.end - self.start == 1 {
            // SAFETY: gradients of rows are only read.
            unsafe { values.part(self.grads.place(self.start, &columns)) }
        } else {
            let sums = &mut self.sums[..columns.len()];
            let grads = Grads { listed: listed.slice(self.start..self.end), ..self.grads };
            self.cpu.run(SumColumns { grads, start: columns.start, sums });
            GradArray::F32(sums)
        };
        let first = listed.row(self.start) * width;
        let elements = first + columns.start..first + columns.end;
        let Table { param, moments, first, .. } = self.table;
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

impl Rows<'_> {
    /// Asks for the memory of the rows that are next.
    fn prefetch(&mut self) {
        let Grads { values, width, stride, listed } = self.grads;
        let end = (self.end + self.ahead).min(listed.len());
        for index in self.asked..end {
            values.prefetch(listed.position(index) * stride, width);
            let row = listed.row(index);
            if index == 0 || row != listed.row(index - 1) {
                self.table.param.0.prefetch(row * width, width);
                for moment in self.table.moments.iter().filter(|moment| !moment.is_empty()) {
                    moment.0.prefetch(row * width, width);
                }
            }
        }
        self.asked = end.max(self.asked);
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
