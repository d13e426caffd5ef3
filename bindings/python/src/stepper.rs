//! A step of all parameters of an optimizer, in one call.

mod grads;
mod sparse;
mod states;

use core::{ops::Range, slice};
use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicUsize, Ordering},
};

use adamant::{
    AnyOptimizer, CatchUp, DynOptimizer, Element, Exec, Grad, Group, Isa, NormOrder, Outcome, Q8,
    StepOptions, Tensor, Threads,
};
use half::{bf16, f16};
use pyo3::{
    exceptions::{PyIndexError, PyRuntimeError, PyValueError},
    gc::{PyTraverseError, PyVisit},
    intern,
    prelude::*,
    sync::MutexExt,
    types::{PyDict, PyList, PyString, PyTuple, PyType},
};

use crate::{
    error::exception,
    memory::{Access, Kind},
    rows::{self, Rows},
    settings::{Plan, Settings},
    slot::{self, Form, Keys, Master, Role, Slot, roles},
    threads,
};
use grads::Found;

/// The options of a step: see `Optimizer` in Python.
struct Options<'a> {
    grad_factor: f64,
    max_grad_norm: Option<f64>,
    skip_nonfinite: bool,
    zero_grad: bool,
    threads: Option<usize>,
    isa: Option<&'a str>,
    seed: u64,
}

/// A group of parameters, as it was at the last step.
struct GroupSeen {
    dict: Py<PyDict>,
    params: Py<PyList>,
    /// The values of the options that decide on states, and what they mean.
    form_values: [Py<PyAny>; 4],
    form: Form,
    settings: Settings,
    keys: Keys,
    /// The slots of its parameters.
    slots: Range<usize>,
}

/// A gradient of a step.
struct GradSeen {
    slot: usize,
    group: usize,
    /// Keeps the memory alive while the step runs.
    tensor: Py<PyAny>,
    data: usize,
    kind: Kind,
    /// The gradient of the parameter, where the step reads a copy of it.
    original: Option<Py<PyAny>>,
    /// The rows of a sparse gradient; there is no other then.
    rows: Option<Rows>,
}

#[derive(Default)]
struct Inner {
    groups_list: Option<Py<PyList>>,
    groups: Vec<GroupSeen>,
    slots: Vec<Slot>,
    /// The optimizer's states, entry by entry.
    states: Vec<(usize, Py<PyAny>)>,
    /// The memory that steps write, in order, with the slot that it belongs to.
    written: Vec<(usize, usize, usize)>,
    /// The parameters whose memory `written` has.
    placed: Vec<usize>,
    grads: Vec<GradSeen>,
    steps: Vec<u64>,
    /// The counts of steps of the runs of parameters that are not one run of the whole: see [`Slot::runs`].
    run_steps: Vec<u64>,
    /// Whether other processes have parts of the parameters, so that norms are of all of them.
    is_shared: bool,
    tensors: Vec<Tensor<'static>>,
    /// The parameters that were stepped, whose versions count on.
    stepped: Option<Py<PyList>>,
    stepped_slots: Vec<usize>,
    /// What is remembered of the rows of parameters with sparse gradients, by the parameter.
    rows: Vec<(Py<PyAny>, rows::Memory)>,
}

/// Steps the parameters of an optimizer. It remembers what it saw in the last step, and looks at every
/// tensor once in each.
#[pyclass(frozen, module = "adamant_optim._core")]
pub struct Stepper {
    plan: Plan,
    access: Access,
    increment_version: Py<PyAny>,
    inner: Mutex<Inner>,
    /// The thread that is in a step.
    holder: AtomicUsize,
    default_threads: usize,
}

thread_local! {
    static HERE: u8 = const { 0 };
}

/// A number of this thread, not 0.
fn this_thread() -> usize {
    HERE.with(|here| core::ptr::from_ref(here) as usize)
}

/// The state of a stepper, for one thread.
struct Held<'a> {
    inner: MutexGuard<'a, Inner>,
    holder: &'a AtomicUsize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Nothing borrowed outlives a step.
        self.inner.tensors.clear();
        self.inner.grads.clear();
        self.holder.store(0, Ordering::Relaxed);
    }
}

#[pymethods]
impl Stepper {
    /// `plan` is `(optimizer, variant, sources, fixed)`; `types` are those of tensors that are nothing but
    /// memory.
    #[new]
    fn new(
        torch: &Bound<'_, PyAny>,
        types: Vec<Py<PyType>>,
        increment_version: Py<PyAny>,
        plan: &Bound<'_, PyTuple>,
        without_exchange_api: bool,
    ) -> PyResult<Self> {
        let access = Access::new(torch, types)?;
        Ok(Self {
            plan: Plan::new(plan)?,
            access: if without_exchange_api { access.without_exchange_api() } else { access },
            increment_version,
            inner: Mutex::default(),
            holder: AtomicUsize::new(0),
            default_threads: threads::default_threads(torch.py()),
        })
    }

    /// Checks the settings of a group.
    fn check(&self, group: &Bound<'_, PyDict>) -> PyResult<()> {
        self.plan.read(group).map(|_| ())
    }

    /// The moments that the settings of a group use: name, what each number starts from, format of 8 bits.
    fn moments(
        &self,
        group: &Bound<'_, PyDict>,
    ) -> PyResult<Vec<(&'static str, f64, &'static str)>> {
        let optimizer = self.plan.read(group)?.optimizer;
        let used = |moment| Some((moment, optimizer.moment_start(moment)?));
        let used = (0..optimizer.moment_count()).filter_map(used);
        Ok(used
            .map(|(moment, start)| {
                let format = format_name(optimizer.moment_format(moment));
                (optimizer.moment_name(moment), start, format)
            })
            .collect())
    }

    /// Whether the state of a parameter of a group counts steps.
    fn counts_steps(&self, group: &Bound<'_, PyDict>, is_bf16: bool) -> PyResult<bool> {
        let optimizer = self.plan.read(group)?.optimizer;
        let form = form_of(group.py(), &self.access, &form_values(group)?)?;
        let kind = if is_bf16 { Kind::Bf16 } else { Kind::F32 };
        Ok(roles(&optimizer, form, kind).contains(&Role::Step))
    }

    /// Takes a step of all parameters that have a gradient, or only of those in `listed`: number of the
    /// group, position in it, gradient. Whether it was taken, and the norm of the gradients if it was needed.
    #[allow(
        clippy::too_many_arguments,
        reason = "Python passes them by position, which is fastest"
    )]
    fn step(
        &self,
        owner: &Bound<'_, PyAny>,
        groups: &Bound<'_, PyList>,
        states: &Bound<'_, PyDict>,
        grad_factor: f64,
        max_grad_norm: Option<f64>,
        skip_nonfinite: bool,
        zero_grad: bool,
        threads: Option<usize>,
        isa: Option<&str>,
        seed: u64,
        listed: Option<&Bound<'_, PyList>>,
    ) -> PyResult<(bool, Option<f64>)> {
        let options =
            Options { grad_factor, max_grad_norm, skip_nonfinite, zero_grad, threads, isa, seed };
        let mut held = self.hold(owner.py())?;
        let call = Call { stepper: self, owner, groups, states };
        call.step(&mut held.inner, &options, listed)
    }

    /// Brings rows of a parameter to the present step: those that `rows` lists, `int64` and contiguous, or
    /// all. Whether any row was behind.
    fn catch_up(
        &self,
        owner: &Bound<'_, PyAny>,
        groups: &Bound<'_, PyList>,
        states: &Bound<'_, PyDict>,
        place: (usize, usize),
        rows: Option<&Bound<'_, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<bool> {
        let mut held = self.hold(owner.py())?;
        let call = Call { stepper: self, owner, groups, states };
        call.catch_up(&mut held.inner, place, rows, threads)
    }

    /// Takes all rows of all parameters to be at the present step.
    fn reset_rows(&self, py: Python<'_>) -> PyResult<()> {
        for (_, memory) in &mut self.hold(py)?.inner.rows {
            memory.waiting = None;
        }
        Ok(())
    }

    /// Forgets what was seen, as after a change that a step cannot notice.
    fn forget(&self, py: Python<'_>) -> PyResult<()> {
        let forgotten = core::mem::take(&mut *self.hold(py)?.inner);
        drop(forgotten);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Ok(inner) = self.inner.try_lock() else { return Ok(()) };
        for group in &inner.groups {
            visit.call(&group.dict)?;
            visit.call(&group.params)?;
        }
        for slot in &inner.slots {
            visit.call(&slot.outer)?;
            visit.call(&slot.param)?;
        }
        for (param, _) in &inner.rows {
            visit.call(param)?;
        }
        for (_, state) in &inner.states {
            visit.call(state)?;
        }
        if let Some(list) = &inner.groups_list {
            visit.call(list)?;
        }
        if let Some(list) = &inner.stepped {
            visit.call(list)?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        // What is dropped may call Python code, and that a step: so the lock is given back first.
        let forgotten = self.inner.try_lock().map(|mut inner| core::mem::take(&mut *inner)).ok();
        drop(forgotten);
    }
}

impl Stepper {
    /// Waits for other threads' steps.
    fn hold(&self, py: Python<'_>) -> PyResult<Held<'_>> {
        if self.holder.load(Ordering::Relaxed) == this_thread() {
            return Err(PyRuntimeError::new_err("step was called from within step"));
        }
        let inner = self.inner.lock_py_attached(py).unwrap_or_else(|poisoned| {
            // A panic, which only a fault of this crate can cause, may have left anything.
            let mut inner = poisoned.into_inner();
            *inner = Inner::default();
            inner
        });
        self.holder.store(this_thread(), Ordering::Relaxed);
        Ok(Held { inner, holder: &self.holder })
    }
}

pub fn format_name(format: Q8) -> &'static str {
    match format {
        Q8::Squares => "squares",
        Q8::Unsigned => "unsigned",
        _ => "signed",
    }
}

/// The values of the options of a group that decide on states.
fn form_values(group: &Bound<'_, PyDict>) -> PyResult<[Py<PyAny>; 4]> {
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

fn form_of(py: Python<'_>, access: &Access, values: &[Py<PyAny>; 4]) -> PyResult<Form> {
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

/// A step that is being taken.
struct Call<'a, 'py> {
    stepper: &'a Stepper,
    owner: &'a Bound<'py, PyAny>,
    groups: &'a Bound<'py, PyList>,
    states: &'a Bound<'py, PyDict>,
}

impl<'py> Call<'_, 'py> {
    fn py(&self) -> Python<'py> {
        self.owner.py()
    }

    /// The name of a parameter, for errors.
    fn name(&self, inner: &Inner, slot: usize) -> String {
        match inner.groups.iter().position(|group| group.slots.contains(&slot)) {
            Some(group) => self.name_at(group, slot - inner.groups[group].slots.start),
            None => format!("parameter {slot}"),
        }
    }

    fn name_at(&self, group: usize, position: usize) -> String {
        let name = self.owner.call_method1(intern!(self.py(), "_name_of"), (group, position));
        let name = name.and_then(|name| name.extract());
        name.unwrap_or_else(|_| format!("param_groups[{group}]['params'][{position}]"))
    }

    fn step(
        &self,
        inner: &mut Inner,
        options: &Options<'_>,
        listed: Option<&Bound<'py, PyList>>,
    ) -> PyResult<(bool, Option<f64>)> {
        if !self.has_same_groups(inner)? {
            self.learn_groups(inner)?;
        }
        self.read_settings(inner)?;
        self.look_at_tensors(inner, options, listed)?;
        self.run(inner, options)
    }

    /// Whether groups and parameters are the objects of the last step.
    fn has_same_groups(&self, inner: &Inner) -> PyResult<bool> {
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

    fn learn_groups(&self, inner: &mut Inner) -> PyResult<()> {
        let py = self.py();
        let rows = core::mem::take(&mut inner.rows);
        *inner = Inner { rows, ..Inner::default() };
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
                let rows = inner.rows.iter().position(|(known, _)| known.is(&param));
                let mut slot = Slot { first, rows, ..Slot::new(param.unbind(), py) };
                if let Some(runs) = places.as_ref().and_then(|places| places.get(inner.slots.len()))
                {
                    slot.first = runs.first().map_or(0, |&(first, _)| first);
                    slot.runs = if runs.len() > 1 { runs.clone() } else { Vec::new() };
                }
                inner.slots.push(slot);
                first += len;
            }
            let settings = self.stepper.plan.read(&dict)?;
            let form_values = form_values(&dict)?;
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

    /// Reads the settings of each group again. Where they ask for other states, these are looked up anew.
    fn read_settings(&self, inner: &mut Inner) -> PyResult<()> {
        let py = self.py();
        let Inner { groups, slots, is_shared, groups_list, .. } = &mut *inner;
        for group in groups {
            let dict = group.dict.bind(py).clone();
            let form_values = form_values(&dict)?;
            let is_same =
                (form_values.iter().zip(&group.form_values)).all(|(new, old)| new.is(old));
            let form = match is_same {
                true => group.form,
                false => form_of(py, &self.stepper.access, &form_values)?,
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

    /// Finds the gradients, and sees to it that what is known of the parameters that have one, and of
    /// their states, holds.
    fn look_at_tensors(
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
            if groups[number].form.stochastic && slot.facts.kind == Some(Kind::F16) {
                let name = self.name_at(number, position);
                return Err(PyValueError::new_err(format!(
                    "{name} is of float16, but stochastic_rounding is for bfloat16: use master=\"f32\""
                )));
            }
            if !slot.state_holds(access, self.owner)? {
                unknown.push((number, index));
            }
            let grad = self.look_at_grad(slot, number, position, grad, options)?;
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

    /// Takes the step; everything is known and found to fit.
    fn run(&self, inner: &mut Inner, options: &Options<'_>) -> PyResult<(bool, Option<f64>)> {
        let py = self.py();
        let isa = options.isa.map(str::parse::<Isa>).transpose().map_err(exception)?;
        let threads = options.threads.unwrap_or(self.stepper.default_threads);
        let pool = threads::pool(threads).map_err(exception)?;
        let exec = Exec {
            isa,
            threads: match &pool {
                Some(pool) => Threads::Pool(pool),
                None => Threads::Serial,
            },
        };
        self.refresh_masters(inner)?;
        self.read_steps(inner)?;
        let needs_norm = options.max_grad_norm.is_some() || options.skip_nonfinite;
        let has_rows = inner.grads.iter().any(|grad| grad.rows.is_some());
        if has_rows || !inner.rows.is_empty() {
            self.prepare_rows(inner, exec)?;
        }

        let norm_of_all = match needs_norm && inner.is_shared {
            true => Some(self.norm_of_all(inner, exec)?),
            false => None,
        };
        let Inner { groups, slots, grads, steps, run_steps, tensors, .. } = inner;
        tensors.clear();
        run_steps.clear();
        for (grad, &step) in grads.iter().zip(&*steps) {
            if is_in_runs(grad, &groups[grad.group], &slots[grad.slot]) {
                run_steps.extend(slots[grad.slot].runs.iter().map(|_| step));
            }
        }
        let mut run_steps = run_steps.iter_mut();
        let mut rules: Vec<(AnyOptimizer, usize)> = Vec::with_capacity(groups.len());
        let mut last_group = None;
        for (grad, step) in grads.iter().zip(steps.iter_mut()) {
            let (group, slot) = (&groups[grad.group], &slots[grad.slot]);
            let optimizer = &group.settings.optimizer;
            let is_same =
                last_group == Some(grad.group) && !matches!(optimizer, AnyOptimizer::Asgd(_));
            last_group = Some(grad.group);
            if !is_same {
                rules.push((rule_of(optimizer, slot), 0));
            }
            let Some((_, count)) = rules.last_mut() else { continue };
            if is_in_runs(grad, group, slot) {
                let mut start = 0;
                for (&(first, len), step) in slot.runs.iter().zip(&mut run_steps) {
                    // SAFETY: as below; the runs add up to the parameter, or the last ones are cut.
                    let tensor = unsafe {
                        let step: &'static mut u64 = &mut *core::ptr::from_mut(step);
                        let all = slot.facts.len * slot.facts.kind.map_or(1, Kind::reals);
                        let range = start.min(all)..(start + len).min(all);
                        start = range.end;
                        let param = slot::param_of(slot, group.form, range.clone());
                        let moments = slot::moments_of(slot, range.clone()).into_iter();
                        let grad = grad_of(grad.data, grad.kind.real(), range, options.zero_grad);
                        Tensor::new(param, grad, step)
                            .with_moments(moments.take(optimizer.moment_count()))
                    };
                    tensors.push(tensor.with_first(first));
                    *count += 1;
                }
                continue;
            }
            // SAFETY: the counts are left alone while the tensors live, which end before this call does.
            let step: &'static mut u64 = unsafe { &mut *core::ptr::from_mut(step) };
            let tensor = match &grad.rows {
                // SAFETY: each array was seen in this call, is kept alive by `inner`, and was found to
                // share memory with no other one that is written. Python code that uses it meanwhile
                // races, as with PyTorch's own operators. The tensors end before this call does.
                None => unsafe {
                    let len = slot.facts.len * slot.facts.kind.map_or(1, Kind::reals);
                    let param = slot::param_of(slot, group.form, 0..len);
                    let grad = grad_of(grad.data, grad.kind.real(), 0..len, options.zero_grad);
                    let moments = slot::moments_of(slot, 0..len).into_iter();
                    Tensor::new(param, grad, step)
                        .with_moments(moments.take(optimizer.moment_count()))
                },
                // The rows are stepped below. Without elements, the core checks the settings of their
                // step and counts it.
                Some(_) if grad.kind == Kind::F64 => {
                    Tensor::new(f64::param(&mut []), f64::grad(&[]), step)
                }
                Some(_) => Tensor::new(f32::param(&mut []), f32::grad(&[]), step),
            };
            tensors.push(tensor.with_first(slot.first));
            *count += 1;
        }
        let mut step_options = StepOptions {
            exec,
            grad_factor: options.grad_factor,
            max_norm: options.max_grad_norm,
            skip_nonfinite: options.skip_nonfinite,
            seed: options.seed,
            grad_norm: norm_of_all,
            ..StepOptions::default()
        };
        let grads = &*grads;
        let report = py.detach(|| {
            if has_rows && needs_norm && norm_of_all.is_none() {
                // SAFETY: the gradients were seen in this call, and are kept alive by `inner`.
                step_options.grad_norm = Some(unsafe { norms(exec, slots, grads, &mut [])? });
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
            for (grad, step) in inner.grads.iter().zip(&mut inner.steps) {
                let (group, slot) = (&inner.groups[grad.group], &inner.slots[grad.slot]);
                // Its runs were counted, each for itself.
                if is_in_runs(grad, group, slot) {
                    *step += 1;
                }
            }
        }
        if is_taken && (has_rows || !inner.rows.is_empty()) {
            let clip = match (report.grad_norm, options.max_grad_norm) {
                (Some(norm), Some(max_norm)) => adamant::clip_factor(norm, max_norm),
                _ => 1.0,
            };
            let grad_factor = options.grad_factor * clip;
            let seed = options.seed;
            let of_rows = StepOptions { exec, grad_factor, seed, ..StepOptions::default() };
            self.step_rows(inner, of_rows)?;
        }
        self.tell(inner, options, is_taken)?;
        Ok((is_taken, report.grad_norm))
    }

    /// The norm of the gradients of all processes: Python knows who has which, and adds up.
    #[cold]
    fn norm_of_all(&self, inner: &Inner, exec: Exec<'_>) -> PyResult<f64> {
        let py = self.py();
        let Inner { groups, slots, grads, .. } = inner;
        let mut each = vec![0.0; grads.len()];
        // SAFETY: the gradients were seen in this call, and are kept alive by `inner`.
        py.detach(|| unsafe { norms(exec, slots, grads, &mut each) }).map_err(exception)?;
        let places =
            grads.iter().map(|grad| (grad.group, grad.slot - groups[grad.group].slots.start));
        let places: Vec<_> = places.collect();
        self.owner.call_method1(intern!(py, "_norm_of_all"), (places, each))?.extract()
    }

    /// Brings master copies up to date, where somebody else has written the parameter.
    fn refresh_masters(&self, inner: &mut Inner) -> PyResult<()> {
        let py = self.py();
        for grad in &inner.grads {
            let slot = &mut inner.slots[grad.slot];
            let Some(master) = slot.state.as_ref().and_then(|state| state.entry(Role::Master))
            else {
                continue;
            };
            let version: i64 = slot.param.bind(py).getattr(intern!(py, "_version"))?.extract()?;
            if slot.version != Some(version) {
                let refresh = intern!(py, "_refresh_master");
                self.owner.call_method1(refresh, (&slot.param, &master.tensor))?;
            }
        }
        Ok(())
    }

    /// Reads how many steps each parameter has taken.
    fn read_steps(&self, inner: &mut Inner) -> PyResult<()> {
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

    /// Tells PyTorch what was written.
    fn tell(&self, inner: &mut Inner, options: &Options, is_taken: bool) -> PyResult<()> {
        let py = self.py();
        if options.zero_grad {
            let zeroed = PyList::empty(py);
            for grad in &inner.grads {
                match &grad.original {
                    Some(original) => {
                        original.bind(py).call_method0(intern!(py, "zero_"))?;
                    }
                    None => zeroed.append(&grad.tensor)?,
                }
            }
            self.stepper.increment_version.bind(py).call1((zeroed,))?;
        }
        if !is_taken {
            return Ok(());
        }
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
                if !slot.param.is(&slot.outer) {
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
                let version = slot.param.bind(py).getattr(intern!(py, "_version"))?;
                slot.version = Some(version.extract()?);
            }
        }
        Ok(())
    }
}

/// Whether a parameter is stepped run by run: see [`Slot::runs`].
#[inline]
fn is_in_runs(grad: &GradSeen, group: &GroupSeen, slot: &Slot) -> bool {
    grad.rows.is_none() && !slot.runs.is_empty() && !group.form.is_q8
}

/// NAdam's momentum in step `t`.
pub fn nadam_momentum(beta1: f64, momentum_decay: f64, t: u64) -> f64 {
    beta1 * (1.0 - 0.5 * 0.96_f64.powf(t as f64 * momentum_decay))
}

/// Which moments an optimizer uses, and whether its states are those of another one.
fn uses(optimizer: &AnyOptimizer) -> (&'static str, [bool; adamant::MOMENTS]) {
    let count = optimizer.moment_count();
    let uses = |moment| moment < count && optimizer.moment_start(moment).is_some();
    (optimizer.name(), core::array::from_fn(uses))
}

/// The optimizer of a parameter: that of its group, but that ASGD's step size comes from the state, as
/// PyTorch's does: a new learning rate counts from the next step on.
fn rule_of(optimizer: &AnyOptimizer, slot: &Slot) -> AnyOptimizer {
    match (optimizer, scalar(slot, Role::Eta)) {
        (AnyOptimizer::Asgd(asgd), Some(eta)) => {
            // SAFETY: `fits` found a float, and what is known of the state was found to hold.
            let lr = f64::from(unsafe { eta.read_unaligned() });
            adamant::Asgd { lr, alpha: 0.0, ..*asgd }.into()
        }
        _ => *optimizer,
    }
}

/// A state of one number.
#[inline]
fn scalar(slot: &Slot, role: Role) -> Option<*mut f32> {
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

/// The numbers of a parameter, whatever process has them.
fn numbers(param: &Bound<'_, PyAny>) -> PyResult<u64> {
    let py = param.py();
    let len: u64 = param.call_method0(intern!(py, "numel"))?.extract()?;
    let is_complex = param.call_method0(intern!(py, "is_complex"))?.is_truthy()?;
    Ok(if is_complex { 2 * len } else { len })
}

/// The norm of all gradients, sparse ones among them, and that of each if there is room for them.
///
/// # Safety
///
/// They are as they were seen, and nobody writes them.
unsafe fn norms(
    exec: Exec<'_>,
    slots: &[Slot],
    grads: &[GradSeen],
    each: &mut [f64],
) -> Result<f64, adamant::Error> {
    let grads: Vec<Grad<'_>> = (grads.iter())
        .map(|grad| {
            let facts = &slots[grad.slot].facts;
            let len = facts.len * facts.kind.map_or(1, Kind::reals);
            // SAFETY: the caller's promise.
            unsafe {
                match &grad.rows {
                    Some(rows) => rows.grad(grad.kind),
                    None => grad_of(grad.data, grad.kind.real(), 0..len, false),
                }
            }
        })
        .collect();
    match each.len() == grads.len() {
        true => adamant::grad_norms(NormOrder::Two, exec, &grads, each),
        false => adamant::grad_norms(NormOrder::Two, exec, &grads, &mut vec![0.0; grads.len()]),
    }
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
