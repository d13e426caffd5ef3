//! Steps on rows of tables, and what belongs to them.

use std::ptr;

use crate::{
    library::*,
    session::{ROWS, Session},
    source::{BF16, BLOCK, F16, F32, F64, I32, I64, Q8, Structs, U32, U64},
    steps::{TYPES, options, report},
};

/// The shape of a table whose arrays have their places.
struct Shape {
    rows: usize,
    width: usize,
}

impl Session<'_> {
    fn table(&mut self, [param, first, other]: [u32; 3]) -> (Structs, Shape) {
        let shape = match [first, other].contains(&Q8) {
            // Rows of whole blocks.
            true => Shape { rows: 1 + self.source.below(2), width: BLOCK },
            false => Shape { rows: ROWS, width: 1 + self.source.below(20) },
        };
        let Shape { rows, width } = shape;
        let (moments, scales) = self.moments_of([first, other], rows, width);
        let (param_extra, stochastic_param) = self.extra(param, rows * width);
        let param = self.array(param, rows * width, true);
        let source = &mut self.source;
        let table = adamant_table {
            size: 0,
            width: source.said(width),
            param,
            moments,
            param_extra,
            scales,
            first: source.word(),
            stochastic_param,
            reserved: u32::from(source.is_hostile()),
        };
        (Structs::new(&[table], source), shape)
    }

    /// Indices of a table, mostly.
    fn indices(&mut self, rows: usize) -> adamant_array {
        let element = self.source.choose([U32, U64, I32, I64]);
        let count = self.source.below(9);
        let array = self.array(element, count, false);
        if array.data.is_null() || array.r#type != element || array.len > 64 {
            return array;
        }
        for place in 0..array.len {
            let index = match self.source.is_hostile() {
                true => self.source.word(),
                false => self.source.below(rows) as u64,
            };
            // SAFETY: an array of the session, whose length was cut to it.
            unsafe {
                match element {
                    U32 | I32 => array.data.cast::<u32>().add(place).write_unaligned(index as u32),
                    _ => array.data.cast::<u64>().add(place).write_unaligned(index),
                }
            }
        }
        // The call did not write them.
        self.before.clone_from(&self.memory);
        array
    }

    fn row_grads(&mut self, param: u32, Shape { rows, width }: Shape) -> Structs {
        let rows = self.indices(rows);
        let stride = width + self.source.below(3);
        let element = match self.source.byte() {
            200.. => self.source.choose([F32, F64, BF16, F16]),
            _ => param,
        };
        // As many as fit in a place. More indices are an error.
        let count = rows.len.min(2048 / (8 * stride).min(2048));
        let values = self.array(element, count * stride, false);
        let stride = self.source.said(stride);
        let grads =
            adamant_row_grads { size: 0, width: self.source.said(width), rows, values, stride };
        Structs::new(&[grads], &mut self.source)
    }

    pub fn rows(&mut self) -> adamant_status {
        let (mut exec, is_lazy) = (self.exec(), self.source.byte() < 128);
        let types = match is_lazy || self.source.is_hostile() {
            true => self.source.choose(TYPES),
            false => [self.source.choose([F32, F64]); 3],
        };
        let (mut table, shape) = self.table(types);
        let optimizer = self.optimizer();
        let mut grads = self.row_grads(types[0], shape);
        let source = &mut self.source;
        let (mut options, mut report) = (options(source), report(source));
        let (exec, options) = (exec.optional(source), options.optional(source));
        let report = report.optional(source);
        let (table, grads) = (table.pointer(source), grads.pointer(source));
        // SAFETY: structs with as much memory as they say, and arrays of the session, or such that are refused;
        // live handles.
        unsafe {
            if is_lazy {
                let (t, scratch) = (u64::from(source.byte()), source.optional(self.scratch));
                adamant_step_rows_lazy(optimizer, t, table, grads, scratch, options, exec, report)
            } else {
                let is_other = source.is_hostile();
                let waiting = self.waiting[usize::from((types[0] == F64) != is_other)];
                let waiting = source.pointer(waiting);
                adamant_step_rows_dense_equivalent(
                    optimizer, table, grads, waiting, options, exec, report,
                )
            }
        }
    }

    pub fn row_norm(&mut self) -> adamant_status {
        let mut exec = self.exec();
        let element = self.source.choose([F32, F64, BF16, F16]);
        let width = 1 + self.source.below(20);
        let mut grads = self.row_grads(element, Shape { rows: ROWS, width });
        let source = &mut self.source;
        let (order, rows) = (source.value(3).wrapping_add(1), source.said(ROWS));
        let (grads, scratch) = (grads.pointer(source), source.optional(self.scratch));
        let (exec, mut norm) = (exec.optional(source), 0.0);
        // SAFETY: as in `rows`.
        unsafe {
            adamant_row_grad_norm(order, rows, grads, scratch, exec, source.pointer(&mut norm))
        }
    }

    pub fn catch_up(&mut self) -> adamant_status {
        let (mut exec, element) = (self.exec(), self.source.choose([F32, F64]));
        let (mut table, _) = self.table([element; 3]);
        let mut rows = self.indices(ROWS);
        let source = &mut self.source;
        let waiting = source.pointer(self.waiting[usize::from(element == F64)]);
        let (mut step, mut rows_of, row) = (0, 0, source.below(ROWS + 1));
        let mut copy = ptr::null_mut();
        // SAFETY: as in `rows`; the copy is freed at once.
        unsafe {
            match source.below(7) {
                0 => adamant_dense_equivalent_set_step(waiting, source.word()),
                1 => adamant_dense_equivalent_step(waiting, source.pointer(&mut step)),
                2 => adamant_dense_equivalent_skipped(waiting, row, source.pointer(&mut step)),
                3 => {
                    let table = table.pointer(source);
                    adamant_dense_equivalent_catch_up_all(waiting, exec.optional(source), table)
                }
                4 => adamant_dense_equivalent_rows(waiting, source.pointer(&mut rows_of)),
                5 => {
                    let status = adamant_dense_equivalent_clone(waiting, source.pointer(&mut copy));
                    adamant_dense_equivalent_free(copy);
                    status
                }
                _ => {
                    let (exec, rows) = (exec.optional(source), source.pointer(&mut rows));
                    let table = table.pointer(source);
                    adamant_dense_equivalent_catch_up(waiting, exec, table, rows)
                }
            }
        }
    }
}
