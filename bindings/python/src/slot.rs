//! What is remembered of a parameter from step to step, and how it is seen that it no longer holds.

use core::ops::Range;

use adamant::{AnyOptimizer, CatchUp, DynOptimizer, MOMENTS, Moment, Param, Q8};
use half::{bf16, f16};
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    intern,
    prelude::*,
    types::{PyDict, PyString},
};

use crate::memory::{Access, Facts, Kind, Seen};

/// What an entry of a parameter's state is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The number of steps taken: `float32`, no dimensions.
    Step,
    Moment(usize),
    /// The codes of a moment of 8 bits.
    Codes(usize),
    Scales(usize),
    /// The parameter in `float32`.
    Master,
    /// The lower halves of a parameter whose upper ones are bfloat16.
    Low,
    /// ASGD's step size of the next step.
    Eta,
    /// ASGD's share of the next average.
    Mu,
    /// The product of NAdam's momenta.
    MuProduct,
}

/// How 16-bit parameters keep what they cannot hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Master {
    #[default]
    None,
    Copy,
    Split,
}

/// The options of a group that decide what its states look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// What moments are kept in: 8 bits, or a type; `f32` without.
    pub is_q8: bool,
    pub moments: Option<Kind>,
    pub master: Master,
    pub stochastic: bool,
    /// Whether sparse gradients have the results of dense ones, and how rows catch up.
    pub dense_equivalent: Option<CatchUp>,
}

/// The keys of a group's states, by what they are for.
pub struct Keys {
    step: Py<PyString>,
    moments: Vec<[Py<PyString>; 3]>,
    master: Py<PyString>,
    low: Py<PyString>,
    eta: Py<PyString>,
    mu: Py<PyString>,
    mu_product: Py<PyString>,
}

impl Keys {
    pub fn new(py: Python<'_>, optimizer: &AnyOptimizer) -> Self {
        let key = |name: &str| PyString::intern(py, name).unbind();
        let moments = (0..optimizer.moment_count()).map(|moment| {
            let name = optimizer.moment_name(moment);
            [key(name), key(&format!("{name}_codes")), key(&format!("{name}_scales"))]
        });
        Self {
            step: key("step"),
            moments: moments.collect(),
            master: key("master_param"),
            low: key("param_low"),
            eta: key("eta"),
            mu: key("mu"),
            mu_product: key("mu_product"),
        }
    }

    fn of(&self, role: Role) -> &Py<PyString> {
        match role {
            Role::Step => &self.step,
            Role::Moment(moment) => &self.moments[moment][0],
            Role::Codes(moment) => &self.moments[moment][1],
            Role::Scales(moment) => &self.moments[moment][2],
            Role::Master => &self.master,
            Role::Low => &self.low,
            Role::Eta => &self.eta,
            Role::Mu => &self.mu,
            Role::MuProduct => &self.mu_product,
        }
    }
}

/// What the state of a parameter must have, in the order in which it is kept.
pub fn roles(optimizer: &AnyOptimizer, form: Form, kind: Kind) -> Vec<Role> {
    let mut roles = Vec::new();
    let used: Vec<usize> = (0..optimizer.moment_count())
        .filter(|&moment| optimizer.moment_start(moment).is_some())
        .collect();
    let is_random = form.stochastic && kind == Kind::Bf16;
    // SGD without momentum has no state in PyTorch either.
    if !matches!(optimizer, AnyOptimizer::Sgd(_)) || !used.is_empty() || is_random {
        roles.push(Role::Step);
    }
    for moment in used {
        match form.is_q8 {
            true => roles.extend([Role::Codes(moment), Role::Scales(moment)]),
            false => roles.push(Role::Moment(moment)),
        }
    }
    match optimizer {
        AnyOptimizer::Asgd(_) => roles.extend([Role::Eta, Role::Mu]),
        AnyOptimizer::NAdam(_) => roles.push(Role::MuProduct),
        _ => {}
    }
    match (form.master, kind) {
        (Master::Copy, Kind::Bf16 | Kind::F16) => roles.push(Role::Master),
        (Master::Split, Kind::Bf16) => roles.push(Role::Low),
        _ => {}
    }
    roles
}

/// An entry of a parameter's state.
pub struct Entry {
    pub role: Role,
    key: Py<PyString>,
    /// As it stands in the state.
    outer: Py<PyAny>,
    /// Its memory: itself, or the local part of a distributed tensor.
    pub tensor: Py<PyAny>,
    pub facts: Facts,
}

/// A parameter.
pub struct Slot {
    /// As it stands in the group.
    pub outer: Py<PyAny>,
    /// Its memory: itself, or the local part of a distributed tensor.
    pub param: Py<PyAny>,
    pub facts: Facts,
    /// The numbers of all parameters before it; where it is a part of one, those before the part, too.
    pub first: u64,
    /// Where its memory is not one run of the whole parameter, its runs: the numbers of the model before
    /// each, and its length. Random bits go by them, so that it does not count how a parameter was cut.
    pub runs: Vec<(u64, usize)>,
    pub state: Option<State>,
    /// Its version after the last step, if it has a master copy.
    pub version: Option<i64>,
    /// What is remembered of its rows, by number, if it ever had a sparse gradient.
    pub rows: Option<usize>,
}

pub struct State {
    dict: Py<PyDict>,
    pub entries: Vec<Entry>,
}

impl State {
    /// That of a parameter that needs none.
    pub fn none(py: Python<'_>) -> Self {
        Self { dict: PyDict::new(py).unbind(), entries: Vec::new() }
    }

    pub fn entry(&self, role: Role) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.role == role)
    }

    /// Whether the dictionary has the same tensors as before, where they were.
    #[inline]
    fn holds(&self, access: &Access, owner: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = owner.py();
        let dict = self.dict.bind(py);
        for entry in &self.entries {
            let outer = match dict.get_item(entry.key.bind(py))? {
                Some(found) if found.is(&entry.outer) => found,
                _ => return Ok(false),
            };
            // A distributed tensor can be given another local part.
            let tensor = memory_of(access, owner, &outer)?;
            if !access.look(&tensor, |seen| Ok(entry.facts.hold(&seen)))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The memory of a tensor: itself, or what Python finds for tensors of other types.
pub fn memory_of<'py>(
    access: &Access,
    owner: &Bound<'py, PyAny>,
    tensor: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    match access.is_plain(tensor) {
        true => Ok(tensor.clone()),
        false => owner.call_method1(intern!(owner.py(), "_memory_of"), (tensor,)),
    }
}

impl Slot {
    pub fn new(outer: Py<PyAny>, py: Python<'_>) -> Self {
        let param = outer.clone_ref(py);
        let (facts, runs) = (Facts::default(), Vec::new());
        Self { outer, param, facts, first: 0, runs, state: None, version: None, rows: None }
    }

    /// Looks whether the parameter is where it was, and learns where it is if not. Whether it was.
    #[inline]
    pub fn look(
        &mut self,
        access: &Access,
        owner: &Bound<'_, PyAny>,
        name: impl Fn() -> String,
    ) -> PyResult<bool> {
        let py = owner.py();
        if !access.is_plain(self.outer.bind(py)) {
            let outer = self.outer.bind(py);
            let memory = memory_of(access, owner, outer);
            self.param = memory.map_err(|error| refused(outer, &name(), error))?.unbind();
        }
        let facts = &self.facts;
        let known = access.look(self.param.bind(py), |seen| Ok(facts.hold(&seen)));
        match known {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) => return Err(refused(self.param.bind(py), &name(), error)),
        }
        let param = self.param.bind(py);
        let found = access.look(param, |seen| {
            let problem = if !seen.is_cpu {
                Some("is not on the CPU")
            } else if !(seen.kind.is_float() || seen.kind.is_complex()) {
                Some("is not of float32, float64, bfloat16, float16, complex64 or complex128")
            } else if !seen.is_dense() {
                Some("does not fill its memory without gaps or overlaps: use a contiguous copy")
            } else if seen.is_freed() {
                Some("has no memory")
            } else {
                None
            };
            Ok((problem, Facts::of(&seen)))
        });
        let (problem, facts) = found?;
        if let Some(problem) = problem {
            let (shape, strides) = (facts.shape(), facts.strides());
            return Err(PyValueError::new_err(format!(
                "{} {problem} (shape {shape:?}, strides {strides:?}, {})",
                name(),
                description(param),
            )));
        }
        if is_lazy(param)? {
            return Err(PyValueError::new_err(format!(
                "{} is a lazy conjugate or negative",
                name()
            )));
        }
        self.facts = facts;
        self.state = None;
        // Other memory has other values, whatever its version.
        self.version = None;
        Ok(false)
    }

    /// Whether what is known of the state holds.
    #[inline]
    pub fn state_holds(&self, access: &Access, owner: &Bound<'_, PyAny>) -> PyResult<bool> {
        match &self.state {
            Some(state) => state.holds(access, owner),
            None => Ok(false),
        }
    }

    /// Finds the arrays of the state in the optimizer's dictionary. What is wrong with them, if anything
    /// is.
    pub fn resolve(
        &mut self,
        access: &Access,
        owner: &Bound<'_, PyAny>,
        states: &Bound<'_, PyDict>,
        keys: &Keys,
        form: Form,
        roles: &[Role],
    ) -> PyResult<Option<String>> {
        let py = owner.py();
        self.state = None;
        let Some(dict) = states.get_item(self.outer.bind(py))? else {
            return Ok(Some("there is no state".into()));
        };
        let dict = dict.cast_into::<PyDict>()?;
        let mut entries = Vec::with_capacity(roles.len());
        for &role in roles {
            let key = keys.of(role).clone_ref(py);
            let Some(outer) = dict.get_item(key.bind(py))?.filter(|value| !value.is_none()) else {
                return Ok(Some(format!("{key} is missing")));
            };
            if !outer.hasattr(intern!(py, "untyped_storage"))? {
                return Ok(Some(format!("{key} is no tensor")));
            }
            let tensor = memory_of(access, owner, &outer)?;
            let param = &self.facts;
            let found = access.look(&tensor, |seen| {
                Ok(match fits(role, form, param, &seen) {
                    Ok(()) => Ok(Facts::of(&seen)),
                    Err(problem) => Err(problem),
                })
            })?;
            match found {
                Ok(facts) if !is_lazy(&tensor)? => {
                    let (outer, tensor) = (outer.unbind(), tensor.unbind());
                    entries.push(Entry { role, key, outer, tensor, facts });
                }
                Ok(_) => return Ok(Some(format!("{key} is a lazy conjugate or negative"))),
                Err(problem) => return Ok(Some(format!("{key} {problem}"))),
            }
        }
        self.state = Some(State { dict: dict.unbind(), entries });
        Ok(None)
    }
}

/// What is wrong with an array of a state.
fn fits(role: Role, form: Form, param: &Facts, seen: &Seen<'_>) -> Result<(), String> {
    let (Some(kind), len) = (param.kind, param.len) else { return Err("has no parameter".into()) };
    let reals = len * kind.reals();
    let has_type = |wanted: &[Kind]| match wanted.contains(&seen.kind) {
        true => Ok(()),
        false => Err(format!("is of {:?}, not {wanted:?}", seen.kind)),
    };
    if !seen.is_cpu {
        return Err("is not on the CPU".into());
    }
    if !seen.is_dense() {
        return Err("does not fill its memory without gaps or overlaps".into());
    }
    if seen.is_freed() {
        return Err("has no memory".into());
    }
    let is_like_param = if kind.is_complex() && !seen.kind.is_complex() {
        // The pairs are a last dimension.
        let (shape, strides) = (param.shape().iter(), param.strides().iter());
        let strides = strides.map(|stride| 2 * stride);
        seen.shape.iter().copied().eq(shape.copied().chain([2]))
            && (len == 0
                || seen
                    .strides
                    .iter()
                    .copied()
                    .zip(strides.chain([1]))
                    .zip(seen.shape)
                    .all(|((own, wanted), &size)| size == 1 || own == wanted))
    } else {
        param.has_order_of(seen)
    };
    let scales = Q8::scales(reals);
    match role {
        Role::Step | Role::Eta | Role::Mu | Role::MuProduct => {
            has_type(&[Kind::F32])?;
            if seen.len() != 1 {
                return Err(format!("has {} elements, not 1", seen.len()));
            }
            return Ok(());
        }
        Role::Scales(_) => {
            has_type(&[Kind::F32])?;
            if seen.shape != [scales as i64] {
                return Err(format!("has shape {:?}, not [{scales}]", seen.shape));
            }
            return Ok(());
        }
        Role::Moment(_) => match (kind, form.moments.unwrap_or(Kind::F32)) {
            (Kind::F64, _) => has_type(&[Kind::F64])?,
            (Kind::C128, _) => has_type(&[Kind::C128])?,
            (Kind::C64, Kind::F32) => has_type(&[Kind::C64])?,
            (_, wanted) => has_type(&[wanted])?,
        },
        Role::Codes(_) => has_type(&[Kind::U8])?,
        Role::Master => has_type(&[Kind::F32])?,
        Role::Low => has_type(&[Kind::I16])?,
    }
    if !is_like_param {
        return Err(format!("has shape {:?} and strides {:?}", seen.shape, seen.strides));
    }
    Ok(())
}

/// Whether a tensor stands for the conjugate or the negative of its memory.
pub fn is_lazy(tensor: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = tensor.py();
    Ok(tensor.call_method0(intern!(py, "is_neg"))?.is_truthy()?
        || tensor.call_method0(intern!(py, "is_conj"))?.is_truthy()?)
}

/// Device and type, for errors.
fn description(tensor: &Bound<'_, PyAny>) -> String {
    let get = |name: &str| tensor.getattr(name).map_or_else(|_| "?".into(), |it| it.to_string());
    format!("{}, {}, on {}", get("dtype"), get("layout"), get("device"))
}

/// The error for a tensor of which its framework cannot say where it lies.
fn refused(tensor: &Bound<'_, PyAny>, name: &str, error: PyErr) -> PyErr {
    let py = tensor.py();
    let what = description(tensor);
    let kind = tensor.get_type().qualname().map_or_else(|_| "?".into(), |kind| kind.to_string());
    let text = format!(
        "{name} is a {kind} ({what}), but must be a dense tensor with memory of its own on the CPU"
    );
    let new = PyTypeError::new_err(text);
    new.set_cause(py, Some(error));
    new
}

/// A range of elements in memory.
///
/// # Safety
///
/// `data` points to so many elements of `T`, of which nobody else uses those of the range for `'a`, or the
/// range is empty.
#[inline]
unsafe fn elements<'a, T>(data: usize, range: Range<usize>) -> &'a mut [T] {
    if range.is_empty() {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { core::slice::from_raw_parts_mut((data as *mut T).add(range.start), range.len()) }
}

/// The arrays of a range of the numbers of a parameter for a step.
///
/// # Safety
///
/// What is known of the slot holds, its tensors live for `'a`, and nobody else uses them. The range ends
/// within the numbers of the parameter.
#[inline]
pub unsafe fn param_of<'a>(slot: &Slot, form: Form, range: Range<usize>) -> Param<'a> {
    let Facts { data, kind, .. } = slot.facts;
    let kind = kind.unwrap_or(Kind::Other);
    let beside = |role| slot.state.as_ref().and_then(|state| state.entry(role));
    // SAFETY: the caller's promise; `fits` found the types and lengths right.
    unsafe {
        match kind.real() {
            Kind::F64 => elements::<f64>(data, range).into(),
            Kind::Bf16 => {
                let param = elements::<bf16>(data, range.clone());
                if let Some(master) = beside(Role::Master) {
                    Param::with_copy(elements(master.facts.data, range.clone()), param)
                } else if let Some(low) = beside(Role::Low) {
                    Param::from_halves(param, elements(low.facts.data, range.clone()))
                } else if form.stochastic {
                    Param::stochastic(param)
                } else {
                    param.into()
                }
            }
            Kind::F16 => {
                let param = elements::<f16>(data, range.clone());
                match beside(Role::Master) {
                    Some(master) => {
                        Param::with_copy(elements(master.facts.data, range.clone()), param)
                    }
                    None => param.into(),
                }
            }
            _ => elements::<f32>(data, range).into(),
        }
    }
}

/// The moments of a range of the numbers of a parameter for a step, in the order of the optimizer's. Those of
/// 8 bits have blocks: their range is all of them.
///
/// # Safety
///
/// As [`param_of`].
#[inline]
pub unsafe fn moments_of<'a>(slot: &Slot, range: Range<usize>) -> [Moment<'a>; MOMENTS] {
    let mut moments = [Moment::none(), Moment::none(), Moment::none(), Moment::none()];
    let mut codes: &'a mut [u8] = &mut [];
    for entry in slot.state.iter().flat_map(|state| &state.entries) {
        let data = entry.facts.data;
        // SAFETY: the caller's promise; `fits` found the types and lengths right.
        unsafe {
            match entry.role {
                Role::Moment(moment) => {
                    moments[moment] = match entry.facts.kind.unwrap_or(Kind::Other).real() {
                        Kind::F64 => elements::<f64>(data, range.clone()).into(),
                        Kind::Bf16 => elements::<bf16>(data, range.clone()).into(),
                        Kind::F16 => elements::<f16>(data, range.clone()).into(),
                        _ => elements::<f32>(data, range.clone()).into(),
                    };
                }
                // The scales follow the codes.
                Role::Codes(_) => codes = elements(data, range.clone()),
                Role::Scales(moment) => {
                    let scales = elements(data, 0..Q8::scales(range.len()));
                    moments[moment] = Moment::q8(core::mem::take(&mut codes), scales);
                }
                _ => {}
            }
        }
    }
    moments
}
