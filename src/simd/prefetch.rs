//! Asking for memory ahead of its use.

/// How far ahead the kernel asks, in bytes: a page, since the CPU's own prefetchers stop at its end.
pub(crate) const AHEAD: usize = 4 << 10;

pub(crate) const CACHE_LINE: usize = 64;

/// Prefetches the cache lines of `len` elements of the slice, from `start` on, but at most a page of them: after that,
/// the CPU prefetches by itself.
#[inline(always)]
pub(crate) fn prefetch_row<T>(slice: &[T], start: usize, len: usize) {
    prefetch_from(slice.as_ptr().wrapping_add(start), len);
}

/// As [`prefetch_row`], for elements that other threads may be writing; `first` is the first of them.
#[inline(always)]
pub(crate) fn prefetch_from<T>(first: *const T, len: usize) {
    let line = (CACHE_LINE / size_of::<T>()).max(1);
    let len = len.min(AHEAD / size_of::<T>());
    let mut ahead = 0;
    while ahead < len {
        prefetch_line(first.wrapping_add(ahead));
        ahead += line;
    }
    if len > 0 {
        // A row that begins within a line ends in another one.
        prefetch_line(first.wrapping_add(len - 1));
    }
}

/// Prefetches the cache lines of the item that is `bytes` after an item of the slice. Nothing is prefetched for items
/// of less than half a line, since each line would be asked for several times.
#[inline(always)]
pub(crate) fn prefetch_item<T>(slice: &[T], index: usize, bytes: usize) {
    if size_of::<T>() < CACHE_LINE / 2 {
        return;
    }
    prefetch_near(slice, index, bytes);
    if size_of::<T>() > CACHE_LINE {
        prefetch_near(slice, index, bytes + CACHE_LINE);
    }
}

/// Prefetches the cache line that is `bytes` after an element of the slice. Neither need exist.
#[inline(always)]
pub(crate) fn prefetch_near<T>(slice: &[T], index: usize, bytes: usize) {
    prefetch_line(slice.as_ptr().wrapping_add(index).wrapping_byte_add(bytes));
}

/// Asks for the cache line of an address.
#[inline(always)]
#[allow(unsafe_code, reason = "the intrinsic takes a pointer, and pulp has none")]
fn prefetch_line<T>(line: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch of any address, mapped or not, has no effect that a program could see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = line;
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::{CACHE_LINE, prefetch_row};

    #[test]
    fn rows_of_elements_of_any_size_come_to_an_end() {
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            prefetch_row(&[0_u8; 3], 0, 3);
            prefetch_row(&[[0_u8; CACHE_LINE]; 3], 0, 3);
            prefetch_row(&[[0_u8; CACHE_LINE + 1]; 3], 0, 3);
            prefetch_row(&[[0_u8; 5000]; 3], 0, 3);
            done.send(())
        });
        assert_eq!(is_done.recv_timeout(Duration::from_secs(60)), Ok(()));
    }
}
