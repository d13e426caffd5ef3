//! Helpers from a rayon pool: the one that the calling thread is in, or else the global one.

use core::{
    cell::Cell,
    sync::atomic::{AtomicU8, AtomicU32, Ordering},
    time::Duration,
};
use std::{
    error::Error as _,
    panic,
    sync::{Arc, Mutex},
    thread,
};

use super::{
    caller::Caller,
    process,
    row::{Crew, Row},
};

thread_local! {
    /// Kept for the next call of this thread. A thread is in the same pool, or in none, as long as it lives.
    static CALLER: Cell<Option<Caller>> = const { Cell::new(None) };
}

/// The caller of this thread: that of its last call, or a new one.
pub(super) fn take_caller() -> Caller {
    // A thread that is about to end has no thread-local values any more.
    CALLER.try_with(Cell::take).ok().flatten().unwrap_or_else(Caller::new)
}

pub(super) fn keep_caller(caller: Caller) {
    // In a thread that is about to end, it is dropped.
    let _ = CALLER.try_with(|kept| kept.set(Some(caller)));
}

/// The number of threads of the pool; 1 if they are gone, or the system refuses them. Outside of a pool, this
/// creates the global one.
pub(super) fn threads(caller: &Caller) -> usize {
    let is_usable = match rayon::current_thread_index() {
        // In a child of `fork`, this is the only thread of the pool that is left.
        Some(_) => caller.is_of_this_process(),
        None => global::is_usable(),
    };
    if is_usable { rayon::current_num_threads() } else { 1 }
}

/// The threads of the pool. Asking one is an allocation of a few words, in rayon.
pub(super) struct Workers {
    lingers: bool,
}

impl Workers {
    pub(super) fn new() -> Self {
        // If the caller is outside of the pool, the pool has probably nothing else to do. A caller inside may
        // be one of many tasks, which would wait for a thread that lingers; and rayon's threads linger, too.
        Self { lingers: rayon::current_thread_index().is_none() }
    }
}

impl Crew for Workers {
    fn ask(&self, row: Arc<Row>) {
        let lingers = self.lingers;
        rayon::spawn(move || Row::help(&row, &Self { lingers }));
    }

    fn lingers(&self) -> bool {
        self.lingers
    }
}

/// The global pool of rayon. It must be created only if that succeeds: rayon remembers a failure for ever,
/// and panics in each later use.
mod global {
    use super::*;

    /// The process that used the pool first; 0 before that.
    static PROCESS: AtomicU32 = AtomicU32::new(0);
    static FOUND: AtomicU8 = AtomicU8::new(UNKNOWN);
    const UNKNOWN: u8 = 0;
    const USABLE: u8 = 1;
    const UNUSABLE: u8 = 2;

    /// Whether there is a global pool with threads. If there is none, it is created.
    ///
    /// This takes no lock, since in a child of `fork` a lock could be held for ever.
    pub(super) fn is_usable() -> bool {
        let (id, order) = (process::id(), Ordering::Relaxed);
        let first = PROCESS.compare_exchange(0, id, order, order).unwrap_or_else(|first| first);
        // After a fork, the pool's threads are gone.
        if first != 0 && first != id {
            return false;
        }
        match FOUND.load(Ordering::Relaxed) {
            USABLE => true,
            UNUSABLE => false,
            _ => {
                let found = create();
                FOUND.store(if found { USABLE } else { UNUSABLE }, Ordering::Relaxed);
                found
            }
        }
    }

    /// Creates the pool if there is none; false if the system refuses its threads.
    fn create() -> bool {
        let threads = default_threads();
        if cfg!(target_family = "wasm") {
            // Threads cannot be tried out there. A program that has some has created the pool.
            return true;
        }
        if threads < 2 || !can_start(threads) {
            return false;
        }
        match rayon::ThreadPoolBuilder::new().build_global() {
            Ok(()) => true,
            // The system refused a thread after all: others have taken it in the meantime.
            Err(error) if error.source().is_some() => false,
            // There is a pool already; or creating it has failed before, and then asking for it panics.
            Err(_) => panic::catch_unwind(rayon::current_num_threads).is_ok(),
        }
    }

    /// The number of threads that rayon gives the pool.
    fn default_threads() -> usize {
        let named = std::env::var("RAYON_NUM_THREADS").ok();
        let named = named.and_then(|number| number.parse().ok()).filter(|&number| number > 0);
        named.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
    }

    /// Whether the system allows so many threads, with the stacks of rayon's. They are started and ended.
    fn can_start(threads: usize) -> bool {
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock();
        let wait_at = |gate: Arc<Mutex<()>>| move || drop(gate.lock());
        let start = |_| thread::Builder::new().spawn(wait_at(Arc::clone(&gate)));
        let started: Vec<_> = (0..threads).map_while(|number| start(number).ok()).collect();
        drop(closed);
        let all = started.len() == threads;
        for thread in started {
            // It cannot panic.
            let _ = thread.join();
        }
        if all {
            // Linux counts a thread towards the limit for a moment after it was joined.
            thread::sleep(Duration::from_millis(1));
        }
        all
    }
}
