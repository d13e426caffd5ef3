use super::{
    ANY, ANY_DECAY, MovingAverage, SLOW, are_slow, bias_corrections, decay, descent, scaled_eps,
    sign_of, signed_decay, weight,
};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{Settings, settings},
};

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
/// U is computed from t, by the series of its logarithm. So no product has to be saved, and its error does
/// not grow. Fields, names and defaults are PyTorch's. Moments: `exp_avg` (m) and `exp_avg_sq` (v).
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
    /// Added to the denominator, so that it is not 0: finite, at least 0. Default 1e-8.
    pub eps: f64,
    /// The strength of the decay of the parameters: finite, at least 0. Default 0.
    pub weight_decay: f64,
    /// How fast the momentum approaches `beta1`: finite, at least 0. Default 4e-3.
    pub momentum_decay: f64,
    /// Whether `weight_decay` shrinks the parameters themselves instead of adding to the gradient.
    /// Default false.
    pub decoupled_weight_decay: bool,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
}

settings! {
    NAdam {
        number lr: NOT_NEGATIVE = 2e-3;
        number beta1: DECAY = 0.9;
        number beta2: DECAY = 0.999;
        number eps: NOT_NEGATIVE = 1e-8;
        number weight_decay: NOT_NEGATIVE = 0.0;
        number momentum_decay: NOT_NEGATIVE = 4e-3;
        flag decoupled_weight_decay = false;
        flag maximize = false;
    }
}

/// The momenta `u_t` and `u_(t+1)` of [`NAdam`], and `1 - U_t` and `1 - U_(t+1)` of their products.
///
/// With q = 0.96^momentum_decay, the logarithm of `1 - q^i / 2` is minus the sum over k of
/// `(q^i / 2)^k / k`; summed over i first, each k gives a geometric series.
pub(crate) fn momenta(beta1: f64, momentum_decay: f64, t: u64) -> [[f64; 2]; 2] {
    const LOG_096: f64 = -0.040_821_994_520_255_166;
    /// 2^-54 is below the precision of 1.
    const TERMS: u32 = 54;

    let t = t as f64;
    // 1 - q and 1 - q^t, from which the differences for all powers follow without cancellation.
    let lack = -libm::expm1(momentum_decay * LOG_096);
    let lack_t = -libm::expm1(momentum_decay * LOG_096 * t);
    let (q, q_t) = (1.0 - lack, 1.0 - lack_t);

    let mut log_product = t * libm::log(beta1);
    let (mut half, mut power, mut power_t, mut lack_k, mut lack_tk) = (0.5, q, q_t, lack, lack_t);
    for k in 1..=TERMS {
        // q^k (1 - q^(kt)) / (1 - q^k), or t where q is 1.
        let series = if lack == 0.0 { t } else { power * lack_tk / lack_k };
        log_product -= half / f64::from(k) * series;
        half *= 0.5;
        lack_k += power * lack;
        lack_tk += power_t * lack_t;
        power *= q;
        power_t *= q_t;
    }
    let now = beta1 * (1.0 - 0.5 * q_t);
    let next = beta1 * (1.0 - 0.5 * q_t * q);
    let gathered = -libm::expm1(log_product);
    [[now, gathered], [next, gathered + (1.0 - gathered) * (1.0 - next)]]
}

named_constants!(struct K { weight1, keep1, weight2, keep2, grad_size, m_size, eps, weight_decay, share, sign });

impl Rule for NAdam {
    type Moments = Count<2>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 2] = ["exp_avg", "exp_avg_sq"];

    #[inline(always)]
    fn holds_squares(&self, moment: usize) -> bool {
        moment == 1
    }

    #[inline(always)]
    fn specialise(self, mut run: impl FnMut(Self)) {
        let slow = Self { beta1: SLOW, beta2: SLOW, maximize: false, ..self };
        if self.maximize || !are_slow([self.beta1, self.beta2]) {
            run(Self { beta1: ANY, beta2: ANY, weight_decay: ANY_DECAY, maximize: true, ..self });
        } else if self.weight_decay == 0.0 {
            run(Self { weight_decay: 0.0, ..slow });
        } else if self.decoupled_weight_decay {
            run(Self { weight_decay: 1.0, decoupled_weight_decay: true, ..slow });
        } else {
            run(Self { weight_decay: 1.0, decoupled_weight_decay: false, ..slow });
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.check_ranges()
    }

    fn constants(&self, t: u64) -> [f64; K::COUNT] {
        let [correction2] = bias_corrections([self.beta2], t);
        let correction2 = correction2.sqrt();
        let [[now, gathered], [next, gathered_next]] = momenta(self.beta1, self.momentum_decay, t);
        let step_size = self.lr * correction2;
        K {
            weight1: weight(self.beta1),
            keep1: 1.0 - self.beta1,
            weight2: weight(self.beta2),
            keep2: 1.0 - self.beta2,
            grad_size: step_size * (1.0 - now) / gathered,
            m_size: step_size * next / gathered_next,
            eps: scaled_eps(self.eps, correction2),
            weight_decay: signed_decay(self.weight_decay, self.decoupled_weight_decay),
            share: self.lr * self.weight_decay,
            sign: sign_of(self.maximize),
        }
        .into()
    }

    #[inline(always)]
    fn update<L: Lanes>(
        &self,
        k: &[L; K::COUNT],
        param: L,
        grad: L,
        [m, v]: [L; 2],
    ) -> (L, [L; 2]) {
        let k = K::from(*k);
        let grad = descent(self.maximize, k.sign, grad);
        let (decays, decoupled) = (self.weight_decay, self.decoupled_weight_decay);
        let (param, grad) = decay(decays, decoupled, [k.weight_decay, k.share], param, grad);
        let m = MovingAverage::new(self.beta1, k.weight1, k.keep1).next(m, grad);
        let v = MovingAverage::new(self.beta2, k.weight2, k.keep2).next_square(v, grad);
        let direction = k.m_size.mul_add(m, k.grad_size * grad);
        (param - direction / (v.sqrt() + k.eps), [m, v])
    }

    super::compiled_here!();
}

#[cfg(test)]
mod tests {
    use super::momenta;

    #[test]
    fn the_series_gives_the_product() {
        for (beta1, momentum_decay) in [(0.9, 4e-3), (0.5, 0.0), (0.999, 1.0), (0.99, 1e-5)] {
            let momentum = |t: u64| beta1 * (1.0 - 0.5 * 0.96_f64.powf(t as f64 * momentum_decay));
            let mut product = 1.0;
            for t in 1..3000 {
                product *= momentum(t);
                let expected = [
                    [momentum(t), 1.0 - product],
                    [momentum(t + 1), 1.0 - product * momentum(t + 1)],
                ];
                let found = momenta(beta1, momentum_decay, t);
                for (found, expected) in found.as_flattened().iter().zip(expected.as_flattened()) {
                    let error = (found - expected).abs();
                    assert!(error < 1e-14, "{beta1} {momentum_decay} {t}: {found} {expected}");
                }
            }
        }
        assert_eq!(momenta(0.9, 4e-3, u64::MAX), [[0.9, 1.0]; 2]);
        assert_eq!(momenta(0.0, 4e-3, 1), [[0.0, 1.0]; 2]);
    }
}
