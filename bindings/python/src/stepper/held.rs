//! The memory of a stepper, which one thread uses at a time, and which a forked child takes over.

use core::ptr;
use std::{
    process,
    sync::{
        Mutex, MutexGuard, TryLockError,
        atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering},
    },
};

use pyo3::{exceptions::PyRuntimeError, prelude::*, sync::MutexExt};

use super::Inner;

/// A lock of one process.
struct Locked {
    process: u32,
    inner: Mutex<Inner>,
    /// The thread that has the lock.
    holder: AtomicUsize,
    /// Whether another thread had the lock when this process was forked.
    was_held: AtomicBool,
}

impl Locked {
    fn new() -> Box<Self> {
        Box::new(Self {
            process: process::id(),
            inner: Mutex::default(),
            holder: AtomicUsize::new(0),
            was_held: AtomicBool::new(false),
        })
    }

    fn lock(&self, py: Python<'_>) -> PyResult<Held<'_>> {
        if self.holder.load(Ordering::Relaxed) == this_thread() {
            return Err(PyRuntimeError::new_err("step was called from within step"));
        }
        let inner = self.inner.lock_py_attached(py).unwrap_or_else(|poisoned| {
            // A panic, which only a fault of this crate can cause, may have left anything.
            let mut inner = poisoned.into_inner();
            *inner = Inner::default();
            inner
        });
        self.holder.store(this_thread(), Ordering::Relaxed);
        Ok(Held { inner, holder: &self.holder })
    }
}

/// The memory of a stepper. A lock that a thread had when the process was forked is never released in the child:
/// there the memory gets a lock of its own.
pub(super) struct Kept(AtomicPtr<Locked>);

impl Default for Kept {
    fn default() -> Self {
        Self(AtomicPtr::new(Box::into_raw(Locked::new())))
    }
}

impl Kept {
    /// Waits for other threads' steps.
    ///
    /// # Errors
    ///
    /// A `RuntimeError` if it is this thread that is in a step, or if this process was forked in the middle of one.
    pub fn hold(&self, py: Python<'_>) -> PyResult<Held<'_>> {
        let locked = self.locked();
        if locked.was_held.load(Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err(
                "this process was forked while another thread was in a step of this optimizer, whose parameters may \
                 have been stepped in part: fork between steps, or load the model's and the optimizer's state",
            ));
        }
        locked.lock(py)
    }

    /// As [`hold`](Self::hold), after a state was loaded: a step that was under way when this process was forked no
    /// longer counts.
    pub fn hold_anew(&self, py: Python<'_>) -> PyResult<Held<'_>> {
        let locked = self.locked();
        locked.was_held.store(false, Ordering::Relaxed);
        locked.lock(py)
    }

    /// What is kept, unless a thread holds it.
    pub fn try_hold(&self) -> Option<MutexGuard<'_, Inner>> {
        // SAFETY: from `Box::into_raw`, and freed by `drop` only.
        unsafe { &*self.0.load(Ordering::Acquire) }.inner.try_lock().ok()
    }

    /// The lock of this process.
    fn locked(&self) -> &Locked {
        let found = self.0.load(Ordering::Acquire);
        // SAFETY: from `Box::into_raw`, and freed by `drop` only, here and below.
        let parents = unsafe { &*found };
        if parents.process == process::id() {
            return parents;
        }
        let new = Box::into_raw(Locked::new());
        // SAFETY: just made.
        let own = unsafe { &*new };
        // Other threads wait for the lock until what was kept is there.
        let mut inner = own.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let order = Ordering::AcqRel;
        if let Err(winner) = self.0.compare_exchange(found, new, order, Ordering::Acquire) {
            drop(inner);
            // SAFETY: ours, and nobody else has seen it.
            drop(unsafe { Box::from_raw(new) });
            // SAFETY: as above.
            return unsafe { &*winner };
        }
        // The parent's lock is not freed: a step of this thread may be under way, which forked.
        match parents.inner.try_lock() {
            Ok(mut kept) => *inner = core::mem::take(&mut *kept),
            Err(TryLockError::Poisoned(_)) => {}
            Err(TryLockError::WouldBlock) => own.was_held.store(true, Ordering::Relaxed),
        }
        drop(inner);
        own
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        // SAFETY: from `Box::into_raw`; nobody else can see it any more.
        let locked = unsafe { Box::from_raw(*self.0.get_mut()) };
        if matches!(locked.inner.try_lock(), Err(TryLockError::WouldBlock)) {
            // A thread of the parent was in the middle of it.
            core::mem::forget(locked);
        }
    }
}

thread_local! {
    static HERE: u8 = const { 0 };
}

/// A number of this thread, not 0.
fn this_thread() -> usize {
    HERE.with(|here| ptr::from_ref(here) as usize)
}

/// The memory of a stepper, for one thread.
pub(super) struct Held<'a> {
    pub inner: MutexGuard<'a, Inner>,
    holder: &'a AtomicUsize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Nothing borrowed outlives a step.
        self.inner.tensors.clear();
        self.inner.grads.clear();
        self.holder.store(0, Ordering::Relaxed);
    }
}
