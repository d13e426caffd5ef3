//! Conversions between floats and numbers of 16 bits.

use adamant::Param;
use half::{bf16, f16};

use super::{
    memory::{adamant_array, adamant_type, claim_arrays},
    status::{Failure, adamant_status, guarded, refuse},
};

/// # Conversions
///
/// Turns floats into numbers of 16 bits or back: one array is ADAMANT_F32, the other one ADAMANT_BF16 or
/// ADAMANT_F16. Rounds to nearest, ties to even; the way back is exact. For ADAMANT_Q8 there are
/// `adamant_q8_encode` and `adamant_q8_decode`.
///
/// Mistakes, besides those of every call: ADAMANT_TYPE_MISMATCH and ADAMANT_LENGTH_MISMATCH.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_convert(
    from: *const adamant_array,
    to: *const adamant_array,
) -> adamant_status {
    use adamant_type::*;
    guarded(|| {
        // SAFETY: the arrays are what the caller promises.
        let ([from, to], kinds) =
            unsafe { claim_arrays([(from, &"from", None, false), (to, &"to", None, true)])? };
        if from.len != to.len {
            refuse!(
                ADAMANT_LENGTH_MISMATCH,
                "from has {} elements, but to has {}",
                from.len,
                to.len
            );
        }
        // SAFETY: claimed with these types, apart, and made slices once.
        unsafe {
            match kinds {
                [ADAMANT_F32, ADAMANT_BF16] => each(from.slice(), to.slice_mut(), bf16::from_f32),
                [ADAMANT_F32, ADAMANT_F16] => each(from.slice(), to.slice_mut(), f16::from_f32),
                [ADAMANT_BF16, ADAMANT_F32] => each(from.slice(), to.slice_mut(), bf16::to_f32),
                [ADAMANT_F16, ADAMANT_F32] => each(from.slice(), to.slice_mut(), f16::to_f32),
                [from, to] => refuse!(
                    ADAMANT_TYPE_MISMATCH,
                    "from is {from:?} and to is {to:?}, but one must be ADAMANT_F32 and the other \
                     ADAMANT_BF16 or ADAMANT_F16"
                ),
            }
        }
        Ok(())
    })
}

fn each<A: Copy, B>(from: &[A], to: &mut [B], convert: impl Fn(A) -> B) {
    for (from, to) in from.iter().zip(to) {
        *to = convert(*from);
    }
}

/// Turns floats into two halves, as a tensor with ADAMANT_LOW16 has them (see `adamant_tensor`): `values`
/// is ADAMANT_F32, `high` ADAMANT_BF16, `low` ADAMANT_LOW16. Nothing is lost, except that a NaN may
/// become another NaN.
///
/// Mistakes, besides those of every call: ADAMANT_TYPE_MISMATCH and ADAMANT_LENGTH_MISMATCH.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_split(
    values: *const adamant_array,
    high: *const adamant_array,
    low: *const adamant_array,
) -> adamant_status {
    guarded(|| {
        // SAFETY: the arrays are what the caller promises; made slices once.
        unsafe {
            let [values, high, low] = claim_halves([values, high, low], [false, true, true])?;
            Ok(Param::split(values.slice(), high.slice_mut(), low.slice_mut())?)
        }
    })
}

/// Turns the two halves of floats into floats: the way back from `adamant_split`.
///
/// Mistakes: as `adamant_split`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_join(
    high: *const adamant_array,
    low: *const adamant_array,
    values: *const adamant_array,
) -> adamant_status {
    guarded(|| {
        // SAFETY: the arrays are what the caller promises; made slices once.
        unsafe {
            let [values, high, low] = claim_halves([values, high, low], [true, false, false])?;
            Ok(Param::join(high.slice(), low.slice(), values.slice_mut())?)
        }
    })
}

/// The arrays of a split, values, high and low halves, checked.
///
/// # Safety
///
/// Each pointer is null, misaligned, or to an array.
unsafe fn claim_halves(
    [values, high, low]: [*const adamant_array; 3],
    [of_values, of_high, of_low]: [bool; 3],
) -> Result<[adamant_array; 3], Failure> {
    use adamant_type::*;
    // SAFETY: the caller's promise.
    let (found, _) = unsafe {
        claim_arrays([
            (values, &"values", Some(ADAMANT_F32), of_values),
            (high, &"high", Some(ADAMANT_BF16), of_high),
            (low, &"low", Some(ADAMANT_LOW16), of_low),
        ])?
    };
    Ok(found)
}
