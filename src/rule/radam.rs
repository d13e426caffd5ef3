use super::{
    ANY, ANY_DECAY, MovingAverage, SLOW, are_slow, bias_corrections, decay, descent, flag, sign_of,
    signed_decay, weight,
};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{Settings, settings},
};

/// RAdam (Liu et al., 2020): Adam without the second moment in the first steps, while its variance is large.
///
/// ```text
/// g = -g                           if maximize
/// g = g + weight_decay * p         if weight_decay and not decoupled_weight_decay
/// p = (1 - lr * weight_decay) * p  if decoupled_weight_decay
/// m = beta1 * m + (1 - beta1) * g
/// v = beta2 * v + (1 - beta2) * g^2
/// R = 2 / (1 - beta2) - 1
/// r = R - 2 t beta2^t / (1 - beta2^t)
/// p = p - lr * m / (1 - beta1^t)   if r <= 5, otherwise
/// p = p - lr * m / (1 - beta1^t) * sqrt((r - 4)(r - 2) R / ((R - 4)(R - 2) r))
///       * sqrt(1 - beta2^t) / (sqrt(v) + eps)
/// ```
///
/// Fields, names and defaults are PyTorch's. Moments: `exp_avg` (m) and `exp_avg_sq` (v).
///
/// A step moves 28 bytes a parameter in `f32`, and costs one square root and one division.
///
/// # Examples
///
/// ```
/// use adamant::{Optimizer, RAdam};
///
/// let radam = RAdam { lr: 0.5, ..RAdam::default() };
/// let mut param = [1.0_f32];
/// let mut state = radam.state(1);
/// radam.step(&mut param, &[0.25], &mut state)?;
/// assert_eq!(param, [1.0 - 0.5 * 0.25]);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RAdam {
    /// The learning rate: finite, at least 0. Default 1e-3.
    pub lr: f64,
    /// The decay of the gradient's average m: in 0..1. Default 0.9.
    pub beta1: f64,
    /// The decay of the squared gradient's average v: in 0..1. Default 0.999.
    pub beta2: f64,
    /// Added to the denominator, so that it is not 0: finite, at least 0. Default 1e-8.
    pub eps: f64,
    /// The strength of the decay of the parameters: finite, at least 0. Default 0.
    pub weight_decay: f64,
    /// Whether `weight_decay` shrinks the parameters themselves instead of adding to the gradient.
    /// Default false.
    pub decoupled_weight_decay: bool,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
}

settings! {
    RAdam {
        number lr: NOT_NEGATIVE = 1e-3;
        number beta1: DECAY = 0.9;
        number beta2: DECAY = 0.999;
        number eps: NOT_NEGATIVE = 1e-8;
        number weight_decay: NOT_NEGATIVE = 0.0;
        flag decoupled_weight_decay = false;
        flag maximize = false;
    }
}

/// Below this fraction of R, the paper's difference for r loses digits to cancellation.
const CANCELS: f64 = 1.0 / 4096.0;

/// `2 / q - 1 - 2 t (1 - q)^t / (1 - (1 - q)^t)` for `t q` much less than 1, without the difference of two
/// large numbers: with `D = (t q - (1 - (1 - q)^t)) / q^2`, a binomial series, it is
/// `2 t - 1 - 2 D / (t - q D)`.
fn short_length(q: f64, t: f64) -> f64 {
    // Each term is less than a 4096th of the one before.
    const TERMS: u32 = 6;
    let (mut term, mut d) = (t * (t - 1.0) / 2.0, 0.0);
    for j in 0..TERMS {
        d += term;
        let j = f64::from(j);
        term *= -q * (t - 2.0 - j) / (j + 3.0);
    }
    2.0 * t - 1.0 - 2.0 * d / (t - q * d)
}

/// The factor that rectifies the step; `None` where r is at most 5.
pub(crate) fn rectification(beta2: f64, correction2: f64, t: u64) -> Option<f64> {
    let keep = 1.0 - beta2;
    let longest = 2.0 / keep - 1.0;
    let length = match t as f64 * keep < CANCELS {
        true => short_length(keep, t as f64),
        false => longest - 2.0 * t as f64 * (1.0 - correction2) / correction2,
    };
    (length > 5.0).then(|| {
        let above = (length - 4.0) * (length - 2.0) * longest;
        let below = (longest - 4.0) * (longest - 2.0) * length;
        (above / below).sqrt()
    })
}

named_constants!(struct K { weight1, keep1, weight2, keep2, is_rectified, step_size, eps, weight_decay, share, sign });

impl Rule for RAdam {
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
        let [correction1, correction2] = bias_corrections([self.beta1, self.beta2], t);
        let plain = self.lr / correction1;
        let rectification = rectification(self.beta2, correction2, t);
        let rectified = rectification.map(|factor| plain * factor * correction2.sqrt());
        K {
            weight1: weight(self.beta1),
            keep1: 1.0 - self.beta1,
            weight2: weight(self.beta2),
            keep2: 1.0 - self.beta2,
            is_rectified: flag(rectified.is_some()),
            step_size: rectified.unwrap_or(plain),
            eps: self.eps,
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
        let rectified = k.is_rectified.splat(0.0).less_than(k.is_rectified);
        let direction = L::select(rectified, m / (v.sqrt() + k.eps), m);
        ((-k.step_size).mul_add(direction, param), [m, v])
    }

    super::compiled_here!();
}
