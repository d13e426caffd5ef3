//! The norm of gradients.

use super::{
    dense::with_all,
    exec::{Runner, adamant_exec, put},
    memory::{Claims, Place, adamant_array, adamant_type},
    status::{Failure, adamant_status, guarded, refuse},
    versioned::check_pointer,
};
use adamant::{
    bindings::{AnyGrads, any_grad_norm},
    clip_factor,
};

/// # The norm of gradients
///
/// Writes to `*norm` the Euclidean norm of all gradients of a model, taken as one vector: `count`
/// arrays, each in ADAMANT_F32, ADAMANT_F64, ADAMANT_BF16 or ADAMANT_F16. `exec` may be null for its
/// default.
///
/// Squares are summed in double. The norm is infinite or NaN if any gradient is; the order of the sum
/// depends on the lengths of the arrays alone, so that its bits are the same everywhere.
///
/// Mistakes, besides those of every call: ADAMANT_TYPE_MISMATCH for arrays of other types,
/// ADAMANT_UNKNOWN_ISA and ADAMANT_ISA_UNAVAILABLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_grad_norm(
    exec: *const adamant_exec,
    grads: *const adamant_array,
    count: usize,
    norm: *mut f64,
) -> adamant_status {
    guarded(|| {
        use adamant_type::*;
        // SAFETY: the structs are what the caller promises, here and below.
        let runner = unsafe { Runner::read(exec)? };
        check_pointer(norm, "norm")?;
        // SAFETY: the caller's promise.
        let grads = unsafe { Grads::new(grads, count)? };
        let mut claims = Claims::new();
        for index in 0..count {
            let place = Place::of(&"grads").number(index);
            match claims.claim(&grads.get(index), false, place)? {
                ADAMANT_NONE | ADAMANT_F32 | ADAMANT_F64 | ADAMANT_BF16 | ADAMANT_F16 => {}
                other => {
                    refuse!(ADAMANT_TYPE_MISMATCH, "{place} is {other:?}, which is no gradient")
                }
            }
        }
        claims.check()?;
        // SAFETY: all were claimed as what they are.
        let found = unsafe { grads.norm(&runner)? };
        // SAFETY: the caller's promise.
        unsafe { put(norm, "norm", found) }
    })
}

/// The arrays of a call, as the caller has them.
struct Grads {
    grads: *const adamant_array,
    count: usize,
}

impl Grads {
    /// # Safety
    ///
    /// `grads` is null, misaligned, or to `count` arrays.
    unsafe fn new(grads: *const adamant_array, count: usize) -> Result<Self, Failure> {
        if count > 0 {
            check_pointer(grads, "grads")?;
        }
        let bytes = count.checked_mul(size_of::<adamant_array>());
        let bytes = bytes.filter(|&bytes| bytes <= isize::MAX as usize);
        if bytes.and_then(|bytes| grads.addr().checked_add(bytes)).is_none() {
            refuse!(ADAMANT_TOO_LARGE, "{count} arrays are more than memory can be");
        }
        Ok(Self { grads, count })
    }

    fn get(&self, index: usize) -> adamant_array {
        debug_assert!(index < self.count);
        // SAFETY: one of the arrays, by `new`.
        unsafe { self.grads.add(index).read() }
    }

    /// # Safety
    ///
    /// All arrays were claimed.
    unsafe fn norm(&self, runner: &Runner<'_>) -> Result<f64, Failure> {
        let len = (0..self.count).map(|index| self.get(index).len).fold(0, usize::saturating_add);
        let mut found = 0.0;
        with_all(
            self.count,
            // SAFETY: the caller's promise.
            |index| unsafe { grads_of(&self.get(index)) },
            || AnyGrads::F32(&[]),
            |grads| {
                runner.run(len, &mut |exec| {
                    found = any_grad_norm(exec, grads)?;
                    Ok(())
                })
            },
        )?;
        Ok(found)
    }
}

/// As a slice of its type.
///
/// # Safety
///
/// The array was claimed, and its type is one of these or none.
unsafe fn grads_of<'a>(array: &adamant_array) -> AnyGrads<'a> {
    use adamant_type::*;
    let is = |element: adamant_type| array.r#type == element as u32;
    // SAFETY: claimed as what it is: the caller's promise.
    unsafe {
        if is(ADAMANT_F64) {
            AnyGrads::F64(array.slice())
        } else if is(ADAMANT_BF16) {
            AnyGrads::Bf16(array.slice())
        } else if is(ADAMANT_F16) {
            AnyGrads::F16(array.slice())
        } else {
            AnyGrads::F32(array.slice())
        }
    }
}

/// What the gradients are to be multiplied by so that their norm is at most `max_norm`:
/// `min(1, max_norm / (norm + 1e-6))`, as in PyTorch. It is 0 or NaN where the norm is not finite.
#[unsafe(no_mangle)]
pub extern "C" fn adamant_clip_factor(norm: f64, max_norm: f64) -> f64 {
    clip_factor(norm, max_norm)
}
