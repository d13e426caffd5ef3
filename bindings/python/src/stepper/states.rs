//! The states of parameters: whether those of the last step are still there, and where their memory is.

use std::sync::Arc;

use pyo3::{
    exceptions::{PyRuntimeError, PyValueError},
    intern,
    prelude::*,
    sync::critical_section::with_critical_section,
};

use super::{Call, Inner};
use crate::{
    in_use::Ranges,
    memory::Kind,
    slot::{self, Master, Role, Slot, roles},
};

impl Call<'_, '_> {
    /// Whether the optimizer's dictionary of states has the entries of the last step.
    fn has_same_states(&self, inner: &Inner) -> bool {
        let mut known = inner.states.iter();
        // Without a GIL, another thread could add a state meanwhile.
        with_critical_section(self.states, || {
            self.states.len() == inner.states.len()
                && self.states.iter().all(|(key, value)| {
                    known.next().is_some_and(|(known_key, known_value)| {
                        key.as_ptr() as usize == *known_key && value.is(known_value)
                    })
                })
        })
    }

    /// Forgets the states where the optimizer's dictionary has others.
    pub(super) fn look_at_states(&self, inner: &mut Inner) {
        if !self.has_same_states(inner) {
            inner.states.clear();
            for slot in &mut inner.slots {
                slot.state = None;
            }
        }
    }

    /// Finds the states of some parameters, and has Python make or mend those that do not fit.
    pub(super) fn resolve(&self, inner: &mut Inner, unknown: Vec<(usize, usize)>) -> PyResult<()> {
        let py = self.py();
        let mut to_make = Vec::new();
        for &(number, index) in &unknown {
            if self.resolve_one(inner, number, index)?.is_some() {
                to_make.push((number, index - inner.groups[number].slots.start));
            }
        }
        if !to_make.is_empty() {
            self.owner.call_method1(intern!(py, "_make_states"), (to_make.clone(),))?;
            for (number, position) in to_make {
                let index = inner.groups[number].slots.start + position;
                if let Some(problem) = self.resolve_one(inner, number, index)? {
                    let name = self.name(inner, index);
                    return Err(PyRuntimeError::new_err(format!("state of {name}: {problem}")));
                }
            }
        }
        inner.states.clear();
        with_critical_section(self.states, || {
            for (key, value) in self.states.iter() {
                inner.states.push((key.as_ptr() as usize, value.unbind()));
            }
        });
        Ok(())
    }

    pub(super) fn resolve_one(
        &self,
        inner: &mut Inner,
        number: usize,
        index: usize,
    ) -> PyResult<Option<String>> {
        let kind = inner.slots[index].facts.kind.unwrap_or(Kind::Other);
        let group = &inner.groups[number];
        if (group.form.master, kind) == (Master::Split, Kind::F16) {
            let name = self.name(inner, index);
            return Err(PyValueError::new_err(format!(
                "{name} is of float16, but master=\"split\" is for bfloat16, which is the upper half of float32: use \
                 master=\"f32\""
            )));
        }
        let Inner { groups, slots, .. } = inner;
        let (group, slot) = (&groups[number], &mut slots[index]);
        let roles = roles(&group.settings.optimizer, group.form, kind);
        if roles.is_empty() {
            slot.state = Some(slot::State::none(self.py()));
            return Ok(None);
        }
        let access = &self.stepper.access;
        slot.resolve(access, self.owner, self.states, &group.keys, group.form, &roles)
    }

    /// Learns which memory this step writes, and refuses parameters and states that share some.
    pub(super) fn learn_places(&self, inner: &mut Inner) -> PyResult<()> {
        // Of others it is not known whether they are where they were.
        let grads = inner.grads.iter();
        let mut written: Ranges =
            grads.flat_map(|grad| places_of(&inner.slots[grad.slot], grad.slot)).collect();
        written.sort_unstable();
        inner.written = Arc::new(written);
        for pair in inner.written.windows(2) {
            if let [(_, end, one), (start, _, other)] = *pair
                && start < end
            {
                let (one, other) = (self.name(inner, one), self.name(inner, other));
                return Err(PyValueError::new_err(format!(
                    "{one} and {other}, or their states, share memory"
                )));
            }
        }
        Ok(())
    }
}

/// The memory of a parameter and of its states that steps write, with the number of its slot.
pub(super) fn places_of(slot: &Slot, index: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let arrays = slot.state.iter().flat_map(|state| &state.entries);
    let arrays = arrays
        .filter(|entry| !matches!(entry.role, Role::Step | Role::Eta | Role::Mu | Role::MuProduct));
    let arrays = arrays.map(|entry| &entry.facts).chain([&slot.facts]);
    arrays.filter_map(move |facts| {
        let bytes = facts.len * facts.kind.unwrap_or(Kind::Other).bytes();
        (bytes > 0).then_some((facts.data, facts.data + bytes, index))
    })
}
