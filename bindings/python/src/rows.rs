//! Sparse gradients: steps on some rows of a parameter.

mod step;
mod waiting;

pub use step::{RowStep, catch_up, problem};
pub use waiting::{Waiting, check_dense_equivalent};

use core::slice;

use adamant::{
    Element, Error, Exec,
    norm::NormOrder,
    table::{RowGrads, RowScratch, SortedRows},
};
use half::{bf16, f16};
use pyo3::{PyResult, exceptions::PyRuntimeError};

use crate::{
    memory::Kind,
    slot::{Form, Slot},
};

/// The rows of a sparse gradient, as Python found them: contiguous arrays.
pub struct Rows {
    /// The address of `int64` indices.
    pub indices: usize,
    pub count: usize,
    /// The address of the values: for each index a row of numbers.
    pub values: usize,
    /// The type of the values.
    pub kind: Kind,
    /// The rows of the parameter.
    pub rows: usize,
    /// The numbers in a row.
    pub width: usize,
}

impl Rows {
    /// # Safety
    ///
    /// What Python found still holds, and nobody writes it for `'a`; here and below.
    pub unsafe fn indices<'a>(&self) -> &'a [i64] {
        // SAFETY: the caller's promise.
        unsafe { elements(self.indices, self.count) }
    }

    unsafe fn values<'a, F>(&self) -> &'a [F] {
        // SAFETY: the caller's promise.
        unsafe { elements(self.values, self.count * self.width) }
    }

    /// The norm of the gradients, each row's added up.
    pub unsafe fn norm(&self, exec: Exec<'_>, scratch: &mut RowScratch) -> Result<f64, Error> {
        match self.width {
            // Rows without a number are nothing to sort.
            0 => Ok(0.0),
            // SAFETY: the caller's promise.
            _ => unsafe { self.sort(scratch)?.grad_norm(NormOrder::Two, exec) },
        }
    }

    /// The gradients, sorted by row.
    unsafe fn sort<'a>(&self, scratch: &'a mut RowScratch) -> Result<SortedRows<'a>, Error> {
        // SAFETY: the caller's promise.
        unsafe {
            match self.kind {
                Kind::F64 => self.sort_of::<f64>(scratch),
                Kind::Bf16 => self.sort_of::<bf16>(scratch),
                Kind::F16 => self.sort_of::<f16>(scratch),
                _ => self.sort_of::<f32>(scratch),
            }
        }
    }

    unsafe fn sort_of<'a, E: Element>(
        &self,
        scratch: &'a mut RowScratch,
    ) -> Result<SortedRows<'a>, Error> {
        // SAFETY: the caller's promise.
        let (indices, values) = unsafe { (self.indices(), self.values::<E>()) };
        RowGrads::new(indices, values, self.width).sort(self.rows, scratch)
    }

    /// The position of the first index that is none of a row, and the index.
    pub unsafe fn stray_index(&self) -> Option<(usize, i64)> {
        // SAFETY: the caller's promise.
        let indices = unsafe { self.indices() };
        let is_row = |&index: &i64| usize::try_from(index).is_ok_and(|row| row < self.rows);
        let position = indices.iter().position(|index| !is_row(index))?;
        Some((position, indices[position]))
    }
}

unsafe fn elements<'a, T>(data: usize, len: usize) -> &'a [T] {
    match len {
        0 => &[],
        // SAFETY: the caller's promise.
        _ => unsafe { slice::from_raw_parts(data as *const T, len) },
    }
}

/// The memory of a parameter with sparse gradients from step to step.
#[derive(Default)]
pub struct Memory {
    pub scratch: RowScratch,
    pub waiting: Option<Waiting>,
    /// The options with which rows began to wait: they catch up with these.
    pub form: Form,
}

impl Memory {
    /// The width of the rows that wait, if any do. They must be those of the parameter as it is now. `name`
    /// is for errors.
    pub fn width(&mut self, slot: &Slot, name: impl Fn() -> String) -> PyResult<Option<usize>> {
        let Some(waiting) = &self.waiting else { return Ok(None) };
        let width = waiting.width_in(slot);
        if width.is_none() {
            if waiting.any_behind().is_some() {
                let (name, was) = (name(), if waiting.is_double() { "float64" } else { "float32" });
                return Err(PyRuntimeError::new_err(format!(
                    "{name} was {} rows of {was}, some of which were behind when it was changed: call \
                     optimizer.catch_up() before a change of type or shape, or load a checkpoint",
                    waiting.rows(),
                )));
            }
            self.waiting = None;
        }
        Ok(width)
    }
}
