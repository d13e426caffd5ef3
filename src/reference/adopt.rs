use super::{Reference, average, average_square};
use crate::{Adopt, rule::Float};

impl Reference for Adopt {
    fn reference<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        [exp_avg, exp_avg_sq]: [&mut [F]; 2],
    ) {
        assert_eq!([grad.len(), exp_avg.len(), exp_avg_sq.len()], [param.len(); 3]);
        let clip = F::constant(((t - 1) as f64).sqrt().sqrt());
        let [lr, eps, weight_decay, share] =
            [self.lr, self.eps, self.weight_decay, self.lr * self.weight_decay].map(F::constant);
        let [beta1, one_minus_beta1] = [self.beta1, 1.0 - self.beta1].map(F::constant);
        let [beta2, one_minus_beta2] = [self.beta2, 1.0 - self.beta2].map(F::constant);
        for i in 0..param.len() {
            let mut g = if self.maximize { -grad[i] } else { grad[i] };
            if self.weight_decay != 0.0 && !self.decoupled_weight_decay {
                g = weight_decay.mul_add(param[i], g);
            }
            if t == 1 {
                exp_avg_sq[i] = g * g;
                continue;
            }
            if self.weight_decay != 0.0 && self.decoupled_weight_decay {
                param[i] = (-share).mul_add(param[i], param[i]);
            }
            let root = exp_avg_sq[i].sqrt();
            let mut normalised = g / if root < eps { eps } else { root };
            if normalised < -clip {
                normalised = -clip;
            } else if clip < normalised {
                normalised = clip;
            }
            exp_avg[i] = average(self.beta1, [beta1, one_minus_beta1], exp_avg[i], normalised);
            param[i] = (-lr).mul_add(exp_avg[i], param[i]);
            exp_avg_sq[i] = average_square(self.beta2, [beta2, one_minus_beta2], exp_avg_sq[i], g);
        }
    }
}
