//! Errors of the core as Python exceptions.

use adamant::Error;
use pyo3::{
    PyErr,
    exceptions::{PyOverflowError, PyRuntimeError, PyTypeError, PyValueError},
};

/// The exception for an error: a `ValueError` unless another type says more.
pub fn exception(error: Error) -> PyErr {
    let text = error.to_string();
    match error {
        Error::StepOverflow => PyOverflowError::new_err(text),
        Error::TypeMismatch { .. } | Error::WrongSetting { .. } => PyTypeError::new_err(text),
        Error::NoThreads { .. } => PyRuntimeError::new_err(text),
        _ => PyValueError::new_err(text),
    }
}
