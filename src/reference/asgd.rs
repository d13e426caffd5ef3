use super::Reference;
use crate::{Asgd, rule::Float};

impl Reference for Asgd {
    fn reference<F: Float>(&self, t: u64, param: &mut [F], grad: &[F], [ax]: [&mut [F]; 1]) {
        assert_eq!([grad.len(), ax.len()], [param.len(); 2]);
        let [eta, mu] = self.scheduled(t);
        let [eta, mu, share, weight_decay] =
            [eta, mu, self.lambd * eta, self.weight_decay].map(F::constant);
        for i in 0..param.len() {
            let mut g = if self.maximize { -grad[i] } else { grad[i] };
            if self.weight_decay != 0.0 {
                g = weight_decay.mul_add(param[i], g);
            }
            if self.lambd != 0.0 {
                param[i] = (-share).mul_add(param[i], param[i]);
            }
            param[i] = (-eta).mul_add(g, param[i]);
            ax[i] = match mu < F::constant(1.0) {
                true => mu.mul_add(param[i] - ax[i], ax[i]),
                false => param[i],
            };
        }
    }
}
