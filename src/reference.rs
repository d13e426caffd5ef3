//! The specification: every optimizer in plain scalar Rust, one element after the other.
//!
//! Whatever the kernels compute, on any instruction set, on any number of threads and however a
//! tensor is cut, has the bits that [`Reference::reference`] gives. It checks nothing, and does a step
//! in the order of the paper; read it to know what to expect, test against it, and use
//! [`Optimizer`](crate::Optimizer) for the work.
//!
//! Every product that is followed by a sum is fused with it: `a.mul_add(b, c)` is `a * b + c`,
//! rounded once. Whatever depends on the step alone is computed in `f64` and rounded once.
//!
//! # Panics
//!
//! All functions panic if the slices differ in length; a moment that the settings do not use may be empty.

mod adabelief;
mod adadelta;
mod adagrad;
mod adam;
mod adamax;
mod adan;
mod ademamix;
mod adopt;
mod amsgrad;
mod asgd;
mod ftrl;
mod lion;
mod mixed;
mod nadam;
mod radam;
mod rmsprop;
mod rows;
mod rprop;
mod sgd;
mod yogi;

pub use mixed::{
    flush_subnormal, join, moment_f16, q8_block, q8_number, random, split, stochastic_bf16,
    stochastic_f16,
};
pub use rows::{RowReference, series, sum_rows};

use crate::rule::{CAUTIOUS, Float, Many, Rule};

/// An optimizer whose step is also written in plain Rust.
///
/// Implement it to test a [`Rule`] of your own: the kernels must have the bits of this function.
///
/// ```
/// use adamant::{Adam, reference::Reference};
///
/// let (mut param, mut exp_avg, mut exp_avg_sq) = ([1.0_f32], [0.0], [0.0]);
/// Adam::default().reference(1, &mut param, &[0.1], [&mut exp_avg, &mut exp_avg_sq]);
/// assert_eq!(param, [0.999]);
/// ```
pub trait Reference: Rule {
    /// Takes step `t`, counted from 1; the moments are in the order of [`Rule::MOMENT_NAMES`].
    ///
    /// # Panics
    ///
    /// If the slices differ in length.
    fn reference<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        moments: Many<Self::Moments, &mut [F]>,
    );
}

/// `beta * average + (1 - beta) * value`: the average moves by its share of the distance to the value,
/// counted from the end that is nearer. `weights` are beta and 1 - beta, rounded.
fn average<F: Float>(beta: f64, weights: [F; 2], average: F, value: F) -> F {
    let distance = value - average;
    if beta < 0.5 {
        (-weights[0]).mul_add(distance, value)
    } else {
        weights[1].mul_add(distance, average)
    }
}

/// Epsilon times a bias correction, which never rounds to 0 unless epsilon is 0.
fn corrected_eps(eps: f64, correction: f64) -> f64 {
    let product = eps * correction;
    if product == 0.0 && eps > 0.0 { f64::from_bits(1) } else { product }
}

/// `beta * average + (1 - beta) * value^2`, in the same way; where `value^2` overflows, the average and
/// `((1 - beta) * value) * value`.
fn average_square<F: Float>(beta: f64, weights: [F; 2], average: F, value: F) -> F {
    let distance = value.mul_add(value, -average);
    let next = if beta < 0.5 {
        (-weights[0]).mul_add(distance, value * value)
    } else {
        weights[1].mul_add(distance, average)
    };
    if next < F::from_f64(f64::INFINITY) {
        return next;
    }
    (weights[1] * value).mul_add(value, average)
}

/// The larger of two numbers that are not negative, NaN if either is. Beside an infinite `old`, a NaN in `new` is lost.
fn larger<F: Float>(old: F, new: F) -> F {
    match old < F::from_f64(f64::INFINITY) {
        true if new < old => old,
        true => new,
        false => old,
    }
}

/// Whether a step by `m` would move the parameter along the gradient: their signs differ. The product of numbers that
/// are normal in `f32` does not become 0.
fn is_uphill<F: Float>(m: F, grad: F) -> bool {
    m * F::from_f64(CAUTIOUS) * grad < F::default()
}

/// Weight decay of either kind: the parameter loses a share, or the gradient gains its part.
fn decay<F: Float>(decoupled: bool, weights: [F; 2], param: &mut F, grad: &mut F) {
    let [weight_decay, share] = weights;
    if decoupled {
        *param = (-share).mul_add(*param, *param);
    } else {
        *grad = weight_decay.mul_add(*param, *grad);
    }
}
