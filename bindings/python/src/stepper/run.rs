//! The step itself, when everything is known and found to fit.

use core::{ops::Range, slice};

use adamant::{
    AnyOptimizer, DynOptimizer, Element, Exec, Grad, Group, Isa, Outcome, StepOptions, Tensor,
    norm::NormOrder,
};
use half::{bf16, f16};
use pyo3::{intern, prelude::*, types::PyWeakrefReference};

use super::{Call, GradSeen, GroupSeen, Inner, Options, scalars::scalar};
use crate::{
    error::exception,
    in_use::InUse,
    memory::Kind,
    rows,
    slot::{self, Role, Slot},
};

impl Call<'_, '_> {
    /// Takes the step. Whether it was taken, and the norm of the gradients if it was needed.
    pub(super) fn run(
        &self,
        inner: &mut Inner,
        options: &Options<'_>,
    ) -> PyResult<(bool, Option<f64>)> {
        let py = self.py();
        let isa = options.isa.map(str::parse::<Isa>).transpose().map_err(exception)?;
        let elements = inner.grads.iter().map(|grad| inner.slots[grad.slot].facts.len).sum();
        let crew = self.crew(elements, options.threads)?;
        let exec = Exec { isa, threads: crew.threads() };
        // Another optimizer may have the same parameters.
        let _in_use = InUse::wait(py, inner.written.clone(), Vec::new())?;
        self.refresh_masters(inner)?;
        self.read_steps(inner)?;
        let needs_norm = options.max_grad_norm.is_some() || options.skip_nonfinite;
        let has_rows = inner.grads.iter().any(|grad| grad.rows.is_some());
        if has_rows || !inner.rows.is_empty() {
            self.prepare_rows(inner)?;
        }
        let norm_of_all = match needs_norm && inner.is_shared {
            true => Some(self.norm_of_all(inner, exec)?),
            false => None,
        };

        let rules = gather(inner, options.zero_grad);
        let Inner { slots, grads, tensors, rows, .. } = inner;
        let (slots, grads) = (&*slots, &*grads);
        let mut step_options = StepOptions {
            exec,
            grad_factor: options.grad_factor,
            max_norm: options.max_grad_norm,
            skip_nonfinite: options.skip_nonfinite,
            seed: options.seed,
            grad_norm: norm_of_all,
            ..StepOptions::default()
        };
        let report = py.detach(|| {
            if has_rows && needs_norm && norm_of_all.is_none() {
                let mut each = vec![0.0; grads.len()];
                // SAFETY: the gradients were seen in this call, and are kept alive by `inner`.
                step_options.grad_norm =
                    Some(unsafe { norms(exec, slots, grads, rows, &mut each)? });
            }
            let mut rest = &mut tensors[..];
            let mut parts = Vec::with_capacity(rules.len());
            for (rule, count) in &rules {
                let (part, others) = rest.split_at_mut(*count);
                parts.push(Group::new(rule, part));
                rest = others;
            }
            adamant::step(&mut parts, &step_options)
        });
        let report = report.map_err(exception)?;
        inner.tensors.clear();

        let is_taken = report.outcome == Outcome::Taken;
        if is_taken {
            count_runs(inner);
        }
        if is_taken && (has_rows || !inner.rows.is_empty()) {
            let clip = match (report.grad_norm, options.max_grad_norm) {
                (Some(norm), Some(max_norm)) => adamant::norm::clip_factor(norm, max_norm),
                _ => 1.0,
            };
            let (grad_factor, seed) = (options.grad_factor * clip, options.seed);
            let of_rows = StepOptions { exec, grad_factor, seed, ..StepOptions::default() };
            self.step_rows(inner, of_rows)?;
        }
        self.tell(inner, options, is_taken)?;
        Ok((is_taken, report.grad_norm))
    }

    /// The norm of the gradients of all processes: Python knows who has which, and adds up.
    #[cold]
    pub(super) fn norm_of_all(&self, inner: &mut Inner, exec: Exec<'_>) -> PyResult<f64> {
        let py = self.py();
        let Inner { groups, slots, grads, rows, .. } = inner;
        let mut each = vec![0.0; grads.len()];
        // SAFETY: the gradients were seen in this call, and are kept alive by `inner`.
        py.detach(|| unsafe { norms(exec, slots, grads, rows, &mut each) }).map_err(exception)?;
        let places =
            grads.iter().map(|grad| (grad.group, grad.slot - groups[grad.group].slots.start));
        let places: Vec<_> = places.collect();
        self.owner.call_method1(intern!(py, "_norm_of_all"), (places, each))?.extract()
    }
}

/// Gathers the tensors of a step. The optimizers that step them, in order, each with how many are its own.
fn gather(inner: &mut Inner, zero_grad: bool) -> Vec<(AnyOptimizer, usize)> {
    let Inner { groups, slots, grads, steps, run_steps, tensors, .. } = inner;
    tensors.clear();
    run_steps.clear();
    for (grad, &step) in grads.iter().zip(&*steps) {
        let (group, slot) = (&groups[grad.group], &slots[grad.slot]);
        if is_in_runs(grad, group, slot) {
            run_steps.extend(slot.runs.iter().map(|_| step));
        }
    }
    let mut run_steps = run_steps.iter_mut();
    let mut rules: Vec<(AnyOptimizer, usize)> = Vec::with_capacity(groups.len());
    let mut last_group = None;
    for (grad, step) in grads.iter().zip(steps.iter_mut()) {
        let (group, slot) = (&groups[grad.group], &slots[grad.slot]);
        let optimizer = &group.settings.optimizer;
        let is_same = last_group == Some(grad.group) && !matches!(optimizer, AnyOptimizer::Asgd(_));
        last_group = Some(grad.group);
        if !is_same {
            rules.push((rule_of(optimizer, slot), 0));
        }
        let before = tensors.len();
        let all = slot.facts.len * slot.facts.kind.map_or(1, Kind::reals);
        let mut add = |range, step, first| {
            // SAFETY: each array was seen in this call, is kept alive by `inner`, and was found to share
            // memory with no other one that is written, here or in a step of another thread. The counts are
            // left alone meanwhile. Other code that uses an array meanwhile races, as with PyTorch's own
            // operators. The tensors end before the call of the step does.
            tensors.push(
                unsafe { tensor_of(grad, group, slot, range, step, zero_grad) }.with_first(first),
            );
        };
        if is_in_runs(grad, group, slot) {
            let mut start = 0;
            for (&(first, len), step) in slot.runs.iter().zip(&mut run_steps) {
                // The runs add up to the parameter, or the last ones are cut.
                let range = start.min(all)..(start + len).min(all);
                start = range.end;
                add(range, step, first);
            }
        } else {
            add(0..all, step, slot.first);
        }
        if let Some((_, count)) = rules.last_mut() {
            *count += tensors.len() - before;
        }
    }
    rules
}

/// A range of the numbers of a parameter, for a step; of one with a sparse gradient, whose rows are stepped
/// later, none: so the core checks the settings of that step and counts it.
///
/// # Safety
///
/// The arrays are as they were seen, and nobody else uses these numbers, nor the count, until the tensor ends.
unsafe fn tensor_of(
    grad: &GradSeen,
    group: &GroupSeen,
    slot: &Slot,
    range: Range<usize>,
    step: &mut u64,
    zero_grad: bool,
) -> Tensor<'static> {
    // SAFETY: the caller's promise.
    let step: &'static mut u64 = unsafe { &mut *core::ptr::from_mut(step) };
    match &grad.rows {
        // SAFETY: as above.
        None => unsafe {
            let param = slot::param_of(slot, group.form, range.clone());
            let moments = slot::moments_of(slot, range.clone()).into_iter();
            let grad = grad_of(grad.data, grad.kind.real(), range, zero_grad);
            let count = group.settings.optimizer.moment_count();
            Tensor::new(param, grad, step).with_moments(moments.take(count))
        },
        Some(_) if grad.kind == Kind::F64 => Tensor::new(f64::param(&mut []), f64::grad(&[]), step),
        Some(_) => Tensor::new(f32::param(&mut []), f32::grad(&[]), step),
    }
}

/// Counts the step of parameters whose runs were counted, each for itself.
fn count_runs(inner: &mut Inner) {
    for (grad, step) in inner.grads.iter().zip(&mut inner.steps) {
        if is_in_runs(grad, &inner.groups[grad.group], &inner.slots[grad.slot]) {
            *step += 1;
        }
    }
}

/// Whether a parameter is stepped run by run: see [`Slot::runs`].
#[inline]
fn is_in_runs(grad: &GradSeen, group: &GroupSeen, slot: &Slot) -> bool {
    grad.rows.is_none() && !slot.runs.is_empty() && !group.form.is_q8
}

/// The optimizer of a parameter: that of its group, but that ASGD's step size comes from the state, as
/// PyTorch's does: a new learning rate counts from the next step on.
pub(super) fn rule_of(optimizer: &AnyOptimizer, slot: &Slot) -> AnyOptimizer {
    match (optimizer, scalar(slot, Role::Eta)) {
        (AnyOptimizer::Asgd(asgd), Some(eta)) => {
            // SAFETY: `fits` found a float, and what is known of the state was found to hold.
            let lr = f64::from(unsafe { eta.read_unaligned() });
            adamant::Asgd { lr, alpha: 0.0, ..*asgd }.into()
        }
        _ => *optimizer,
    }
}

/// The norm of all gradients, sparse ones among them, and that of each. The rows of a sparse one are added up in the
/// core, as the step does it.
///
/// # Safety
///
/// They are as they were seen, and nobody writes them. `each` is as long as they are.
unsafe fn norms(
    exec: Exec<'_>,
    slots: &[Slot],
    grads: &[GradSeen],
    rows: &mut [(Py<PyWeakrefReference>, rows::Memory)],
    each: &mut [f64],
) -> Result<f64, adamant::Error> {
    let order = NormOrder::Two;
    let dense = grads.iter().filter(|grad| grad.rows.is_none());
    let dense: Vec<Grad<'_>> = dense
        .map(|grad| {
            let facts = &slots[grad.slot].facts;
            let len = facts.len * facts.kind.map_or(1, Kind::reals);
            // SAFETY: the caller's promise.
            unsafe { grad_of(grad.data, grad.kind.real(), 0..len, false) }
        })
        .collect();
    if dense.len() == grads.len() {
        return adamant::norm::grad_norms(order, exec, &dense, each);
    }
    let mut of_dense = vec![0.0; dense.len()];
    // The whole is the norm of the norms of its parts.
    let mut parts = vec![adamant::norm::grad_norms(order, exec, &dense, &mut of_dense)?];
    let mut of_dense = of_dense.into_iter();
    for (grad, norm) in grads.iter().zip(&mut *each) {
        *norm = match (&grad.rows, slots[grad.slot].rows) {
            (Some(sparse), Some(memory)) => {
                let scratch = &mut rows[memory].1.scratch;
                // SAFETY: the caller's promise.
                parts.push(unsafe { sparse.norm(exec, scratch)? });
                parts[parts.len() - 1]
            }
            (None, _) => of_dense.next().unwrap_or_default(),
            // `prepare_rows` has given every sparse one a memory.
            (Some(_), None) => f64::NAN,
        };
    }
    let mut of_parts = [0.0];
    adamant::norm::grad_norms(order, exec, &[f64::grad(&parts)], &mut of_parts)
}

/// A range of the gradient of a parameter for a step.
///
/// # Safety
///
/// `data` points to so many numbers of the kind, or the range is empty; nobody writes them for `'a`, nor
/// reads them if they are to be zeroed.
#[inline]
unsafe fn grad_of<'a>(data: usize, kind: Kind, range: Range<usize>, zeroed: bool) -> Grad<'a> {
    unsafe fn of<'a, E: Element>(data: usize, range: Range<usize>, zeroed: bool) -> Grad<'a> {
        let (data, len) = (data + range.start * size_of::<E>(), range.len());
        match (len, zeroed) {
            (0, _) => E::grad(&[]),
            // SAFETY: the caller's promise.
            (_, true) => unsafe { Grad::zeroed(slice::from_raw_parts_mut(data as *mut E, len)) },
            // SAFETY: the caller's promise.
            (_, false) => unsafe { E::grad(slice::from_raw_parts(data as *const E, len)) },
        }
    }
    // SAFETY: the caller's promise.
    unsafe {
        match kind {
            Kind::F64 => of::<f64>(data, range, zeroed),
            Kind::Bf16 => of::<bf16>(data, range, zeroed),
            Kind::F16 => of::<f16>(data, range, zeroed),
            _ => of::<f32>(data, range, zeroed),
        }
    }
}
