//! A step of all parameters of an optimizer, in one call.

mod catch_up;
mod grads;
mod groups;
mod held;
mod run;
mod scalars;
mod sparse;
mod states;

pub use scalars::nadam_momentum;

use core::ops::Range;
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use adamant::{DynOptimizer, Tensor};
use pyo3::{
    gc::{PyTraverseError, PyVisit},
    intern,
    prelude::*,
    types::{PyDict, PyList, PyTuple, PyType, PyWeakrefReference},
};

use crate::{
    access::Access,
    error::exception,
    in_use::Ranges,
    memory::Kind,
    rows::{self, Rows},
    settings::{Plan, Settings, format_name},
    slot::{Form, Keys, Role, Slot, roles},
    threads::{self, Crew, LEAST_SHARED},
};
use groups::{form_of, form_values};
use held::Kept;

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
    written: Arc<Ranges>,
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
    /// The memory of parameters with sparse gradients, by a weak reference to the parameter.
    rows: Vec<(Py<PyWeakrefReference>, rows::Memory)>,
}

/// Steps the parameters of an optimizer. It remembers what it saw in the last step, and looks at every
/// tensor once in each.
#[pyclass(frozen, module = "adamant_optim._core")]
pub struct Stepper {
    plan: Plan,
    access: Access,
    increment_version: Py<PyAny>,
    kept: Kept,
    default_threads: threads::DefaultThreads,
    /// PyTorch's own number of threads: a function.
    get_num_threads: Py<PyAny>,
    /// The number of steps that were left out.
    skipped: AtomicU64,
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
            kept: Kept::default(),
            default_threads: threads::DefaultThreads::new(torch.py()),
            get_num_threads: torch.getattr("get_num_threads")?.unbind(),
            skipped: AtomicU64::new(0),
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
        let optimizer = self.plan.read_unchecked(group)?.optimizer;
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
    fn counts_steps(&self, group: &Bound<'_, PyDict>, is_16_bit: bool) -> PyResult<bool> {
        let optimizer = self.plan.read_unchecked(group)?.optimizer;
        let form = form_of(group.py(), &self.access, &form_values(group)?)?;
        let kind = if is_16_bit { Kind::Bf16 } else { Kind::F32 };
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
        let mut held = self.kept.hold(owner.py())?;
        let call = Call { stepper: self, owner, groups, states };
        let (is_taken, norm) = call.step(&mut held.inner, &options, listed)?;
        if !is_taken {
            self.leave_out();
        }
        Ok((is_taken, norm))
    }

    /// Counts a step that was left out.
    fn leave_out(&self) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of steps that were left out.
    #[getter]
    fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    #[setter]
    fn set_skipped(&self, count: u64) {
        self.skipped.store(count, Ordering::Relaxed);
    }

    /// Brings rows of `param`, or of all parameters, to the present step: those that `rows` lists, `int64` and
    /// contiguous, or all.
    fn catch_up(
        &self,
        owner: &Bound<'_, PyAny>,
        groups: &Bound<'_, PyList>,
        states: &Bound<'_, PyDict>,
        param: Option<&Bound<'_, PyAny>>,
        rows: Option<&Bound<'_, PyAny>>,
        threads: Option<usize>,
    ) -> PyResult<()> {
        let mut held = self.kept.hold(owner.py())?;
        let call = Call { stepper: self, owner, groups, states };
        call.catch_up(&mut held.inner, param, rows, threads)
    }

    /// Whether rows of some parameter are behind. In a process that was forked in the middle of a step nothing is known
    /// of them, and other calls say so.
    fn has_rows_behind(&self, py: Python<'_>) -> bool {
        let Ok(held) = self.kept.hold(py) else { return false };
        let mut waiting = held.inner.rows.iter().filter_map(|(_, memory)| memory.waiting.as_ref());
        waiting.any(|waiting| waiting.any_behind().is_some())
    }

    /// Takes all rows of all parameters to be at the present step: a state was loaded.
    fn reset_rows(&self, py: Python<'_>) -> PyResult<()> {
        for (_, memory) in &mut self.kept.hold_anew(py)?.inner.rows {
            memory.waiting = None;
        }
        Ok(())
    }

    /// Forgets what was seen, as after a change that a step cannot notice.
    fn forget(&self, py: Python<'_>) -> PyResult<()> {
        let forgotten = core::mem::take(&mut *self.kept.hold(py)?.inner);
        drop(forgotten);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(inner) = self.kept.try_hold() else { return Ok(()) };
        for group in &inner.groups {
            visit.call(&group.dict)?;
            visit.call(&group.params)?;
            group.form_values.iter().try_for_each(|value| visit.call(value))?;
            group.settings.values().iter().try_for_each(|value| visit.call(value))?;
        }
        for slot in &inner.slots {
            slot.traverse(&visit)?;
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
        // Dropping it may run Python code, which may call a step. So the lock is released first.
        let forgotten = self.kept.try_hold().map(|mut inner| core::mem::take(&mut *inner));
        drop(forgotten);
    }
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

    /// The threads for a call over so many elements.
    fn crew(&self, elements: usize, threads: Option<usize>) -> PyResult<Crew> {
        let Stepper { default_threads, get_num_threads, .. } = self.stepper;
        let crew = if elements < LEAST_SHARED {
            Crew::own(threads.unwrap_or(default_threads.known()))
        } else {
            let pytorch = get_num_threads.bind(self.py()).call0()?.extract()?;
            // CPUs may have been taken from this process since.
            Crew::beside_pytorch(threads, default_threads.now(self.py()), pytorch)
        };
        crew.map_err(exception)
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
        self.check_waiting(inner)?;
        self.look_at_tensors(inner, options, listed)?;
        self.run(inner, options)
    }
}
