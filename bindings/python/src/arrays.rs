//! Functions on arrays of any framework: numpy, PyTorch, JAX, whatever lends its memory by `__dlpack__`.

mod borrowed;
mod norm;
mod q8;
mod step;

pub use norm::{clip_factor, grad_norm};
pub use q8::{q8_decode, q8_encode};
pub use step::{describe, step_arrays};

use adamant::{Exec, Isa};
use pyo3::prelude::*;

use crate::{
    error::exception,
    threads::{self, Crew},
};

/// Runs with the execution that a call asks for.
fn with_exec<T>(
    py: Python<'_>,
    threads: Option<usize>,
    isa: Option<&str>,
    run: impl FnOnce(Exec<'_>) -> PyResult<T>,
) -> PyResult<T> {
    let isa = isa.map(str::parse::<Isa>).transpose().map_err(exception)?;
    let threads = threads.unwrap_or_else(|| threads::default_threads(py));
    let crew = Crew::own(threads).map_err(exception)?;
    run(Exec { isa, threads: crew.threads() })
}
