use super::{Reference, average, average_square, corrected_eps, decay};
use crate::{
    NAdam,
    rule::{Float, bias_corrections, nadam_momenta},
};

impl Reference for NAdam {
    fn reference<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        [exp_avg, exp_avg_sq]: [&mut [F]; 2],
    ) {
        assert_eq!([grad.len(), exp_avg.len(), exp_avg_sq.len()], [param.len(); 3]);
        let [correction2] = bias_corrections([self.beta2], t);
        let correction2 = correction2.sqrt();
        let [[now, gathered], [next, gathered_next]] =
            nadam_momenta(self.beta1, self.momentum_decay, t);
        let lr = self.lr * correction2;
        let grad_size = F::constant(lr * (1.0 - now) / gathered);
        let m_size = F::constant(lr * next / gathered_next);
        let [eps, weight_decay, share] =
            [corrected_eps(self.eps, correction2), self.weight_decay, self.lr * self.weight_decay]
                .map(F::constant);
        let [beta1, one_minus_beta1] = [self.beta1, 1.0 - self.beta1].map(F::constant);
        let [beta2, one_minus_beta2] = [self.beta2, 1.0 - self.beta2].map(F::constant);
        for i in 0..param.len() {
            let mut g = if self.maximize { -grad[i] } else { grad[i] };
            if self.weight_decay != 0.0 {
                decay(self.decoupled_weight_decay, [weight_decay, share], &mut param[i], &mut g);
            }
            exp_avg[i] = average(self.beta1, [beta1, one_minus_beta1], exp_avg[i], g);
            exp_avg_sq[i] = average_square(self.beta2, [beta2, one_minus_beta2], exp_avg_sq[i], g);
            let direction = m_size.mul_add(exp_avg[i], grad_size * g);
            param[i] = param[i] - direction / (exp_avg_sq[i].sqrt() + eps);
        }
    }
}
