//! The norm of gradients, and clipping by it.

use adamant::{Grad, norm::NormOrder};
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    pybacked::PyBackedStr,
};

use super::{borrowed::Array, with_exec};
use crate::{dlpack::Lender, error::exception};

/// The norm of all gradients, taken as one vector; `order` is 1, 2 or infinity.
#[pyfunction]
pub fn grad_norm(
    py: Python<'_>,
    grads: Vec<(PyBackedStr, Bound<'_, PyAny>)>,
    order: f64,
    threads: Option<usize>,
    isa: Option<&str>,
) -> PyResult<f64> {
    let order = match order {
        1.0 => NormOrder::One,
        2.0 => NormOrder::Two,
        f64::INFINITY => NormOrder::Infinity,
        other => {
            return Err(PyValueError::new_err(format!("ord is {other}, but must be 1, 2 or inf")));
        }
    };
    let lender = Lender::new(py)?;
    let arrays = grads.iter().map(|(name, grad)| {
        let array = Array::read(&lender, grad, &**name)?;
        array.expect_numbers()?;
        if order != NormOrder::Two && array.kind.is_complex() {
            let name = array.name;
            return Err(PyTypeError::new_err(format!("{name} is complex, which takes ord 2")));
        }
        Ok(array)
    });
    let arrays = arrays.collect::<PyResult<Vec<_>>>()?;
    // SAFETY: lent for as long as `arrays` live; they are only read.
    let grads: Vec<Grad<'_>> = arrays.iter().map(|array| unsafe { array.grad(false) }).collect();
    let mut norms = vec![0.0; grads.len()];
    with_exec(py, threads, isa, |exec| {
        py.detach(|| adamant::norm::grad_norms(order, exec, &grads, &mut norms)).map_err(exception)
    })
}

/// The factor that brings gradients of a norm down to a norm of `max_norm`:
/// `min(1, max_norm / (norm + 1e-6))`.
#[pyfunction]
pub fn clip_factor(norm: f64, max_norm: f64) -> PyResult<f64> {
    if max_norm.is_nan() || max_norm <= 0.0 {
        return Err(PyValueError::new_err(format!("max_norm is {max_norm}, but must be over 0")));
    }
    Ok(adamant::norm::clip_factor(norm, max_norm))
}
