use super::{Reference, average, corrected_eps};
use crate::{
    Yogi,
    rule::{Float, bias_corrections},
};

impl Reference for Yogi {
    fn reference<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        [exp_avg, exp_avg_sq]: [&mut [F]; 2],
    ) {
        assert_eq!([grad.len(), exp_avg.len(), exp_avg_sq.len()], [param.len(); 3]);
        let [correction1, correction2] = bias_corrections([self.beta1, self.beta2], t);
        let correction2 = correction2.sqrt();
        let step_size = F::constant(self.lr * correction2 / correction1);
        let [eps, weight_decay] =
            [corrected_eps(self.eps, correction2), self.weight_decay].map(F::constant);
        let [beta1, one_minus_beta1] = [self.beta1, 1.0 - self.beta1].map(F::constant);
        let one_minus_beta2 = F::constant(1.0 - self.beta2);
        let zero = F::constant(0.0);
        for i in 0..param.len() {
            let mut g = if self.maximize { -grad[i] } else { grad[i] };
            if self.weight_decay != 0.0 {
                g = weight_decay.mul_add(param[i], g);
            }
            exp_avg[i] = average(self.beta1, [beta1, one_minus_beta1], exp_avg[i], g);
            let mut movement = g.mul_add(g, -exp_avg_sq[i]);
            if movement < zero {
                movement = -(g * g);
            } else if zero < movement {
                movement = g * g;
            }
            if exp_avg_sq[i] < F::from_f64(f64::INFINITY) {
                exp_avg_sq[i] = one_minus_beta2.mul_add(movement, exp_avg_sq[i]);
            }
            param[i] = (-step_size).mul_add(exp_avg[i] / (exp_avg_sq[i].sqrt() + eps), param[i]);
        }
    }
}
