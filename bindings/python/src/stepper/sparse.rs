//! Sparse gradients: their rows, what can be wrong with them, and their steps.

use adamant::{AnyOptimizer, StepOptions};
use pyo3::{
    exceptions::{PyIndexError, PyRuntimeError, PyTypeError, PyValueError},
    prelude::*,
    types::{PyTuple, PyWeakrefReference},
};

use super::{
    Call, Inner,
    grads::{Found, misaligned},
    run::rule_of,
};
use crate::{
    error::exception,
    memory::Kind,
    rows::{self, RowStep, Rows, Waiting},
    slot::Slot,
};

impl<'py> Call<'_, 'py> {
    /// The rows of a sparse gradient: contiguous indices and values, the number of rows of the parameter
    /// and their width.
    pub(super) fn look_at_rows(
        &self,
        slot: &Slot,
        sparse: &Bound<'py, PyTuple>,
        grad: Bound<'py, PyAny>,
        name: impl Fn() -> String,
    ) -> PyResult<Found> {
        type Described<'py> = (Bound<'py, PyAny>, Bound<'py, PyAny>, usize, usize);
        let (indices, values, rows, width): Described<'_> = sparse.extract()?;
        let access = &self.stepper.access;
        let seen = |tensor| {
            access.look(tensor, |seen| {
                if seen.is_freed() {
                    return Err(PyValueError::new_err(format!(
                        "the gradient of {} has no memory: its storage was freed",
                        name()
                    )));
                }
                match seen.is_aligned() {
                    true => Ok((seen.data as usize, seen.kind, seen.len())),
                    false => Err(misaligned(&name())),
                }
            })
        };
        let (index_data, index_kind, count) = seen(&indices)?;
        let (data, kind, len) = seen(&values)?;
        let numbers = slot.facts.len * slot.facts.kind.map_or(1, Kind::reals);
        let fits = index_kind == Kind::I64
            && slot.facts.kind.is_some_and(|param| takes_rows_of(param, kind))
            && count.checked_mul(width) == Some(len)
            && rows.checked_mul(width) == Some(numbers);
        if !fits {
            let (name, found) = (name(), slot.facts.kind.unwrap_or(Kind::Other));
            return Err(PyRuntimeError::new_err(format!(
                "the gradient of {name} has {count} indices of {index_kind} and {len} numbers of {kind} in rows \
                 of {width}, which does not fit {rows} rows of a parameter with {numbers} numbers of {found}"
            )));
        }
        let rows = Rows { indices: index_data, count, values: data, kind, rows, width };
        let tensor = sparse.clone().into_any().unbind();
        Ok(Found { tensor, data, kind, original: Some(grad.unbind()), rows: Some(rows) })
    }

    /// Finds everything that is wrong with sparse gradients, and with dense ones of parameters whose rows wait. Writes
    /// no parameter and no state.
    pub(super) fn prepare_rows(&self, inner: &mut Inner) -> PyResult<()> {
        let py = self.py();
        for (position, &step) in inner.steps.iter().enumerate() {
            let (number, index) = (inner.grads[position].group, inner.grads[position].slot);
            let group = &inner.groups[number];
            let name = || self.name_at(number, index - group.slots.start);
            let slot = &mut inner.slots[index];
            let Some(sparse) = &inner.grads[position].rows else {
                let Some(memory) = slot.rows.map(|rows| &mut inner.rows[rows].1) else { continue };
                if memory.waiting.as_ref().is_some_and(|waiting| waiting.step() != step) {
                    // They waited for steps of another state.
                    memory.waiting = None;
                }
                // A forward pass that gives a dense gradient reads all rows, as of a table that is also a head.
                if memory.width(slot, name)?.is_some()
                    && let Some((row, steps)) =
                        memory.waiting.as_ref().and_then(Waiting::any_behind)
                {
                    return Err(was_behind(&name(), row, steps, "optimizer.catch_up(parameter)"));
                }
                continue;
            };
            if let Some(problem) = rows::problem(slot, group.form, sparse.width) {
                return Err(PyTypeError::new_err(format!("{}: {problem}", name())));
            }
            // SAFETY: seen in this call, and kept alive by `inner`, here and below.
            if let Some((position, index)) = unsafe { sparse.stray_index() } {
                let rows = sparse.rows;
                return Err(PyIndexError::new_err(format!(
                    "index {position} of the gradient of {} is {index}, but the parameter has {rows} rows",
                    name()
                )));
            }
            let memory = match slot.rows {
                Some(memory) => memory,
                None => {
                    let param = PyWeakrefReference::new(slot.outer.bind(py))?.unbind();
                    inner.rows.push((param, rows::Memory::default()));
                    *slot.rows.insert(inner.rows.len() - 1)
                }
            };
            let memory = &mut inner.rows[memory].1;
            let (Some(way), AnyOptimizer::Adam(adam)) =
                (group.form.dense_equivalent, &group.settings.optimizer)
            else {
                if group.form.dense_equivalent.is_some() {
                    return Err(needs_adam(&name()));
                }
                continue;
            };
            if let Err(error) = rows::check_dense_equivalent(adam, way) {
                // The core's ways have other names here.
                let text = error.to_string();
                let text = text.replace("CatchUp::Series", "dense_equivalent=\"series\"");
                let text = text.replace("CatchUp::Replay", "\"replay\"");
                return Err(PyValueError::new_err(format!("{}: {text}", name())));
            }
            memory.width(slot, name)?;
            let kind = slot.facts.kind.unwrap_or(Kind::F32);
            match &mut memory.waiting {
                Some(waiting) if waiting.is_for(kind, sparse.rows) => {
                    if waiting.step() != step {
                        waiting.set_step(step);
                    }
                }
                waiting => {
                    *waiting = Some(Waiting::new(kind, sparse.rows, way, step));
                    memory.form = group.form;
                }
            }
            // SAFETY: as above.
            let indices = unsafe { sparse.indices() };
            let behind = memory.waiting.as_ref().and_then(|waiting| waiting.first_behind(indices));
            if let Some((row, steps)) = behind {
                return Err(was_behind(&name(), row, steps, "optimizer.catch_up(parameter, rows)"));
            }
        }
        Ok(())
    }

    /// Steps the rows of sparse gradients; nothing can be wrong with them.
    pub(super) fn step_rows(&self, inner: &mut Inner, options: StepOptions<'_>) -> PyResult<()> {
        for (grad, &t) in inner.grads.iter().zip(&inner.steps) {
            let slot = &inner.slots[grad.slot];
            let Some(memory) = slot.rows.map(|rows| &mut inner.rows[rows].1) else { continue };
            let Some(rows) = &grad.rows else {
                // A dense step has stepped all rows.
                if let Some(waiting) = &mut memory.waiting {
                    waiting.set_step(t);
                }
                continue;
            };
            // Rows without a number have nothing to step, which the core refuses.
            if rows.width == 0 {
                continue;
            }
            let group = &inner.groups[grad.group];
            let optimizer = rule_of(&group.settings.optimizer, slot);
            let form = group.form;
            let is_dense_equivalent = form.dense_equivalent.is_some();
            self.py()
                .detach(|| {
                    let step = RowStep { options, t, slot, form, rows, memory };
                    // SAFETY: seen in this call, kept alive by `inner`, found to share memory with no other
                    // array that is written, and looked through by `prepare_rows`.
                    unsafe {
                        match (&optimizer, is_dense_equivalent) {
                            (AnyOptimizer::Adam(adam), true) => step.run_dense_equivalent(adam),
                            _ => step.run(&optimizer).map(|_| ()),
                        }
                    }
                })
                .map_err(exception)?;
        }
        Ok(())
    }
}

/// Whether rows of a parameter are stepped with values of a type. Those of 16 bits take any `f32`: rounded to their own
/// type, large values would be infinite.
fn takes_rows_of(param: Kind, values: Kind) -> bool {
    match param {
        Kind::Bf16 | Kind::F16 => matches!(values, Kind::F32 | Kind::Bf16 | Kind::F16),
        _ => values == param.real(),
    }
}

/// The error for the gradient of a row that has yet to catch up, with the call that does so.
fn was_behind(name: &str, row: i64, steps: u64, call: &str) -> PyErr {
    let steps = if steps == 1 { "1 step".into() } else { format!("{steps} steps") };
    PyRuntimeError::new_err(format!(
        "row {row} of {name} is {steps} behind: either the forward pass read it as it was (call \
         optimizer.watch(model) once, or {call} before each forward pass), or another step was taken since the forward \
         pass (call {call} before this step)"
    ))
}

/// The error for an optimizer whose rows cannot wait.
pub(super) fn needs_adam(name: &str) -> PyErr {
    PyValueError::new_err(format!("{name}: dense_equivalent is for Adam and AdamW without amsgrad"))
}
