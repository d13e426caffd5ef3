use super::Reference;
use crate::{Sgd, rule::Float};

impl Reference for Sgd {
    fn reference<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        [momentum_buffer]: [&mut [F]; 1],
    ) {
        assert_eq!(grad.len(), param.len());
        let [lr, momentum, dampening, weight_decay] =
            [self.lr, self.momentum, 1.0 - self.dampening, self.weight_decay].map(F::constant);
        for i in 0..param.len() {
            let mut g = if self.maximize { -grad[i] } else { grad[i] };
            if self.weight_decay != 0.0 {
                g = weight_decay.mul_add(param[i], g);
            }
            if self.momentum != 0.0 {
                let fresh = if t == 1 { g } else { dampening * g };
                momentum_buffer[i] = momentum.mul_add(momentum_buffer[i], fresh);
                g = match self.nesterov {
                    true => momentum.mul_add(momentum_buffer[i], g),
                    false => momentum_buffer[i],
                };
            }
            param[i] = (-lr).mul_add(g, param[i]);
        }
    }
}
