//! The norm of gradients.

use adamant::{
    Grad,
    norm::{NormOrder, clip_factor, first_nonfinite, grad_norms},
};

use super::{
    exec::{Runner, adamant_exec},
    memory::{Claims, Place, adamant_array, adamant_type},
    room::with_all,
    status::{Failure, adamant_status, guarded, refuse},
    step::grad_of,
    versioned::check_pointer,
};

/// The order of the norm of all gradients, taken as one vector: `norm_type` of PyTorch.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum adamant_norm_order {
    /// The sum of absolute values.
    ADAMANT_NORM_ONE = 1,
    /// The Euclidean norm.
    ADAMANT_NORM_TWO = 2,
    /// The largest absolute value; NaN if any gradient is NaN.
    ADAMANT_NORM_INFINITY = 3,
}

pub(super) fn order_of(number: u32) -> Result<NormOrder, Failure> {
    const ONE: u32 = adamant_norm_order::ADAMANT_NORM_ONE as u32;
    const TWO: u32 = adamant_norm_order::ADAMANT_NORM_TWO as u32;
    const INFINITY: u32 = adamant_norm_order::ADAMANT_NORM_INFINITY as u32;
    match number {
        ONE => Ok(NormOrder::One),
        TWO => Ok(NormOrder::Two),
        INFINITY => Ok(NormOrder::Infinity),
        other => refuse!(ADAMANT_UNKNOWN_VALUE, "order is {other}, which is no adamant_norm_order"),
    }
}

/// # The norm of gradients
///
/// Writes to `*norm` a norm of all gradients of a model, taken as one vector, and to `norms[i]` that of
/// array `i`, if `norms` is not null: `count` arrays, each in ADAMANT_F32, ADAMANT_F64, ADAMANT_BF16 or
/// ADAMANT_F16. `order` is one of `adamant_norm_order`. `exec` may be null for its default.
///
/// Sums are computed in double. A norm is infinite or NaN if any gradient is. The order of the sum depends on
/// the lengths of the arrays alone, so the result has the same bits everywhere. A step that clips computes
/// the norm itself: see `adamant_step_options`.
///
/// Mistakes, besides those of every call: ADAMANT_TYPE_MISMATCH for arrays of other types,
/// ADAMANT_UNKNOWN_ISA and ADAMANT_ISA_UNAVAILABLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_grad_norms(
    order: u32,
    exec: *const adamant_exec,
    grads: *const adamant_array,
    count: usize,
    norms: *mut f64,
    norm: *mut f64,
) -> adamant_status {
    use adamant_type::ADAMANT_F64;
    guarded(|| {
        let order = order_of(order)?;
        // SAFETY: the structs are what the caller promises, here and below.
        let runner = unsafe { Runner::read(exec)? };
        let mut claims = Claims::new();
        claims.claim_out(norm.cast(), 1, ADAMANT_F64, Place::of(&"norm"))?;
        let each = match norms.is_null() {
            true => None,
            false => {
                Some(claims.claim_out(norms.cast(), count, ADAMANT_F64, Place::of(&"norms"))?)
            }
        };
        // SAFETY: the caller's promise.
        let grads = unsafe { Grads::claim(grads, count, claims)? };
        // SAFETY: claimed as memory that is written, apart, and made slices once.
        let found = unsafe {
            grads.with(|grads| {
                with_all(
                    grads.len(),
                    |_| Ok(0.0),
                    |found| {
                        let of_all = grad_norms(order, runner.exec(), grads, found)?;
                        // The caller's memory is written only now, since the call may have failed.
                        if let Some(each) = each {
                            each.slice_mut().copy_from_slice(found);
                        }
                        Ok(of_all)
                    },
                )
            })?
        };
        // SAFETY: claimed as memory that is written.
        unsafe { norm.write(found) };
        Ok(())
    })
}

/// Writes to `*index` the position of the first of `count` arrays with a gradient that is infinite or NaN;
/// `count` if all are finite. This finds out why a step was left out. `exec` may be null for its default.
///
/// Mistakes: as `adamant_grad_norms`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_first_nonfinite(
    exec: *const adamant_exec,
    grads: *const adamant_array,
    count: usize,
    index: *mut usize,
) -> adamant_status {
    /// The type of `size_t`.
    const SIZE: adamant_type = match size_of::<usize>() {
        8 => adamant_type::ADAMANT_U64,
        _ => adamant_type::ADAMANT_U32,
    };
    guarded(|| {
        // SAFETY: the structs are what the caller promises, here and below.
        let runner = unsafe { Runner::read(exec)? };
        check_pointer(index, "index")?;
        let mut claims = Claims::new();
        claims.claim_out(index.cast(), 1, SIZE, Place::of(&"index"))?;
        // SAFETY: the caller's promise.
        let grads = unsafe { Grads::claim(grads, count, claims)? };
        // SAFETY: claimed and apart.
        let found = unsafe { grads.with(|grads| Ok(first_nonfinite(runner.exec(), grads)?))? };
        // SAFETY: claimed as memory that is written.
        unsafe { index.write(found.unwrap_or(count)) };
        Ok(())
    })
}

/// The arrays of a call, as the caller has them; checked and claimed.
struct Grads {
    grads: *const adamant_array,
    count: usize,
}

impl Grads {
    /// # Safety
    ///
    /// `grads` is null, misaligned, or to `count` arrays.
    unsafe fn claim(
        grads: *const adamant_array,
        count: usize,
        mut claims: Claims,
    ) -> Result<Self, Failure> {
        if count > 0 {
            check_pointer(grads, "grads")?;
        }
        let bytes = count.checked_mul(size_of::<adamant_array>());
        let bytes = bytes.filter(|&bytes| bytes <= isize::MAX as usize);
        match bytes.and_then(|bytes| grads.addr().checked_add(bytes).and(Some(bytes))) {
            Some(bytes) => claims.note(grads.addr(), bytes, Place::of(&"grads")),
            None => refuse!(ADAMANT_TOO_LARGE, "{count} arrays are more than memory can be"),
        }
        let found = Self { grads, count };
        for index in 0..count {
            claims.claim(&found.get(index), false, Self::place(index))?;
        }
        claims.check()?;
        Ok(found)
    }

    const fn place(index: usize) -> Place {
        Place::of(&"grads").number(index)
    }

    fn get(&self, index: usize) -> adamant_array {
        debug_assert!(index < self.count);
        // SAFETY: one of the arrays, by `claim`.
        unsafe { self.grads.add(index).read() }
    }

    /// # Safety
    ///
    /// No slice of the arrays is alive that may be written.
    unsafe fn with<Out>(
        &self,
        run: impl FnOnce(&[Grad<'_>]) -> Result<Out, Failure>,
    ) -> Result<Out, Failure> {
        with_all(
            self.count,
            |index| {
                let grad = self.get(index);
                if grad.len == 0 && grad.r#type == adamant_type::ADAMANT_NONE as u32 {
                    return Ok(Grad::from(&[0.0_f32; 0]));
                }
                // SAFETY: claimed and apart; the caller's promise.
                unsafe { grad_of(&grad, false, Self::place(index)) }
            },
            |grads| run(grads),
        )
    }
}

/// The factor by which gradients of norm `norm` must be multiplied so that their norm is at most `max_norm`:
/// `min(1, max_norm / (norm + 1e-6))`, as in PyTorch. It is 0 or NaN where the norm is not finite.
#[unsafe(no_mangle)]
pub extern "C" fn adamant_clip_factor(norm: f64, max_norm: f64) -> f64 {
    clip_factor(norm, max_norm)
}
