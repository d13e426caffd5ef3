use super::{
    average, average_square, bias_corrections, check_decay, check_not_negative, descent, l2, shrink,
};
use crate::{Count, Error, Lanes, Rule};

/// NAdam (Dozat, 2016): Adam with Nesterov's momentum.
///
/// ```text
/// g = -g                           if maximize
/// g = g + weight_decay * p         if weight_decay and not decoupled_weight_decay
/// p = (1 - lr * weight_decay) * p  if decoupled_weight_decay
/// u_t = beta1 * (1 - 0.96^(t * momentum_decay) / 2)
/// U_t = u_1 * u_2 * ... * u_t
/// m = beta1 * m + (1 - beta1) * g
/// v = beta2 * v + (1 - beta2) * g^2
/// n = (1 - u_t) / (1 - U_t) * g + u_(t+1) / (1 - U_(t+1)) * m
/// p = p - lr * n / (sqrt(v / (1 - beta2^t)) + eps)
/// ```
///
/// U is computed from t by the series of its logarithm, so nothing drifts and no product has to be
/// saved. Fields, names and defaults are PyTorch's. Moments: `exp_avg` (m) and `exp_avg_sq` (v).
///
/// A step moves 28 bytes a parameter in `f32`, and costs one square root and one division.
///
/// # Examples
///
/// ```
/// use adamant::{NAdam, Optimizer};
///
/// let mut param = [1.0_f32];
/// let mut state = NAdam::default().state(1);
/// NAdam::default().step(&mut param, &[0.5], &mut state)?;
/// assert!(param[0] < 1.0);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NAdam {
    /// The learning rate: finite, at least 0. Default 2e-3.
    pub lr: f64,
    /// The decay of the gradient's average m: in 0..1. Default 0.9.
    pub beta1: f64,
    /// The decay of the squared gradient's average v: in 0..1. Default 0.999.
    pub beta2: f64,
    /// What keeps the denominator away from 0: finite, at least 0. Default 1e-8.
    pub eps: f64,
    /// The strength of the decay of the parameters: finite, at least 0. Default 0.
    pub weight_decay: f64,
    /// How fast the momentum approaches `beta1`: finite, at least 0. Default 4e-3.
    pub momentum_decay: f64,
    /// Whether `weight_decay` shrinks the parameters themselves instead of adding to the gradient.
    /// Default false.
    pub decoupled_weight_decay: bool,
    /// Whether to climb instead of to descend. Default false.
    pub maximize: bool,
}

impl Default for NAdam {
    fn default() -> Self {
        Self {
            lr: 2e-3,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            momentum_decay: 4e-3,
            decoupled_weight_decay: false,
            maximize: false,
        }
    }
}

/// The momentum `u_t` of [`NAdam`] in step `t`, and `1 - U_t`, where U is the product of the
/// momenta up to there.
///
/// With q = 0.96^momentum_decay, the logarithm of `1 - q^i / 2` is minus the sum over k of
/// `(q^i / 2)^k / k`; summed over i first, each k gives a geometric series.
pub(crate) fn momentum(beta1: f64, momentum_decay: f64, t: u64) -> (f64, f64) {
    // Half to the power of 54 is nothing beside 1.
    const TERMS: i32 = 54;
    let t = t as f64;
    let log_q = momentum_decay * libm::log(0.96);
    let series = |k: i32| {
        let k = f64::from(k);
        // q^k (1 - q^(kt)) / (1 - q^k), or t where q is 1.
        let powers = match libm::expm1(k * log_q) {
            0.0 => t,
            ratio => libm::exp(k * log_q) * libm::expm1(k * log_q * t) / ratio,
        };
        libm::exp2(-k) / k * powers
    };
    // The smallest first.
    let log_product = t * libm::log(beta1) - (1..=TERMS).rev().map(series).sum::<f64>();
    (beta1 * (1.0 - libm::exp(t * log_q) / 2.0), -libm::expm1(log_product))
}

impl Rule for NAdam {
    type Moments = Count<2>;
    type Constants = Count<9>;
    const MOMENT_NAMES: [&'static str; 2] = ["exp_avg", "exp_avg_sq"];

    fn check(&self) -> Result<(), Error> {
        check_not_negative("lr", self.lr)?;
        check_decay("beta1", self.beta1)?;
        check_decay("beta2", self.beta2)?;
        check_not_negative("eps", self.eps)?;
        check_not_negative("weight_decay", self.weight_decay)?;
        check_not_negative("momentum_decay", self.momentum_decay)
    }

    fn constants(&self, t: u64) -> [f64; 9] {
        let [correction2] = bias_corrections([self.beta2], t);
        let correction2 = correction2.sqrt();
        let (now, gathered) = momentum(self.beta1, self.momentum_decay, t);
        let (next, gathered_next) = momentum(self.beta1, self.momentum_decay, t.saturating_add(1));
        let step_size = self.lr * correction2;
        [
            self.beta1,
            1.0 - self.beta1,
            self.beta2,
            1.0 - self.beta2,
            step_size * (1.0 - now) / gathered,
            step_size * next / gathered_next,
            self.eps * correction2,
            self.weight_decay,
            self.lr * self.weight_decay,
        ]
    }

    #[inline(always)]
    fn update<L: Lanes>(&self, k: &[L; 9], param: L, grad: L, [m, v]: [L; 2]) -> (L, [L; 2]) {
        let &[beta1, keep1, beta2, keep2, grad_size, m_size, eps, weight_decay, share] = k;
        let decays = self.weight_decay != 0.0;
        let grad = descent(self.maximize, grad);
        let grad = l2(decays && !self.decoupled_weight_decay, weight_decay, param, grad);
        let param = shrink(decays && self.decoupled_weight_decay, share, param);
        let m = average(beta1, keep1, m, grad);
        let v = average_square(beta2, keep2, v, grad);
        let direction = m_size.mul_add(m, grad_size * grad);
        (param - direction / (v.sqrt() + eps), [m, v])
    }
}

#[cfg(test)]
mod tests {
    use super::momentum;

    #[test]
    fn the_series_gives_the_product() {
        for (beta1, momentum_decay) in [(0.9, 4e-3), (0.5, 0.0), (0.999, 1.0), (0.99, 1e-5)] {
            let mut product = 1.0;
            for t in 1..3000_u64 {
                let expected = beta1 * (1.0 - 0.5 * 0.96_f64.powf(t as f64 * momentum_decay));
                product *= expected;
                let (found, gathered) = momentum(beta1, momentum_decay, t);
                assert!((found - expected).abs() < 1e-15);
                assert!((gathered - (1.0 - product)).abs() < 1e-14, "{beta1} {momentum_decay} {t}");
            }
        }
        assert_eq!(momentum(0.9, 4e-3, u64::MAX), (0.9, 1.0));
        assert_eq!(momentum(0.0, 4e-3, 1), (0.0, 1.0));
    }
}
