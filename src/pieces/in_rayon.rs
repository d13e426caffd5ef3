//! Helpers from a rayon pool: the one that the calling thread is in, else the global one.

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
    /// For the next call of this thread. A thread is in one pool, or in none, for all of its life.
    static CALLER: Cell<Option<Caller>> = const { Cell::new(None) };
}

/// What this thread needs for a call, from its last one or new.
pub(super) fn take_caller() -> Caller {
    // A thread that is ending has none left.
    CALLER.try_with(Cell::take).ok().flatten().unwrap_or_else(Caller::new)
}

pub(super) fn keep_caller(caller: Caller) {
    // A thread that is ending drops it.
    let _ = CALLER.try_with(|kept| kept.set(Some(caller)));
}

/// The number of threads of the pool, or 1 if they are gone or there are none to be had. It creates the
/// global pool where that is the one.
pub(super) fn threads(caller: &Caller) -> usize {
    let is_usable = match rayon::current_thread_index() {
        // In a child of `fork`, this is the one thread of the pool that is left.
        Some(_) => caller.is_of_this_process(),
        None => global::is_usable(),
    };
    if is_usable { rayon::current_num_threads() } else { 1 }
}

/// Asks threads of the pool. Each request is one allocation of rayon's, a few words large.
pub(super) struct Workers {
    lingers: bool,
}

impl Workers {
    pub(super) fn new() -> Self {
        // For a caller outside of the pool, the pool has nothing else to do. One inside may be one of
        // many tasks, which a thread that lingers would hold up; and rayon's threads linger themselves.
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

/// The global pool of rayon, which must not be created in vain: rayon remembers a failure for ever, and
/// panics in each later use.
mod global {
    use super::*;

    /// The process that first used the pool; 0 before.
    static PROCESS: AtomicU32 = AtomicU32::new(0);
    static FOUND: AtomicU8 = AtomicU8::new(UNKNOWN);
    const UNKNOWN: u8 = 0;
    const USABLE: u8 = 1;
    const UNUSABLE: u8 = 2;

    /// Whether there is a global pool with threads; it is created if there is none.
    ///
    /// No lock is taken: a child of `fork` could find it locked for ever.
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

    /// Creates the pool if there is none, unless the system refuses the threads for it.
    fn create() -> bool {
        let threads = default_threads();
        if cfg!(target_family = "wasm") {
            // Threads cannot be tried there. Who has some has created the pool.
            return true;
        }
        if threads < 2 || !can_start(threads) {
            return false;
        }
        match rayon::ThreadPoolBuilder::new().build_global() {
            Ok(()) => true,
            // The system refused a thread after all, which others took in the meantime.
            Err(error) if error.source().is_some() => false,
            // There is one; unless creating it failed before, and then asking for it panics.
            Err(_) => panic::catch_unwind(rayon::current_num_threads).is_ok(),
        }
    }

    /// The number of threads that rayon gives the pool.
    fn default_threads() -> usize {
        let named = std::env::var("RAYON_NUM_THREADS").ok();
        let named = named.and_then(|number| number.parse().ok()).filter(|&number| number > 0);
        named.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
    }

    /// Whether the system gives so many threads, with rayon's stacks. They are begun, and ended again.
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
            // Linux takes a thread off the count that it limits a little after it was joined.
            thread::sleep(Duration::from_millis(1));
        }
        all
    }
}
