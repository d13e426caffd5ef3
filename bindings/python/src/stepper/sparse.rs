//! Sparse gradients: their rows, what can be wrong with them, their steps, and rows that catch up.

use core::slice;
use std::sync::Arc;

use adamant::{AnyOptimizer, Exec, StepOptions};
use pyo3::{
    exceptions::{PyIndexError, PyRuntimeError, PyTypeError, PyValueError},
    prelude::*,
    types::{PyList, PyTuple, PyWeakrefReference},
};

use super::{
    Call, Inner,
    grads::{Found, misaligned},
    run::rule_of,
    states::places_of,
};
use crate::{
    error::exception,
    in_use::{InUse, Ranges},
    memory::{Kind, Seen},
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
                // A forward pass that gives a dense gradient reads all rows, as of a table that is also a head.
                if memory.width(slot, name)?.is_some()
                    && let Some((row, steps)) =
                        memory.waiting.as_ref().and_then(Waiting::any_behind)
                {
                    let way = "call optimizer.catch_up(parameter)";
                    return Err(was_behind(&name(), row, steps, way));
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
                    return Err(PyValueError::new_err(format!(
                        "{}: dense_equivalent is for Adam and AdamW without amsgrad",
                        name()
                    )));
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
                waiting => *waiting = Some(Waiting::new(kind, sparse.rows, way, step)),
            }
            // SAFETY: as above.
            let indices = unsafe { sparse.indices() };
            let behind = memory.waiting.as_ref().and_then(|waiting| waiting.first_behind(indices));
            if let Some((row, steps)) = behind {
                let way =
                    "call optimizer.watch(model) once, or optimizer.catch_up(parameter, rows)";
                return Err(was_behind(&name(), row, steps, way));
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

    pub(super) fn catch_up(
        &self,
        inner: &mut Inner,
        (number, position): (usize, usize),
        rows: Option<&Bound<'_, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<bool> {
        let py = self.py();
        let access = &self.stepper.access;
        if !self.has_same_groups(inner)? {
            self.learn_groups(inner)?;
        }
        self.read_settings(inner)?;
        let Some(group) = inner.groups.get(number) else { return Ok(false) };
        let (index, form) = (group.slots.start + position, group.form);
        let Some(memory) = inner.slots.get(index).and_then(|slot| slot.rows) else {
            return Ok(false);
        };
        if inner.rows[memory].1.waiting.is_none() {
            return Ok(false);
        }
        self.look_at_states(inner);
        let name = || self.name_at(number, position);
        let was = inner.slots[index].look(access, self.owner, name)?;
        let Some(width) = inner.rows[memory].1.width(&inner.slots[index], name)? else {
            return Ok(false);
        };
        let is_known = was && inner.slots[index].state_holds(access, self.owner)?;
        if !is_known {
            // The next step will find nothing moved, but must look what shares memory.
            inner.placed.clear();
            if let Some(problem) = self.resolve_one(inner, number, index)? {
                return Err(PyRuntimeError::new_err(format!("state of {}: {problem}", name())));
            }
        }
        let slot = &inner.slots[index];
        if let Some(problem) = rows::problem(slot, form, width) {
            return Err(PyTypeError::new_err(format!("{}: {problem}", name())));
        }
        let Some(waiting) = &mut inner.rows[memory].1.waiting else { return Ok(false) };
        let listed = rows
            .map(|rows| {
                let is_list = |seen: &Seen<'_>| {
                    seen.is_cpu
                        && seen.kind == Kind::I64
                        && seen.is_dense()
                        && seen.is_aligned()
                        && !seen.is_freed()
                };
                access.look(rows, |seen| match is_list(&seen) {
                    true => Ok((seen.data as usize, seen.len())),
                    false => Err(PyTypeError::new_err(format!(
                        "rows is of {} with shape {:?} and strides {:?}, but must be of int64, contiguous, aligned \
                         and on the CPU",
                        seen.kind, seen.shape, seen.strides
                    ))),
                })
            })
            .transpose()?;
        let listed = listed.map(|(data, len)| match len {
            0 => &[][..],
            // SAFETY: just seen, and the caller holds the tensor.
            len => unsafe { slice::from_raw_parts(data as *const i64, len) },
        });
        let count = waiting.rows();
        if let Some(&row) = listed
            .unwrap_or_default()
            .iter()
            .find(|&&row| usize::try_from(row).map_or(true, |row| row >= count))
        {
            return Err(PyIndexError::new_err(format!(
                "row {row} of {}, which has {count} rows",
                name()
            )));
        }
        let was_behind = match listed {
            _ if width == 0 => false,
            Some(listed) => waiting.first_behind(listed).is_some(),
            None => true,
        };
        if !was_behind {
            return Ok(false);
        }
        let listed_rows = listed.map_or(count, <[i64]>::len);
        let crew = self.crew(listed_rows.saturating_mul(width), threads)?;
        let exec = Exec { isa: None, threads: crew.threads() };
        let mut written: Ranges = places_of(slot, index).collect();
        written.sort_unstable();
        let _in_use = InUse::wait(py, Arc::new(written), Vec::new())?;
        // SAFETY: as in `run`; the rows and their type are those of the parameter.
        py.detach(|| unsafe { rows::catch_up(exec, slot, form, width, waiting, listed) })
            .map_err(exception)?;
        self.stepper.increment_version.bind(py).call1((PyList::new(py, [&slot.param])?,))?;
        Ok(true)
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

/// The error for a gradient that was computed from a row that had yet to catch up, with the way to do so.
fn was_behind(name: &str, row: i64, steps: u64, way: &str) -> PyErr {
    PyRuntimeError::new_err(format!(
        "row {row} of {name} was {steps} steps behind when its gradient was computed: {way} before each forward pass"
    ))
}
