use super::{
    ANY, ANY_DECAY, MovingAverage, POSITIVE, SLOW, are_slow, bias_corrections, descent, flag,
    scaled_eps, shrink, sign_of, weight,
};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{Settings, settings},
};

/// AdEMAMix (Pagliardini, Ablin and Grangier, 2024): AdamW with a second, slow average of gradients.
///
/// ```text
/// g  = -g                          if maximize
/// p  = (1 - lr * weight_decay) * p
/// m1 = beta1 * m1 + (1 - beta1) * g
/// m2 = b3 * m2 + (1 - b3) * g
/// v  = beta2 * v + (1 - beta2) * g^2
/// p  = p - lr * (m1 / (1 - beta1^t) + a * m2) / (sqrt(v / (1 - beta2^t)) + eps)
/// ```
///
/// After their warm-ups of T steps, a is `alpha` and b3 is `beta3`. During the warm-ups, with x = t / T:
///
/// ```text
/// a  = x * alpha
/// b3 = exp(log(beta1) log(beta3) / ((1 - x) log(beta3) + x log(beta1)))
/// ```
///
/// Names and defaults are those of the authors' code. Moments: `exp_avg_fast` (m1), `exp_avg_slow`
/// (m2) and `exp_avg_sq` (v).
///
/// A step moves 36 bytes a parameter in `f32`, and costs one square root and one division.
///
/// # Examples
///
/// ```
/// use adamant::{AdEmaMix, Optimizer};
///
/// let ademamix = AdEmaMix { alpha_warmup: 10_000, beta3_warmup: 10_000, ..AdEmaMix::default() };
/// let mut param = [1.0_f32];
/// let mut state = ademamix.state(1);
/// ademamix.step(&mut param, &[0.5], &mut state)?;
/// assert!(param[0] < 1.0);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdEmaMix {
    /// The learning rate: finite, at least 0. Default 1e-3.
    pub lr: f64,
    /// The decay of the fast average m1: in 0..1, and over 0 with `beta3_warmup`. Default 0.9.
    pub beta1: f64,
    /// The decay of the squared gradient's average v: in 0..1. Default 0.999.
    pub beta2: f64,
    /// The decay of the slow average m2: in 0..1, and at least `beta1` with `beta3_warmup`. Default
    /// 0.9999.
    pub beta3: f64,
    /// The weight of the slow average: finite, at least 0. Default 2.
    pub alpha: f64,
    /// The steps in which the slow average's decay grows from `beta1` to `beta3`. Default 0.
    pub beta3_warmup: u64,
    /// The steps in which the slow average's weight grows from 0 to `alpha`. Default 0.
    pub alpha_warmup: u64,
    /// Added to the denominator, so that it is not 0: finite, at least 0. Default 1e-8.
    pub eps: f64,
    /// The strength of decoupled weight decay: finite, at least 0. Default 0.
    pub weight_decay: f64,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
}

settings! {
    AdEmaMix {
        number lr: NOT_NEGATIVE = 1e-3;
        number beta1: DECAY = 0.9;
        number beta2: DECAY = 0.999;
        number beta3: DECAY = 0.9999;
        number alpha: NOT_NEGATIVE = 2.0;
        count beta3_warmup = 0;
        count alpha_warmup = 0;
        number eps: NOT_NEGATIVE = 1e-8;
        number weight_decay: NOT_NEGATIVE = 0.0;
        flag maximize = false;
    }
}

impl AdEmaMix {
    /// `alpha`, `beta3` and `1 - beta3` in step `t`.
    pub(crate) fn scheduled(&self, t: u64) -> [f64; 3] {
        let alpha = match t < self.alpha_warmup {
            true => t as f64 / self.alpha_warmup as f64 * self.alpha,
            false => self.alpha,
        };
        if t >= self.beta3_warmup {
            return [alpha, self.beta3, 1.0 - self.beta3];
        }
        let x = t as f64 / self.beta3_warmup as f64;
        let (log1, log3) = (libm::log(self.beta1), libm::log(self.beta3));
        let log = log1 * log3 / ((1.0 - x) * log3 + x * log1);
        [alpha, libm::exp(log), -libm::expm1(log)]
    }
}

/// Two sizes in a power of two, at least 1, in which their sum is at most 1. So the sum of two averages times these
/// sizes does not overflow, and its quotient by an infinite root is 0 and not NaN.
fn in_units(sizes: [f64; 2]) -> ([f64; 2], f64) {
    let sum = sizes[0] + sizes[1];
    let power = f64::from_bits(sum.to_bits() >> 52 << 52);
    let unit = if sum > power { 2.0 * power } else { power }.max(1.0);
    (sizes.map(|size| size / unit), unit)
}

named_constants!(struct K {
    weight1, keep1, weight3, keep3, weight2, keep2, fast_size, slow_size, eps, decays, share, sign, unit,
});

impl Rule for AdEmaMix {
    type Moments = Count<3>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 3] = ["exp_avg_fast", "exp_avg_slow", "exp_avg_sq"];

    #[inline(always)]
    fn holds_squares(&self, moment: usize) -> bool {
        moment == 2
    }

    #[inline(always)]
    fn specialise(self, mut run: impl FnMut(Self)) {
        // The sizes of both averages are then at most 1 together, so the unit is 1.
        let is_usual = self.lr * (1.0 / (1.0 - self.beta1) + self.alpha) <= 0.5;
        let slow = Self { beta1: SLOW, beta2: SLOW, beta3: SLOW, maximize: false, ..self };
        let slow = Self { lr: 0.0, ..slow };
        if self.maximize || !is_usual || !are_slow([self.beta1, self.beta2, self.beta3]) {
            let any = Self { beta1: ANY, beta2: ANY, beta3: ANY, maximize: true, ..self };
            run(Self { lr: 1.0, weight_decay: ANY_DECAY, ..any });
        } else if self.weight_decay == 0.0 {
            run(Self { weight_decay: 0.0, ..slow });
        } else {
            run(Self { weight_decay: 1.0, ..slow });
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.check_ranges()?;
        if self.beta3_warmup > 0 {
            super::check("beta1", self.beta1, POSITIVE, "over 0 with beta3_warmup")?;
            super::check("beta3", self.beta3, self.beta1.., "at least beta1 with beta3_warmup")?;
        }
        Ok(())
    }

    fn constants(&self, t: u64) -> [f64; K::COUNT] {
        let [correction1, correction2] = bias_corrections([self.beta1, self.beta2], t);
        let correction2 = correction2.sqrt();
        let [alpha, beta3, keep3] = self.scheduled(t);
        let ([fast_size, slow_size], unit) =
            in_units([self.lr * correction2 / correction1, self.lr * correction2 * alpha]);
        K {
            weight1: weight(self.beta1),
            keep1: 1.0 - self.beta1,
            // The reference chooses by the setting `beta3`, not by the scheduled value.
            weight3: if self.beta3 < SLOW { -beta3 } else { keep3 },
            keep3,
            weight2: weight(self.beta2),
            keep2: 1.0 - self.beta2,
            fast_size,
            slow_size,
            unit,
            eps: scaled_eps(self.eps, correction2),
            decays: flag(self.weight_decay != 0.0),
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
        [m1, m2, v]: [L; 3],
    ) -> (L, [L; 3]) {
        let k = K::from(*k);
        let grad = descent(self.maximize, k.sign, grad);
        let param = shrink(self.weight_decay, k.decays, k.share, param);
        let m1 = MovingAverage::new(self.beta1, k.weight1, k.keep1).next(m1, grad);
        let m2 = MovingAverage::new(self.beta3, k.weight3, k.keep3).next(m2, grad);
        let v = MovingAverage::new(self.beta2, k.weight2, k.keep2).next_square(v, grad);
        let direction = k.fast_size.mul_add(m1, k.slow_size * m2);
        let step = direction / (v.sqrt() + k.eps);
        // In loops with an `lr` of 0 the unit is 1.
        let param = if self.lr == 0.0 { param - step } else { (-k.unit).mul_add(step, param) };
        (param, [m1, m2, v])
    }

    super::compiled_here!();
}
