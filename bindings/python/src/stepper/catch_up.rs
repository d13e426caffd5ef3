//! Rows that are behind: they catch up, before they are read or their options change.

use core::slice;
use std::sync::Arc;

use adamant::{Adam, AnyOptimizer, Exec};
use pyo3::{
    exceptions::{PyIndexError, PyRuntimeError, PyTypeError},
    prelude::*,
    types::PyList,
};

use super::{Call, GroupSeen, Inner, sparse::needs_adam, states::places_of};
use crate::{
    error::exception,
    in_use::{InUse, Ranges},
    memory::{Kind, Seen},
    rows::{self, Waiting},
    slot::{Form, Keys, Slot, roles},
};

impl<'py> Call<'_, 'py> {
    /// Before a step: forgets rows that waited for steps of a state that is gone, and refuses options that have changed
    /// while rows were behind. A step with other options would write these rows, or bring their state into another
    /// form, and the steps that they wait for would be lost.
    pub(super) fn check_waiting(&self, inner: &mut Inner) -> PyResult<()> {
        if !any_waits(inner) {
            return Ok(());
        }
        for (number, index) in waiting_slots(inner, None) {
            let Some(memory) = inner.slots[index].rows else { continue };
            let group = &inner.groups[number];
            let memory = &mut inner.rows[memory].1;
            if !self.has_state(&inner.slots[index])? {
                memory.waiting = None;
                continue;
            }
            if has_same_options(group, memory) {
                continue;
            }
            if memory.waiting.as_ref().and_then(Waiting::any_behind).is_some() {
                let name = self.name_at(number, index - group.slots.start);
                if group.form.dense_equivalent.is_some() && !is_adam(group) {
                    return Err(needs_adam(&name));
                }
                return Err(PyRuntimeError::new_err(format!(
                    "{name} has rows that are behind, and options of its group have changed: call optimizer.catch_up() \
                     before this step"
                )));
            }
            memory.waiting = None;
        }
        Ok(())
    }

    /// Whether the optimizer has a state of a parameter.
    fn has_state(&self, slot: &Slot) -> PyResult<bool> {
        let state = self.states.get_item(slot.outer.bind(self.py()))?;
        state.map_or(Ok(false), |state| state.is_truthy())
    }

    /// Brings rows of `param`, or of all parameters, to the present step: those that are listed, or all.
    pub(super) fn catch_up(
        &self,
        inner: &mut Inner,
        param: Option<&Bound<'py, PyAny>>,
        rows: Option<&Bound<'_, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<()> {
        if !any_waits(inner) {
            return Ok(());
        }
        if !self.has_same_groups(inner)? {
            self.learn_groups(inner)?;
        }
        self.read_settings(inner)?;
        self.look_at_states(inner);
        for (number, index) in waiting_slots(inner, param) {
            self.catch_up_one(inner, (number, index), rows, threads)?;
        }
        Ok(())
    }

    fn catch_up_one(
        &self,
        inner: &mut Inner,
        (number, index): (usize, usize),
        rows: Option<&Bound<'_, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<()> {
        let py = self.py();
        let access = &self.stepper.access;
        let Some(memory) = inner.slots[index].rows else { return Ok(()) };
        if !self.has_state(&inner.slots[index])? {
            // The user has cleared it. Rows that were behind stay as they are: nothing is known of their moments.
            inner.rows[memory].1.waiting = None;
            return Ok(());
        }
        let position = index - inner.groups[number].slots.start;
        let name = || self.name_at(number, position);
        let was = inner.slots[index].look(access, self.owner, name)?;
        let Some(width) = inner.rows[memory].1.width(&inner.slots[index], name)? else {
            return Ok(());
        };
        let is_same = has_same_options(&inner.groups[number], &inner.rows[memory].1);
        let form = inner.rows[memory].1.form;
        // With other options than those of today all rows catch up now: the next step may change their state.
        let rows = if is_same { rows } else { None };
        let is_known = is_same && was && inner.slots[index].state_holds(access, self.owner)?;
        if !is_known {
            // The next step will find nothing moved, but must look what shares memory.
            inner.placed.clear();
            let problem = match is_same {
                true => self.resolve_one(inner, number, index)?,
                false => self.resolve_as_before(&mut inner.slots[index], form)?,
            };
            if let Some(problem) = problem {
                return Err(PyRuntimeError::new_err(format!("state of {}: {problem}", name())));
            }
        }
        let slot = &inner.slots[index];
        if let Some(problem) = rows::problem(slot, form, width) {
            return Err(PyTypeError::new_err(format!("{}: {problem}", name())));
        }
        let Some(waiting) = &mut inner.rows[memory].1.waiting else { return Ok(()) };
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
            None => waiting.any_behind().is_some(),
        };
        if listed.is_none() && !was_behind {
            // The next steps have the bits of a run that goes on from here, as after rows that caught up. The parameter
            // is not written: a graph may have saved it, as where a head reads the table twice.
            let step = waiting.step();
            waiting.set_step(step);
        }
        if was_behind {
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
        }
        if !is_same {
            inner.rows[memory].1.waiting = None;
            // It was found in the form of before.
            inner.slots[index].state = None;
        }
        Ok(())
    }

    /// Finds the state of a parameter in the form that it had when its rows began to wait. What is wrong with it, if
    /// anything is.
    fn resolve_as_before(&self, slot: &mut Slot, form: Form) -> PyResult<Option<String>> {
        let adam = AnyOptimizer::from(Adam::default());
        let roles = roles(&adam, form, slot.facts.kind.unwrap_or(Kind::Other));
        let keys = Keys::new(self.py(), &adam);
        slot.resolve(&self.stepper.access, self.owner, self.states, &keys, form, &roles)
    }
}

/// Whether rows of some parameter may be behind. Most optimizers have none, and need not look at each parameter.
fn any_waits(inner: &Inner) -> bool {
    inner.rows.iter().any(|(_, memory)| memory.waiting.is_some())
}

/// The parameters with rows that may be behind, or `param` alone if it is one: the group and the slot of each.
fn waiting_slots(inner: &Inner, param: Option<&Bound<'_, PyAny>>) -> Vec<(usize, usize)> {
    let is_meant = |slot: &Slot| {
        slot.rows.is_some_and(|rows| inner.rows[rows].1.waiting.is_some())
            && param.is_none_or(|param| slot.outer.is(param))
    };
    let numbered = inner.groups.iter().enumerate();
    let places =
        numbered.flat_map(|(number, group)| group.slots.clone().map(move |slot| (number, slot)));
    places.filter(|&(_, slot)| is_meant(&inner.slots[slot])).collect()
}

/// Whether a group has the options with which the rows of a parameter began to wait.
fn has_same_options(group: &GroupSeen, memory: &rows::Memory) -> bool {
    is_adam(group) && group.form == memory.form
}

/// Whether rows of a group can wait.
fn is_adam(group: &GroupSeen) -> bool {
    matches!(group.settings.optimizer, AnyOptimizer::Adam(_))
}
