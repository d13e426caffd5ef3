//! Arrays that several threads write, each its own elements.

use core::ops::Range;

use super::BLOCK;

/// Elements of an array that is written by several threads, each its own.
///
/// # Safety
///
/// `range` is within the array. Until the result is dropped, no other reference to these elements is
/// used.
#[inline(always)]
#[allow(unsafe_code, reason = "threads share an array, each for elements of its own")]
#[allow(clippy::mut_from_ref, reason = "the caller promises that nobody else uses these elements")]
pub(crate) unsafe fn elements_mut<'s, T>(array: &'s &mut [T], range: Range<usize>) -> &'s mut [T] {
    debug_assert!(range.start <= range.end && range.end <= len_of(array));
    // SAFETY: within the array, and not aliased: the caller's promise. The reference is alive for `'s`, so
    // nobody else but the threads of this call uses the array.
    unsafe { core::slice::from_raw_parts_mut(first_of(array).add(range.start), range.len()) }
}

/// The array as the pointer that the reference is. A reference made of it would be for reading only, and it would
/// read all of the array, also the elements that other threads write.
#[inline(always)]
#[allow(unsafe_code, reason = "threads share an array, each for elements of its own")]
fn pointer_to<T>(array: &&mut [T]) -> *mut [T] {
    // SAFETY: a reference to a slice has the layout of a pointer to one, and is valid to read.
    unsafe { core::ptr::from_ref(array).cast::<*mut [T]>().read() }
}

/// The number of elements of an array that other threads may be writing.
#[inline(always)]
pub(crate) fn len_of<T>(array: &&mut [T]) -> usize {
    pointer_to(array).len()
}

/// The address of the first element of an array that other threads may be writing.
#[inline(always)]
pub(super) fn first_of<T>(array: &&mut [T]) -> *mut T {
    pointer_to(array).cast()
}

/// The scales of a range of codes.
pub(crate) fn scales_of(range: &Range<usize>) -> Range<usize> {
    range.start / BLOCK..range.end.div_ceil(BLOCK)
}

/// Arrays that threads share: a part of one, for a thread of its own.
macro_rules! parts {
    ($array:ident { $($variant:ident($kind:tt $slice:ident $(, $beside:ident $(=> $scales:ident)?)?)),+ $(,)? }) => {
        impl $array<'_> {
            /// The number of elements.
            #[inline]
            pub(crate) fn len(&self) -> usize {
                match self {
                    $(Self::$variant($slice, ..) => parts!(@len $kind $slice),)+
                }
            }

            /// Some elements, for whoever has all of them; a range of 8-bit codes begins with a block.
            #[inline(always)]
            pub(crate) fn slice_mut(&mut self, range: Range<usize>) -> $array<'_> {
                match self {
                    $(Self::$variant($slice $(, $beside)?) => {
                        $(
                            let beside = range.clone();
                            $(let beside = $scales(&beside);)?
                            let $beside = &mut $beside[beside];
                        )?
                        $array::$variant(parts!(@safe $kind $slice, range) $(, $beside)?)
                    })+
                }
            }

            /// Some elements.
            ///
            /// # Safety
            ///
            /// As [`elements_mut`], for every array; a range of 8-bit codes begins with a block.
            #[inline(always)]
            #[allow(unsafe_code, reason = "threads share an array, each for elements of its own")]
            pub(crate) unsafe fn part(&self, range: Range<usize>) -> $array<'_> {
                match self {
                    $(Self::$variant($slice $(, $beside)?) => {
                        $(
                            let beside = range.clone();
                            $(let beside = $scales(&beside);)?
                            // SAFETY: the caller's promise.
                            let $beside = unsafe { elements_mut($beside, beside) };
                        )?
                        $array::$variant(parts!(@$kind $slice, range) $(, $beside)?)
                    })+
                }
            }

            /// Asks for the memory of some elements.
            #[inline(always)]
            pub(crate) fn prefetch(&self, start: usize, len: usize) {
                match self {
                    $(Self::$variant($slice, ..) => {
                        let first = parts!(@first $kind $slice).wrapping_add(start);
                        $crate::simd::prefetch_from(first, len);
                    })+
                }
            }
        }
    };
    // SAFETY: the caller's promise.
    (@mut $slice:ident, $range:ident) => { unsafe { elements_mut($slice, $range) } };
    (@ref $slice:ident, $range:ident) => { &$slice[$range] };
    (@len mut $slice:ident) => { $crate::array::shared::len_of($slice) };
    (@len ref $slice:ident) => { $slice.len() };
    (@first mut $slice:ident) => { $crate::array::shared::first_of($slice).cast_const() };
    (@first ref $slice:ident) => { $slice.as_ptr() };
    (@safe mut $slice:ident, $range:ident) => { &mut $slice[$range] };
    (@safe ref $slice:ident, $range:ident) => { &$slice[$range] };
}

pub(super) use parts;
