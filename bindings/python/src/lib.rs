//! The compiled part of `adamant_optim`: adamant for PyTorch and numpy.
//!
//! Python decides, names and makes tensors; this crate finds their memory, checks it, and steps it in one
//! call of the core.

mod access;
mod arrays;
mod dlpack;
mod error;
mod in_use;
mod memory;
#[cfg_attr(not(target_os = "linux"), path = "openmp/elsewhere.rs")]
mod openmp;
mod per_process;
mod rows;
mod settings;
mod slot;
mod stepper;
mod threads;

use pyo3::prelude::*;

/// The compiled part of `adamant_optim`.
#[pymodule(gil_used = false)]
mod _core {
    use super::*;

    #[pymodule_export]
    use super::{
        arrays::{clip_factor, describe, grad_norm, q8_decode, q8_encode, step_arrays},
        dlpack::{device_name, is_host},
        openmp::{openmp_calls, openmp_library},
        stepper::Stepper,
        threads::default_threads,
    };

    /// The version of the package.
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        openmp::imported();
        Ok(())
    }

    /// The names of the core's optimizers.
    #[pyfunction]
    fn optimizers() -> Vec<&'static str> {
        adamant::AnyOptimizer::NAMES.to_vec()
    }

    /// The product of NAdam's momenta up to step `t`, which PyTorch's NAdam keeps as `mu_product`.
    #[pyfunction]
    fn nadam_product(beta1: f64, momentum_decay: f64, t: u64) -> f64 {
        let mut product = 1.0;
        for step in 1..=t {
            product *= stepper::nadam_momentum(beta1, momentum_decay, step);
            // Below what float32 can hold.
            if product < 1e-50 {
                return 0.0;
            }
        }
        product
    }

    /// The instruction set that steps run on, and all that this CPU has.
    #[pyfunction]
    fn instruction_sets() -> PyResult<(&'static str, Vec<&'static str>)> {
        let selected = adamant::Isa::selected().map_err(error::exception)?;
        let available = adamant::Isa::available().into_iter().map(adamant::Isa::name).collect();
        Ok((selected.name(), available))
    }
}
