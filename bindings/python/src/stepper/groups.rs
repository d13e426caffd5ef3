//! The groups of parameters: whether they are those of the last step, and what their settings and options
//! say now.

use adamant::{AnyOptimizer, DynOptimizer, table::CatchUp};
use pyo3::{
    exceptions::PyValueError,
    intern,
    prelude::*,
    types::{PyDict, PyList, PyString, PyWeakrefMethods, PyWeakrefReference},
};

use super::{Call, GroupSeen, Inner};
use crate::{
    access::Access,
    slot::{Form, Keys, Master, Slot},
};

/// The values of the options of a group that decide on states.
pub(super) fn form_values(group: &Bound<'_, PyDict>) -> PyResult<[Py<PyAny>; 4]> {
    let py = group.py();
    let value = |key: &Bound<'_, PyString>| match group.get_item(key)? {
        Some(value) => Ok::<_, PyErr>(value.unbind()),
        None => Ok(py.None()),
    };
    Ok([
        value(intern!(py, "state_dtype"))?,
        value(intern!(py, "master"))?,
        value(intern!(py, "stochastic_rounding"))?,
        value(intern!(py, "dense_equivalent"))?,
    ])
}

pub(super) fn form_of(py: Python<'_>, access: &Access, values: &[Py<PyAny>; 4]) -> PyResult<Form> {
    let [state_dtype, master, stochastic, dense_equivalent] = values;
    let text = |value: &Py<PyAny>| value.extract::<String>(py).ok();
    let master = match text(master).as_deref() {
        Some("f32") => Master::Copy,
        Some("split") => Master::Split,
        _ => Master::None,
    };
    let is_q8 = text(state_dtype).as_deref() == Some("q8");
    let moments = access.kind_of(state_dtype.bind(py));
    let dense_equivalent = match text(dense_equivalent).as_deref() {
        Some("replay") => Some(CatchUp::Replay),
        Some("series") => Some(CatchUp::Series),
        _ => dense_equivalent.is_truthy(py)?.then_some(CatchUp::Series),
    };
    Ok(Form { is_q8, moments, master, stochastic: stochastic.is_truthy(py)?, dense_equivalent })
}

impl Call<'_, '_> {
    /// Whether groups and parameters are the objects of the last step.
    pub(super) fn has_same_groups(&self, inner: &Inner) -> PyResult<bool> {
        let known = inner.groups_list.as_ref();
        if !known.is_some_and(|list| list.is(self.groups))
            || self.groups.len() != inner.groups.len()
        {
            return Ok(false);
        }
        let py = self.py();
        for (position, known) in inner.groups.iter().enumerate() {
            let group = self.groups.get_item(position)?;
            if !group.is(&known.dict) {
                return Ok(false);
            }
            let params = known.dict.bind(py).get_item(intern!(py, "params"))?;
            if !params.is_some_and(|params| params.is(&known.params)) {
                return Ok(false);
            }
            let params = known.params.bind(py);
            if params.len() != known.slots.len() {
                return Ok(false);
            }
            for (position, slot) in inner.slots[known.slots.clone()].iter().enumerate() {
                if !params.get_item(position)?.is(&slot.outer) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    pub(super) fn learn_groups(&self, inner: &mut Inner) -> PyResult<()> {
        let py = self.py();
        let mut rows = core::mem::take(&mut inner.rows);
        *inner = Inner::default();
        // A parameter that left its group may come back, with rows that wait; one that is gone cannot.
        rows.retain(|(param, _)| param.bind(py).upgrade().is_some());
        inner.rows = rows;
        // Where the numbers of each parameter stand in the whole model, if that is not one after the other.
        type Places = (bool, Option<Vec<Vec<(u64, usize)>>>);
        let places = self.owner.call_method0(intern!(py, "_places"))?;
        let (is_shared, places): Places = places.extract()?;
        inner.is_shared = is_shared;
        let mut first = 0;
        for group in self.groups.iter() {
            let dict = group.cast_into::<PyDict>()?;
            let params = dict
                .get_item(intern!(py, "params"))?
                .ok_or_else(|| PyValueError::new_err("a parameter group has no key \"params\""))?;
            let params = params.cast_into::<PyList>()?;
            let start = inner.slots.len();
            for param in params.iter() {
                let len = numbers(&param)?;
                let is_its = |known: &Py<PyWeakrefReference>| {
                    known.bind(py).upgrade().is_some_and(|known| known.is(&param))
                };
                let rows = inner.rows.iter().position(|(known, _)| is_its(known));
                let mut slot = Slot::new(param.unbind(), py);
                (slot.first, slot.rows) = (first, rows);
                if let Some(runs) = places.as_ref().and_then(|places| places.get(inner.slots.len()))
                {
                    slot.first = runs.first().map_or(0, |&(first, _)| first);
                    slot.runs = if runs.len() > 1 { runs.clone() } else { Vec::new() };
                }
                inner.slots.push(slot);
                first += len;
            }
            let settings = self.stepper.plan.read(&dict)?;
            let form_values = self.checked_values(&dict)?;
            inner.groups.push(GroupSeen {
                form: form_of(py, &self.stepper.access, &form_values)?,
                form_values,
                keys: Keys::new(py, &settings.optimizer),
                settings,
                dict: dict.unbind(),
                params: params.unbind(),
                slots: start..inner.slots.len(),
            });
        }
        inner.groups_list = Some(self.groups.clone().unbind());
        Ok(())
    }

    /// The values of the options of a group that decide on states, checked and in one form.
    fn checked_values(&self, group: &Bound<'_, PyDict>) -> PyResult<[Py<PyAny>; 4]> {
        self.owner.call_method1(intern!(self.py(), "_check_group"), (group,))?;
        form_values(group)
    }

    /// Reads the settings of each group again. Where they ask for other states, these are looked up anew.
    pub(super) fn read_settings(&self, inner: &mut Inner) -> PyResult<()> {
        let py = self.py();
        let Inner { groups, slots, is_shared, groups_list, .. } = &mut *inner;
        for group in groups {
            let dict = group.dict.bind(py).clone();
            let mut form_values = form_values(&dict)?;
            let is_same =
                (form_values.iter().zip(&group.form_values)).all(|(new, old)| new.is(old));
            let form = if is_same {
                group.form
            } else {
                form_values = self.checked_values(&dict)?;
                form_of(py, &self.stepper.access, &form_values)?
            };
            let used = uses(&group.settings.optimizer);
            let mut has_changed = self.stepper.plan.reread(&mut group.settings, &dict)?
                && uses(&group.settings.optimizer) != used;
            if form != group.form {
                has_changed = true;
                // Runs are learned anew, since only random bits need them; in the next step if a later
                // group is refused in this one.
                if *is_shared {
                    *groups_list = None;
                }
            }
            (group.form_values, group.form) = (form_values, form);
            if has_changed {
                group.keys = Keys::new(py, &group.settings.optimizer);
                for slot in &mut slots[group.slots.clone()] {
                    slot.state = None;
                }
            }
        }
        if inner.groups_list.is_none() { self.learn_groups(inner) } else { Ok(()) }
    }
}

/// Which moments an optimizer uses, and whether its states are those of another one.
fn uses(optimizer: &AnyOptimizer) -> (&'static str, [bool; adamant::rule::MOMENTS]) {
    let count = optimizer.moment_count();
    let uses = |moment| moment < count && optimizer.moment_start(moment).is_some();
    (optimizer.name(), core::array::from_fn(uses))
}

/// The numbers of a parameter, whatever process has them.
fn numbers(param: &Bound<'_, PyAny>) -> PyResult<u64> {
    let py = param.py();
    let len: u64 = param.call_method0(intern!(py, "numel"))?.extract()?;
    let is_complex = param.call_method0(intern!(py, "is_complex"))?.is_truthy()?;
    Ok(if is_complex { 2 * len } else { len })
}
