//! Where `openmp.rs` does not apply: steps have this package's own threads.

use adamant::RunTasks;
use pyo3::prelude::*;

/// There is none.
pub enum Team {}

impl RunTasks for Team {
    fn threads(&self) -> usize {
        match *self {}
    }

    fn run(&self, _: usize, _: &(dyn Fn(usize) + Sync)) {
        match *self {}
    }
}

pub fn team(_: usize, _: usize) -> Option<Team> {
    None
}

pub fn imported() {}

/// How often OpenMP's threads did the work of a call: never.
#[pyfunction]
pub fn openmp_calls() -> u64 {
    0
}

/// The library whose threads do the work of steps while they spin: none.
#[pyfunction]
pub fn openmp_library() -> Option<String> {
    None
}
