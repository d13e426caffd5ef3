use super::{
    ANY, ANY_DECAY, MovingAverage, SLOW, are_slow, bias_corrections, choose, descent, flag,
    scaled_eps, shrink, sign_of, signed_decay, weight,
};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{Settings, settings},
};

/// Adan (Xie et al., 2022): Nesterov's momentum, by the difference of successive gradients.
///
/// ```text
/// g = -g                                           if maximize
/// d = g + b, b = -g                                d = 0 in step 1
/// m = beta1 * m + (1 - beta1) * g
/// v = beta2 * v + (1 - beta2) * d
/// n = beta3 * n + (1 - beta3) * (g + beta2 * d)^2
/// u = (m / (1 - beta1^t) + beta2 * v / (1 - beta2^t)) / (sqrt(n / (1 - beta3^t)) + eps)
/// p = (p - lr * u) / (1 + lr * weight_decay)       (1 - lr * weight_decay) * p - lr * u if no_prox
/// ```
///
/// The betas are the decays of the averages: 1 minus the paper's betas. Names, defaults and bias corrections
/// are those of the authors' code. Moments: `exp_avg` (m), `exp_avg_diff` (v), `exp_avg_sq` (n) and
/// `neg_pre_grad` (b, minus the last gradient). In a table, the last gradient of a row is that of the last
/// step that listed the row, and 0 before its first step.
///
/// A step moves 44 bytes a parameter in `f32`, and costs one square root and one division.
///
/// # Examples
///
/// ```
/// use adamant::{Adan, Optimizer};
///
/// let adan = Adan { lr: 0.5, ..Adan::default() };
/// let mut param = [1.0_f32];
/// let mut state = adan.state(1);
/// adan.step(&mut param, &[0.25], &mut state)?;
/// assert!((param[0] - 0.5).abs() < 1e-6);
/// assert_eq!(state.moment_to_f32("neg_pre_grad"), Some(vec![-0.25]));
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adan {
    /// The learning rate: finite, at least 0. Default 1e-3.
    pub lr: f64,
    /// The decay of the gradient's average m: in 0..1. Default 0.98.
    pub beta1: f64,
    /// The decay of the average v of differences: in 0..1. Default 0.92.
    pub beta2: f64,
    /// The decay of the average n of squares: in 0..1. Default 0.99.
    pub beta3: f64,
    /// Added to the denominator, so that it is not 0: finite, at least 0. Default 1e-8.
    pub eps: f64,
    /// The strength of decoupled weight decay: finite, at least 0. Default 0.
    pub weight_decay: f64,
    /// Whether weight decay comes before the step, as AdamW's does, instead of after it by the proximal
    /// rule. Default false.
    pub no_prox: bool,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
}

settings! {
    Adan {
        number lr: NOT_NEGATIVE = 1e-3;
        number beta1: DECAY = 0.98;
        number beta2: DECAY = 0.92;
        number beta3: DECAY = 0.99;
        number eps: NOT_NEGATIVE = 1e-8;
        number weight_decay: NOT_NEGATIVE = 0.0;
        flag no_prox = false;
        flag maximize = false;
    }
}

named_constants!(struct K {
    weight1, keep1, beta2, weight2, keep2, weight3, keep3, m_size, v_size, eps, decays, share,
    prox, has_past, sign,
});

impl Adan {
    /// The field `weight_decay` for decay before the step (`no_prox`) or after it: 0 where the settings have the other
    /// one. [`ANY_DECAY`] stays.
    #[inline(always)]
    fn decays_if(&self, no_prox: bool) -> f64 {
        if self.weight_decay == ANY_DECAY || self.no_prox == no_prox {
            self.weight_decay
        } else {
            0.0
        }
    }
}

impl Rule for Adan {
    type Moments = Count<4>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 4] =
        ["exp_avg", "exp_avg_diff", "exp_avg_sq", "neg_pre_grad"];

    #[inline(always)]
    fn holds_squares(&self, moment: usize) -> bool {
        moment == 2
    }

    #[inline(always)]
    fn specialise(self, mut run: impl FnMut(Self)) {
        let slow = Self { beta1: SLOW, beta2: SLOW, beta3: SLOW, maximize: false, ..self };
        let is_unusual = self.maximize || self.no_prox && self.weight_decay != 0.0;
        if is_unusual || !are_slow([self.beta1, self.beta2, self.beta3]) {
            let any = Self { beta1: ANY, beta2: ANY, beta3: ANY, maximize: true, ..self };
            run(Self { weight_decay: ANY_DECAY, ..any });
        } else if self.weight_decay == 0.0 {
            run(Self { weight_decay: 0.0, ..slow });
        } else {
            run(Self { weight_decay: 1.0, no_prox: false, ..slow });
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.check_ranges()
    }

    /// With c = sqrt(1 - beta3^t), `u / (sqrt(n) / c + eps) = c * u / (sqrt(n) + eps * c)`.
    fn constants(&self, t: u64) -> [f64; K::COUNT] {
        let [correction1, correction2, correction3] =
            bias_corrections([self.beta1, self.beta2, self.beta3], t);
        let correction3 = correction3.sqrt();
        let lr = self.lr * correction3;
        let share = self.lr * self.weight_decay;
        K {
            weight1: weight(self.beta1),
            keep1: 1.0 - self.beta1,
            beta2: self.beta2,
            weight2: weight(self.beta2),
            keep2: 1.0 - self.beta2,
            weight3: weight(self.beta3),
            keep3: 1.0 - self.beta3,
            m_size: lr / correction1,
            v_size: lr * self.beta2 / correction2,
            eps: scaled_eps(self.eps, correction3),
            decays: signed_decay(flag(self.weight_decay != 0.0), self.no_prox),
            share,
            prox: 1.0 / (1.0 + share),
            has_past: flag(t > 1),
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
        [m, v, n, neg_pre_grad]: [L; 4],
    ) -> (L, [L; 4]) {
        let k = K::from(*k);
        let grad = descent(self.maximize, k.sign, grad);
        let zero = grad.splat(0.0);
        let diff = L::select(zero.less_than(k.has_past), grad + neg_pre_grad, zero);
        let m = MovingAverage::new(self.beta1, k.weight1, k.keep1).next(m, grad);
        let v = MovingAverage::new(self.beta2, k.weight2, k.keep2).next(v, diff);
        let ahead = k.beta2.mul_add(diff, grad);
        let n = MovingAverage::new(self.beta3, k.weight3, k.keep3).next_square(n, ahead);
        let direction = k.m_size.mul_add(m, k.v_size * v);
        // Where n is infinite, so may be v, and inf / inf would make the parameter NaN. So it stays as it is. Unless a
        // gradient was not finite: then m is not, and the parameter becomes NaN.
        let is_finite = n.less_than(n.splat(f64::INFINITY));
        let direction = L::select(is_finite, direction, zero * m) / (n.sqrt() + k.eps);
        let mut param = shrink(self.decays_if(true), -k.decays, k.share, param) - direction;
        param = choose(self.decays_if(false), zero.less_than(k.decays), k.prox * param, param);
        (param, [m, v, n, -grad])
    }

    super::compiled_here!();
}
