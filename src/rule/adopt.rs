use super::{
    ANY, ANY_DECAY, MovingAverage, SLOW, are_slow, decay, descent, sign_of, signed_decay, weight,
};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{Settings, settings},
};

/// ADOPT (Taniguchi et al., 2024, Algorithm 2): Adam that converges for every beta2.
///
/// ```text
/// g = -g                           if maximize
/// g = g + weight_decay * p         if weight_decay and not decoupled_weight_decay
/// in step 1:
/// v = g^2
/// after it:
/// p = (1 - lr * weight_decay) * p  if decoupled_weight_decay
/// n = g / max(sqrt(v), eps), clipped to +-(t - 1)^(1/4)
/// m = beta1 * m + (1 - beta1) * n
/// p = p - lr * m
/// v = beta2 * v + (1 - beta2) * g^2
/// ```
///
/// In step 1 the parameters stay as they are. Names and defaults are those of the authors' code.
/// Moments: `exp_avg` (m) and `exp_avg_sq` (v).
///
/// A step moves 28 bytes a parameter in `f32`, and costs one square root and one division.
///
/// # Examples
///
/// ```
/// use adamant::{Adopt, Optimizer};
///
/// let adopt = Adopt { lr: 1.0, beta1: 0.5, ..Adopt::default() };
/// let mut param = [1.0_f32];
/// let mut state = adopt.state(1);
/// adopt.step(&mut param, &[4.0], &mut state)?;
/// assert_eq!(param, [1.0]);
/// adopt.step(&mut param, &[-2.0], &mut state)?;
/// assert_eq!(param, [1.25]);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adopt {
    /// The learning rate: finite, at least 0. Default 1e-3.
    pub lr: f64,
    /// The decay of the average m of normalised gradients: in 0..1. Default 0.9.
    pub beta1: f64,
    /// The decay of the squared gradient's average v: in 0..1. Default 0.9999.
    pub beta2: f64,
    /// The smallest denominator: finite, at least 0. Default 1e-6.
    pub eps: f64,
    /// The strength of the decay of the parameters: finite, at least 0. Default 0.
    pub weight_decay: f64,
    /// Whether `weight_decay` shrinks the parameters themselves instead of adding to the gradient
    /// (the authors' `decouple`). Default false.
    pub decoupled_weight_decay: bool,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
}

settings! {
    Adopt {
        number lr: NOT_NEGATIVE = 1e-3;
        number beta1: DECAY = 0.9;
        number beta2: DECAY = 0.9999;
        number eps: NOT_NEGATIVE = 1e-6;
        number weight_decay: NOT_NEGATIVE = 0.0;
        flag decoupled_weight_decay = false;
        flag maximize = false;
    }
}

named_constants!(struct K { weight1, keep1, weight2, keep2, lr, eps, clip, weight_decay, share, sign });

impl Rule for Adopt {
    type Moments = Count<2>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 2] = ["exp_avg", "exp_avg_sq"];

    #[inline(always)]
    fn holds_squares(&self, moment: usize) -> bool {
        moment == 1
    }

    #[inline(always)]
    fn specialise(self, mut run: impl FnMut(Self)) {
        if self.maximize || self.weight_decay != 0.0 || !are_slow([self.beta1, self.beta2]) {
            run(Self { beta1: ANY, beta2: ANY, weight_decay: ANY_DECAY, maximize: true, ..self });
        } else {
            run(Self { beta1: SLOW, beta2: SLOW, weight_decay: 0.0, maximize: false, ..self });
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.check_ranges()
    }

    fn constants(&self, t: u64) -> [f64; K::COUNT] {
        K {
            weight1: weight(self.beta1),
            keep1: 1.0 - self.beta1,
            weight2: weight(self.beta2),
            keep2: 1.0 - self.beta2,
            // Step 1 adds minus this times 0 to the parameter. That must be -0, and so this must not be -0.
            lr: if t == 1 { self.lr.abs() } else { self.lr },
            eps: self.eps,
            clip: ((t - 1) as f64).sqrt().sqrt(),
            weight_decay: match self.decoupled_weight_decay {
                true if t == 1 => 0.0,
                decoupled => signed_decay(self.weight_decay, decoupled),
            },
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
        // In step 1 the constants have no decay for the parameter, whatever the settings say.
        let decays = if self.weight_decay == 0.0 { 0.0 } else { ANY_DECAY };
        let (param, grad) = decay(decays, false, [k.weight_decay, k.share], param, grad);
        let normalised = (grad / v.sqrt().max(k.eps)).max(-k.clip).min(k.clip);
        let next_m = MovingAverage::new(self.beta1, k.weight1, k.keep1).next(m, normalised);
        let next_v = MovingAverage::new(self.beta2, k.weight2, k.keep2).next_square(v, grad);
        // Step 1 alone has a k.clip of 0.
        let moving = k.clip.splat(0.0).less_than(k.clip);
        // In step 1, minus lr times 0 is -0, and leaves every parameter as it is. A select of the parameter would be a
        // masked store, which takes AMD's CPUs with AVX2 as long as the rest of the step.
        let direction = L::select(moving, next_m, k.clip.splat(0.0));
        let param = (-k.lr).mul_add(direction, param);
        let m = L::select(moving, next_m, m);
        let v = L::select(moving, next_v, grad * grad);
        (param, [m, v])
    }

    super::compiled_here!();
}
