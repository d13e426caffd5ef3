use super::{Reference, average};
use crate::{Lion, rule::Float};

impl Reference for Lion {
    fn reference<F: Float>(&self, _t: u64, param: &mut [F], grad: &[F], [exp_avg]: [&mut [F]; 1]) {
        assert_eq!([grad.len(), exp_avg.len()], [param.len(); 2]);
        let [lr, share] = [self.lr, self.lr * self.weight_decay].map(F::constant);
        let [beta1, one_minus_beta1] = [self.beta1, 1.0 - self.beta1].map(F::constant);
        let [beta2, one_minus_beta2] = [self.beta2, 1.0 - self.beta2].map(F::constant);
        let [zero, one] = [0.0, 1.0].map(F::constant);
        for i in 0..param.len() {
            let g = if self.maximize { -grad[i] } else { grad[i] };
            if self.weight_decay != 0.0 {
                param[i] = (-share).mul_add(param[i], param[i]);
            }
            let mut direction = average(self.beta1, [beta1, one_minus_beta1], exp_avg[i], g);
            if direction < zero {
                direction = -one;
            } else if zero < direction {
                direction = one;
            }
            param[i] = (-lr).mul_add(direction, param[i]);
            exp_avg[i] = average(self.beta2, [beta2, one_minus_beta2], exp_avg[i], g);
        }
    }
}
