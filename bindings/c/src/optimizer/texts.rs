//! Texts as C has them.

use core::{
    ffi::{CStr, c_char},
    iter, ptr,
    sync::atomic::{AtomicPtr, Ordering},
};
use std::ffi::CString;

/// A text that is kept for the life of the process, and the texts that were kept before it.
struct Kept {
    text: CString,
    before: Option<&'static Kept>,
}

/// The last text that was kept. There is no lock: in a child of `fork`, a lock that another thread held would
/// never be released.
static LAST: AtomicPtr<Kept> = AtomicPtr::new(ptr::null_mut());

/// All texts that are kept; the last one first.
fn kept() -> Option<&'static Kept> {
    // SAFETY: null, or a leaked text, which nobody changes. Acquire: it was written before.
    unsafe { LAST.load(Ordering::Acquire).as_ref() }
}

fn find(text: &str, last: Option<&'static Kept>) -> Option<&'static CStr> {
    let all = iter::successors(last, |kept| kept.before);
    all.map(|kept| kept.text.as_c_str()).find(|found| found.to_bytes() == text.as_bytes())
}

/// A text as C has it: the same pointer for the same text, for the life of the process.
pub(super) fn text(text: &str) -> *const c_char {
    let mut last = kept();
    if let Some(found) = find(text, last) {
        return found.as_ptr();
    }
    // No text of the core has a zero in it.
    let new = Box::into_raw(Box::new(Kept {
        text: CString::new(text).unwrap_or_default(),
        before: last,
    }));
    loop {
        let expected = last.map_or(ptr::null_mut(), |last| ptr::from_ref(last).cast_mut());
        // Release: another thread that finds the text sees all of it.
        match LAST.compare_exchange(expected, new, Ordering::Release, Ordering::Relaxed) {
            // SAFETY: leaked, and from here on nobody changes it.
            Ok(_) => return unsafe { &*new }.text.as_ptr(),
            Err(_) => last = kept(),
        }
        // Another thread has kept a text in the meantime: perhaps this one.
        if let Some(found) = find(text, last) {
            // SAFETY: from `into_raw` above, and no other thread knows it.
            drop(unsafe { Box::from_raw(new) });
            return found.as_ptr();
        }
        // SAFETY: as above.
        unsafe { (*new).before = last };
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread};

    use super::*;

    #[test]
    fn threads_that_ask_for_the_same_texts_get_the_same_pointers() {
        const TEXTS: usize = if cfg!(miri) { 5 } else { 100 };
        let begin = Barrier::new(4);
        let ask = || {
            begin.wait();
            let of = |number| text(&format!("text {number}")).addr();
            (0..TEXTS).map(of).collect::<Vec<_>>()
        };
        let found = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().expect("pointers")).collect::<Vec<_>>()
        });
        assert!(found.iter().all(|one| *one == found[0]));
        for number in 0..TEXTS {
            let expected = format!("text {number}");
            // SAFETY: a text that is kept.
            let found = unsafe { CStr::from_ptr(text(&expected)) };
            assert_eq!(found.to_bytes(), expected.as_bytes());
        }
    }
}
