use super::{Reference, average, average_square};
use crate::{RmsProp, rule::Float};

impl Reference for RmsProp {
    fn reference<F: Float>(
        &self,
        _t: u64,
        param: &mut [F],
        grad: &[F],
        [square_avg, grad_avg, momentum_buffer]: [&mut [F]; 3],
    ) {
        assert_eq!([grad.len(), square_avg.len()], [param.len(); 2]);
        let [lr, alpha, one_minus_alpha] = [self.lr, self.alpha, 1.0 - self.alpha].map(F::constant);
        let [eps, weight_decay, momentum] =
            [self.eps, self.weight_decay, self.momentum].map(F::constant);
        for i in 0..param.len() {
            let mut g = if self.maximize { -grad[i] } else { grad[i] };
            if self.weight_decay != 0.0 {
                g = weight_decay.mul_add(param[i], g);
            }
            square_avg[i] = average_square(self.alpha, [alpha, one_minus_alpha], square_avg[i], g);
            let mut square = square_avg[i];
            if self.centered {
                grad_avg[i] = average(self.alpha, [alpha, one_minus_alpha], grad_avg[i], g);
                square = (-grad_avg[i]).mul_add(grad_avg[i], square);
                if square < F::constant(0.0) {
                    square = F::constant(0.0);
                }
            }
            let mut direction = g / (square.sqrt() + eps);
            if self.momentum != 0.0 {
                momentum_buffer[i] = momentum.mul_add(momentum_buffer[i], direction);
                direction = momentum_buffer[i];
            }
            param[i] = (-lr).mul_add(direction, param[i]);
        }
    }
}
