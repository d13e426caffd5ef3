//! The norm of gradients.

use half::{bf16, f16};

use super::{
    dense::with_all,
    exec::{Runner, adamant_exec, put},
    memory::{Claims, Element, Place, adamant_array, adamant_type},
    status::{Failure, adamant_status, guarded, refuse},
    versioned::check_pointer,
};
use crate::{GradElement, clip_factor, grad_norm_on};

/// # The norm of gradients
///
/// Writes to `*norm` the Euclidean norm of all gradients of a model, taken as one vector: `count`
/// arrays, all in ADAMANT_F32, ADAMANT_F64, ADAMANT_BF16 or ADAMANT_F16. `exec` may be null for its
/// default.
///
/// Squares are summed in double. The norm is infinite or NaN if any gradient is; the order of the sum
/// depends on the lengths of the arrays alone, so that its bits are the same everywhere.
///
/// Mistakes, besides those of every call: ADAMANT_TYPE_MISMATCH for arrays, ADAMANT_UNKNOWN_ISA and
/// ADAMANT_ISA_UNAVAILABLE.
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
        let mut common = ADAMANT_NONE;
        for index in 0..count {
            let place = Place::of(&"grads").number(index);
            match claims.claim(&grads.get(index), false, place)? {
                ADAMANT_NONE => {}
                found @ (ADAMANT_F32 | ADAMANT_F64 | ADAMANT_BF16 | ADAMANT_F16) => {
                    if common == ADAMANT_NONE {
                        common = found;
                    }
                    grads.get(index).expect(common, place)?;
                }
                other => {
                    refuse!(ADAMANT_TYPE_MISMATCH, "{place} is {other:?}, which is no gradient")
                }
            }
        }
        claims.check()?;
        // SAFETY: claimed with this type.
        let found = unsafe {
            match common {
                ADAMANT_F64 => grads.norm::<f64>(&runner)?,
                ADAMANT_BF16 => grads.norm::<bf16>(&runner)?,
                ADAMANT_F16 => grads.norm::<f16>(&runner)?,
                _ => grads.norm::<f32>(&runner)?,
            }
        };
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
    /// All arrays were claimed as `E`, or are none.
    unsafe fn norm<E: GradElement + Element>(&self, runner: &Runner<'_>) -> Result<f64, Failure> {
        let len = (0..self.count).map(|index| self.get(index).len).fold(0, usize::saturating_add);
        let mut norm = 0.0;
        with_all(
            self.count,
            // SAFETY: the caller's promise.
            |index| unsafe { self.get(index).slice::<E>() },
            || &[][..],
            |grads| {
                runner.run(len, &mut |exec| {
                    norm = grad_norm_on(exec, grads)?;
                    Ok(())
                })
            },
        )?;
        Ok(norm)
    }
}

/// What the gradients are to be multiplied by so that their norm is at most `max_norm`:
/// `min(1, max_norm / (norm + 1e-6))`, as in PyTorch. It is 0 or NaN where the norm is not finite.
#[unsafe(no_mangle)]
pub extern "C" fn adamant_clip_factor(norm: f64, max_norm: f64) -> f64 {
    clip_factor(norm, max_norm)
}
