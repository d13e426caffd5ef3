//! The memory that a caller keeps between two calls, and the number of helpers that a call is worth.

use super::{
    process,
    row::{LINGER, MOST_HELPERS, Owner},
    sync::Time,
};

/// The number of elements of a dense step for which one more thread pays while the threads are awake: from
/// twice as many on, two threads were faster than one. Measured on Zen 3: 32 Ki elements in calls without
/// pauses took 0.332 ns each with two threads and 0.493 ns with one.
const SHARE_AWAKE: usize = (16 << 10) / SMALLER;
/// The same while the threads sleep. Measured on Zen 3 with pauses between calls, in ns an element with two
/// threads and with one: 64 Ki elements 2.54 and 1.92, 128 Ki 1.79 and 1.96, 256 Ki 1.28 and 1.74.
const SHARE_ASLEEP: usize = (64 << 10) / SMALLER;
/// Miri takes a thousand times as long.
const SMALLER: usize = if cfg!(miri) { 512 } else { 1 };
/// The number of calls that must follow each other within [`LINGER`] before a small call wakes threads, which
/// are then awake for the next calls. A training step of a few calls should not reach it.
const CALLS_IN_A_ROW: u32 = 4;

/// The smallest number of elements of a call that is shared.
pub(super) const LEAST_SHARED: usize = 2 * SHARE_AWAKE;

/// A caller's row, and the times of its last calls.
pub(super) struct Caller {
    pub(super) owner: Owner,
    /// The process that it was made in.
    process: u32,
    /// When the last call ended.
    ended: Option<Time>,
    /// Whether it had helpers.
    helped: bool,
    /// The number of calls so far that followed each other at once.
    in_a_row: u32,
}

impl Caller {
    pub(super) fn new() -> Self {
        let process = process::id();
        Self { owner: Owner::new(), process, ended: None, helped: false, in_a_row: 0 }
    }

    pub(super) fn is_of_this_process(&self) -> bool {
        self.process == process::id()
    }

    /// The number of helpers that a call is worth. `threads` returns the number of threads of the pool,
    /// including the calling one. It is called only if the call is worth a helper, since it may create the
    /// pool.
    pub(super) fn begin(&mut self, elements: usize, threads: impl FnOnce(&Self) -> usize) -> usize {
        let follows_at_once = self.ended.is_some_and(|ended| ended.is_within(LINGER));
        self.in_a_row = if follows_at_once { self.in_a_row.saturating_add(1) } else { 0 };
        let is_awake = follows_at_once && (self.helped || self.in_a_row >= CALLS_IN_A_ROW);
        let is_worth_it = helpers(elements, usize::MAX, is_awake) > 0;
        let helpers = if is_worth_it { helpers(elements, threads(self), is_awake) } else { 0 };
        self.helped = helpers > 0;
        helpers
    }

    pub(super) fn end(&mut self) {
        self.ended = Some(Time::now());
    }
}

/// The number of helpers that a call is worth, if there are `threads` threads including the calling one.
pub(super) fn helpers(elements: usize, threads: usize, is_awake: bool) -> usize {
    let share = if is_awake { SHARE_AWAKE } else { SHARE_ASLEEP };
    (elements / share).min(threads).saturating_sub(1).min(MOST_HELPERS)
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::{Caller, LEAST_SHARED, SMALLER, helpers};

    #[test]
    fn sleeping_threads_are_asked_later_than_those_that_are_awake() {
        assert_eq!(helpers(LEAST_SHARED - 1, 64, true), 0);
        assert_eq!(helpers(LEAST_SHARED, 64, true), 1);
        let least_asleep = (128 << 10) / SMALLER;
        assert_eq!(helpers(least_asleep - 1, 64, false), 0);
        assert_eq!(helpers(least_asleep, 64, false), 1);
        assert_eq!(helpers(usize::MAX, 64, false), 63);
        assert_eq!(helpers(usize::MAX, usize::MAX, false), super::MOST_HELPERS);
        assert_eq!(helpers(usize::MAX, 1, true), 0);
        assert_eq!(helpers(usize::MAX, 0, true), 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "there, calls are far apart")]
    fn small_calls_ask_for_helpers_once_several_have_followed_each_other() {
        let mut caller = Caller::new();
        let mut call = |pause: u64| {
            thread::sleep(Duration::from_millis(pause));
            let helpers = caller.begin(LEAST_SHARED, |_| 2);
            caller.end();
            helpers
        };
        assert_eq!(call(0), 0);
        // On a busy machine, two calls may be far apart.
        assert!((0..1_000_000).any(|_| call(0) == 1));
        assert_eq!(call(1), 0);
    }
}
