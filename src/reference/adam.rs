use super::{Reference, average, average_square, corrected_eps, decay, is_uphill, larger};
use crate::{
    Adam, Epsilon,
    rule::{Float, bias_corrections},
};

impl Reference for Adam {
    fn reference<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        [exp_avg, exp_avg_sq]: [&mut [F]; 2],
    ) {
        adam_or_amsgrad(self, t, param, grad, exp_avg, exp_avg_sq, None);
    }
}

/// A step of Adam, or of AMSGrad if there is a `max_exp_avg_sq`.
pub(super) fn adam_or_amsgrad<F: Float>(
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
        Epsilon::Standard => corrected_eps(adam.eps, correction2),
        Epsilon::Hat => adam.eps,
    };
    let step_size = F::constant(adam.lr * correction2 / correction1);
    let [eps, weight_decay, share] =
        [eps, adam.weight_decay, adam.lr * adam.weight_decay].map(F::constant);
    let [beta1, one_minus_beta1] = [adam.beta1, 1.0 - adam.beta1].map(F::constant);
    let [beta2, one_minus_beta2] = [adam.beta2, 1.0 - adam.beta2].map(F::constant);

    for i in 0..param.len() {
        let mut g = if adam.maximize { -grad[i] } else { grad[i] };
        if adam.weight_decay != 0.0 {
            decay(adam.decoupled_weight_decay, [weight_decay, share], &mut param[i], &mut g);
        }
        exp_avg[i] = average(adam.beta1, [beta1, one_minus_beta1], exp_avg[i], g);
        exp_avg_sq[i] = average_square(adam.beta2, [beta2, one_minus_beta2], exp_avg_sq[i], g);
        let mut square = exp_avg_sq[i];
        if let Some(max) = &mut max_exp_avg_sq {
            max[i] = larger(max[i], square);
            square = max[i];
        }
        let mut m = exp_avg[i];
        if adam.cautious && is_uphill(m, g) {
            m = F::default();
        }
        param[i] = (-step_size).mul_add(m / (square.sqrt() + eps), param[i]);
    }
}
