//! How a call runs: on which instruction set, and on which threads.

use core::fmt;

use crate::{
    Error,
    isa::{Cpu, Isa},
    pieces::Pool,
};

/// How a call runs. The results have the same bits whatever it says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exec<'a> {
    /// The instruction set; `None` is [`Isa::selected`].
    pub isa: Option<Isa>,
    /// Who does the work.
    pub threads: Threads<'a>,
}

impl Exec<'_> {
    /// Proof that this CPU has the instruction set.
    #[inline]
    pub(crate) fn cpu(self) -> Result<Cpu, Error> {
        match self.isa {
            Some(isa) => isa.cpu(),
            None => Isa::selected()?.cpu(),
        }
    }
}

/// Who does the work of a call.
///
/// The calling thread always takes part, and other threads help where the call is large enough for it.
/// The work is cut into pieces that each thread takes when it has done the one before. So a helper that
/// comes late or never costs nothing, and the caller waits only for pieces that a helper has begun.
/// While it waits, it runs no other tasks: it may hold a lock, as long as no thread needs that lock to
/// end a piece (none does, unless a [`Rule`](crate::Rule) of yours takes one).
///
/// # fork
///
/// Threads do not survive `fork`. In a child whose parent has used them, calls run on the calling thread.
/// There, make a new [`Pool`], or call from inside a new rayon pool.
///
/// # Floating-point modes
///
/// Whatever the calling thread has set (rounding, flushing of subnormals, traps), calls compute with the
/// default modes, and the thread's own are restored when the call returns (x86 and AArch64).
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub enum Threads<'a> {
    /// The calling thread alone.
    Serial,
    /// The threads of the rayon pool that the calling thread is in; the global one if it is in none.
    /// Serial without the feature `rayon`.
    ///
    /// The first call from outside of a pool that is large enough (128 Ki elements, or 32 Ki in quick
    /// succession) creates the global pool, if it can have its threads. If the system refuses them, or
    /// has one CPU, this and all later calls run on the calling thread.
    #[default]
    Rayon,
    /// The threads of a pool of adamant's own.
    Pool(&'a Pool),
    /// The threads of somebody else's pool.
    Tasks(&'a dyn RunTasks),
}

impl fmt::Debug for Threads<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial => f.write_str("Serial"),
            Self::Rayon => f.write_str("Rayon"),
            Self::Pool(pool) => f.debug_tuple("Pool").field(pool).finish(),
            Self::Tasks(_) => f.write_str("Tasks(..)"),
        }
    }
}

/// A thread pool that can run tasks at the same time, such as the one of a framework.
///
/// # Examples
///
/// New threads for each call (slow, but short):
///
/// ```
/// struct NewThreads;
///
/// impl adamant::RunTasks for NewThreads {
///     fn threads(&self) -> usize {
///         4
///     }
///
///     fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
///         std::thread::scope(|scope| {
///             for number in 0..tasks {
///                 scope.spawn(move || task(number));
///             }
///         });
///     }
/// }
/// ```
pub trait RunTasks: Sync {
    /// The number of threads, the calling one among them.
    fn threads(&self) -> usize;

    /// Calls `task` with each number from 0 to `tasks`, on any threads, and returns when all are done.
    ///
    /// Tasks that are left out do no harm: the caller does their work after `run` has returned. A task
    /// does not panic.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}
