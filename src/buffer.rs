//! Memory that adamant owns.

use core::{
    alloc::Layout,
    fmt,
    ops::{Deref, DerefMut},
};

use aligned_vec::{AVec, RuntimeAlign};
use half::{bf16, f16};

pub(crate) const CACHE_LINE: usize = 64;
pub(crate) const PAGE: usize = 4 << 10;
const HUGE_PAGE: usize = 2 << 20;

/// An array that begins on a cache line. A large one lies on huge pages, if Linux grants them. It is used
/// like a slice, and starts as zeros.
///
/// In a large table, each row is on another page of memory, and the CPU takes long to find the page. Of huge
/// pages there are so few that the CPU remembers where they are. The moments of a [`State`](crate::State)
/// already lie on huge pages. Use a `Buffer` for the table itself, and for moments in memory of your own. It
/// can have any type that a step takes: see [`BufferElement`].
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
pub struct Buffer<E: BufferElement>(AVec<E, RuntimeAlign>);

impl<E: BufferElement> Buffer<E> {
    /// Makes an array of `len` zeros.
    ///
    /// # Panics
    ///
    /// Panics if they take more than `isize::MAX` bytes, as `Vec` does.
    pub fn zeros(len: usize) -> Self {
        Self::aligned(len, CACHE_LINE)
    }

    /// As [`zeros`](Self::zeros), but the array begins on a page.
    pub(crate) fn on_page(len: usize) -> Self {
        Self::aligned(len, PAGE)
    }

    fn aligned(len: usize, align: usize) -> Self {
        let bytes = len.saturating_mul(size_of::<E>());
        let huge = bytes >= HUGE_PAGE;
        let align = if huge { HUGE_PAGE } else { align };
        // `aligned_vec` does not check this.
        assert!(
            Layout::from_size_align(bytes, align).is_ok(),
            "{len} elements of {} bytes, aligned to {align}, are more than isize::MAX bytes",
            size_of::<E>()
        );
        let mut buffer = AVec::with_capacity(align, len);
        if huge {
            // The system gives the memory its pages when they are first written, so the advice comes before.
            advise_huge_pages(&buffer);
        }
        buffer.resize(len, E::default());
        Self(buffer)
    }
}

impl<E: BufferElement> Deref for Buffer<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        &self.0
    }
}

impl<E: BufferElement> DerefMut for Buffer<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.0
    }
}

impl<E: BufferElement> Clone for Buffer<E> {
    fn clone(&self) -> Self {
        let mut buffer = Self::aligned(self.len(), self.0.alignment());
        buffer.copy_from_slice(self);
        buffer
    }
}

impl<E: BufferElement> fmt::Debug for Buffer<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

/// The types of elements of a [`Buffer`]: `f32`, `f64`, `bf16`, `f16`, `u16` (for the lower halves of
/// [`Param::from_halves`](crate::Param::from_halves)) and `u8` (for the codes of [`Q8`](crate::Q8)). Sealed.
pub trait BufferElement:
    sealed::Sealed + Copy + Default + fmt::Debug + Send + Sync + 'static
{
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($element:ty),+) => {
        $(
            impl sealed::Sealed for $element {}
            impl BufferElement for $element {}
        )+
    };
}

elements!(f32, f64, bf16, f16, u16, u8);

#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "a system call that no dependency of ours wraps")]
fn advise_huge_pages<E>(buffer: &AVec<E, RuntimeAlign>) {
    let bytes = buffer.capacity() * size_of::<E>();
    // SAFETY: the range is the buffer's own allocation, which begins on a page and is not in use
    // yet; MADV_HUGEPAGE changes no contents. It is advice: failure costs speed only.
    unsafe { libc::madvise(buffer.as_ptr().cast_mut().cast(), bytes, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages<E>(_buffer: &AVec<E, RuntimeAlign>) {}
