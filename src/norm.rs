//! The norm of gradients: for clipping, for loss scalers, and to find gradients that are not finite.
//!
//! A step that clips computes the norm itself: see [`StepOptions::max_norm`](crate::StepOptions::max_norm). Use
//! these functions for a norm of another order, for the norm of each tensor, and where several calls share a norm.
//!
//! # Examples
//!
//! Two calls, clipped by their common norm:
//!
//! ```
//! use adamant::{Adam, Lion, Optimizer, StepOptions, norm::grad_norm};
//!
//! let (adam, lion) = (Adam::default(), Lion::default());
//! let (mut encoder, encoder_grad) = (vec![1.0_f32; 3], vec![2.0_f32; 3]);
//! let (mut decoder, decoder_grad) = (vec![1.0_f32; 4], vec![1.0_f32; 4]);
//! let (mut encoder_state, mut decoder_state) = (adam.state(3), lion.state(4));
//!
//! let norm = grad_norm(&[&encoder_grad, &decoder_grad])?;
//! assert_eq!(norm, 4.0);
//! let options =
//!     StepOptions { grad_norm: Some(norm), max_norm: Some(1.0), ..StepOptions::default() };
//! let (param, grad) = ((&mut encoder).into(), (&encoder_grad).into());
//! let _ = adam.step_with(param, grad, &mut encoder_state, &options)?;
//! let (param, grad) = ((&mut decoder).into(), (&decoder_grad).into());
//! let _ = lion.step_with(param, grad, &mut decoder_state, &options)?;
//! # Ok::<(), adamant::Error>(())
//! ```

mod blocks;
mod gradients;
mod tree;

pub(crate) use blocks::{BLOCK, Summed};
pub(crate) use gradients::{Gradients, List};
pub(crate) use tree::Sum;

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::{
    Element, Error, Exec, Grad, Group, Threads, float_modes::with_default_float_modes, isa::Cpu,
};

/// The order of the norm of all gradients, taken as one vector.
///
/// ```text
/// One:       sum of |g|
/// Two:       sqrt(sum of g^2)
/// Infinity:  largest |g|
/// ```
///
/// `norm_type` of PyTorch: 1, 2 or `inf`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NormOrder {
    /// The sum of absolute values.
    One,
    /// The Euclidean norm.
    #[default]
    Two,
    /// The largest absolute value; NaN if any gradient is NaN.
    Infinity,
}

/// The Euclidean norm of all gradients of a model, taken as one vector.
///
/// ```text
/// norm = sqrt(sum of g^2 over all elements of all tensors)
/// ```
///
/// The norm is infinite or NaN if any gradient is, or if it is too large for `f64`. So a loss scaler can test
/// `norm.is_finite()`, as [`StepOptions::skip_nonfinite`](crate::StepOptions::skip_nonfinite) does. Squares are
/// summed in `f64`, so that none overflows or is lost. The relative error is below 1e-12 for up to 2^40
/// gradients.
///
/// The order of the sum depends only on the lengths of the tensors, so the result has the same bits on every
/// instruction set and thread count. The gradients are read once. As in [`Optimizer`](crate::Optimizer), the
/// threads of the caller's pool share the work.
///
/// A step that clips computes the norm itself: see [`StepOptions::max_norm`](crate::StepOptions::max_norm).
/// [`grad_norms`] is for gradients of different types, norms of other orders, the norm of each tensor, and other
/// threads.
///
/// # Examples
///
/// Clipping by the global norm, as in `torch.nn.utils.clip_grad_norm_`:
///
/// ```
/// use adamant::norm::{clip_factor, grad_norm};
///
/// let (weight_grad, bias_grad) = (vec![3.0_f32; 4], vec![-4.0; 4]);
/// let norm = grad_norm(&[&weight_grad, &bias_grad])?;
/// assert_eq!(norm, 10.0);
/// assert!((clip_factor(norm, 1.0) - 0.1).abs() < 1e-6);
/// # Ok::<(), adamant::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::UnknownIsa`] or [`Error::IsaUnavailable`] for the instruction set.
pub fn grad_norm<E: Element>(grads: &[&[E]]) -> Result<f64, Error> {
    let exec = Exec::default();
    Ok(Norms { order: NormOrder::Two, cpu: exec.cpu()?, threads: exec.threads }.of_all(grads))
}

/// Returns a norm of all gradients of a model, and writes the norm of each tensor to `norms`.
///
/// The Euclidean norm of all gradients has the bits of [`grad_norm`]. The norm of a tensor has the bits of a
/// call with this tensor alone. A norm is infinite or NaN if one of its gradients is. If a norm of order one or
/// two is too large for `f64`, it is infinite.
///
/// # Examples
///
/// ```
/// use adamant::{
///     Exec, Grad,
///     norm::{NormOrder, grad_norms},
/// };
///
/// let (weight_grad, bias_grad) = ([3.0_f32, -4.0], [12.0_f32]);
/// let mut norms = [0.0; 2];
/// let exec = Exec::default();
/// let norm = grad_norms(NormOrder::Two, exec, &[Grad::from(&weight_grad), Grad::from(&bias_grad)], &mut norms)?;
/// assert_eq!((norm, norms), (13.0, [5.0, 12.0]));
/// let norm = grad_norms(NormOrder::One, exec, &[Grad::from(&weight_grad), Grad::from(&bias_grad)], &mut norms)?;
/// assert_eq!((norm, norms), (19.0, [7.0, 12.0]));
/// let norm = grad_norms(NormOrder::Infinity, exec, &[Grad::from(&weight_grad), Grad::from(&bias_grad)], &mut norms)?;
/// assert_eq!((norm, norms), (12.0, [4.0, 12.0]));
/// # Ok::<(), adamant::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::NormsMismatch`] if `norms` is not as long as `grads`, [`Error::UnknownIsa`] or [`Error::IsaUnavailable`]
/// for the instruction set.
pub fn grad_norms(
    order: NormOrder,
    exec: Exec<'_>,
    grads: &[Grad<'_>],
    norms: &mut [f64],
) -> Result<f64, Error> {
    if norms.len() != grads.len() {
        return Err(Error::NormsMismatch { len: norms.len(), tensors: grads.len() });
    }
    let call = Norms { order, cpu: exec.cpu()?, threads: exec.threads };
    Ok(call.of_each(grads, norms))
}

/// The position of the first tensor with a gradient that is infinite or NaN; `None` if all are finite.
///
/// Use it to find out why a norm is not finite. It reads all gradients once more. (The norm of finite gradients
/// in `f64` can be too large for `f64`. Then this is `None`.)
///
/// # Examples
///
/// ```
/// use adamant::{Exec, Grad, norm::first_nonfinite};
///
/// let (weight_grad, bias_grad) = ([3.0_f32, -4.0], [f32::NAN]);
/// let exec = Exec::default();
/// assert_eq!(first_nonfinite(exec, &[Grad::from(&weight_grad), Grad::from(&bias_grad)])?, Some(1));
/// assert_eq!(first_nonfinite(exec, &[Grad::from(&weight_grad)])?, None);
/// # Ok::<(), adamant::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::UnknownIsa`] or [`Error::IsaUnavailable`] for the instruction set.
pub fn first_nonfinite(exec: Exec<'_>, grads: &[Grad<'_>]) -> Result<Option<usize>, Error> {
    let call = Norms { order: NormOrder::Infinity, cpu: exec.cpu()?, threads: exec.threads };
    let first = AtomicUsize::new(usize::MAX);
    call.of_all_with(grads, &|tensor, norm| {
        if !norm.is_finite() {
            first.fetch_min(tensor, Ordering::Relaxed);
        }
    });
    let first = first.into_inner();
    Ok((first < grads.len()).then_some(first))
}

/// The factor by which gradients of norm `norm` must be multiplied so that their norm is at most `max_norm`.
///
/// ```text
/// min(1, max_norm / (norm + 1e-6))
/// ```
///
/// This is PyTorch's formula. The factor is 0 or NaN if the norm is not finite.
pub fn clip_factor(norm: f64, max_norm: f64) -> f64 {
    let factor = max_norm / (norm + 1e-6);
    if factor > 1.0 { 1.0 } else { factor }
}

/// Norms above this, or below its inverse, are computed again from scaled gradients.
const FAR: f64 = 1e140;
/// 2^-600. The squares of gradients of up to 1e308 fit into `f64` after this factor; gradients whose squares
/// become 0 are too small to change the norm.
const SCALE: f64 = f64::from_bits((1023 - 600) << 52);

/// The Euclidean norm of the gradients of all groups.
pub(crate) fn of_groups(threads: Threads<'_>, cpu: Cpu, groups: &[Group<'_, '_>]) -> f64 {
    Norms { order: NormOrder::Two, cpu, threads }.of_all(groups)
}

/// The order of a norm, and how it is computed.
#[derive(Clone, Copy)]
pub(crate) struct Norms<'a> {
    pub(crate) order: NormOrder,
    pub(crate) cpu: Cpu,
    pub(crate) threads: Threads<'a>,
}

impl Norms<'_> {
    /// The norm of all tensors as one vector.
    pub(crate) fn of_all<L: List + ?Sized>(self, tensors: &L) -> f64 {
        self.of_all_with(tensors, &|_, _| ())
    }

    /// The norm of all tensors, and of each in its place.
    ///
    /// # Panics
    ///
    /// If `norms` is shorter than `tensors`.
    pub(crate) fn of_each<T: Gradients>(self, tensors: &[T], norms: &mut [f64]) -> f64 {
        let places = Mutex::new(&mut *norms);
        let norm = self.of_all_with(tensors, &|tensor, sum| {
            places.lock().unwrap_or_else(PoisonError::into_inner)[tensor] = sum;
        });
        with_default_float_modes(|| {
            for (tensor, norm) in norms.iter_mut().enumerate() {
                *norm = self.again_if_far(self.finish(*norm, 1.0), &tensors[tensor..=tensor]);
            }
        });
        norm
    }

    /// The norm of all tensors. `whole` is called with the sum of each tensor, on any thread. The sum of the
    /// Euclidean norm is its square.
    fn of_all_with<L: List + ?Sized>(
        self,
        tensors: &L,
        whole: &(dyn Fn(usize, f64) + Sync),
    ) -> f64 {
        with_default_float_modes(|| {
            let sum = self.sum(1.0).of_tensors(self.threads, tensors, whole);
            self.again_if_far(self.finish(sum, 1.0), tensors)
        })
    }

    /// Computes a norm again from scaled gradients if their squares may not have fitted into `f64`. The squares
    /// of `f32`, bf16 and f16 always fit: zeros, and gradients that are not finite, take no second pass.
    fn again_if_far<L: List + ?Sized>(self, plain: f64, tensors: &L) -> f64 {
        let is_near = (FAR.recip()..FAR).contains(&plain);
        let are_f64 = || (0..tensors.count()).any(|index| tensors.item(index).are_f64());
        if self.order != NormOrder::Two || is_near || !are_f64() {
            return plain;
        }
        let scale = if plain < 1.0 { 1.0 / SCALE } else { SCALE };
        let sum = self.sum(scale).of_tensors(self.threads, tensors, &|_, _| ());
        self.finish(sum, scale)
    }

    fn sum(self, scale: f64) -> Sum {
        Sum::new(self.order, self.cpu, scale)
    }

    fn finish(self, sum: f64, scale: f64) -> f64 {
        match self.order {
            NormOrder::Two => sum.sqrt() / scale,
            NormOrder::One | NormOrder::Infinity => sum,
        }
    }
}
