//! Asking for memory ahead of its use.

/// How far ahead the kernel asks, in bytes: a page, since the CPU's own prefetchers stop at its end.
pub(crate) const AHEAD: usize = 4 << 10;

pub(crate) const CACHE_LINE: usize = 64;

/// Asks for the cache lines of `len` elements of the slice, from one on: of their first page, if they
/// are more, since from there on the CPU goes ahead by itself.
#[inline(always)]
pub(crate) fn prefetch_row<T>(slice: &[T], start: usize, len: usize) {
    let line = CACHE_LINE / size_of::<T>();
    let len = len.min(AHEAD / size_of::<T>());
    let mut ahead = 0;
    while ahead < len {
        prefetch(slice, start, ahead);
        ahead += line;
    }
    if len > 0 {
        // A row that begins within a line ends in another one.
        prefetch(slice, start, len - 1);
    }
}

/// Asks for the cache line of the element `ahead` after the slice's element `index`, which need not
/// exist.
#[inline(always)]
#[allow(unsafe_code, reason = "the intrinsic takes a pointer, and pulp has none")]
pub(crate) fn prefetch<T>(slice: &[T], index: usize, ahead: usize) {
    #[cfg(target_arch = "x86_64")]
    {
        use core::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let line = slice.as_ptr().wrapping_add(index + ahead);
        // SAFETY: a prefetch of any address, mapped or not, has no effect that a program could see.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (slice, index, ahead);
}
