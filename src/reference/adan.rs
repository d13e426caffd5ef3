use super::{Reference, average, average_square, corrected_eps};
use crate::{
    Adan,
    rule::{Float, bias_corrections},
};

impl Reference for Adan {
    fn reference<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        [exp_avg, exp_avg_diff, exp_avg_sq, neg_pre_grad]: [&mut [F]; 4],
    ) {
        assert_eq!([grad.len(), exp_avg.len(), exp_avg_diff.len()], [param.len(); 3]);
        assert_eq!([exp_avg_sq.len(), neg_pre_grad.len()], [param.len(); 2]);
        let [correction1, correction2, correction3] =
            bias_corrections([self.beta1, self.beta2, self.beta3], t);
        let correction3 = correction3.sqrt();
        let lr = self.lr * correction3;
        let [m_size, v_size] = [lr / correction1, lr * self.beta2 / correction2].map(F::constant);
        let share = self.lr * self.weight_decay;
        let [eps, share, prox] =
            [corrected_eps(self.eps, correction3), share, 1.0 / (1.0 + share)].map(F::constant);
        let [beta1, one_minus_beta1] = [self.beta1, 1.0 - self.beta1].map(F::constant);
        let [beta2, one_minus_beta2] = [self.beta2, 1.0 - self.beta2].map(F::constant);
        let [beta3, one_minus_beta3] = [self.beta3, 1.0 - self.beta3].map(F::constant);
        for i in 0..param.len() {
            let g = if self.maximize { -grad[i] } else { grad[i] };
            let diff = if t == 1 { F::constant(0.0) } else { g + neg_pre_grad[i] };
            neg_pre_grad[i] = -g;
            exp_avg[i] = average(self.beta1, [beta1, one_minus_beta1], exp_avg[i], g);
            exp_avg_diff[i] = average(self.beta2, [beta2, one_minus_beta2], exp_avg_diff[i], diff);
            let ahead = beta2.mul_add(diff, g);
            exp_avg_sq[i] =
                average_square(self.beta3, [beta3, one_minus_beta3], exp_avg_sq[i], ahead);
            let direction = m_size.mul_add(exp_avg[i], v_size * exp_avg_diff[i]);
            let step = match exp_avg_sq[i] == F::from_f64(f64::INFINITY) {
                false => direction / (exp_avg_sq[i].sqrt() + eps),
                // 0, or NaN where a gradient was not finite.
                true => F::default() * exp_avg[i],
            };
            if self.weight_decay == 0.0 {
                param[i] = param[i] - step;
            } else if self.no_prox {
                param[i] = (-share).mul_add(param[i], param[i]) - step;
            } else {
                param[i] = prox * (param[i] - step);
            }
        }
    }
}
