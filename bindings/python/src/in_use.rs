//! The memory that running steps write: threads that step the same arrays do so one after the other.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, ThreadId},
};

use pyo3::{exceptions::PyRuntimeError, prelude::*};

use crate::per_process::PerProcess;

/// Ranges of addresses, in order: from the first byte to the one after the last, and a number of the
/// caller's.
pub type Ranges = Vec<(usize, usize, usize)>;

/// The memory of a step. The ranges that it writes are apart.
struct Memory {
    thread: ThreadId,
    written: Arc<Ranges>,
    read: Ranges,
}

impl Memory {
    fn conflicts_with(&self, other: &Self) -> bool {
        overlap(&self.written, &other.written)
            || overlap(&self.written, &other.read)
            || overlap(&other.written, &self.read)
    }
}

/// Whether some memory that is written is in `others`. Both are in order; `others` may overlap each other.
fn overlap(written: &Ranges, others: &Ranges) -> bool {
    let mut written = written.iter().peekable();
    others.iter().filter(|(start, end, _)| start < end).any(|&(start, end, _)| {
        while written.next_if(|&&(_, written_end, _)| written_end <= start).is_some() {}
        written.peek().is_some_and(|&&(written_start, ..)| written_start < end)
    })
}

#[derive(Default)]
struct Running {
    steps: Mutex<Vec<Arc<Memory>>>,
    has_ended: Condvar,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Memory>>> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

static RUNNING: PerProcess<Running> = PerProcess::new();

/// Memory that no other step uses until this is dropped.
pub struct InUse(Arc<Memory>);

impl InUse {
    /// Waits until no step of another thread writes memory that this one reads or writes, or reads memory that
    /// this one writes. The interpreter is released meanwhile.
    ///
    /// # Errors
    ///
    /// A `RuntimeError` if it is a step of this thread, which cannot end before this one.
    pub fn wait(py: Python<'_>, written: Arc<Ranges>, read: Ranges) -> PyResult<Self> {
        let memory = Arc::new(Memory { thread: thread::current().id(), written, read });
        let running = RUNNING.get();
        let conflict = |steps: &[Arc<Memory>]| {
            let other = steps.iter().find(|other| memory.conflicts_with(other))?;
            Some(other.thread == memory.thread)
        };
        {
            let mut steps = running.lock();
            match conflict(&steps) {
                None => {
                    steps.push(memory.clone());
                    return Ok(Self(memory));
                }
                Some(false) => {}
                Some(true) => {
                    return Err(PyRuntimeError::new_err(
                        "step was called from within a step of the same arrays",
                    ));
                }
            }
        }
        py.detach(|| {
            let mut steps = running.lock();
            while conflict(&steps).is_some() {
                steps = running.has_ended.wait(steps).unwrap_or_else(PoisonError::into_inner);
            }
            steps.push(memory.clone());
        });
        Ok(Self(memory))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let running = RUNNING.get();
        let mut steps = running.lock();
        // A child that was forked in the middle of a step has no such entry.
        steps.retain(|other| !Arc::ptr_eq(other, &self.0));
        drop(steps);
        running.has_ended.notify_all();
    }
}
