use super::{Reference, average, average_square, decay};
use crate::{
    RAdam,
    rule::{Float, bias_corrections, radam_rectification},
};

impl Reference for RAdam {
    fn reference<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        [exp_avg, exp_avg_sq]: [&mut [F]; 2],
    ) {
        assert_eq!([grad.len(), exp_avg.len(), exp_avg_sq.len()], [param.len(); 3]);
        let [correction1, correction2] = bias_corrections([self.beta1, self.beta2], t);
        let plain = self.lr / correction1;
        let factor = radam_rectification(self.beta2, correction2, t);
        let step_size =
            F::constant(factor.map_or(plain, |factor| plain * factor * correction2.sqrt()));
        let [eps, weight_decay, share] =
            [self.eps, self.weight_decay, self.lr * self.weight_decay].map(F::constant);
        let [beta1, one_minus_beta1] = [self.beta1, 1.0 - self.beta1].map(F::constant);
        let [beta2, one_minus_beta2] = [self.beta2, 1.0 - self.beta2].map(F::constant);
        for i in 0..param.len() {
            let mut g = if self.maximize { -grad[i] } else { grad[i] };
            if self.weight_decay != 0.0 {
                decay(self.decoupled_weight_decay, [weight_decay, share], &mut param[i], &mut g);
            }
            exp_avg[i] = average(self.beta1, [beta1, one_minus_beta1], exp_avg[i], g);
            exp_avg_sq[i] = average_square(self.beta2, [beta2, one_minus_beta2], exp_avg_sq[i], g);
            let direction = match factor {
                Some(_) => exp_avg[i] / (exp_avg_sq[i].sqrt() + eps),
                None => exp_avg[i],
            };
            param[i] = (-step_size).mul_add(direction, param[i]);
        }
    }
}
