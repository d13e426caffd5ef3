//! Work that threads share.

use core::ops::Range;

use crate::Threads;

/// Calls `body` on every thread that takes part, with the ranges of elements that it takes.
pub(crate) fn run(
    threads: Threads<'_>,
    elements: usize,
    body: &(dyn Fn(&mut dyn Iterator<Item = Range<usize>>) + Sync),
) {
    #[cfg(feature = "rayon")]
    if let Threads::Rayon = threads
        && elements >= 32 << 10
    {
        use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
        let pieces = 16;
        let next = AtomicUsize::new(0);
        let ranges = || {
            core::iter::from_fn(|| {
                let piece = next.fetch_add(1, Relaxed);
                let at =
                    |piece: usize| (elements as u128 * piece as u128 / pieces as u128) as usize;
                (piece < pieces).then(|| at(piece)..at(piece + 1))
            })
        };
        rayon::scope(|scope| {
            scope.spawn(|_| body(&mut ranges()));
            body(&mut ranges());
        });
        return;
    }
    let _ = threads;
    body(&mut core::iter::once(0..elements));
}
