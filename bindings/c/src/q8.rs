//! Moments of 8 bits.

use super::{
    memory::{adamant_array, adamant_type, claim_arrays},
    status::{Failure, adamant_status, guarded, refuse},
};
use adamant::Q8;

/// The formats of ADAMANT_Q8: blocks of 256 elements, the last one possibly shorter, each with a scale
/// in float, and a code of 8 bits for each element. With e the bits of exponent of a code and f the bits
/// below them, a code stands for this number; code 0 for 0.
///
/// A number that does not fit becomes the largest that does; a block with NaN in it is NaN.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum adamant_q8 {
    /// Numbers of either sign: a bit of sign, 4 of e, 3 of f.
    /// +-scale * (2^(e-15) * (1 + f/8) - 2^-15)
    ADAMANT_Q8_SIGNED = 0,
    /// Averages and sums of squares, never negative: 5 bits of e, 3 of f.
    /// scale * (2^(e-31) * (1 + f/8) - 2^-31); a number that is not 0 has at least code 1.
    ADAMANT_Q8_SQUARES = 1,
    /// Other denominators, never negative: 4 bits of e, 4 of f.
    /// scale * (2^(e-15) * (1 + f/16) - 2^-15); a number that is not 0 has at least code 2.
    ADAMANT_Q8_UNSIGNED = 2,
}

/// The number of scales of `len` elements in ADAMANT_Q8: one for each 256, the last for fewer.
#[unsafe(no_mangle)]
pub extern "C" fn adamant_q8_scales(len: usize) -> usize {
    Q8::scales(len)
}

pub(super) fn number_of(format: Q8) -> u32 {
    let number = match format {
        Q8::Signed => adamant_q8::ADAMANT_Q8_SIGNED,
        Q8::Squares => adamant_q8::ADAMANT_Q8_SQUARES,
        Q8::Unsigned => adamant_q8::ADAMANT_Q8_UNSIGNED,
        // One that this library does not know is no number that it takes.
        _ => return u32::MAX,
    };
    number as u32
}

fn format_of(number: u32) -> Result<Q8, Failure> {
    const SIGNED: u32 = adamant_q8::ADAMANT_Q8_SIGNED as u32;
    const SQUARES: u32 = adamant_q8::ADAMANT_Q8_SQUARES as u32;
    const UNSIGNED: u32 = adamant_q8::ADAMANT_Q8_UNSIGNED as u32;
    match number {
        SIGNED => Ok(Q8::Signed),
        SQUARES => Ok(Q8::Squares),
        UNSIGNED => Ok(Q8::Unsigned),
        other => refuse!(ADAMANT_UNKNOWN_VALUE, "format is {other}, which is no adamant_q8"),
    }
}

/// Turns values into codes and scales, each rounded to the nearest. `format` is one of `adamant_q8`;
/// `values` is ADAMANT_F32, `codes` ADAMANT_Q8 and as long, `scales` ADAMANT_F32. A block with NaN
/// (or a negative number, but for ADAMANT_Q8_SIGNED) becomes NaN.
///
/// ADAMANT_UNKNOWN_VALUE for format; ADAMANT_TYPE_MISMATCH, ADAMANT_LENGTH_MISMATCH and those of every
/// call for the arrays; ADAMANT_UNKNOWN_ISA and ADAMANT_ISA_UNAVAILABLE for the environment variable
/// ADAMANT_ISA.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_q8_encode(
    format: u32,
    values: *const adamant_array,
    codes: *const adamant_array,
    scales: *const adamant_array,
) -> adamant_status {
    guarded(|| {
        let format = format_of(format)?;
        // SAFETY: the arrays are what the caller promises; made slices once.
        unsafe {
            let [values, codes, scales] = claim_q8([values, codes, scales], [false, true, true])?;
            Ok(format.encode(values.slice(), codes.slice_mut(), scales.slice_mut())?)
        }
    })
}

/// Turns codes and scales into values; the arguments are those of `adamant_q8_encode`.
///
/// Mistakes: as `adamant_q8_encode`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_q8_decode(
    format: u32,
    codes: *const adamant_array,
    scales: *const adamant_array,
    values: *const adamant_array,
) -> adamant_status {
    guarded(|| {
        let format = format_of(format)?;
        // SAFETY: the arrays are what the caller promises; made slices once.
        unsafe {
            let [values, codes, scales] = claim_q8([values, codes, scales], [true, false, false])?;
            Ok(format.decode(codes.slice(), scales.slice(), values.slice_mut())?)
        }
    })
}

/// The arrays of a conversion, values, codes and scales, checked.
///
/// # Safety
///
/// Each pointer is null, misaligned, or to an array.
unsafe fn claim_q8(
    [values, codes, scales]: [*const adamant_array; 3],
    [of_values, of_codes, of_scales]: [bool; 3],
) -> Result<[adamant_array; 3], Failure> {
    use adamant_type::*;
    // SAFETY: the caller's promise.
    let (found, _) = unsafe {
        claim_arrays([
            (values, &"values", Some(ADAMANT_F32), of_values),
            (codes, &"codes", Some(ADAMANT_Q8), of_codes),
            (scales, &"scales", Some(ADAMANT_F32), of_scales),
        ])?
    };
    Ok(found)
}
