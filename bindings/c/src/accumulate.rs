//! Sums of gradients.

use adamant::accumulate;

use super::{
    exec::{Runner, adamant_exec},
    memory::{Claims, Place, adamant_array, adamant_type},
    optimizer::flag,
    status::{adamant_status, guarded},
    step::grad_of,
    versioned::check_pointer,
};

/// # Sums of gradients
///
/// Adds the gradients of a micro-batch to sums in float: `sums` is ADAMANT_F32; `grad` is as long, in
/// ADAMANT_F32, ADAMANT_BF16 or ADAMANT_F16, and becomes zeros if `zero_grad` is 1. `exec` may be null for
/// its default.
///
/// In 16 bits, sums of many small gradients stop growing. Step with the sums, and with a `grad_factor` of one
/// over the number of micro-batches.
///
/// Mistakes, besides those of every call: ADAMANT_TYPE_MISMATCH and ADAMANT_LENGTH_MISMATCH for the arrays,
/// ADAMANT_UNKNOWN_ISA and ADAMANT_ISA_UNAVAILABLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_accumulate(
    exec: *const adamant_exec,
    sums: *const adamant_array,
    grad: *const adamant_array,
    zero_grad: u32,
) -> adamant_status {
    guarded(|| {
        // SAFETY: the structs are what the caller promises, here and below.
        let runner = unsafe { Runner::read(exec)? };
        let zero_grad = flag(zero_grad, "zero_grad")?;
        check_pointer(sums, "sums")?;
        check_pointer(grad, "grad")?;
        // SAFETY: neither null nor misaligned: the caller's promise.
        let (sums, grad) = unsafe { (sums.read(), grad.read()) };
        let (mut claims, place) = (Claims::new(), Place::of(&"sums"));
        if claims.claim(&sums, true, place)? != adamant_type::ADAMANT_NONE {
            sums.expect(adamant_type::ADAMANT_F32, place)?;
        }
        claims.claim(&grad, zero_grad, Place::of(&"grad"))?;
        claims.check()?;
        // SAFETY: claimed with these types, apart, and made slices once.
        let (sums, grad) =
            unsafe { (sums.slice_mut(), grad_of(&grad, zero_grad, Place::of(&"grad"))?) };
        Ok(accumulate(sums, grad, runner.exec())?)
    })
}
