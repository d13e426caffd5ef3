//! loom's parts in place of those of `src/pieces/sync.rs`.

use std::time::Duration;

use loom::cell::UnsafeCell;

pub(super) use std::sync::Arc;

pub(super) use loom::sync::{
    Condvar, Mutex,
    atomic::{AtomicUsize, Ordering},
};

pub(super) struct Shared<T>(UnsafeCell<T>);

impl<T: Copy> Shared<T> {
    pub(super) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// # Safety
    ///
    /// No thread writes it meanwhile: loom notices.
    pub(super) unsafe fn get(&self) -> T {
        // SAFETY: as above.
        self.0.with(|value| unsafe { *value })
    }

    /// # Safety
    ///
    /// No other thread reads or writes it meanwhile: loom notices.
    pub(super) unsafe fn set(&self, value: T) {
        // SAFETY: as above.
        self.0.with_mut(|place| unsafe { *place = value });
    }
}

/// There is no clock: a thread sleeps at once, which is the harder way, and lingers for two looks.
pub(super) fn pause(_round: u32) -> bool {
    false
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Time;

thread_local! {
    static LOOKS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

impl Time {
    pub(super) fn now() -> Self {
        LOOKS.set(0);
        Self
    }

    pub(super) fn is_within(self, _duration: Duration) -> bool {
        LOOKS.set(LOOKS.get() + 1);
        LOOKS.get() <= 3
    }
}

pub(super) fn linger_a_moment() {
    loom::thread::yield_now();
}
