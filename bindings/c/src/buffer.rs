//! Memory on huge pages.

use core::{ffi::c_void, ptr};

use super::{
    exec::{free, put},
    memory::{Place, adamant_type, check_memory, type_of},
    status::{Failure, adamant_status, guarded, refuse},
    versioned::check_pointer,
};
use adamant::{Buffer, Float};

/// An array of zeros that begins on a cache line, and lies on huge pages where it is large and Linux
/// grants them: for tables of which a step touches a few rows. Any other memory will do, too.
pub struct adamant_buffer(Zeros);

enum Zeros {
    F32(Buffer<f32>),
    F64(Buffer<f64>),
}

/// # Memory on huge pages
///
/// Allocates `len` zeros of a type, ADAMANT_F32 or ADAMANT_F64, and writes the handle to `*buffer`.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for buffer, ADAMANT_UNKNOWN_VALUE or
/// ADAMANT_TYPE_MISMATCH for type, ADAMANT_OUT_OF_MEMORY for len.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_buffer_new(
    len: usize,
    r#type: u32,
    buffer: *mut *mut adamant_buffer,
) -> adamant_status {
    /// What alignment and rounding may add.
    const MORE: usize = 4 << 20;
    fn zeros<F: Float>(len: usize) -> Result<Buffer<F>, Failure> {
        let bytes = len.checked_mul(size_of::<F>()).and_then(|bytes| bytes.checked_add(MORE));
        check_memory(bytes, format_args!("{len} elements of {}", F::NAME))?;
        Ok(Buffer::zeros(len))
    }

    guarded(|| {
        check_pointer(buffer, "buffer")?;
        let zeros = match type_of(r#type, Place::of(&"buffer"))? {
            adamant_type::ADAMANT_F32 => Zeros::F32(zeros(len)?),
            adamant_type::ADAMANT_F64 => Zeros::F64(zeros(len)?),
            other => refuse!(
                ADAMANT_TYPE_MISMATCH,
                "type is {other:?}, but must be ADAMANT_F32 or ADAMANT_F64"
            ),
        };
        // SAFETY: the caller's promise.
        unsafe { put(buffer, "buffer", Box::into_raw(Box::new(adamant_buffer(zeros)))) }
    })
}

/// The first element of a buffer; null if `buffer` is.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_buffer_data(buffer: *mut adamant_buffer) -> *mut c_void {
    // SAFETY: null, or a live buffer that no other thread is asking: the caller's promise.
    match unsafe { buffer.as_mut() } {
        Some(adamant_buffer(Zeros::F32(zeros))) => zeros.as_mut_ptr().cast(),
        Some(adamant_buffer(Zeros::F64(zeros))) => zeros.as_mut_ptr().cast(),
        None => ptr::null_mut(),
    }
}

/// Frees a buffer. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_buffer_free(buffer: *mut adamant_buffer) {
    // SAFETY: null, or from `adamant_buffer_new` and freed once: the caller's promise.
    unsafe { free(buffer) }
}
