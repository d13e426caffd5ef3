//! The settings of a parameter group: Python values by key, read anew only where they have changed.

use adamant::{AnyOptimizer, Q8, settings::SettingValue};
use pyo3::{
    exceptions::{PyKeyError, PyTypeError, PyValueError},
    prelude::*,
    types::{PyBool, PyDict, PyFloat, PyString, PyTuple},
};

use crate::error::exception;

/// Where a setting of the core comes from: `group[key]`, or `group[key][position]`.
struct Source {
    key: Py<PyString>,
    position: Option<usize>,
    setting: String,
}

/// How the settings of the core are made of the values of a group.
pub struct Plan {
    optimizer: String,
    /// A flag of the group, and the optimizer that it stands for: `amsgrad`.
    variant: Option<(Py<PyString>, String)>,
    sources: Vec<Source>,
    /// Settings that are always the same.
    fixed: Vec<(String, Py<PyAny>)>,
}

/// The values of a group at the last step, and the optimizer that they stand for.
pub struct Settings {
    /// The objects, in the order of the plan.
    values: Vec<Py<PyAny>>,
    pub optimizer: AnyOptimizer,
}

impl Settings {
    /// The objects of the group that were read.
    pub fn values(&self) -> &[Py<PyAny>] {
        &self.values
    }
}

impl Plan {
    /// From `(optimizer, variant, sources, fixed)`: see `_optimizer.py`.
    pub fn new(description: &Bound<'_, PyTuple>) -> PyResult<Self> {
        type Described = (
            String,
            Option<(Py<PyString>, String)>,
            Vec<(Py<PyString>, Option<usize>, String)>,
            Vec<(String, Py<PyAny>)>,
        );
        let (optimizer, variant, sources, fixed): Described = description.extract()?;
        let sources = sources.into_iter();
        let sources = sources.map(|(key, position, setting)| Source { key, position, setting });
        Ok(Self { optimizer, variant, sources: sources.collect(), fixed })
    }

    fn keys(&self) -> impl Iterator<Item = &Py<PyString>> {
        let variant = self.variant.iter().map(|(key, _)| key);
        variant.chain(self.sources.iter().map(|source| &source.key))
    }

    /// Reads a group, and checks its settings.
    pub fn read(&self, group: &Bound<'_, PyDict>) -> PyResult<Settings> {
        let settings = self.read_unchecked(group)?;
        settings.optimizer.check().map_err(exception)?;
        Ok(settings)
    }

    /// Reads a group of which only the form of its states is asked: they are made and saved with a learning rate of 0,
    /// too, which some optimizers cannot step with.
    pub fn read_unchecked(&self, group: &Bound<'_, PyDict>) -> PyResult<Settings> {
        let py = group.py();
        let mut values = Vec::new();
        for key in self.keys() {
            values.push(value_of(group, key.bind(py))?.unbind());
        }
        let optimizer = self.optimizer(py, &values)?;
        Ok(Settings { values, optimizer })
    }

    /// Reads a group again. Whether anything has changed.
    #[inline]
    pub fn reread(&self, settings: &mut Settings, group: &Bound<'_, PyDict>) -> PyResult<bool> {
        let py = group.py();
        let mut is_same = true;
        for (key, known) in self.keys().zip(&settings.values) {
            let value = value_of(group, key.bind(py))?;
            // Numbers, flags and tuples of numbers cannot change; tensors can.
            is_same &= value.is(known) && is_constant(&value);
        }
        if is_same {
            return Ok(false);
        }
        // Values are remembered with the optimizer that they made: those that make none are refused again
        // in the next step.
        let new = self.read(group)?;
        let has_changed = new.optimizer != settings.optimizer;
        *settings = new;
        Ok(has_changed)
    }

    fn optimizer(&self, py: Python<'_>, values: &[Py<PyAny>]) -> PyResult<AnyOptimizer> {
        let mut values = values.iter().map(|value| value.bind(py));
        let mut name = &self.optimizer;
        if let Some((_, other)) = &self.variant
            && values.next().is_some_and(|value| value.is_truthy().unwrap_or(false))
        {
            name = other;
        }
        let mut optimizer = AnyOptimizer::new(name).map_err(exception)?;
        for (setting, value) in &self.fixed {
            set(&mut optimizer, setting, value.bind(py))?;
        }
        for (source, value) in self.sources.iter().zip(values) {
            match source.position {
                None => set(&mut optimizer, &source.setting, value)?,
                Some(position) => {
                    let key = source.key.bind(py);
                    let item = value.get_item(position).map_err(|_| {
                        PyValueError::new_err(format!("{key}[{position}] is missing: {value}"))
                    })?;
                    set(&mut optimizer, &source.setting, &item)?;
                }
            }
        }
        Ok(optimizer)
    }
}

fn value_of<'py>(
    group: &Bound<'py, PyDict>,
    key: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    group.get_item(key)?.ok_or_else(|| PyKeyError::new_err(key.clone().unbind()))
}

/// Whether an object's value cannot change.
#[inline]
fn is_constant(value: &Bound<'_, PyAny>) -> bool {
    let is_number = |value: &Bound<'_, PyAny>| {
        value.is_exact_instance_of::<PyFloat>()
            || value.is_exact_instance_of::<PyBool>()
            || value.is_exact_instance_of::<pyo3::types::PyInt>()
    };
    is_number(value)
        || value.is_none()
        || value
            .cast_exact::<PyTuple>()
            .is_ok_and(|tuple| tuple.iter().all(|item| is_number(&item)))
}

/// Gives a setting a Python value: a flag, a name, a number, or whatever `float` takes, such as a tensor
/// of one element.
pub fn set(optimizer: &mut AnyOptimizer, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    let wants_flag = matches!(optimizer.get(name), Ok(SettingValue::Flag(_)));
    let result = if wants_flag {
        optimizer.set(name, value.is_truthy()?)
    } else if let Ok(text) = value.cast::<PyString>() {
        let text = text.to_cow()?;
        optimizer.set(name, &*text)
    } else {
        let number: f64 = value.extract().map_err(|_| {
            PyTypeError::new_err(format!("{name} is {value}, but must be a number"))
        })?;
        optimizer.set(name, number)
    };
    result.map_err(exception)
}

/// The name of a format of 8 bits.
pub fn format_name(format: Q8) -> &'static str {
    match format {
        Q8::Squares => "squares",
        Q8::Unsigned => "unsigned",
        _ => "signed",
    }
}
