use super::Reference;
use crate::{Ftrl, rule::Float};

impl Reference for Ftrl {
    fn reference<F: Float>(
        &self,
        _t: u64,
        param: &mut [F],
        grad: &[F],
        [accumulator, linear]: [&mut [F]; 2],
    ) {
        assert_eq!([grad.len(), accumulator.len(), linear.len()], [param.len(); 3]);
        let [lr, inverse_lr, l1] =
            [self.lr, 1.0 / self.lr, self.l1_regularization_strength].map(F::constant);
        let l2 = F::constant(self.beta + 2.0 * self.lr * self.l2_regularization_strength);
        let shrinkage = F::constant(2.0 * self.l2_shrinkage_regularization_strength);
        for i in 0..param.len() {
            let g = if self.maximize { -grad[i] } else { grad[i] };
            let before = accumulator[i].sqrt();
            accumulator[i] = g.mul_add(g, accumulator[i]);
            // Once it is infinite, the parameter is left alone.
            if accumulator[i] == F::from_f64(f64::INFINITY) {
                continue;
            }
            let root = accumulator[i].sqrt();
            let shrunk = shrinkage.mul_add(param[i], g);
            let sigma = (root - before) * inverse_lr;
            linear[i] = linear[i] + (-sigma).mul_add(param[i], shrunk);
            let mut clipped = linear[i];
            if clipped < -l1 {
                clipped = -l1;
            }
            if l1 < clipped {
                clipped = l1;
            }
            param[i] = (clipped - linear[i]) * lr / (root + l2);
        }
    }
}
