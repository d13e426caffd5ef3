use super::{Reference, average, larger};
use crate::{
    AdaMax,
    rule::{Float, bias_corrections},
};

impl Reference for AdaMax {
    fn reference<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        [exp_avg, exp_inf]: [&mut [F]; 2],
    ) {
        assert_eq!([grad.len(), exp_avg.len(), exp_inf.len()], [param.len(); 3]);
        let [correction] = bias_corrections([self.beta1], t);
        let step_size = F::constant(self.lr / correction);
        let [beta1, one_minus_beta1, beta2] =
            [self.beta1, 1.0 - self.beta1, self.beta2].map(F::constant);
        let power = |exponent: i32| F::from_f64(f64::powi(2.0, exponent));
        let [eps, weight_decay] = [self.eps, self.weight_decay].map(F::constant);
        for i in 0..param.len() {
            let mut g = if self.maximize { -grad[i] } else { grad[i] };
            if self.weight_decay != 0.0 {
                g = weight_decay.mul_add(param[i], g);
            }
            exp_avg[i] = average(self.beta1, [beta1, one_minus_beta1], exp_avg[i], g);
            exp_inf[i] = larger(beta2 * exp_inf[i], g.abs() + eps);
            let (m, u) = (exp_avg[i], exp_inf[i]);
            // A large quotient may overflow where the step does not.
            param[i] = if u * power(100) < m.abs() {
                (-(step_size * power(32))).mul_add(m * power(-32) / u, param[i])
            } else {
                (-step_size).mul_add(m / u, param[i])
            };
        }
    }
}
