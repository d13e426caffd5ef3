//! Who does the work of a call: the calling thread, or all threads of its pool.
//!
//! Each thread enters the instruction set by itself: it would not inherit it.

use crate::Threads;

/// Something to be done that can be cut in two.
pub(crate) trait Work: Send + Sized {
    /// How long it takes, in elements of a dense step.
    fn len(&self) -> usize;

    /// The first part, about `first` long, and the rest; either may be empty, if there is no place
    /// for a cut.
    fn split_at(self, first: usize) -> (Self, Self);

    /// Does it, on the calling thread.
    fn run(self);
}

/// Does the work, on the calling thread and those that are worth waking.
#[inline]
pub(crate) fn run<W: Work>(threads: Threads<'_>, work: W) {
    #[cfg(feature = "rayon")]
    if !matches!(threads, Threads::Serial) {
        return threads::run(work);
    }
    let _ = threads;
    work.run();
}

/// Whether work of a length, in elements of a dense step, is worth entering a pool that the calling
/// thread is not in: it goes to sleep, and wakes up late.
pub(crate) fn is_worth_entering(len: usize) -> bool {
    #[cfg(feature = "rayon")]
    return rayon::current_thread_index().is_some() || len >= 8 * threads::WAKING;
    #[cfg(not(feature = "rayon"))]
    {
        // There is no pool.
        let _ = len;
        false
    }
}

/// Does two things, by two threads if that is worth it.
pub(crate) fn join<T: Send>(
    parallel: bool,
    left: impl FnOnce() -> T + Send,
    right: impl FnOnce() -> T + Send,
) -> [T; 2] {
    #[cfg(feature = "rayon")]
    if parallel {
        let (left, right) = rayon::join(left, right);
        return [left, right];
    }
    let _ = parallel;
    [left(), right()]
}

#[cfg(feature = "rayon")]
mod threads {
    use core::ops::RangeInclusive;

    use super::Work;

    /// The smallest piece that another thread is asked to take: a microsecond of work, which is what
    /// handing it over costs; larger ones where there is enough for all.
    const PIECE: RangeInclusive<usize> = 8 << 10..=16 << 10;
    /// Pieces for each thread, so that one that starts late or runs slow holds up nobody.
    const PIECES_PER_THREAD: usize = 8;
    /// What the calling thread gets done while a thread of a pool wakes up, and it wakes up after it:
    /// about 15 microseconds of work.
    pub(super) const WAKING: usize = 128 << 10;

    #[inline]
    pub(super) fn run<W: Work>(work: W) {
        let len = work.len();
        if len < 2 * PIECE.start() {
            return work.run();
        }
        let threads = rayon::current_num_threads();
        let piece = (len / threads).clamp(*PIECE.start(), *PIECE.end());
        let piece = piece.max(len / (threads * PIECES_PER_THREAD));
        if threads == 1 {
            work.run();
        } else if rayon::current_thread_index().is_some() {
            halve(work, piece);
        } else {
            // Entering the pool would put this thread to sleep, and it would wake up late. It takes
            // a share of its own instead, longer by the time that the others take to wake up.
            let own = (len + WAKING * (threads - 1)) / threads;
            if own + piece > len {
                return work.run();
            }
            let (own, others) = work.split_at(own);
            rayon::in_place_scope(|scope| {
                scope.spawn(|_| halve(others, piece));
                own.run();
            });
        }
    }

    /// Cuts the work in two until a piece is left, so that idle threads can take the larger parts.
    fn halve<W: Work>(work: W, piece: usize) {
        let len = work.len();
        if len < 2 * piece {
            return work.run();
        }
        let (left, right) = work.split_at(len / 2);
        if left.len() == len || right.len() == len {
            left.run();
            right.run();
        } else {
            rayon::join(|| halve(left, piece), || halve(right, piece));
        }
    }
}
