//! The threads that steps run on: those of OpenMP while they are awake, else a pool. There is one pool for each number
//! of threads, made when it is first needed, and made anew in a forked child, where the threads of the parent are gone.

use std::{
    collections::HashMap,
    env,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use adamant::{Error, Pool, Threads};
use pyo3::prelude::*;

use crate::{
    openmp::{self, Team},
    per_process::PerProcess,
};

/// The threads that do the work of a call.
pub enum Crew {
    /// The calling thread alone.
    Serial,
    /// Threads of this package.
    Pool(Arc<Pool>),
    /// Those that PyTorch computes with.
    OpenMp(Team),
}

impl Crew {
    /// So many threads of this package; the calling thread alone for one, or where the system refuses threads.
    ///
    /// # Errors
    ///
    /// [`Error::ThreadCount`] for a number out of range.
    pub fn own(threads: usize) -> Result<Self, Error> {
        Ok(pool(threads)?.map_or(Self::Serial, Self::Pool))
    }

    /// For a large call on a thread that uses PyTorch, which computes with `pytorch` threads. Those do the work if
    /// they are awake and as many as are wanted. `default` is what this process may use. If `threads` is
    /// not said, half of that is enough: PyTorch often takes one thread for each physical core.
    ///
    /// # Errors
    ///
    /// As [`own`](Self::own).
    pub fn beside_pytorch(
        threads: Option<usize>,
        default: usize,
        pytorch: usize,
    ) -> Result<Self, Error> {
        let workers = threads.unwrap_or(pytorch);
        let is_enough = threads.is_some() || 2 * pytorch >= default;
        // A team of more threads than CPUs waits for each other.
        let fits = (2..=pytorch).contains(&workers) && pytorch <= default;
        if is_enough
            && fits
            && let Some(team) = openmp::team(pytorch, workers)
        {
            return Ok(Self::OpenMp(team));
        }
        Self::own(threads.unwrap_or(default))
    }

    /// As a call takes them.
    pub fn threads(&self) -> Threads<'_> {
        match self {
            Self::Serial => Threads::Serial,
            Self::Pool(pool) => Threads::Pool(pool),
            Self::OpenMp(team) => Threads::Tasks(team),
        }
    }
}

/// The core shares no call over fewer elements among threads; so these need no look at PyTorch's.
pub const LEAST_SHARED: usize = 32 << 10;

/// The pools, by the number of threads. `None` for a number that the system refused.
#[derive(Default)]
struct Pools(Mutex<HashMap<usize, Option<Arc<Pool>>>>);

static POOLS: PerProcess<Pools> = PerProcess::new();

/// The pool of so many threads: see [`Crew::own`].
fn pool(threads: usize) -> Result<Option<Arc<Pool>>, Error> {
    if threads == 1 {
        return Ok(None);
    }
    let mut pools = POOLS.get().0.lock().unwrap_or_else(PoisonError::into_inner);
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

/// The threads that a process may use, known from one step to the next.
pub struct DefaultThreads {
    threads: AtomicUsize,
    /// The CPUs of the affinity at the time.
    cpus: AtomicUsize,
}

impl DefaultThreads {
    pub fn new(py: Python<'_>) -> Self {
        let (threads, cpus) = (default_threads(py), affinity());
        Self { threads: threads.into(), cpus: cpus.unwrap_or(0).into() }
    }

    /// As it was.
    pub fn known(&self) -> usize {
        self.threads.load(Ordering::Relaxed)
    }

    /// As it is now. A system call; to ask for everything anew takes a hundred times as long, and is needed only
    /// where there are more CPUs.
    pub fn now(&self, py: Python<'_>) -> usize {
        let Some(cpus) = affinity() else { return self.known() };
        if cpus > self.cpus.load(Ordering::Relaxed) {
            self.threads.store(default_threads(py), Ordering::Relaxed);
            self.cpus.store(cpus, Ordering::Relaxed);
        }
        self.known().min(cpus)
    }
}

/// The number of CPUs that this thread may run on; `None` where the system does not say.
#[cfg(target_os = "linux")]
fn affinity() -> Option<usize> {
    // SAFETY: bits, of which none set is valid.
    let mut cpus: libc::cpu_set_t = unsafe { core::mem::zeroed() };
    // SAFETY: a set of this size. 0 is the calling thread.
    let found = unsafe { libc::sched_getaffinity(0, size_of_val(&cpus), &raw mut cpus) };
    // SAFETY: a valid set.
    let count = unsafe { libc::CPU_COUNT(&cpus) };
    // More CPUs than the set has room for are an error.
    if found == 0 { usize::try_from(count).ok() } else { None }
}

#[cfg(not(target_os = "linux"))]
fn affinity() -> Option<usize> {
    None
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
