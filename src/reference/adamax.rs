use super::{Reference, average};
use crate::{AdaMax, Float, bias_corrections};

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
        let step_size = F::from_f64(self.lr / correction);
        let [beta1, one_minus_beta1, beta2] =
            [self.beta1, 1.0 - self.beta1, self.beta2].map(F::from_f64);
        let [eps, weight_decay] = [self.eps, self.weight_decay].map(F::from_f64);
        for i in 0..param.len() {
            let mut g = if self.maximize { -grad[i] } else { grad[i] };
            if self.weight_decay != 0.0 {
                g = weight_decay.mul_add(param[i], g);
            }
            exp_avg[i] = average(self.beta1, [beta1, one_minus_beta1], exp_avg[i], g);
            let (new, old) = (g.abs() + eps, beta2 * exp_inf[i]);
            exp_inf[i] = if new < old { old } else { new };
            param[i] = (-step_size).mul_add(exp_avg[i] / exp_inf[i], param[i]);
        }
    }
}
