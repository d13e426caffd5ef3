//! Structs that begin with their size, since the caller may know another version of them than the library.

use core::fmt::Display;

use super::status::{Failure, adamant_status, refuse};

/// A `repr(C)` struct for which every bit pattern is valid, and whose first field is its size as a
/// `usize`. It has no padding at the end: a field that is added later must not be where padding was.
pub(super) unsafe trait Versioned: Copy {
    const NAME: &'static str;
    /// The sizes of the struct in earlier versions, which have fewer fields.
    const EARLIER: &'static [usize];
}

/// Implements [`Versioned`]: the struct, and those of its last fields that a caller may leave out by
/// a smaller size, from the first that may be missing on.
macro_rules! versioned {
    ($name:ident: $($later:ident),*) => {
        // SAFETY: integers, floats, raw pointers and structs of them; `size` is the first field.
        unsafe impl versioned::Versioned for $name {
            const NAME: &'static str = stringify!($name);
            const EARLIER: &'static [usize] = &[$(core::mem::offset_of!($name, $later)),*];
        }
        const _: () = assert!(core::mem::offset_of!($name, size) == 0);
    };
}
pub(super) use versioned;

/// The largest size of a later version's struct.
const LARGEST: usize = 4096;

/// Whether a pointer is neither null nor misaligned.
#[inline]
pub(super) fn is_pointer<T>(pointer: *const T) -> bool {
    !pointer.is_null() && pointer.is_aligned()
}

/// Fails if a pointer is null or misaligned.
pub(super) fn check_pointer<T>(pointer: *const T, name: impl Display) -> Result<(), Failure> {
    if pointer.is_null() {
        refuse!(ADAMANT_NULL_POINTER, "{name} is null");
    }
    if !pointer.is_aligned() {
        let align = align_of::<T>();
        refuse!(ADAMANT_MISALIGNED, "{name} is at {pointer:p}, which is not a multiple of {align}");
    }
    Ok(())
}

fn check_size<S: Versioned>(size: usize, name: impl Display) -> Result<(), Failure> {
    let known = size == size_of::<S>() || S::EARLIER.contains(&size);
    // Later versions have more fields, and no padding at the end either.
    let more = size.checked_sub(size_of::<S>());
    let is_later = size <= LARGEST && more.is_some_and(|more| more.is_multiple_of(align_of::<S>()));
    if !known && !is_later {
        refuse!(
            ADAMANT_STRUCT_SIZE,
            "the size of {name} is {size}, but {} has {} bytes (the first field is sizeof({}))",
            S::NAME,
            size_of::<S>(),
            S::NAME
        );
    }
    Ok(())
}

/// The size that a struct of the caller says it has, checked.
///
/// # Safety
///
/// A pointer that is neither null nor misaligned is to a struct that is as large as its first field says.
#[inline]
pub(super) unsafe fn size_of_struct<S: Versioned>(
    pointer: *const S,
    name: impl Display + Copy,
) -> Result<usize, Failure> {
    check_pointer(pointer, name)?;
    // SAFETY: aligned, not null, and so readable: the caller's promise.
    let size = unsafe { pointer.cast::<usize>().read() };
    check_size::<S>(size, name)?;
    if size > size_of::<S>() {
        let more = size - size_of::<S>();
        // SAFETY: readable up to its size: the caller's promise.
        let more = unsafe { core::slice::from_raw_parts(pointer.add(1).cast::<u8>(), more) };
        if more.iter().any(|&byte| byte != 0) {
            refuse!(
                ADAMANT_STRUCT_SIZE,
                "{name} has {size} bytes, of which this library knows {}, and the others are not 0",
                size_of::<S>()
            );
        }
    }
    Ok(size)
}

/// A copy of a struct of the caller. Fields that it does not have are as in `defaults`.
///
/// # Safety
///
/// As [`size_of_struct`].
#[inline]
pub(super) unsafe fn read<S: Versioned>(
    pointer: *const S,
    name: &str,
    defaults: S,
) -> Result<S, Failure> {
    // SAFETY: the same promise.
    let size = unsafe { size_of_struct(pointer, name)? };
    // SAFETY: as above.
    Ok(unsafe { read_sized(pointer, size, defaults) })
}

/// A copy of the first `size` bytes of a struct, the others as in `defaults`.
///
/// # Safety
///
/// So many bytes are readable.
#[inline]
pub(super) unsafe fn read_sized<S: Versioned>(pointer: *const S, size: usize, defaults: S) -> S {
    if size >= size_of::<S>() {
        // SAFETY: the caller's promise; any bytes are a valid struct, at any alignment.
        return unsafe { pointer.read_unaligned() };
    }
    let mut found = defaults;
    // SAFETY: the promise for what is read; `found` has more than `size` bytes, and takes any.
    unsafe {
        pointer.cast::<u8>().copy_to_nonoverlapping((&raw mut found).cast(), size);
    }
    found
}

/// Writes as much of a struct as the caller has room for, and zeros beyond; `value.size` becomes `size`.
///
/// # Safety
///
/// A pointer that is neither null nor misaligned is to `size` bytes that may be written.
pub(super) unsafe fn write<S: Versioned>(
    pointer: *mut S,
    size: usize,
    name: &str,
    value: S,
) -> Result<(), Failure> {
    check_pointer(pointer, name)?;
    check_size::<S>(size, name)?;
    let (bytes, known) = (pointer.cast::<u8>(), size.min(size_of::<S>()));
    // SAFETY: `size` bytes may be written: the caller's promise. The first are the size, by `Versioned`.
    unsafe {
        bytes.copy_from_nonoverlapping((&raw const value).cast(), known);
        bytes.add(known).write_bytes(0, size - known);
        pointer.cast::<usize>().write(size);
    }
    Ok(())
}
