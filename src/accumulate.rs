//! Gradients of micro-batches, added up in `f32`.

use half::{bf16, f16};

use crate::{
    Error, Exec, Grad,
    array::{GradArray, Narrow, elements_mut},
    pieces,
    simd::{Simd, WithSimd},
};

/// Adds the gradients of a micro-batch to sums in `f32`, in one pass; gradients that are
/// [to be zeroed](Grad::zeroed) are.
///
/// ```text
/// sum = sum + grad    rounded to nearest, ties to even
/// ```
///
/// Sums of many small gradients stand still in bf16 and f16: at 8 bits of precision, a 256th of a sum and
/// less is lost. A step then takes the sums with a
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
/// [`Error::LengthMismatch`] if there are not as many sums as gradients, [`Error::TypeMismatch`] for
/// gradients in `f64`, [`Error::UnknownIsa`] or [`Error::IsaUnavailable`] for the instruction set; nothing
/// has changed then.
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
    pieces::run(exec.threads, len, &|ranges| {
        for range in ranges {
            // SAFETY: threads have ranges of their own, `pieces::run` promises.
            #[allow(unsafe_code, reason = "threads share arrays, each for elements of its own")]
            let (sums, grad) = unsafe { (elements_mut(sums, range.clone()), grad.part(range)) };
            cpu.run(Add { sums, grad });
        }
    });
    Ok(())
}

/// Adds some gradients, and zeroes those that are to be.
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
            // Refused.
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
