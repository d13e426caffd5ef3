use super::{Reference, average_square};
use crate::{Adadelta, rule::Float};

impl Reference for Adadelta {
    fn reference<F: Float>(
        &self,
        _t: u64,
        param: &mut [F],
        grad: &[F],
        [square_avg, acc_delta]: [&mut [F]; 2],
    ) {
        assert_eq!([grad.len(), square_avg.len(), acc_delta.len()], [param.len(); 3]);
        let [lr, rho, one_minus_rho] = [self.lr, self.rho, 1.0 - self.rho].map(F::constant);
        let power = |exponent: i32| F::from_f64(f64::powi(2.0, exponent));
        let [eps, weight_decay] = [self.eps, self.weight_decay].map(F::constant);
        for i in 0..param.len() {
            let mut g = if self.maximize { -grad[i] } else { grad[i] };
            if self.weight_decay != 0.0 {
                g = weight_decay.mul_add(param[i], g);
            }
            square_avg[i] = average_square(self.rho, [rho, one_minus_rho], square_avg[i], g);
            let (above, below) = (acc_delta[i] + eps, square_avg[i] + eps);
            // A quotient below 2^-64 is multiplied by 2^64 before the root, so that it is not rounded to 0.
            let delta = if above * power(64) < below {
                (above * power(64) / below).sqrt() * g * power(-32)
            } else {
                (above / below).sqrt() * g
            };
            acc_delta[i] = average_square(self.rho, [rho, one_minus_rho], acc_delta[i], delta);
            param[i] = (-lr).mul_add(delta, param[i]);
        }
    }
}
