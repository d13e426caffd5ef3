//! Memory on huge pages.

use core::{ffi::c_void, ptr};

use super::{
    exec::{free, put},
    memory::{Place, adamant_type, check_memory, type_of},
    status::{Failure, adamant_status, guarded, refuse},
    versioned::check_pointer,
};
use adamant::{Buffer, BufferElement};

/// An array of zeros that begins on a cache line. A large one lies on huge pages, if Linux grants them. Steps
/// on a few rows of a large table are faster there. All functions also take any other memory.
pub struct adamant_buffer {
    /// Kept, since another borrow of the elements would invalidate the pointers that were given out.
    data: *mut c_void,
    _memory: Zeros,
}

/// Zeros of any type, by the size of its elements.
#[allow(dead_code, reason = "kept to be freed")]
enum Zeros {
    Of1(Buffer<u8>),
    Of2(Buffer<u16>),
    Of4(Buffer<f32>),
    Of8(Buffer<f64>),
}

/// # Memory on huge pages
///
/// Allocates `len` zeros of any type but ADAMANT_NONE, and writes the handle to `*buffer`.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for buffer, ADAMANT_UNKNOWN_VALUE or
/// ADAMANT_TYPE_MISMATCH for type, ADAMANT_OUT_OF_MEMORY for len.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_buffer_new(
    len: usize,
    r#type: u32,
    buffer: *mut *mut adamant_buffer,
) -> adamant_status {
    /// The most bytes that alignment and rounding add.
    const MORE: usize = 4 << 20;

    guarded(|| {
        check_pointer(buffer, "buffer")?;
        let element = type_of(r#type, Place::of(&"buffer"))?;
        if element == adamant_type::ADAMANT_NONE {
            refuse!(ADAMANT_TYPE_MISMATCH, "type is ADAMANT_NONE, which has no elements");
        }
        let bytes = len.checked_mul(element.bytes()).and_then(|bytes| bytes.checked_add(MORE));
        check_memory(bytes, format_args!("{len} elements of {element:?}"))?;
        // SAFETY: the caller's promise.
        unsafe { put(buffer, "buffer", Box::into_raw(Box::new(zeros(len, element)))) }
    })
}

/// Zeros are the same bits in all types of a size.
fn zeros(len: usize, element: adamant_type) -> adamant_buffer {
    fn of<E: BufferElement>(len: usize, kind: fn(Buffer<E>) -> Zeros) -> adamant_buffer {
        let mut memory = Buffer::<E>::zeros(len);
        let data = memory.as_mut_ptr().cast();
        adamant_buffer { data, _memory: kind(memory) }
    }
    match element.bytes() {
        8 => of(len, Zeros::Of8),
        4 => of(len, Zeros::Of4),
        2 => of(len, Zeros::Of2),
        _ => of(len, Zeros::Of1),
    }
}

/// The first element of a buffer, the same pointer each time; null if `buffer` is null. Any number of threads
/// can call it at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_buffer_data(buffer: *const adamant_buffer) -> *mut c_void {
    // SAFETY: null, or a live buffer: the caller's promise.
    unsafe { buffer.as_ref() }.map_or(ptr::null_mut(), |buffer| buffer.data)
}

/// Frees a buffer. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_buffer_free(buffer: *mut adamant_buffer) {
    // SAFETY: null, or from `adamant_buffer_new` and freed once: the caller's promise.
    unsafe { free(buffer) }
}
