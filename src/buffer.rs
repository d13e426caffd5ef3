//! Memory that adamant owns.

use core::{
    fmt,
    ops::{Deref, DerefMut},
};

use aligned_vec::{AVec, RuntimeAlign};

use crate::Float;

const CACHE_LINE: usize = 64;
const HUGE_PAGE: usize = 2 << 20;

/// An array of zeros that begins on a cache line, and lies on huge pages where it is large and Linux
/// grants them; a slice in all else.
///
/// Steps on a few rows of a large table wait for the CPU to find the page of each; on huge pages
/// there are so few that it knows them. Moments of a [`State`](crate::State) lie on huge pages
/// anyway. This is for the table itself.
///
/// # Examples
///
/// ```
/// use adamant::Buffer;
///
/// let mut table = Buffer::<f32>::zeros(1000 * 64);
/// table[64..128].fill(0.5);
/// assert_eq!(table.iter().sum::<f32>(), 32.0);
/// ```
pub struct Buffer<F: Float>(AVec<F, RuntimeAlign>);

impl<F: Float> Buffer<F> {
    /// `len` zeros.
    ///
    /// # Panics
    ///
    /// If they take more than `isize::MAX` bytes, as `Vec` does.
    pub fn zeros(len: usize) -> Self {
        let huge = len.saturating_mul(size_of::<F>()) >= HUGE_PAGE;
        let mut buffer = AVec::with_capacity(if huge { HUGE_PAGE } else { CACHE_LINE }, len);
        if huge {
            // Before the first touch, which is what gives the memory its pages.
            advise_huge_pages(&buffer);
        }
        buffer.resize(len, F::default());
        Self(buffer)
    }
}

impl<F: Float> Deref for Buffer<F> {
    type Target = [F];

    fn deref(&self) -> &[F] {
        &self.0
    }
}

impl<F: Float> DerefMut for Buffer<F> {
    fn deref_mut(&mut self) -> &mut [F] {
        &mut self.0
    }
}

impl<F: Float> Clone for Buffer<F> {
    fn clone(&self) -> Self {
        let mut buffer = Self::zeros(self.len());
        buffer.copy_from_slice(self);
        buffer
    }
}

impl<F: Float> fmt::Debug for Buffer<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "a system call that no dependency of ours wraps")]
fn advise_huge_pages<F>(buffer: &AVec<F, RuntimeAlign>) {
    let bytes = buffer.capacity() * size_of::<F>();
    // SAFETY: the range is the buffer's own allocation, which begins on a page and is not in use
    // yet; MADV_HUGEPAGE changes no contents. It is advice: failure costs speed only.
    unsafe { libc::madvise(buffer.as_ptr().cast_mut().cast(), bytes, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages<F>(_buffer: &AVec<F, RuntimeAlign>) {}
