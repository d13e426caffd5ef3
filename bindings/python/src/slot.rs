//! A parameter as it was seen in the last step, and how a change is noticed.

mod form;
mod views;

pub use form::{Form, Keys, Master, Role, roles};
pub use views::{moments_of, param_of};

use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    gc::{PyTraverseError, PyVisit},
    intern,
    prelude::*,
    types::{PyDict, PyString, PyWeakrefMethods, PyWeakrefReference},
};

use crate::{
    access::Access,
    memory::{Facts, Kind},
};
use form::fits;

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
    /// Its versions and its storage after the last step, if it has a master copy.
    left: Option<Left>,
    /// The number of its entry among the rows that the stepper remembers, if it ever had a sparse gradient.
    pub rows: Option<usize>,
}

/// A parameter as a step left it. PyTorch counts writes in versions; `param.data = other` changes the storage alone.
struct Left {
    versions: [i64; 2],
    /// A weak reference. While the old storage lives, no other one has its address; after that, one may.
    storage: Py<PyWeakrefReference>,
}

impl Left {
    fn has_storage(&self, py: Python<'_>) -> bool {
        self.storage.bind(py).upgrade().is_some()
    }
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
        Self { outer, param, facts, first: 0, runs, state: None, left: None, rows: None }
    }

    /// Shows its objects to the collector of cycles.
    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.outer)?;
        visit.call(&self.param)?;
        let Some(state) = &self.state else { return Ok(()) };
        visit.call(&state.dict)?;
        for entry in &state.entries {
            visit.call(&entry.outer)?;
            visit.call(&entry.tensor)?;
        }
        Ok(())
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
            // A complex tensor can become the conjugate of the same memory.
            Ok(true) if facts.kind.is_some_and(Kind::is_complex) => {
                return refuse_lazy(self.param.bind(py), &name).map(|()| true);
            }
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
            } else if !seen.is_aligned() {
                Some("is not aligned: use a copy")
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
        refuse_lazy(param, &name)?;
        self.facts = facts;
        self.state = None;
        // Other memory has other values, whatever its version.
        self.left = None;
        Ok(false)
    }

    /// Whether its memory belongs to another tensor than the one in the group.
    #[inline]
    pub fn is_part(&self) -> bool {
        !self.param.is(&self.outer)
    }

    /// The versions of its memory and of the tensor in the group: a write to a distributed tensor counts for that one
    /// alone.
    fn versions(&self, access: &Access, py: Python<'_>) -> PyResult<[i64; 2]> {
        let version = access.version(self.param.bind(py))?;
        let outer = match self.is_part() {
            true => access.version(self.outer.bind(py))?,
            false => version,
        };
        Ok([version, outer])
    }

    /// Whether nobody can have written the parameter since the last step, after [`look`](Self::look).
    #[inline]
    pub fn is_as_left(&self, access: &Access, py: Python<'_>) -> PyResult<bool> {
        match &self.left {
            Some(left) => Ok(left.versions == self.versions(access, py)? && left.has_storage(py)),
            None => Ok(false),
        }
    }

    /// Remembers the parameter as this step left it.
    #[inline]
    pub fn leave(&mut self, access: &Access, py: Python<'_>) -> PyResult<()> {
        let versions = self.versions(access, py)?;
        match &mut self.left {
            Some(left) if left.has_storage(py) => left.versions = versions,
            left => {
                let storage = self.param.bind(py).call_method0(intern!(py, "untyped_storage"))?;
                let storage = PyWeakrefReference::new(&storage)?.unbind();
                *left = Some(Left { versions, storage });
            }
        }
        Ok(())
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

/// Whether a tensor stands for the conjugate or the negative of its memory.
pub fn is_lazy(tensor: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = tensor.py();
    Ok(tensor.call_method0(intern!(py, "is_neg"))?.is_truthy()?
        || tensor.call_method0(intern!(py, "is_conj"))?.is_truthy()?)
}

/// Refuses a parameter that stands for the conjugate or the negative of its memory.
fn refuse_lazy(param: &Bound<'_, PyAny>, name: impl Fn() -> String) -> PyResult<()> {
    match is_lazy(param)? {
        true => Err(PyValueError::new_err(format!("{} is a lazy conjugate or negative", name()))),
        false => Ok(()),
    }
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
