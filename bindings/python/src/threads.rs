//! The threads that steps run on: one pool for each number of threads, made when it is first needed,
//! and made anew in a forked child, where the threads of the parent are gone.

use std::{
    collections::HashMap,
    env, ptr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicPtr, Ordering},
    },
    thread,
};

use adamant::{Error, Pool};
use pyo3::prelude::*;

/// The pools of a process, by the number of threads. `None` for a number that the system refused.
struct Pools {
    process: u32,
    by_threads: Mutex<HashMap<usize, Option<Arc<Pool>>>>,
}

static POOLS: AtomicPtr<Pools> = AtomicPtr::new(ptr::null_mut());

impl Pools {
    fn of_this_process() -> &'static Self {
        let process = std::process::id();
        loop {
            let found = POOLS.load(Ordering::Acquire);
            // SAFETY: null, or from `Box::into_raw` below and never freed.
            if let Some(pools) = unsafe { found.as_ref() }
                && pools.process == process
            {
                return pools;
            }
            // The pools of the parent are left as they are: a thread that is gone may hold their lock.
            let new = Box::into_raw(Box::new(Self { process, by_threads: Mutex::default() }));
            let order = Ordering::AcqRel;
            if POOLS.compare_exchange(found, new, order, Ordering::Acquire).is_err() {
                // SAFETY: ours, and nobody else has seen it.
                drop(unsafe { Box::from_raw(new) });
            }
        }
    }
}

/// The pool of so many threads; `None` for one thread, or where the system refuses threads: then the
/// calling thread does everything.
///
/// # Errors
///
/// [`Error::ThreadCount`] for a number out of range.
pub fn pool(threads: usize) -> Result<Option<Arc<Pool>>, Error> {
    if threads == 1 {
        return Ok(None);
    }
    let pools = Pools::of_this_process();
    let mut pools = pools.by_threads.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(pool) = pools.get(&threads) {
        return Ok(pool.clone());
    }
    let pool = match Pool::new(threads) {
        Ok(pool) => Some(Arc::new(pool)),
        Err(Error::NoThreads { .. }) => None,
        Err(error) => return Err(error),
    };
    pools.insert(threads, pool.clone());
    Ok(pool)
}

/// The number of threads that this process may use.
///
/// ```text
/// min(affinity, cpus // LOCAL_WORLD_SIZE)
/// ```
///
/// The affinity is this process's own. The CPUs, no more than the cgroup's quota grants, are shared by the
/// `LOCAL_WORLD_SIZE` processes that torchrun starts on a machine.
#[pyfunction]
pub fn default_threads(py: Python<'_>) -> usize {
    // The lesser of affinity and quota.
    let available = thread::available_parallelism().map_or(1, usize::from);
    let os = py.import("os").ok();
    let affinity = os.as_ref().and_then(|os| os.call_method1("sched_getaffinity", (0,)).ok());
    let affinity = affinity.and_then(|cpus| cpus.len().ok()).unwrap_or(available);
    let machine = os.and_then(|os| os.call_method0("cpu_count").ok()?.extract::<usize>().ok());
    let granted =
        if available < affinity { available } else { machine.unwrap_or(available).max(available) };
    let processes = env::var("LOCAL_WORLD_SIZE").ok().and_then(|text| text.parse().ok());
    let share = granted / processes.unwrap_or(1).max(1);
    available.min(share).max(1)
}
