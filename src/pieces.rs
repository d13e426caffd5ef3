//! The one place where the work of a call is shared among threads.
//!
//! The work is a row of numbered pieces. The calling thread takes them one after the other, and so do
//! helpers: see `row.rs`. Which thread does a piece decides nothing about its results.
//!
//! Nothing is allocated in a call, but for one request of a few words for each helper that is asked from
//! a rayon pool and does not linger from the call before. The first call of a thread, and the first ones
//! on a pool, allocate what later ones use again.

mod caller;
mod float_modes;
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

use core::ops::Range;

use caller::LEAST_SHARED;
pub(crate) use float_modes::with_default_float_modes;
pub use pool::Pool;
use row::{Body, MOST_PIECES};
use seat::Seat;

use crate::exec::{RunTasks, Threads};

/// Pieces for each thread: one that starts late, or loses its CPU, holds up the others for the time of a
/// piece.
const PIECES_PER_THREAD: usize = 4;
/// The least elements of a piece: 1.5 microseconds of work in cache, where taking a piece costs up to
/// 0.05 when threads compete.
const LEAST_PIECE: usize = 4 << 10;
/// The most: 0.4 milliseconds from memory.
const MOST_PIECE: usize = 256 << 10;

/// Does work on `0..elements`. It takes as long as a dense step of so many elements, by which it is
/// decided how many pieces and helpers it is worth.
///
/// Each thread that takes part calls `body` with the ranges that it takes, in ascending order; those of
/// all threads are disjoint and cover everything. A serial call gets the one range `0..elements`. `body`
/// must take all that the iterator has. It runs with the default floating-point modes.
///
/// # Panics
///
/// With the panic of a body, after all pieces that were begun have ended.
pub(crate) fn run(
    threads: Threads<'_>,
    elements: usize,
    body: &(dyn Fn(&mut dyn Iterator<Item = Range<usize>>) + Sync),
) {
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

/// Does work in `pieces` pieces that are given. All together take as long as a dense step of `elements`
/// elements.
///
/// As [`run`]; each thread that takes part calls `body` with the numbers of the pieces that it takes.
pub(crate) fn run_indexed(threads: Threads<'_>, elements: usize, pieces: usize, body: &Body<'_>) {
    run_in_lots(MOST_PIECES, threads, elements, pieces, body);
}

/// As [`run_indexed`], by lots of pieces where there are more than `most`.
fn run_in_lots(most: usize, threads: Threads<'_>, elements: usize, pieces: usize, body: &Body<'_>) {
    let plan = if pieces < 2 { Plan::Serial } else { Plan::new(threads, elements) };
    if plan.helpers() == 0 {
        return plan.run(1, &|numbers| body(&mut numbers.flat_map(|_| 0..pieces)));
    }
    if pieces <= most {
        return plan.run(pieces, body);
    }
    let lot = pieces.div_ceil(most);
    let numbers_of = |number: usize| {
        let start = number * lot;
        start..start + lot.min(pieces - start)
    };
    plan.run(pieces.div_ceil(lot), &|numbers| body(&mut numbers.flat_map(numbers_of)));
}

/// Whether [`run_indexed`] may share the work: if not, it need not be cut.
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
        // A small call does not even look whether there are threads: that could create them.
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
            // A seat is left after the work, which tells its next call when this one ended.
            _seat => body(&mut (0..pieces)),
        }
    }
}
