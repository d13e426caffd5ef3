use super::Reference;
use crate::{AdaGrad, rule::Float};

impl Reference for AdaGrad {
    fn reference<F: Float>(&self, t: u64, param: &mut [F], grad: &[F], [sum]: [&mut [F]; 1]) {
        assert_eq!([grad.len(), sum.len()], [param.len(); 2]);
        let step_size = F::constant(self.lr / (1.0 + (t - 1) as f64 * self.lr_decay));
        let [eps, weight_decay] = [self.eps, self.weight_decay].map(F::constant);
        for i in 0..param.len() {
            let mut g = if self.maximize { -grad[i] } else { grad[i] };
            if self.weight_decay != 0.0 {
                g = weight_decay.mul_add(param[i], g);
            }
            sum[i] = g.mul_add(g, sum[i]);
            param[i] = (-step_size).mul_add(g / (sum[i].sqrt() + eps), param[i]);
        }
    }
}
