//! The parts of the standard library that `row.rs` is built on.
//!
//! `tests/interleavings` compiles `row.rs` with loom's parts in their place, and so tries every order
//! in which its threads can run.

#![allow(unsafe_code, reason = "a cell whose users promise that nobody else reads or writes it")]

use core::{cell::UnsafeCell, hint};
use std::{
    thread,
    time::{Duration, Instant},
};

pub(super) use std::sync::{
    Arc, Condvar, Mutex,
    atomic::{AtomicUsize, Ordering},
};

/// A value that threads share by rules of their own.
pub(super) struct Shared<T>(UnsafeCell<T>);

impl<T> Shared<T> {
    pub(super) fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Copies the value.
    ///
    /// # Safety
    ///
    /// No thread writes it meanwhile.
    pub(super) unsafe fn get(&self) -> T
    where
        T: Copy,
    {
        // SAFETY: nobody writes: the caller's promise.
        unsafe { *self.0.get() }
    }

    /// Replaces the value.
    ///
    /// # Safety
    ///
    /// No other thread reads or writes it meanwhile.
    pub(super) unsafe fn set(&self, value: T)
    where
        T: Copy,
    {
        // SAFETY: nobody else reads or writes: the caller's promise.
        unsafe { *self.0.get() = value };
    }
}

/// The rounds that a thread waits for another one without going to sleep: about a microsecond of looking, then giving
/// way to other threads for longer than the largest piece takes (1.3 milliseconds on an AMD EPYC, Zen 4). A caller that
/// slept would be woken on the CPU of its helper, and the next call would have one CPU for both.
const LOOKS: u32 = 64;
const ROUNDS: u32 = LOOKS + 2048;

/// Passes a moment; false once it is time to sleep.
pub(super) fn pause(round: u32) -> bool {
    match round {
        0..LOOKS => hint::spin_loop(),
        LOOKS..ROUNDS => thread::yield_now(),
        _ => return false,
    }
    true
}

/// A time on a clock; `None` where there is no clock (WebAssembly in browsers).
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(Option<Instant>);

impl Time {
    pub(super) fn now() -> Self {
        Self((!cfg!(target_family = "wasm")).then(Instant::now))
    }

    /// Whether it is less than `duration` ago.
    pub(super) fn is_within(self, duration: Duration) -> bool {
        self.0.is_some_and(|time| time.elapsed() < duration)
    }
}

/// Looks again a few times, and then gives way to a thread that may need this CPU.
pub(super) fn linger_a_moment() {
    for _ in 0..16 {
        hint::spin_loop();
    }
    thread::yield_now();
}
