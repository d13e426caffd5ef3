use super::{Reference, average, average_square, corrected_eps, decay};
use crate::{
    AdaBelief,
    rule::{Float, bias_corrections},
};

impl Reference for AdaBelief {
    fn reference<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        [exp_avg, exp_avg_var]: [&mut [F]; 2],
    ) {
        assert_eq!([grad.len(), exp_avg.len(), exp_avg_var.len()], [param.len(); 3]);
        let [correction1, correction2] = bias_corrections([self.beta1, self.beta2], t);
        let correction2 = correction2.sqrt();
        let step_size = F::constant(self.lr * correction2 / correction1);
        let [variance_eps, eps] = [self.eps, corrected_eps(self.eps, correction2)].map(F::constant);
        let [weight_decay, share] =
            [self.weight_decay, self.lr * self.weight_decay].map(F::constant);
        let [beta1, one_minus_beta1] = [self.beta1, 1.0 - self.beta1].map(F::constant);
        let [beta2, one_minus_beta2] = [self.beta2, 1.0 - self.beta2].map(F::constant);
        for i in 0..param.len() {
            let mut g = if self.maximize { -grad[i] } else { grad[i] };
            if self.weight_decay != 0.0 {
                decay(self.decoupled_weight_decay, [weight_decay, share], &mut param[i], &mut g);
            }
            exp_avg[i] = average(self.beta1, [beta1, one_minus_beta1], exp_avg[i], g);
            let distance = g - exp_avg[i];
            let weights = [beta2, one_minus_beta2];
            exp_avg_var[i] =
                average_square(self.beta2, weights, exp_avg_var[i], distance) + variance_eps;
            param[i] = (-step_size).mul_add(exp_avg[i] / (exp_avg_var[i].sqrt() + eps), param[i]);
        }
    }
}
