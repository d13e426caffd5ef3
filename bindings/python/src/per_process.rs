//! Values that a forked child makes anew: it has neither the threads of its parent nor the locks that they held.

use std::{
    ptr,
    sync::atomic::{AtomicPtr, Ordering},
};

/// A value of this process. A forked child makes its own, and leaves that of the parent as it is.
pub struct PerProcess<T: 'static>(AtomicPtr<(u32, T)>);

impl<T: Default + Sync> PerProcess<T> {
    pub const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    pub fn get(&self) -> &'static T {
        let process = std::process::id();
        loop {
            let found = self.0.load(Ordering::Acquire);
            // SAFETY: null, or from `Box::into_raw` below and never freed.
            if let Some((of, value)) = unsafe { found.as_ref() }
                && *of == process
            {
                return value;
            }
            let new = Box::into_raw(Box::new((process, T::default())));
            let order = Ordering::AcqRel;
            if self.0.compare_exchange(found, new, order, Ordering::Acquire).is_err() {
                // SAFETY: ours, and nobody else has seen it.
                drop(unsafe { Box::from_raw(new) });
            }
        }
    }
}
