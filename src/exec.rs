//! How a call runs: on which instruction set, and on which threads.

use core::fmt;

use crate::{
    Error,
    isa::{Cpu, Isa},
    pieces::Pool,
};

/// The instruction set and the threads of a call. The results have the same bits for every value.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exec<'a> {
    /// The instruction set; `None` is [`Isa::selected`].
    pub isa: Option<Isa>,
    /// The threads that do the work.
    pub threads: Threads<'a>,
}

impl Exec<'_> {
    /// The instruction set, or an error if this CPU does not have it.
    #[inline]
    pub(crate) fn cpu(self) -> Result<Cpu, Error> {
        match self.isa {
            Some(isa) => isa.cpu(),
            None => Cpu::selected(),
        }
    }
}

/// The threads that do the work of a call.
///
/// The calling thread always takes part. Other threads help if the call is large enough. The work is cut into
/// pieces, and each thread takes another piece when it has finished one. So a helper that comes late, or
/// never, costs nothing: the caller waits only for pieces that a helper has begun.
///
/// While the caller waits, it runs no other tasks. So it may hold a lock during the call. (The exception is a
/// [`Rule`](crate::rule::Rule) of your own that takes the same lock.)
///
/// # fork
///
/// Threads do not survive `fork`. If the parent has used them, calls in the child run on the calling thread
/// alone. For threads in the child, make a new [`Pool`] there, or call from inside a new rayon pool.
///
/// # Floating-point modes
///
/// Calls compute with the CPU's default modes for rounding, subnormal numbers and traps. The modes of the
/// calling thread are restored when the call returns (x86 and AArch64).
#[derive(Clone, Copy, Default)]
#[non_exhaustive]
pub enum Threads<'a> {
    /// The calling thread alone.
    Serial,
    /// The threads of the rayon pool that the calling thread is in; if it is in none, those of the global
    /// pool. Without the feature `rayon`, the calling thread alone.
    ///
    /// A call from outside of a pool creates the global pool if it is large enough: 128 Ki elements, or 32 Ki
    /// in quick succession. If the system refuses the threads, or has one CPU, this call and all later ones
    /// run on the calling thread.
    #[default]
    Rayon,
    /// The threads of a [`Pool`] of adamant.
    Pool(&'a Pool),
    /// The threads of another library's pool.
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

/// A thread pool that can run tasks in parallel, such as that of a framework.
///
/// # Examples
///
/// New threads for each call, which is slow but keeps the example short:
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
    /// The number of threads, including the calling one.
    fn threads(&self) -> usize;

    /// Calls `task` with each number from 0 to `tasks - 1`, on any threads, and returns when all calls have
    /// ended.
    ///
    /// It may leave tasks out: the caller then does their work after `run` has returned. A task does not panic.
    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync));
}
