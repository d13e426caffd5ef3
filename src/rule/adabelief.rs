use super::{
    ANY, ANY_DECAY, MovingAverage, SLOW, are_slow, bias_corrections, decay, descent, scaled_eps,
    sign_of, signed_decay, weight,
};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{Settings, settings},
};

/// AdaBelief (Zhuang et al., 2020): Adam that divides by the distance of gradients from their average.
///
/// ```text
/// g = -g                           if maximize
/// g = g + weight_decay * p         if weight_decay and not decoupled_weight_decay
/// p = (1 - lr * weight_decay) * p  if decoupled_weight_decay
/// m = beta1 * m + (1 - beta1) * g
/// s = beta2 * s + (1 - beta2) * (g - m)^2 + eps
/// p = p - lr / (1 - beta1^t) * m / (sqrt(s / (1 - beta2^t)) + eps)
/// ```
///
/// Names and defaults are those of the authors' code; its `weight_decouple` is `decoupled_weight_decay`
/// here. Its rectification, which the paper does not have, is left out. Moments: `exp_avg` (m) and
/// `exp_avg_var` (s).
///
/// A step moves 28 bytes a parameter in `f32`, and costs one square root and one division.
///
/// # Examples
///
/// ```
/// use adamant::{AdaBelief, Optimizer};
///
/// let adabelief = AdaBelief { lr: 0.5, beta1: 0.5, ..AdaBelief::default() };
/// let mut param = [1.0_f32];
/// let mut state = adabelief.state(1);
/// adabelief.step(&mut param, &[4.0], &mut state)?;
/// assert!(param[0].abs() < 1e-6);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaBelief {
    /// The learning rate: finite, at least 0. Default 1e-3.
    pub lr: f64,
    /// The decay of the gradient's average m: in 0..1. Default 0.9.
    pub beta1: f64,
    /// The decay of the average s of squared distances: in 0..1. Default 0.999.
    pub beta2: f64,
    /// Added to s and to the denominator, so that neither is 0: finite, at least 0. Default 1e-16.
    pub eps: f64,
    /// The strength of the decay of the parameters: finite, at least 0. Default 0.
    pub weight_decay: f64,
    /// Whether `weight_decay` shrinks the parameters themselves instead of adding to the gradient.
    /// Default true.
    pub decoupled_weight_decay: bool,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
}

settings! {
    AdaBelief {
        number lr: NOT_NEGATIVE = 1e-3;
        number beta1: DECAY = 0.9;
        number beta2: DECAY = 0.999;
        number eps: NOT_NEGATIVE = 1e-16;
        number weight_decay: NOT_NEGATIVE = 0.0;
        flag decoupled_weight_decay = true;
        flag maximize = false;
    }
}

named_constants!(struct K {
    weight1, keep1, weight2, keep2, step_size, variance_eps, eps, weight_decay, share,
    sign,
});

impl Rule for AdaBelief {
    type Moments = Count<2>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 2] = ["exp_avg", "exp_avg_var"];

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

    /// With c = sqrt(1 - beta2^t), `m / (sqrt(s) / c + eps) = c * m / (sqrt(s) + eps * c)`.
    fn constants(&self, t: u64) -> [f64; K::COUNT] {
        let [correction1, correction2] = bias_corrections([self.beta1, self.beta2], t);
        let correction2 = correction2.sqrt();
        K {
            weight1: weight(self.beta1),
            keep1: 1.0 - self.beta1,
            weight2: weight(self.beta2),
            keep2: 1.0 - self.beta2,
            step_size: self.lr * correction2 / correction1,
            variance_eps: self.eps,
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
        [m, s]: [L; 2],
    ) -> (L, [L; 2]) {
        let k = K::from(*k);
        let grad = descent(self.maximize, k.sign, grad);
        let (decays, decoupled) = (self.weight_decay, self.decoupled_weight_decay);
        let (param, grad) = decay(decays, decoupled, [k.weight_decay, k.share], param, grad);
        let m = MovingAverage::new(self.beta1, k.weight1, k.keep1).next(m, grad);
        let s = MovingAverage::new(self.beta2, k.weight2, k.keep2).next_square(s, grad - m);
        let s = s + k.variance_eps;
        ((-k.step_size).mul_add(m / (s.sqrt() + k.eps), param), [m, s])
    }

    super::compiled_here!();
}
