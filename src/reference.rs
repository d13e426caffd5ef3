//! The specification: every optimizer in plain scalar Rust, one element after the other.
//!
//! Whatever the kernels compute, on any instruction set, on any number of threads and however a
//! tensor is cut, has the bits that these functions give. They check nothing, and do a step in the
//! order of the paper; read them to know what to expect, test against them, and use
//! [`Optimizer`](crate::Optimizer) for the work.
//!
//! Every product that is followed by a sum is fused with it: `a.mul_add(b, c)` is `a * b + c`,
//! rounded once. Whatever depends on the step alone is computed in `f64` and rounded once.
//!
//! # Panics
//!
//! All functions panic if the slices differ in length; a moment that the hyper-parameters do without
//! may be empty.

mod mixed;
mod rows;

pub use mixed::{flush_subnormal, join, q8_block, q8_number, random, split, stochastic_bf16};
pub use rows::{row_wise_adam, series, sum_rows};

use crate::{
    AdEmaMix, AdaGrad, AdaMax, Adadelta, Adam, Adopt, AmsGrad, Epsilon, Float, Lion, NAdam, RAdam,
    RmsProp, Sgd, bias_corrections,
    rule::{nadam_momenta, radam_rectification},
};

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

/// `beta * average + (1 - beta) * value^2`, in the same way.
fn average_square<F: Float>(beta: f64, weights: [F; 2], average: F, value: F) -> F {
    let distance = value.mul_add(value, -average);
    if beta < 0.5 {
        (-weights[0]).mul_add(distance, value * value)
    } else {
        weights[1].mul_add(distance, average)
    }
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

/// One step of [`Sgd`].
pub fn sgd<F: Float>(sgd: &Sgd, t: u64, param: &mut [F], grad: &[F], momentum_buffer: &mut [F]) {
    assert_eq!(grad.len(), param.len());
    let [lr, momentum, dampening, weight_decay] =
        [sgd.lr, sgd.momentum, 1.0 - sgd.dampening, sgd.weight_decay].map(F::from_f64);
    for i in 0..param.len() {
        let mut g = if sgd.maximize { -grad[i] } else { grad[i] };
        if sgd.weight_decay != 0.0 {
            g = weight_decay.mul_add(param[i], g);
        }
        if sgd.momentum != 0.0 {
            let fresh = if t == 1 { g } else { dampening * g };
            momentum_buffer[i] = momentum.mul_add(momentum_buffer[i], fresh);
            g = match sgd.nesterov {
                true => momentum.mul_add(momentum_buffer[i], g),
                false => momentum_buffer[i],
            };
        }
        param[i] = (-lr).mul_add(g, param[i]);
    }
}

/// One step of [`AdaGrad`].
pub fn adagrad<F: Float>(adagrad: &AdaGrad, t: u64, param: &mut [F], grad: &[F], sum: &mut [F]) {
    assert_eq!([grad.len(), sum.len()], [param.len(); 2]);
    let step_size = F::from_f64(adagrad.lr / (1.0 + (t - 1) as f64 * adagrad.lr_decay));
    let [eps, weight_decay] = [adagrad.eps, adagrad.weight_decay].map(F::from_f64);
    for i in 0..param.len() {
        let mut g = if adagrad.maximize { -grad[i] } else { grad[i] };
        if adagrad.weight_decay != 0.0 {
            g = weight_decay.mul_add(param[i], g);
        }
        sum[i] = g.mul_add(g, sum[i]);
        param[i] = (-step_size).mul_add(g / (sum[i].sqrt() + eps), param[i]);
    }
}

/// One step of [`Adadelta`].
pub fn adadelta<F: Float>(
    adadelta: &Adadelta,
    _t: u64,
    param: &mut [F],
    grad: &[F],
    square_avg: &mut [F],
    acc_delta: &mut [F],
) {
    assert_eq!([grad.len(), square_avg.len(), acc_delta.len()], [param.len(); 3]);
    let [lr, rho, one_minus_rho] = [adadelta.lr, adadelta.rho, 1.0 - adadelta.rho].map(F::from_f64);
    let [eps, weight_decay] = [adadelta.eps, adadelta.weight_decay].map(F::from_f64);
    for i in 0..param.len() {
        let mut g = if adadelta.maximize { -grad[i] } else { grad[i] };
        if adadelta.weight_decay != 0.0 {
            g = weight_decay.mul_add(param[i], g);
        }
        square_avg[i] = average_square(adadelta.rho, [rho, one_minus_rho], square_avg[i], g);
        let delta = ((acc_delta[i] + eps) / (square_avg[i] + eps)).sqrt() * g;
        acc_delta[i] = average_square(adadelta.rho, [rho, one_minus_rho], acc_delta[i], delta);
        param[i] = (-lr).mul_add(delta, param[i]);
    }
}

/// One step of [`RmsProp`].
pub fn rmsprop<F: Float>(
    rmsprop: &RmsProp,
    _t: u64,
    param: &mut [F],
    grad: &[F],
    square_avg: &mut [F],
    grad_avg: &mut [F],
    momentum_buffer: &mut [F],
) {
    assert_eq!([grad.len(), square_avg.len()], [param.len(); 2]);
    let [lr, alpha, one_minus_alpha] =
        [rmsprop.lr, rmsprop.alpha, 1.0 - rmsprop.alpha].map(F::from_f64);
    let [eps, weight_decay, momentum] =
        [rmsprop.eps, rmsprop.weight_decay, rmsprop.momentum].map(F::from_f64);
    for i in 0..param.len() {
        let mut g = if rmsprop.maximize { -grad[i] } else { grad[i] };
        if rmsprop.weight_decay != 0.0 {
            g = weight_decay.mul_add(param[i], g);
        }
        square_avg[i] = average_square(rmsprop.alpha, [alpha, one_minus_alpha], square_avg[i], g);
        let mut square = square_avg[i];
        if rmsprop.centered {
            grad_avg[i] = average(rmsprop.alpha, [alpha, one_minus_alpha], grad_avg[i], g);
            square = (-grad_avg[i]).mul_add(grad_avg[i], square);
            if square < F::from_f64(0.0) {
                square = F::from_f64(0.0);
            }
        }
        let mut direction = g / (square.sqrt() + eps);
        if rmsprop.momentum != 0.0 {
            momentum_buffer[i] = momentum.mul_add(momentum_buffer[i], direction);
            direction = momentum_buffer[i];
        }
        param[i] = (-lr).mul_add(direction, param[i]);
    }
}

/// One step of [`Adam`] or AdamW.
pub fn adam<F: Float>(
    adam: &Adam,
    t: u64,
    param: &mut [F],
    grad: &[F],
    exp_avg: &mut [F],
    exp_avg_sq: &mut [F],
) {
    adam_or_amsgrad(adam, t, param, grad, exp_avg, exp_avg_sq, None);
}

/// One step of [`AmsGrad`].
pub fn amsgrad<F: Float>(
    amsgrad: &AmsGrad,
    t: u64,
    param: &mut [F],
    grad: &[F],
    exp_avg: &mut [F],
    exp_avg_sq: &mut [F],
    max_exp_avg_sq: &mut [F],
) {
    assert_eq!(max_exp_avg_sq.len(), param.len());
    adam_or_amsgrad(&amsgrad.0, t, param, grad, exp_avg, exp_avg_sq, Some(max_exp_avg_sq));
}

fn adam_or_amsgrad<F: Float>(
    adam: &Adam,
    t: u64,
    param: &mut [F],
    grad: &[F],
    exp_avg: &mut [F],
    exp_avg_sq: &mut [F],
    mut max_exp_avg_sq: Option<&mut [F]>,
) {
    assert_eq!([grad.len(), exp_avg.len(), exp_avg_sq.len()], [param.len(); 3]);
    let [correction1, correction2] = bias_corrections([adam.beta1, adam.beta2], t);
    let correction2 = correction2.sqrt();
    let eps = match adam.epsilon {
        Epsilon::Standard => adam.eps * correction2,
        Epsilon::Hat => adam.eps,
    };
    let step_size = F::from_f64(adam.lr * correction2 / correction1);
    let [eps, weight_decay, share] =
        [eps, adam.weight_decay, adam.lr * adam.weight_decay].map(F::from_f64);
    let [beta1, one_minus_beta1] = [adam.beta1, 1.0 - adam.beta1].map(F::from_f64);
    let [beta2, one_minus_beta2] = [adam.beta2, 1.0 - adam.beta2].map(F::from_f64);
    let zero = F::from_f64(0.0);

    for i in 0..param.len() {
        let mut g = if adam.maximize { -grad[i] } else { grad[i] };
        if adam.weight_decay != 0.0 {
            decay(adam.decoupled_weight_decay, [weight_decay, share], &mut param[i], &mut g);
        }
        exp_avg[i] = average(adam.beta1, [beta1, one_minus_beta1], exp_avg[i], g);
        exp_avg_sq[i] = average_square(adam.beta2, [beta2, one_minus_beta2], exp_avg_sq[i], g);
        let mut square = exp_avg_sq[i];
        if let Some(max) = &mut max_exp_avg_sq {
            if square < max[i] {
                square = max[i];
            }
            max[i] = square;
        }
        let mut m = exp_avg[i];
        if adam.cautious && m * g < zero {
            m = zero;
        }
        param[i] = (-step_size).mul_add(m / (square.sqrt() + eps), param[i]);
    }
}

/// One step of [`AdaMax`].
pub fn adamax<F: Float>(
    adamax: &AdaMax,
    t: u64,
    param: &mut [F],
    grad: &[F],
    exp_avg: &mut [F],
    exp_inf: &mut [F],
) {
    assert_eq!([grad.len(), exp_avg.len(), exp_inf.len()], [param.len(); 3]);
    let [correction] = bias_corrections([adamax.beta1], t);
    let step_size = F::from_f64(adamax.lr / correction);
    let [beta1, one_minus_beta1, beta2] =
        [adamax.beta1, 1.0 - adamax.beta1, adamax.beta2].map(F::from_f64);
    let [eps, weight_decay] = [adamax.eps, adamax.weight_decay].map(F::from_f64);
    for i in 0..param.len() {
        let mut g = if adamax.maximize { -grad[i] } else { grad[i] };
        if adamax.weight_decay != 0.0 {
            g = weight_decay.mul_add(param[i], g);
        }
        exp_avg[i] = average(adamax.beta1, [beta1, one_minus_beta1], exp_avg[i], g);
        let (new, old) = (g.abs() + eps, beta2 * exp_inf[i]);
        exp_inf[i] = if new < old { old } else { new };
        param[i] = (-step_size).mul_add(exp_avg[i] / exp_inf[i], param[i]);
    }
}

/// One step of [`NAdam`].
pub fn nadam<F: Float>(
    nadam: &NAdam,
    t: u64,
    param: &mut [F],
    grad: &[F],
    exp_avg: &mut [F],
    exp_avg_sq: &mut [F],
) {
    assert_eq!([grad.len(), exp_avg.len(), exp_avg_sq.len()], [param.len(); 3]);
    let [correction2] = bias_corrections([nadam.beta2], t);
    let correction2 = correction2.sqrt();
    let [[now, gathered], [next, gathered_next]] =
        nadam_momenta(nadam.beta1, nadam.momentum_decay, t);
    let lr = nadam.lr * correction2;
    let grad_size = F::from_f64(lr * (1.0 - now) / gathered);
    let m_size = F::from_f64(lr * next / gathered_next);
    let [eps, weight_decay, share] =
        [nadam.eps * correction2, nadam.weight_decay, nadam.lr * nadam.weight_decay]
            .map(F::from_f64);
    let [beta1, one_minus_beta1] = [nadam.beta1, 1.0 - nadam.beta1].map(F::from_f64);
    let [beta2, one_minus_beta2] = [nadam.beta2, 1.0 - nadam.beta2].map(F::from_f64);
    for i in 0..param.len() {
        let mut g = if nadam.maximize { -grad[i] } else { grad[i] };
        if nadam.weight_decay != 0.0 {
            decay(nadam.decoupled_weight_decay, [weight_decay, share], &mut param[i], &mut g);
        }
        exp_avg[i] = average(nadam.beta1, [beta1, one_minus_beta1], exp_avg[i], g);
        exp_avg_sq[i] = average_square(nadam.beta2, [beta2, one_minus_beta2], exp_avg_sq[i], g);
        let direction = m_size.mul_add(exp_avg[i], grad_size * g);
        param[i] = param[i] - direction / (exp_avg_sq[i].sqrt() + eps);
    }
}

/// One step of [`RAdam`].
pub fn radam<F: Float>(
    radam: &RAdam,
    t: u64,
    param: &mut [F],
    grad: &[F],
    exp_avg: &mut [F],
    exp_avg_sq: &mut [F],
) {
    assert_eq!([grad.len(), exp_avg.len(), exp_avg_sq.len()], [param.len(); 3]);
    let [correction1, correction2] = bias_corrections([radam.beta1, radam.beta2], t);
    let plain = radam.lr / correction1;
    let factor = radam_rectification(radam.beta2, correction2, t);
    let step_size = F::from_f64(factor.map_or(plain, |factor| plain * factor * correction2.sqrt()));
    let [eps, weight_decay, share] =
        [radam.eps, radam.weight_decay, radam.lr * radam.weight_decay].map(F::from_f64);
    let [beta1, one_minus_beta1] = [radam.beta1, 1.0 - radam.beta1].map(F::from_f64);
    let [beta2, one_minus_beta2] = [radam.beta2, 1.0 - radam.beta2].map(F::from_f64);
    for i in 0..param.len() {
        let mut g = if radam.maximize { -grad[i] } else { grad[i] };
        if radam.weight_decay != 0.0 {
            decay(radam.decoupled_weight_decay, [weight_decay, share], &mut param[i], &mut g);
        }
        exp_avg[i] = average(radam.beta1, [beta1, one_minus_beta1], exp_avg[i], g);
        exp_avg_sq[i] = average_square(radam.beta2, [beta2, one_minus_beta2], exp_avg_sq[i], g);
        let direction = match factor {
            Some(_) => exp_avg[i] / (exp_avg_sq[i].sqrt() + eps),
            None => exp_avg[i],
        };
        param[i] = (-step_size).mul_add(direction, param[i]);
    }
}

/// One step of [`Lion`].
pub fn lion<F: Float>(lion: &Lion, _t: u64, param: &mut [F], grad: &[F], exp_avg: &mut [F]) {
    assert_eq!([grad.len(), exp_avg.len()], [param.len(); 2]);
    let [lr, share] = [lion.lr, lion.lr * lion.weight_decay].map(F::from_f64);
    let [beta1, one_minus_beta1] = [lion.beta1, 1.0 - lion.beta1].map(F::from_f64);
    let [beta2, one_minus_beta2] = [lion.beta2, 1.0 - lion.beta2].map(F::from_f64);
    let [zero, one] = [0.0, 1.0].map(F::from_f64);
    for i in 0..param.len() {
        let g = if lion.maximize { -grad[i] } else { grad[i] };
        if lion.weight_decay != 0.0 {
            param[i] = (-share).mul_add(param[i], param[i]);
        }
        let mut direction = average(lion.beta1, [beta1, one_minus_beta1], exp_avg[i], g);
        if direction < zero {
            direction = -one;
        } else if zero < direction {
            direction = one;
        }
        param[i] = (-lr).mul_add(direction, param[i]);
        exp_avg[i] = average(lion.beta2, [beta2, one_minus_beta2], exp_avg[i], g);
    }
}

/// One step of [`Adopt`].
pub fn adopt<F: Float>(
    adopt: &Adopt,
    t: u64,
    param: &mut [F],
    grad: &[F],
    exp_avg: &mut [F],
    exp_avg_sq: &mut [F],
) {
    assert_eq!([grad.len(), exp_avg.len(), exp_avg_sq.len()], [param.len(); 3]);
    let clip = F::from_f64(((t - 1) as f64).sqrt().sqrt());
    let [lr, eps, weight_decay, share] =
        [adopt.lr, adopt.eps, adopt.weight_decay, adopt.lr * adopt.weight_decay].map(F::from_f64);
    let [beta1, one_minus_beta1] = [adopt.beta1, 1.0 - adopt.beta1].map(F::from_f64);
    let [beta2, one_minus_beta2] = [adopt.beta2, 1.0 - adopt.beta2].map(F::from_f64);
    for i in 0..param.len() {
        let mut g = if adopt.maximize { -grad[i] } else { grad[i] };
        if adopt.weight_decay != 0.0 && !adopt.decoupled_weight_decay {
            g = weight_decay.mul_add(param[i], g);
        }
        if t == 1 {
            exp_avg_sq[i] = g * g;
            continue;
        }
        if adopt.weight_decay != 0.0 && adopt.decoupled_weight_decay {
            param[i] = (-share).mul_add(param[i], param[i]);
        }
        let root = exp_avg_sq[i].sqrt();
        let mut normalised = g / if root < eps { eps } else { root };
        if normalised < -clip {
            normalised = -clip;
        } else if clip < normalised {
            normalised = clip;
        }
        exp_avg[i] = average(adopt.beta1, [beta1, one_minus_beta1], exp_avg[i], normalised);
        param[i] = (-lr).mul_add(exp_avg[i], param[i]);
        exp_avg_sq[i] = average_square(adopt.beta2, [beta2, one_minus_beta2], exp_avg_sq[i], g);
    }
}

/// One step of [`AdEmaMix`].
pub fn ademamix<F: Float>(
    ademamix: &AdEmaMix,
    t: u64,
    param: &mut [F],
    grad: &[F],
    exp_avg_fast: &mut [F],
    exp_avg_slow: &mut [F],
    exp_avg_sq: &mut [F],
) {
    assert_eq!([grad.len(), exp_avg_sq.len()], [param.len(); 2]);
    assert_eq!([exp_avg_fast.len(), exp_avg_slow.len()], [param.len(); 2]);
    let [correction1, correction2] = bias_corrections([ademamix.beta1, ademamix.beta2], t);
    let correction2 = correction2.sqrt();
    let [alpha, beta3, one_minus_beta3] = ademamix.scheduled(t);
    let lr = ademamix.lr * correction2;
    let [fast_size, slow_size] = [lr / correction1, lr * alpha].map(F::from_f64);
    let [eps, share] =
        [ademamix.eps * correction2, ademamix.lr * ademamix.weight_decay].map(F::from_f64);
    let [beta1, one_minus_beta1] = [ademamix.beta1, 1.0 - ademamix.beta1].map(F::from_f64);
    let [beta2, one_minus_beta2] = [ademamix.beta2, 1.0 - ademamix.beta2].map(F::from_f64);
    let [beta3, one_minus_beta3] = [beta3, one_minus_beta3].map(F::from_f64);
    for i in 0..param.len() {
        let g = if ademamix.maximize { -grad[i] } else { grad[i] };
        if ademamix.weight_decay != 0.0 {
            param[i] = (-share).mul_add(param[i], param[i]);
        }
        exp_avg_fast[i] = average(ademamix.beta1, [beta1, one_minus_beta1], exp_avg_fast[i], g);
        exp_avg_slow[i] = average(ademamix.beta3, [beta3, one_minus_beta3], exp_avg_slow[i], g);
        exp_avg_sq[i] = average_square(ademamix.beta2, [beta2, one_minus_beta2], exp_avg_sq[i], g);
        let direction = fast_size.mul_add(exp_avg_fast[i], slow_size * exp_avg_slow[i]);
        param[i] = param[i] - direction / (exp_avg_sq[i].sqrt() + eps);
    }
}
