use super::{Reference, adam::adam_or_amsgrad};
use crate::{AmsGrad, rule::Float};

impl Reference for AmsGrad {
    fn reference<F: Float>(
        &self,
        t: u64,
        param: &mut [F],
        grad: &[F],
        [exp_avg, exp_avg_sq, max_exp_avg_sq]: [&mut [F]; 3],
    ) {
        assert_eq!(max_exp_avg_sq.len(), param.len());
        adam_or_amsgrad(&self.0, t, param, grad, exp_avg, exp_avg_sq, Some(max_exp_avg_sq));
    }
}
