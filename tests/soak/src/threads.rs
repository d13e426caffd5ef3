//! Who does the work of a call: any threads that a caller may have.

use std::{sync::LazyLock, thread};

use adamant::{Exec, Isa, Pool, RunTasks, Threads};
use rand::{RngExt, rngs::ChaCha8Rng};
use rayon::{ThreadPool, ThreadPoolBuilder};

static POOLS: LazyLock<[Pool; 3]> =
    LazyLock::new(|| [1, 2, 5].map(|threads| Pool::new(threads).expect("a pool")));

static RAYON_POOLS: LazyLock<[ThreadPool; 3]> = LazyLock::new(|| {
    [1, 2, 5].map(|threads| {
        ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool of rayon")
    })
});

/// New threads for each call.
struct NewThreads;

impl RunTasks for NewThreads {
    fn threads(&self) -> usize {
        3
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        thread::scope(|scope| {
            (0..tasks).for_each(|number| drop(scope.spawn(move || task(number))))
        });
    }
}

/// Runs one task of three, and leaves the others to the caller.
struct Idle;

impl RunTasks for Idle {
    fn threads(&self) -> usize {
        7
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        (0..tasks).step_by(3).for_each(task);
    }
}

/// How a call runs, and in which pool of rayon's it is made.
pub struct Place {
    pub exec: Exec<'static>,
    pool: Option<&'static ThreadPool>,
}

impl Place {
    pub fn any(rng: &mut ChaCha8Rng) -> Self {
        let available = Isa::available();
        let isa = Some(available[rng.random_range(0..available.len())]);
        let number = rng.random_range(0..3);
        let (threads, pool) = match rng.random_range(0..8) {
            0 => (Threads::Rayon, None),
            1 => (Threads::Rayon, Some(&RAYON_POOLS[number])),
            2 => (Threads::Pool(&POOLS[number]), None),
            // A pool of adamant's inside one of rayon's.
            3 => (Threads::Pool(&POOLS[number]), Some(&RAYON_POOLS[number])),
            4 => (Threads::Tasks(&NewThreads), None),
            5 => (Threads::Tasks(&Idle), None),
            _ => (Threads::Serial, None),
        };
        Self { exec: Exec { isa, threads }, pool }
    }

    pub fn run<T: Send>(&self, call: impl FnOnce() -> T + Send) -> T {
        match self.pool {
            Some(pool) => pool.install(call),
            None => call(),
        }
    }
}
