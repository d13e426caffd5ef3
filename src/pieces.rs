//! The one place where the work of a call is shared among threads.
//!
//! The work is a row of numbered pieces. The calling thread takes one piece after the other, and so do
//! helpers: see `row.rs`. The results do not depend on which thread does a piece.
//!
//! A call allocates nothing, with two exceptions. The first call of a thread, and the first calls on a pool,
//! allocate memory that later calls use again. And each helper that is asked from a rayon pool, unless it
//! still lingers after the last call, takes a request of a few words.

mod affinity;
mod caller;
#[cfg(feature = "rayon")]
mod in_rayon;
mod pool;
mod process;
mod row;
mod seat;
mod sync;
mod tasks;
#[cfg(test)]
mod tests;

use core::{iter, ops::Range};

use caller::LEAST_SHARED;
pub use pool::Pool;
use row::{Body, MOST_PIECES};
use seat::Seat;

use crate::{
    exec::{RunTasks, Threads},
    float_modes::{are_default, with_default_float_modes},
};

/// The number of pieces for each thread. If a thread starts late or loses its CPU, the others wait for at
/// most one piece of it; so pieces should be small.
const PIECES_PER_THREAD: usize = 4;
/// The smallest number of elements of a piece: 1.5 microseconds of work in cache. Taking a piece costs up to
/// 0.05 microseconds when threads compete for it. In Miri, few elements are shared too.
const LEAST_PIECE: usize = if cfg!(miri) { 64 } else { 4 << 10 };
/// The largest number of elements of a piece: 0.4 milliseconds of work from memory.
const MOST_PIECE: usize = 256 << 10;

/// Does work on `0..elements`. The number of pieces and helpers is chosen as if each element took as long as
/// one of a dense step.
///
/// Each thread that takes part calls `body` with the ranges that it takes, in ascending order. The ranges of
/// all threads are disjoint and cover `0..elements`. A serial call has this one range. `body` must take all
/// ranges of the iterator. It runs with the default floating-point modes: the calling thread must have them
/// ([`with_default_float_modes`]), and helpers set them.
///
/// # Panics
///
/// With the panic of a body, after all pieces that were begun have ended.
pub(crate) fn run(
    threads: Threads<'_>,
    elements: usize,
    body: &(dyn Fn(&mut dyn Iterator<Item = Range<usize>>) + Sync),
) {
    debug_assert!(are_default(), "the caller's task");
    // A small call needs no plan.
    if !may_share(threads, elements) {
        // `iter::once` of the range would be slower: the CPU waits where two numbers are written and read as one.
        let mut rest = Some(elements);
        return body(&mut iter::from_fn(move || rest.take().map(|end| 0..end)));
    }
    let plan = Plan::new(threads, elements);
    if plan.helpers() == 0 {
        return plan.run(1, &|numbers| body(&mut numbers.map(|_| 0..elements)));
    }
    let piece = elements / (plan.helpers() + 1) / PIECES_PER_THREAD;
    let piece = piece.clamp(LEAST_PIECE, MOST_PIECE).next_multiple_of(LEAST_PIECE);
    let range = |number: usize| {
        let start = number * piece;
        start..start + piece.min(elements - start)
    };
    plan.run(elements.div_ceil(piece), &|numbers| body(&mut numbers.map(range)));
}

/// Does work in a given number of pieces, all of which together take as long as a dense step of `elements`
/// elements.
///
/// It works as [`run`] does, but `body` gets the numbers of pieces instead of ranges.
pub(crate) fn run_indexed(threads: Threads<'_>, elements: usize, pieces: usize, body: &Body<'_>) {
    run_in_batches(MOST_PIECES, threads, elements, pieces, body);
}

/// As [`run_indexed`]. If there are more than `most` pieces, threads take them in batches.
fn run_in_batches(
    most: usize,
    threads: Threads<'_>,
    elements: usize,
    pieces: usize,
    body: &Body<'_>,
) {
    let plan = if pieces < 2 { Plan::Serial } else { Plan::new(threads, elements) };
    if plan.helpers() == 0 {
        return plan.run(1, &|numbers| body(&mut numbers.flat_map(|_| 0..pieces)));
    }
    if pieces <= most {
        return plan.run(pieces, body);
    }
    let batch = pieces.div_ceil(most);
    let numbers_of = |number: usize| {
        let start = number * batch;
        start..start + batch.min(pieces - start)
    };
    plan.run(pieces.div_ceil(batch), &|numbers| body(&mut numbers.flat_map(numbers_of)));
}

/// Whether [`run_indexed`] may share the work. If not, the caller need not cut it into pieces.
pub(crate) fn may_share(threads: Threads<'_>, elements: usize) -> bool {
    !matches!(threads, Threads::Serial) && elements >= LEAST_SHARED
}

/// Who does the work of a call.
enum Plan<'a> {
    Serial,
    Tasks { tasks: &'a dyn RunTasks, helpers: usize },
    Helpers { seat: Seat<'a>, helpers: usize },
}

impl<'a> Plan<'a> {
    fn new(threads: Threads<'a>, elements: usize) -> Self {
        // A small call does not ask for the number of threads, since that could create them.
        if !may_share(threads, elements) {
            return Self::Serial;
        }
        let seat = match threads {
            Threads::Serial => None,
            Threads::Tasks(tasks) => {
                let helpers = caller::helpers(elements, tasks.threads(), true);
                return Self::Tasks { tasks, helpers };
            }
            Threads::Pool(pool) => Seat::in_pool(pool),
            #[cfg(feature = "rayon")]
            Threads::Rayon => Some(Seat::in_rayon()),
            #[cfg(not(feature = "rayon"))]
            Threads::Rayon => None,
        };
        match seat {
            Some(mut seat) => {
                let helpers = seat.begin(elements);
                Self::Helpers { seat, helpers }
            }
            None => Self::Serial,
        }
    }

    fn helpers(&self) -> usize {
        match self {
            Self::Serial => 0,
            Self::Tasks { helpers, .. } | Self::Helpers { helpers, .. } => *helpers,
        }
    }

    fn run(self, pieces: usize, body: &Body<'_>) {
        let body = |numbers: &mut dyn Iterator<Item = usize>| {
            with_default_float_modes(|| body(numbers));
        };
        match self {
            Self::Tasks { tasks, helpers } if helpers > 0 => {
                tasks::run(tasks, helpers + 1, pieces, &body);
            }
            Self::Helpers { mut seat, helpers } if helpers > 0 => {
                seat.call(pieces, helpers.min(pieces.saturating_sub(1)), &body);
            }
            // The seat is dropped after the work, and so knows when this call ended.
            _seat => body(&mut (0..pieces)),
        }
    }
}
