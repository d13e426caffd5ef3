//! The specification: every optimizer in plain scalar Rust, one element after the other.
//!
//! Whatever the kernels compute, on any instruction set, on any number of threads and however a
//! tensor is cut, has the bits that these functions give. They check nothing, and say in the order
//! of the paper what a step does; read them to know what to expect, test against them, and use
//! [`Optimizer`](crate::Optimizer) for the work.

use crate::{Adam, Epsilon, Float, bias_corrections};

/// One step of [`Adam`] over slices of one length.
///
/// # Panics
///
/// If the slices differ in length.
pub fn adam<F: Float>(
    adam: &Adam,
    t: u64,
    param: &mut [F],
    grad: &[F],
    exp_avg: &mut [F],
    exp_avg_sq: &mut [F],
) {
    assert!([grad.len(), exp_avg.len(), exp_avg_sq.len()] == [param.len(); 3], "lengths differ");
    let [correction1, correction2] = bias_corrections([adam.beta1, adam.beta2], t);
    let correction2 = correction2.sqrt();
    let eps = match adam.epsilon {
        Epsilon::Standard => adam.eps * correction2,
        Epsilon::Hat => adam.eps,
    };

    let beta1 = F::from_f64(adam.beta1);
    let beta2 = F::from_f64(adam.beta2);
    let one_minus_beta1 = F::from_f64(1.0 - adam.beta1);
    let one_minus_beta2 = F::from_f64(1.0 - adam.beta2);
    let step_size = F::from_f64(adam.lr * correction2 / correction1);
    let eps = F::from_f64(eps);
    let weight_decay = F::from_f64(adam.weight_decay);
    let lr_weight_decay = F::from_f64(adam.lr * adam.weight_decay);

    for i in 0..param.len() {
        let mut g = if adam.maximize { -grad[i] } else { grad[i] };
        if adam.weight_decay != 0.0 {
            if adam.decoupled_weight_decay {
                param[i] = (-lr_weight_decay).mul_add(param[i], param[i]);
            } else {
                g = weight_decay.mul_add(param[i], g);
            }
        }
        exp_avg[i] = beta1.mul_add(exp_avg[i], one_minus_beta1 * g);
        exp_avg_sq[i] = (one_minus_beta2 * g).mul_add(g, beta2 * exp_avg_sq[i]);
        let quotient = exp_avg[i] / (exp_avg_sq[i].sqrt() + eps);
        param[i] = (-step_size).mul_add(quotient, param[i]);
    }
}
