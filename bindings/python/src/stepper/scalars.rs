//! The numbers that a step reads and writes beside the arrays: counts of steps, the numbers that PyTorch keeps
//! with them, and the versions of tensors.

use adamant::AnyOptimizer;
use pyo3::{exceptions::PyValueError, intern, prelude::*, types::PyList};

use super::{Call, Inner, Options};
use crate::slot::{Role, Slot};

impl Call<'_, '_> {
    /// Brings master copies up to date, where somebody else has written the parameter.
    pub(super) fn refresh_masters(&self, inner: &mut Inner) -> PyResult<()> {
        let py = self.py();
        for grad in &inner.grads {
            let slot = &inner.slots[grad.slot];
            let Some(master) = slot.state.as_ref().and_then(|state| state.entry(Role::Master))
            else {
                continue;
            };
            if !slot.is_as_left(&self.stepper.access, py)? {
                let refresh = intern!(py, "_refresh_master");
                self.owner.call_method1(refresh, (&slot.param, &master.tensor))?;
            }
        }
        Ok(())
    }

    /// Reads how many steps each parameter has taken.
    pub(super) fn read_steps(&self, inner: &mut Inner) -> PyResult<()> {
        inner.steps.clear();
        for grad in &inner.grads {
            let step = match scalar(&inner.slots[grad.slot], Role::Step) {
                // SAFETY: `fits` found a float, and what is known of the state was found to hold.
                Some(step) => unsafe { step.read_unaligned() },
                None => 0.0,
            };
            if !(step >= 0.0 && step.fract() == 0.0 && step.is_finite()) {
                let name = self.name(inner, grad.slot);
                return Err(PyValueError::new_err(format!(
                    "step of {name} is {step}, but must be a whole number of at least 0"
                )));
            }
            inner.steps.push(step as u64);
        }
        Ok(())
    }

    /// Tells PyTorch what was written, and zeroes the gradients that the step could not.
    pub(super) fn tell(
        &self,
        inner: &mut Inner,
        options: &Options,
        is_taken: bool,
    ) -> PyResult<()> {
        if is_taken {
            self.count(inner)?;
        }
        // Last: an error of PyTorch's leaves a step that was counted.
        if options.zero_grad { self.zero_others(inner) } else { Ok(()) }
    }

    /// Zeroes the gradients that the step read as a copy. Those of `create_graph=True` leave their graph.
    fn zero_others(&self, inner: &Inner) -> PyResult<()> {
        let py = self.py();
        let (mut zeroed, mut others) = (Vec::with_capacity(inner.grads.len()), Vec::new());
        for grad in &inner.grads {
            match &grad.original {
                Some(original) => others.push((grad.slot, original)),
                None => {
                    zeroed.push(&grad.tensor);
                    if self.stepper.access.requires_grad(grad.tensor.bind(py))? {
                        others.push((grad.slot, &grad.tensor));
                    }
                }
            }
        }
        self.stepper.increment_version.bind(py).call1((PyList::new(py, zeroed)?,))?;
        for (slot, grad) in others {
            let zero = intern!(py, "_zero_grad");
            self.owner.call_method1(zero, (&inner.slots[slot].outer, grad))?;
        }
        Ok(())
    }

    /// Counts a step that was taken, and the versions of what it wrote.
    fn count(&self, inner: &mut Inner) -> PyResult<()> {
        let py = self.py();
        for (grad, &t) in inner.grads.iter().zip(&inner.steps) {
            let (group, slot) = (&inner.groups[grad.group], &inner.slots[grad.slot]);
            set_scalar(slot, Role::Step, |_| t as f64);
            match &group.settings.optimizer {
                AnyOptimizer::Asgd(asgd) => {
                    let fall = (1.0 + asgd.lambd * asgd.lr * t as f64).powf(asgd.alpha);
                    let mu = 1.0 / f64::max(1.0, t as f64 - asgd.t0);
                    set_scalar(slot, Role::Eta, |_| asgd.lr / fall);
                    set_scalar(slot, Role::Mu, |_| mu);
                }
                AnyOptimizer::NAdam(nadam) => {
                    let momentum = nadam_momentum(nadam.beta1, nadam.momentum_decay, t);
                    set_scalar(slot, Role::MuProduct, |product| product * momentum);
                }
                _ => {}
            }
        }
        let is_same = inner.stepped_slots.len() == inner.grads.len()
            && inner.stepped_slots.iter().zip(&inner.grads).all(|(&slot, grad)| slot == grad.slot);
        if !is_same || inner.stepped.is_none() {
            let stepped = PyList::empty(py);
            for grad in &inner.grads {
                let slot = &inner.slots[grad.slot];
                stepped.append(&slot.param)?;
                if slot.is_part() {
                    stepped.append(&slot.outer)?;
                }
            }
            inner.stepped = Some(stepped.unbind());
            inner.stepped_slots = inner.grads.iter().map(|grad| grad.slot).collect();
        }
        if let Some(stepped) = &inner.stepped {
            self.stepper.increment_version.bind(py).call1((stepped,))?;
        }
        for grad in &inner.grads {
            let slot = &mut inner.slots[grad.slot];
            let has_master =
                slot.state.as_ref().is_some_and(|state| state.entry(Role::Master).is_some());
            if has_master {
                slot.leave(&self.stepper.access, py)?;
            }
            if slot.is_part() {
                // It would keep memory alive that the parameter may have left by the next step, which looks anew.
                slot.param = slot.outer.clone_ref(py);
                inner.stepped = None;
            }
        }
        Ok(())
    }
}

/// NAdam's momentum in step `t`.
pub fn nadam_momentum(beta1: f64, momentum_decay: f64, t: u64) -> f64 {
    beta1 * (1.0 - 0.5 * 0.96_f64.powf(t as f64 * momentum_decay))
}

/// A state of one number.
#[inline]
pub(super) fn scalar(slot: &Slot, role: Role) -> Option<*mut f32> {
    let entry = slot.state.as_ref()?.entry(role)?;
    Some(entry.facts.data as *mut f32)
}

/// Changes a state of one number, if the parameter has it, after a step.
#[inline]
fn set_scalar(slot: &Slot, role: Role, next: impl FnOnce(f64) -> f64) {
    if let Some(place) = scalar(slot, role) {
        // SAFETY: `fits` found a float, and what is known of the state was found to hold before the step.
        unsafe { place.write_unaligned(next(f64::from(place.read_unaligned())) as f32) };
    }
}
