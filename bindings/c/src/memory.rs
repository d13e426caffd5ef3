//! The caller's arrays: their checks, and the only place that makes slices of them.

mod claims;

use core::{convert::Infallible, ffi::c_void, fmt, slice};

use half::{bf16, f16};

pub(super) use claims::Claims;

use super::{
    status::{Failure, adamant_status, refuse},
    versioned::check_pointer,
};

/// The types of arrays.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum adamant_type {
    /// No array: its length is 0.
    ADAMANT_NONE = 0,
    /// `float`.
    ADAMANT_F32 = 1,
    /// `double`.
    ADAMANT_F64 = 2,
    /// The upper half of a float, as `uint16_t`.
    ADAMANT_BF16 = 3,
    /// IEEE 754 binary16, as `uint16_t`.
    ADAMANT_F16 = 4,
    /// Codes of 8 bits, as `uint8_t`, with a `float` for each 256 of them: see `adamant_q8`.
    ADAMANT_Q8 = 5,
    /// The lower half of parameters that are split in two, as `uint16_t`: see `adamant_tensor`.
    ADAMANT_LOW16 = 6,
    /// `uint32_t`, for indices, like all that follow.
    ADAMANT_U32 = 7,
    /// `uint64_t`.
    ADAMANT_U64 = 8,
    /// `int32_t`.
    ADAMANT_I32 = 9,
    /// `int64_t`.
    ADAMANT_I64 = 10,
}

/// An array of the caller: of any length, at any address that is aligned for its type. An array without
/// elements may have a null pointer. All zeros means that there is no array.
///
/// `data` is not const, but a function writes only those arrays of which its comment says so.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct adamant_array {
    /// The first element.
    pub data: *mut c_void,
    /// The number of elements.
    pub len: usize,
    /// One of `adamant_type`.
    pub r#type: u32,
}

impl adamant_array {
    pub(super) const NONE: Self = Self { data: core::ptr::null_mut(), len: 0, r#type: 0 };

    /// The mistake in it, for [`Claims::claim`].
    #[cold]
    #[inline(never)]
    fn refusal(&self, place: Place) -> Failure {
        let Self { len, .. } = *self;
        let start = self.data.addr();
        let refusal = || {
            let element = type_of(self.r#type, place)?;
            let size = element.bytes();
            if element == adamant_type::ADAMANT_NONE {
                refuse!(
                    ADAMANT_TYPE_MISMATCH,
                    "{place} has {len} elements, but its type is ADAMANT_NONE"
                );
            }
            if start == 0 {
                let plural = if len == 1 { "" } else { "s" };
                refuse!(ADAMANT_NULL_POINTER, "{place} is null, but has {len} element{plural}");
            }
            if !start.is_multiple_of(size) {
                refuse!(
                    ADAMANT_MISALIGNED,
                    "{place} is at {start:#x}, which is not a multiple of {size}"
                );
            }
            refuse!(
                ADAMANT_TOO_LARGE,
                "{place} has {len} elements of {size} bytes, more than memory can be"
            )
        };
        let refused: Result<Infallible, Failure> = refusal();
        match refused {
            Err(failure) => failure,
            Ok(never) => match never {},
        }
    }

    /// Checks that it is of a type.
    pub(super) fn expect(&self, expected: adamant_type, place: Place) -> Result<(), Failure> {
        let found = type_of(self.r#type, place)?;
        if found != expected {
            refuse!(ADAMANT_TYPE_MISMATCH, "{place} is {found:?}, but must be {expected:?}");
        }
        Ok(())
    }

    /// As a slice.
    ///
    /// # Safety
    ///
    /// The array was [claimed](Claims::claim) with a type of `T`'s size, the call's claims were found
    /// [apart](Claims::check) (or `step/plain.rs` has made the same checks), and no slice of it is alive that may be
    /// written.
    #[inline]
    pub(super) unsafe fn slice<'a, T: Element>(&self) -> &'a [T] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: not null, aligned, at most `isize::MAX` bytes: `claim`. Initialised, and written by
        // nobody else: the caller's promise, and `check` for the arrays of the call.
        unsafe { slice::from_raw_parts(self.data.cast(), self.len) }
    }

    /// As a slice that may be written.
    ///
    /// # Safety
    ///
    /// As [`slice`](Self::slice), the array was claimed to be written, and no other slice of it is
    /// alive.
    #[inline]
    pub(super) unsafe fn slice_mut<'a, T: Element>(&self) -> &'a mut [T] {
        if self.len == 0 {
            return &mut [];
        }
        // SAFETY: as in `slice`; read by nobody else, too.
        unsafe { slice::from_raw_parts_mut(self.data.cast(), self.len) }
    }
}

/// The types by their numbers.
const TYPES: [adamant_type; 11] = {
    use adamant_type::*;
    [
        ADAMANT_NONE,
        ADAMANT_F32,
        ADAMANT_F64,
        ADAMANT_BF16,
        ADAMANT_F16,
        ADAMANT_Q8,
        ADAMANT_LOW16,
        ADAMANT_U32,
        ADAMANT_U64,
        ADAMANT_I32,
        ADAMANT_I64,
    ]
};

const _: () = {
    let mut number = 0;
    while number < TYPES.len() {
        assert!(TYPES[number] as usize == number);
        number += 1;
    }
};

/// A type by its number.
pub(super) fn type_of(number: u32, place: Place) -> Result<adamant_type, Failure> {
    match TYPES.get(number as usize) {
        Some(&found) => Ok(found),
        None => {
            refuse!(
                ADAMANT_UNKNOWN_VALUE,
                "the type of {place} is {number}, which is no adamant_type"
            )
        }
    }
}

impl adamant_type {
    /// The bytes of an element, which are also its alignment.
    #[inline]
    pub(super) fn bytes(self) -> usize {
        use adamant_type::*;
        match self {
            ADAMANT_F32 | ADAMANT_U32 | ADAMANT_I32 => 4,
            ADAMANT_F64 | ADAMANT_U64 | ADAMANT_I64 => 8,
            ADAMANT_BF16 | ADAMANT_F16 | ADAMANT_LOW16 => 2,
            ADAMANT_NONE | ADAMANT_Q8 => 1,
        }
    }
}

/// The types of elements of slices: plain numbers, for which all bits are valid.
pub(super) trait Element: Copy {}

macro_rules! elements {
    ($($element:ty),+) => { $(impl Element for $element {})+ };
}

elements!(f32, f64, bf16, f16, u8, u16, u32, u64, i32, i64);

/// The name of an array in a message. It fits in two registers, since every array of a call has one.
#[derive(Clone, Copy)]
pub(super) struct Place {
    name: &'static &'static str,
    /// The position among the arrays of this name, and in the upper half the number of the tensor;
    /// [`ONLY`](Self::ONLY) if there is only one.
    which: u64,
}

impl Place {
    const ONLY: u64 = 0xffff_ffff;

    pub(super) const fn of(name: &'static &'static str) -> Self {
        Self { name, which: Self::ONLY << 32 | Self::ONLY }
    }

    pub(super) const fn number(self, number: usize) -> Self {
        Self { which: self.which & Self::ONLY << 32 | number as u64 & Self::ONLY, ..self }
    }

    pub(super) const fn of_tensor(self, tensor: usize) -> Self {
        Self { which: self.which & Self::ONLY | (tensor as u64) << 32, ..self }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, tensor) = (self.which & Self::ONLY, self.which >> 32);
        f.write_str(self.name)?;
        if number != Self::ONLY {
            write!(f, "[{number}]")?;
        }
        if tensor != Self::ONLY {
            write!(f, " of tensor {tensor}")?;
        }
        Ok(())
    }
}

/// An array of a call: the caller's, its name, the type that it must have if it has any elements, and whether
/// it is written.
type Wanted = (*const adamant_array, &'static &'static str, Option<adamant_type>, bool);

/// Copies of all arrays of a call, checked and claimed; and their types.
///
/// # Safety
///
/// Each pointer is null, misaligned, or to an array.
pub(super) unsafe fn claim_arrays<const N: usize>(
    wanted: [Wanted; N],
) -> Result<([adamant_array; N], [adamant_type; N]), Failure> {
    let mut claims = Claims::new();
    let (mut found, mut types) = ([adamant_array::NONE; N], [adamant_type::ADAMANT_NONE; N]);
    for (at, (array, name, expected, written)) in wanted.into_iter().enumerate() {
        check_pointer(array, name)?;
        // SAFETY: not null, aligned, and so an array: the caller's promise.
        found[at] = unsafe { array.read() };
        types[at] = claims.claim(&found[at], written, Place::of(name))?;
        match expected {
            Some(expected) if types[at] != adamant_type::ADAMANT_NONE => {
                found[at].expect(expected, Place::of(name))?;
            }
            _ => {}
        }
    }
    claims.check()?;
    Ok((found, types))
}

/// Fails unless there is memory for so many bytes. Without this, an allocation of Rust would abort.
pub(super) fn check_memory(bytes: Option<usize>, what: fmt::Arguments<'_>) -> Result<(), Failure> {
    let mut probe = Vec::<u8>::new();
    match bytes.map(|bytes| probe.try_reserve_exact(bytes)) {
        Some(Ok(())) => Ok(()),
        _ => refuse!(ADAMANT_OUT_OF_MEMORY, "there is no memory for {what}"),
    }
}
