//! Gradients of micro-batches, added up in `f32`.

use core::ops::Range;

use half::{bf16, f16};

use crate::{
    Error, Exec, Grad,
    array::{GradArray, Narrow, elements_mut},
    float_modes::with_default_float_modes,
    pieces,
    simd::{Simd, WithSimd},
};

/// Adds the gradients of a micro-batch to sums in `f32`, in one pass. Gradients from [`Grad::zeroed`] are set
/// to zero in the same pass.
///
/// ```text
/// sum = sum + grad    rounded to nearest, ties to even
/// ```
///
/// In bf16 and f16, sums of many small gradients stop growing: bf16 has 8 bits of precision, so a number that
/// is less than a 256th of the sum is lost. Step with the sums, and with a
/// [`grad_factor`](crate::StepOptions::grad_factor) of one over the number of micro-batches.
///
/// # Examples
///
/// ```
/// use adamant::{Exec, Grad, accumulate};
/// use half::bf16;
///
/// let (mut sums, mut grads) = (vec![256.0_f32; 3], vec![bf16::ONE; 3]);
/// accumulate(&mut sums, Grad::zeroed(&mut grads), Exec::default())?;
/// assert_eq!((sums, grads), (vec![257.0; 3], vec![bf16::ZERO; 3]));
/// # Ok::<(), adamant::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::LengthMismatch`] if the numbers of sums and gradients differ, [`Error::TypeMismatch`] for
/// gradients in `f64`, [`Error::UnknownIsa`] or [`Error::IsaUnavailable`] for the instruction set. Nothing has
/// changed then.
pub fn accumulate(sums: &mut [f32], grad: Grad<'_>, exec: Exec<'_>) -> Result<(), Error> {
    let cpu = exec.cpu()?;
    let (len, expected) = (grad.len(), sums.len());
    if len != expected {
        return Err(Error::LengthMismatch { tensor: 0, argument: "grad", len, expected });
    }
    if let GradArray::F64(_) | GradArray::F64ToZero(_) = grad.0 {
        let (found, expected) = (crate::Storage::F64, crate::Storage::F32);
        return Err(Error::TypeMismatch { tensor: 0, argument: "grad", found, expected });
    }
    let (sums, grad) = (&sums, &grad.0);
    let add = |ranges: &mut dyn Iterator<Item = Range<usize>>| {
        for range in ranges {
            // SAFETY: threads have ranges of their own, `pieces::run` promises.
            #[allow(unsafe_code, reason = "threads share arrays, each for elements of its own")]
            let (sums, grad) = unsafe { (elements_mut(sums, range.clone()), grad.part(range)) };
            cpu.run(Add { sums, grad });
        }
    };
    with_default_float_modes(|| pieces::run(exec.threads, len, &add));
    Ok(())
}

/// Adds a range of gradients, and sets it to zero if that was asked for.
struct Add<'a> {
    sums: &'a mut [f32],
    grad: GradArray<'a>,
}

impl WithSimd for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { sums, grad } = self;
        match grad {
            GradArray::F32(grad) => add(simd, sums, grad),
            GradArray::Bf16(grad) => add(simd, sums, grad),
            GradArray::F16(grad) => add(simd, sums, grad),
            GradArray::F32ToZero(grad) => {
                add(simd, sums, grad);
                grad.fill(0.0);
            }
            GradArray::Bf16ToZero(grad) => {
                add(simd, sums, grad);
                grad.fill(bf16::ZERO);
            }
            GradArray::F16ToZero(grad) => {
                add(simd, sums, grad);
                grad.fill(f16::ZERO);
            }
            // `accumulate` has refused them.
            GradArray::F64(_) | GradArray::F64ToZero(_) => {}
        }
    }
}

#[inline(always)]
fn add<S: Simd, T: Narrow>(simd: S, sums: &mut [f32], grad: &[T]) {
    let lanes = S::F32_LANES;
    for (sums, grad) in sums.chunks_mut(lanes).zip(grad.chunks(lanes)) {
        let sum = f32::widen(simd, sums) + T::widen(simd, grad);
        f32::narrow(sums, sum);
    }
}
