use super::{
    ANY, ANY_DECAY, MovingAverage, SLOW, are_slow, bias_corrections, decay, descent, flag,
    scaled_eps, sign_of, signed_decay, weight,
};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{Field, SettingValue, Settings, settings},
};

/// Adam (Kingma and Ba, 2015), and AdamW (Loshchilov and Hutter, 2019) by
/// [`decoupled_weight_decay`](Self::decoupled_weight_decay).
///
/// ```text
/// g = -g                           if maximize
/// g = g + weight_decay * p         if weight_decay and not decoupled_weight_decay
/// p = (1 - lr * weight_decay) * p  if decoupled_weight_decay
/// m = beta1 * m + (1 - beta1) * g
/// v = beta2 * v + (1 - beta2) * g^2
/// p = p - lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)        Epsilon::Standard
/// p = p - lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)    Epsilon::Hat
/// ```
///
/// With [`cautious`](Self::cautious), p stays where the last line would move it along the gradient
/// instead of against it (Liang et al., 2024).
///
/// Fields, names and defaults are PyTorch's. They are plain numbers, so a schedule may change them
/// from step to step; a call checks them. Moments: `exp_avg` (m) and `exp_avg_sq` (v).
///
/// A step moves 28 bytes a parameter in `f32`, and costs one square root and one division.
///
/// # Examples
///
/// ```
/// use adamant::{Adam, Optimizer};
///
/// let adam = Adam { lr: 1e-3, ..Adam::default() };
/// let mut param = [1.0_f32, 2.0, 3.0];
/// let mut state = adam.state(param.len());
/// adam.step(&mut param, &[0.1, 0.0, -0.1], &mut state)?;
/// assert_eq!(param, [0.999, 2.0, 3.001]);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adam {
    /// The learning rate: finite, at least 0. Default 1e-3.
    pub lr: f64,
    /// The decay of the gradient's average m: in 0..1. Default 0.9.
    pub beta1: f64,
    /// The decay of the squared gradient's average v: in 0..1. Default 0.999.
    pub beta2: f64,
    /// Added to the denominator, so that it is not 0: finite, at least 0. Default 1e-8.
    ///
    /// With 0 a parameter whose gradients were all 0 becomes NaN.
    pub eps: f64,
    /// Where `eps` stands. Default [`Epsilon::Standard`].
    pub epsilon: Epsilon,
    /// The strength of the decay of the parameters: finite, at least 0. Default 0.
    pub weight_decay: f64,
    /// Whether `weight_decay` shrinks the parameters themselves (AdamW) instead of adding to the
    /// gradient (L2). Default false.
    pub decoupled_weight_decay: bool,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
    /// Whether a parameter stays where m and the gradient g of this step have opposite signs: the mask of
    /// the Cautious Optimizers. Default false.
    ///
    /// The paper's factor, which makes the other steps larger in return, is left out: it depends on the
    /// whole tensor, which would be read twice, and on where a tensor is cut. Decoupled weight decay is not
    /// masked.
    pub cautious: bool,
}

/// Where Adam's epsilon is added. Both places are in use. In the first thousand steps, and with a large
/// epsilon, the results differ by much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Epsilon {
    /// Added to the root of the *corrected* second moment: Algorithm 1 of the paper, PyTorch's
    /// `Adam` and `AdamW`, JAX.
    #[default]
    Standard,
    /// Added to the root of the second moment without correction, the paper's "epsilon hat" (end of section
    /// 2): TensorFlow, Keras, PyTorch's `SparseAdam`.
    Hat,
}

impl Epsilon {
    /// The names of both in [`Settings`].
    pub(super) const NAMES: &[&str] = &["standard", "hat"];

    pub(super) const fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }
}

impl Field for Epsilon {
    fn value(self) -> SettingValue<'static> {
        SettingValue::Choice(self.name())
    }

    fn read(value: SettingValue<'_>) -> Option<Self> {
        let both = [Self::Standard, Self::Hat];
        both.into_iter().find(|epsilon| epsilon.value() == value)
    }
}

impl Adam {
    /// AdamW with PyTorch's defaults: those of Adam, and a decoupled weight decay of 0.01.
    pub fn adamw() -> Self {
        Self { weight_decay: 1e-2, decoupled_weight_decay: true, ..Self::default() }
    }
}

settings! {
    Adam {
        number lr: NOT_NEGATIVE = 1e-3;
        number beta1: DECAY = 0.9;
        number beta2: DECAY = 0.999;
        number eps: NOT_NEGATIVE = 1e-8;
        choice epsilon: Epsilon = Epsilon::Standard;
        number weight_decay: NOT_NEGATIVE = 0.0;
        flag decoupled_weight_decay = false;
        flag maximize = false;
        flag cautious = false;
    }
}

/// A factor of the product of m and the gradient, whose sign is the cautious mask: 2^120. So the product of numbers that
/// are normal in `f32` is not 0. An infinite product has the right sign, and NaN, infinity times 0, is no mask.
pub(crate) const CAUTIOUS: f64 = f64::from_bits((1023 + 120) << 52);

named_constants!(pub(crate) struct K { weight1, keep1, weight2, keep2, step_size, eps, weight_decay, share, sign, cautious });

impl Rule for Adam {
    type Moments = Count<2>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 2] = ["exp_avg", "exp_avg_sq"];

    const CONVERTS_IN_LOOP: bool = true;

    #[inline(always)]
    fn holds_squares(&self, moment: usize) -> bool {
        moment == 1
    }

    #[inline(always)]
    fn specialise(self, mut run: impl FnMut(Self)) {
        let is_adamw = self.weight_decay != 0.0 && self.decoupled_weight_decay;
        let plain = Self { weight_decay: 0.0, cautious: false, ..self };
        // The cautious mask has a loop of its own with AdamW only, where it is mostly used.
        if self.cautious && is_adamw && plain.is_plain() {
            run(Self { cautious: true, ..self.plain_adamw() });
        } else {
            self.specialise_decay(run);
        }
    }

    /// Only without weight decay and with AdamW's. More converting loops would be too much code.
    #[inline(always)]
    fn specialise_converting(self, mut run: impl FnMut(Self)) {
        if !(Self { weight_decay: 0.0, ..self }).is_plain() {
            return;
        }
        if self.weight_decay == 0.0 {
            run(self.plain());
        } else if self.decoupled_weight_decay {
            run(self.plain_adamw());
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.check_ranges()
    }

    /// Both places of epsilon are one formula: with c = sqrt(1 - beta2^t),
    /// `m / (sqrt(v) / c + eps) = c * m / (sqrt(v) + eps * c)`.
    // Inlined, so that the constants are not copied: a copy reads two constants at once that were just written one by
    // one, for which the CPU must wait.
    #[inline(always)]
    fn constants(&self, t: u64) -> [f64; K::COUNT] {
        let [correction1, correction2] = bias_corrections([self.beta1, self.beta2], t);
        let correction2 = correction2.sqrt();
        let step_size = self.lr * correction2 / correction1;
        let eps = match self.epsilon {
            Epsilon::Standard => scaled_eps(self.eps, correction2),
            Epsilon::Hat => self.eps,
        };
        K {
            weight1: weight(self.beta1),
            keep1: 1.0 - self.beta1,
            weight2: weight(self.beta2),
            keep2: 1.0 - self.beta2,
            step_size,
            eps,
            weight_decay: signed_decay(self.weight_decay, self.decoupled_weight_decay),
            share: self.lr * self.weight_decay,
            sign: sign_of(self.maximize),
            cautious: CAUTIOUS * flag(self.cautious),
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
        let k = &K::from(*k);
        let (param, grad) = self.decay(k, param, grad);
        let [m, v] = self.averages(k, grad, m, v);
        (self.descend(k, param, grad, m, self.denominator(k, v)), [m, v])
    }

    super::compiled_here!();
    super::rows_compiled_here!();
}

/// The parts of the formula, which [`AmsGrad`](crate::AmsGrad) and [`RowWiseAdam`](crate::table::RowWiseAdam)
/// combine in other ways.
impl Adam {
    /// Whether the default settings' part of the formula is enough: no cautious mask, no ascent, no weight decay, usual
    /// betas.
    #[inline(always)]
    pub(super) fn is_plain(&self) -> bool {
        let extras = self.cautious || self.maximize || self.weight_decay != 0.0;
        !extras && are_slow([self.beta1, self.beta2])
    }

    /// The settings with which the loop for all [plain](Self::is_plain) settings is compiled.
    #[inline(always)]
    pub(super) fn plain(self) -> Self {
        let slow = Self { beta1: SLOW, beta2: SLOW, ..self };
        Self { weight_decay: 0.0, maximize: false, cautious: false, ..slow }
    }

    /// As [`plain`](Self::plain), with AdamW's weight decay.
    #[inline(always)]
    fn plain_adamw(self) -> Self {
        Self { weight_decay: 1.0, decoupled_weight_decay: true, ..self.plain() }
    }

    /// [`Rule::specialise`] with four loops: plain, with weight decay of either kind, and for all else.
    #[inline(always)]
    pub(super) fn specialise_decay(self, mut run: impl FnMut(Self)) {
        if !(Self { weight_decay: 0.0, ..self }).is_plain() {
            run(self.any());
        } else if self.weight_decay == 0.0 {
            run(self.plain());
        } else if self.decoupled_weight_decay {
            run(self.plain_adamw());
        } else {
            run(Self { weight_decay: 1.0, decoupled_weight_decay: false, ..self.plain() });
        }
    }

    /// The settings with which the loop that serves all settings is compiled.
    #[inline(always)]
    pub(super) fn any(self) -> Self {
        let any = Self { beta1: ANY, beta2: ANY, maximize: true, cautious: true, ..self };
        Self { weight_decay: ANY_DECAY, decoupled_weight_decay: false, ..any }
    }

    #[inline(always)]
    pub(crate) fn decay<L: Lanes>(&self, k: &K<L>, param: L, grad: L) -> (L, L) {
        let grad = descent(self.maximize, k.sign, grad);
        let (decays, decoupled) = (self.weight_decay, self.decoupled_weight_decay);
        decay(decays, decoupled, [k.weight_decay, k.share], param, grad)
    }

    #[inline(always)]
    pub(super) fn averages<L: Lanes>(&self, k: &K<L>, grad: L, m: L, v: L) -> [L; 2] {
        let v = MovingAverage::new(self.beta2, k.weight2, k.keep2).next_square(v, grad);
        [self.exp_avg(k, m, grad), v]
    }

    #[inline(always)]
    pub(crate) fn exp_avg<L: Lanes>(&self, k: &K<L>, m: L, grad: L) -> L {
        MovingAverage::new(self.beta1, k.weight1, k.keep1).next(m, grad)
    }

    /// The second moment's next value, from a mean of squares.
    #[inline(always)]
    pub(crate) fn exp_avg_sq<L: Lanes>(&self, k: &K<L>, v: L, mean_square: L) -> L {
        MovingAverage::new(self.beta2, k.weight2, k.keep2).next_mean_square(v, mean_square)
    }

    #[inline(always)]
    pub(crate) fn denominator<L: Lanes>(&self, k: &K<L>, v: L) -> L {
        v.sqrt() + k.eps
    }

    #[inline(always)]
    pub(crate) fn descend<L: Lanes>(&self, k: &K<L>, param: L, grad: L, m: L, denominator: L) -> L {
        let m = if self.cautious {
            let zero = m.splat(0.0);
            L::select((m * k.cautious * grad).less_than(zero), zero, m)
        } else {
            m
        };
        (-k.step_size).mul_add(m / denominator, param)
    }
}
