//! Asking for memory ahead of its use.

/// How far ahead the kernel asks, in bytes: a page, since the CPU's own prefetchers stop at its end.
pub(crate) const AHEAD: usize = 4 << 10;

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
