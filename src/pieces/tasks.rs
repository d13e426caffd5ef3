//! Helpers that are the tasks of a framework's own thread pool.

use core::{
    any::Any,
    iter, mem,
    sync::atomic::{AtomicUsize, Ordering},
};
use std::{
    panic::{self, AssertUnwindSafe},
    sync::{Mutex, PoisonError},
};

use super::row::Body;
use crate::exec::RunTasks;

/// Does `pieces` pieces of work in up to `most` tasks. What the tasks leave, the caller does.
///
/// # Panics
///
/// With the panic of a body: none reaches the framework.
pub(super) fn run(tasks: &dyn RunTasks, most: usize, pieces: usize, body: &Body<'_>) {
    let next = AtomicUsize::new(0);
    let first_panic: Mutex<Option<Box<dyn Any + Send>>> = Mutex::new(None);
    let order = Ordering::Relaxed;
    let take = || {
        let next = next.fetch_update(order, order, |next| (next < pieces).then(|| next + 1));
        next.ok()
    };
    let work = || {
        if let Some(first) = take() {
            body(&mut iter::once(first).chain(iter::from_fn(take)));
        }
    };
    tasks.run(most, &|_| {
        if let Err(panic) = panic::catch_unwind(AssertUnwindSafe(work)) {
            // Nobody begins another piece.
            next.store(pieces, order);
            let mut first = first_panic.lock().unwrap_or_else(PoisonError::into_inner);
            match *first {
                None => *first = Some(panic),
                // Dropping what was thrown could panic.
                Some(_) => mem::forget(panic),
            }
        }
    });
    work();
    let first_panic = first_panic.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(panic) = first_panic {
        panic::resume_unwind(panic);
    }
}
