use super::{Reference, average, average_square, corrected_eps};
use crate::{
    AdEmaMix,
    rule::{Float, bias_corrections},
};

impl Reference for AdEmaMix {
    fn reference<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        [exp_avg_fast, exp_avg_slow, exp_avg_sq]: [&mut [F]; 3],
    ) {
        assert_eq!([grad.len(), exp_avg_sq.len()], [param.len(); 2]);
        assert_eq!([exp_avg_fast.len(), exp_avg_slow.len()], [param.len(); 2]);
        let [correction1, correction2] = bias_corrections([self.beta1, self.beta2], t);
        let correction2 = correction2.sqrt();
        let [alpha, beta3, one_minus_beta3] = self.scheduled(t);
        let lr = self.lr * correction2;
        // Of a step in which the squares overflow, the sum of the averages must not: it would be divided by infinity.
        let sizes = [lr / correction1, lr * alpha];
        let mut unit = 1.0;
        while sizes[0] + sizes[1] > unit {
            unit *= 2.0;
        }
        let [fast_size, slow_size] = sizes.map(|size| F::constant(size / unit));
        let unit = F::constant(unit);
        let [eps, share] =
            [corrected_eps(self.eps, correction2), self.lr * self.weight_decay].map(F::constant);
        let [beta1, one_minus_beta1] = [self.beta1, 1.0 - self.beta1].map(F::constant);
        let [beta2, one_minus_beta2] = [self.beta2, 1.0 - self.beta2].map(F::constant);
        let [beta3, one_minus_beta3] = [beta3, one_minus_beta3].map(F::constant);
        for i in 0..param.len() {
            let g = if self.maximize { -grad[i] } else { grad[i] };
            if self.weight_decay != 0.0 {
                param[i] = (-share).mul_add(param[i], param[i]);
            }
            exp_avg_fast[i] = average(self.beta1, [beta1, one_minus_beta1], exp_avg_fast[i], g);
            exp_avg_slow[i] = average(self.beta3, [beta3, one_minus_beta3], exp_avg_slow[i], g);
            exp_avg_sq[i] = average_square(self.beta2, [beta2, one_minus_beta2], exp_avg_sq[i], g);
            let direction = fast_size.mul_add(exp_avg_fast[i], slow_size * exp_avg_slow[i]);
            param[i] = (-unit).mul_add(direction / (exp_avg_sq[i].sqrt() + eps), param[i]);
        }
    }
}
