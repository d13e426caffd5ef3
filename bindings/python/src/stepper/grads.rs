//! Where a step reads and writes: the gradients, and whether parameters and states are where they were.

use pyo3::{
    exceptions::{PyIndexError, PyRuntimeError, PyValueError},
    intern,
    prelude::*,
    types::{PyList, PyTuple},
};

use super::{Call, GradSeen, Inner, Options};
use crate::{
    memory::{Facts, Kind},
    rows::Rows,
    slot::{self, Slot},
};

/// The memory of a gradient.
pub(super) struct Found {
    pub tensor: Py<PyAny>,
    pub data: usize,
    pub kind: Kind,
    pub original: Option<Py<PyAny>>,
    pub rows: Option<Rows>,
}

impl<'py> Call<'_, 'py> {
    /// Finds the gradients, and sees to it that what is known of the parameters that have one, and of
    /// their states, holds.
    pub(super) fn look_at_tensors(
        &self,
        inner: &mut Inner,
        options: &Options<'_>,
        listed: Option<&Bound<'py, PyList>>,
    ) -> PyResult<()> {
        let py = self.py();
        let access = &self.stepper.access;
        self.look_at_states(inner);
        // Until all of this call has been found to fit, nothing is known.
        let placed = core::mem::take(&mut inner.placed);
        let mut unknown: Vec<(usize, usize)> = Vec::new();
        let mut has_moved = false;
        inner.grads.clear();
        let Inner { groups, slots, grads, .. } = &mut *inner;
        let mut look = |number: usize, index: usize, slot: &mut Slot, grad: Bound<'py, PyAny>| {
            let position = index - groups[number].slots.start;
            has_moved |= !slot.look(access, self.owner, || self.name_at(number, position))?;
            if !slot.state_holds(access, self.owner)? {
                unknown.push((number, index));
            }
            let grad = self.look_at_grad(slot, number, position, grad)?;
            let Found { tensor, data, kind, original, rows } = grad;
            let (slot, group) = (index, number);
            grads.push(GradSeen { slot, group, tensor, data, kind, original, rows });
            Ok::<_, PyErr>(())
        };
        if let Some(listed) = listed {
            for entry in listed.iter() {
                let (number, position, grad): (usize, usize, Bound<'py, PyAny>) =
                    entry.extract()?;
                let index = groups.get(number).map(|group| group.slots.start + position);
                let slot = index.and_then(|index| Some((index, slots.get_mut(index)?)));
                let Some((index, slot)) = slot else {
                    return Err(PyIndexError::new_err(format!(
                        "there is no parameter {position} in group {number}"
                    )));
                };
                look(number, index, slot, grad)?;
            }
        } else {
            for (number, group) in groups.iter().enumerate() {
                let range = group.slots.clone();
                for (index, slot) in range.clone().zip(&mut slots[range]) {
                    let grad = access.grad(slot.outer.bind(py))?;
                    if !grad.is_none() {
                        look(number, index, slot, grad)?;
                    }
                }
            }
        }
        if !unknown.is_empty() {
            self.resolve(inner, unknown)?;
            has_moved = true;
        }
        let is_same = placed.len() == inner.grads.len()
            && placed.iter().zip(&inner.grads).all(|(&slot, grad)| slot == grad.slot);
        if has_moved || !is_same {
            self.learn_places(inner)?;
        }
        self.check_grads(inner, options)?;
        inner.placed = match is_same {
            true => placed,
            false => inner.grads.iter().map(|grad| grad.slot).collect(),
        };
        Ok(())
    }

    /// Looks at a gradient: the memory that the step reads, and the gradient itself where that is a copy.
    #[inline]
    fn look_at_grad(
        &self,
        slot: &Slot,
        number: usize,
        position: usize,
        grad: Bound<'py, PyAny>,
    ) -> PyResult<Found> {
        let access = &self.stepper.access;
        let facts = &slot.facts;
        // To ask where a sparse gradient lies would cost an exception.
        if access.is_plain(&grad) && slot.rows.is_none() {
            let found = access.look(&grad, |seen| {
                let is_laid_out = facts.is_laid_out(&seen);
                let fits = seen.is_cpu
                    && seen.is_aligned()
                    && goes_with(facts, seen.kind)
                    && (is_laid_out || facts.has_order_of(&seen));
                // A lazy negative has other strides, unless there is but one element, or it is of the private
                // `torch._neg_view`: to ask each gradient would take longer than to look at it.
                let is_known = is_laid_out && facts.len != 1 && !seen.kind.is_complex();
                Ok((fits, is_known, seen.data as usize, seen.kind, seen.is_freed()))
            });
            if let Ok((_, _, _, _, true)) = found {
                return Err(self.freed(number, position));
            }
            // An error is told below.
            if let Ok((true, is_known, data, kind, _)) = found
                && (is_known || !slot::is_lazy(&grad)?)
            {
                let tensor = grad.unbind();
                return Ok(Found { tensor, data, kind, original: None, rows: None });
            }
        }
        self.copy_grad(slot, number, position, grad)
    }

    /// Has Python copy a gradient that a step cannot read as it is.
    #[cold]
    fn copy_grad(
        &self,
        slot: &Slot,
        number: usize,
        position: usize,
        grad: Bound<'py, PyAny>,
    ) -> PyResult<Found> {
        let py = self.py();
        let facts = &slot.facts;
        let copy = intern!(py, "_grad_like");
        let arguments = (number, position, slot.param.bind(py), &grad);
        let copy = self.owner.call_method1(copy, arguments)?;
        if let Ok(sparse) = copy.cast::<PyTuple>() {
            return self.look_at_rows(slot, sparse, grad, || self.name_at(number, position));
        }
        let (found, data, kind) = self.stepper.access.look(&copy, |seen| {
            if seen.is_freed() {
                return Err(self.freed(number, position));
            }
            if !seen.is_aligned() {
                return Err(misaligned(&self.name_at(number, position)));
            }
            let goes = seen.is_cpu && goes_with(facts, seen.kind);
            let misfit = match goes && facts.has_order_of(&seen) {
                true => None,
                false => Some(format!(
                    "is of {} with shape {:?} and strides {:?}",
                    seen.kind, seen.shape, seen.strides
                )),
            };
            Ok((misfit, seen.data as usize, seen.kind))
        })?;
        if let Some(found) = found {
            let name = self.name_at(number, position);
            return Err(PyRuntimeError::new_err(format!(
                "the gradient of {name} {found}, but the parameter is of {} with shape {:?} and strides {:?}",
                facts.kind.unwrap_or(Kind::Other),
                facts.shape(),
                facts.strides()
            )));
        }
        let original = (!copy.is(&grad)).then(|| grad.unbind());
        Ok(Found { tensor: copy.unbind(), data, kind, original, rows: None })
    }

    #[cold]
    fn freed(&self, number: usize, position: usize) -> PyErr {
        let name = self.name_at(number, position);
        PyValueError::new_err(format!(
            "the gradient of {name} has no memory: its storage was freed"
        ))
    }

    /// Refuses gradients that share memory with what the step writes.
    fn check_grads(&self, inner: &Inner, options: &Options<'_>) -> PyResult<()> {
        let range = |grad: &GradSeen| {
            let len = match &grad.rows {
                Some(rows) => rows.count * rows.width,
                None => inner.slots[grad.slot].facts.len,
            };
            (grad.data, grad.data + len * grad.kind.bytes())
        };
        let written = &inner.written;
        for grad in &inner.grads {
            let (start, end) = range(grad);
            let after = written.partition_point(|&(_, written_end, _)| written_end <= start);
            if start < end && written.get(after).is_some_and(|&(written, ..)| written < end) {
                let name = self.name(inner, grad.slot);
                return Err(PyValueError::new_err(format!(
                    "the gradient of {name} shares memory with a parameter or a state"
                )));
            }
        }
        if options.zero_grad {
            let mut ranges: Vec<_> =
                inner.grads.iter().map(|grad| (range(grad), grad.slot)).collect();
            ranges.sort_unstable();
            for pair in ranges.windows(2) {
                if let [((_, end), one), ((start, _), other)] = *pair
                    && start < end
                {
                    let (one, other) = (self.name(inner, one), self.name(inner, other));
                    return Err(PyValueError::new_err(format!(
                        "the gradients of {one} and {other} share memory, and cannot be zeroed in the step"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// The error for a gradient that no slice can be made of.
pub(super) fn misaligned(name: &str) -> PyErr {
    PyValueError::new_err(format!("the gradient of {name} is not aligned: use a copy"))
}

/// Whether a gradient's type goes with that of its parameter, without a copy.
#[inline]
fn goes_with(param: &Facts, grad: Kind) -> bool {
    match param.kind {
        Some(Kind::F64 | Kind::C64 | Kind::C128) => param.kind == Some(grad),
        _ => matches!(grad, Kind::F32 | Kind::Bf16 | Kind::F16),
    }
}
