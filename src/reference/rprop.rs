use super::Reference;
use crate::{Rprop, rule::Float};

impl Reference for Rprop {
    fn reference<F: Float>(
        &self,
        _t: u64,
        param: &mut [F],
        grad: &[F],
        [prev, step_size]: [&mut [F]; 2],
    ) {
        assert_eq!([grad.len(), prev.len(), step_size.len()], [param.len(); 3]);
        let [etaminus, etaplus] = [self.etaminus, self.etaplus].map(F::constant);
        let [least, most] = [self.step_size_min, self.step_size_max].map(F::constant);
        let [zero, one] = [0.0, 1.0].map(F::constant);
        for i in 0..param.len() {
            let mut g = if self.maximize { -grad[i] } else { grad[i] };
            let product = g * prev[i];
            let mut factor = product + one;
            if zero < product {
                factor = etaplus;
            } else if product < zero {
                factor = etaminus;
                g = zero;
            }
            let mut size = step_size[i] * factor;
            if size < least {
                size = least;
            }
            if most < size {
                size = most;
            }
            step_size[i] = size;
            prev[i] = g;
            let mut sign = g;
            if g < zero {
                sign = -one;
            } else if zero < g {
                sign = one;
            }
            param[i] = (-size).mul_add(sign, param[i]);
        }
    }
}
