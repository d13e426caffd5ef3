use super::{ANY, ANY_DECAY, MovingAverage, SLOW, are_slow, descent, l2, sign_of, weight};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{Settings, settings},
};

/// RMSProp (Tieleman and Hinton, 2012), also centered (Graves, 2013) and with momentum.
///
/// ```text
/// g = -g                           if maximize
/// g = g + weight_decay * p         if weight_decay
/// s = alpha * s + (1 - alpha) * g^2
/// a = alpha * a + (1 - alpha) * g  if centered
/// d = g / (sqrt(max(s - a^2, 0)) + eps)       d = g / (sqrt(s) + eps) if not centered
/// b = momentum * b + d             if momentum
/// p = p - lr * b                   p = p - lr * d if no momentum
/// ```
///
/// Rounding can make the variance `s - a^2` negative. PyTorch's result is NaN then; here it counts as 0.
/// Otherwise, fields, names and defaults are PyTorch's. Moments: `square_avg` (s), `grad_avg` (a,
/// only if centered) and `momentum_buffer` (b, only with momentum).
///
/// A step moves 20 bytes a parameter in `f32`, and 8 more for each of the optional moments; it costs
/// one square root and one division.
///
/// # Examples
///
/// ```
/// use adamant::{Optimizer, RmsProp};
///
/// let rmsprop = RmsProp { lr: 0.5, alpha: 0.75, ..RmsProp::default() };
/// let mut param = [2.0_f32];
/// let mut state = rmsprop.state(1);
/// rmsprop.step(&mut param, &[4.0], &mut state)?;
/// assert_eq!(param, [1.0]);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsProp {
    /// The learning rate: finite, at least 0. Default 1e-2.
    pub lr: f64,
    /// The decay of the averages: in 0..1. Default 0.99.
    pub alpha: f64,
    /// Added to the denominator, so that it is not 0: finite, at least 0. Default 1e-8.
    pub eps: f64,
    /// The strength of L2 weight decay: finite, at least 0. Default 0.
    pub weight_decay: f64,
    /// The share of the last step's direction that is kept: finite, at least 0. Default 0.
    pub momentum: f64,
    /// Whether to divide by the standard deviation instead of the root of the mean square. Default false.
    ///
    /// Keep `square_avg` and `grad_avg` in `f32` then. The variance is a difference of the two. In 16 or 8 bits it can
    /// become 0, since their roundings are larger than it if gradients vary little, and a step is `lr * g / eps` then:
    /// for example with gradients of mean 1 and deviation 1 in 8 bits, or of deviation 0.1 in bf16.
    pub centered: bool,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
}

settings! {
    RmsProp {
        number lr: NOT_NEGATIVE = 1e-2;
        number alpha: DECAY = 0.99;
        number eps: NOT_NEGATIVE = 1e-8;
        number weight_decay: NOT_NEGATIVE = 0.0;
        number momentum: NOT_NEGATIVE = 0.0;
        flag centered = false;
        flag maximize = false;
    }
}

named_constants!(struct K { lr, weight, keep, eps, weight_decay, momentum, sign });

impl Rule for RmsProp {
    type Moments = Count<3>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 3] = ["square_avg", "grad_avg", "momentum_buffer"];

    fn start(&self, moment: usize) -> Option<f64> {
        [true, self.centered, self.momentum != 0.0][moment].then_some(0.0)
    }

    #[inline(always)]
    fn specialise(self, mut run: impl FnMut(Self)) {
        let any = Self { alpha: ANY, weight_decay: ANY_DECAY, maximize: true, ..self };
        let slow = Self { alpha: SLOW, maximize: false, ..self };
        let is_slow = !self.maximize && are_slow([self.alpha]);
        match (self.momentum == 0.0, self.centered) {
            (true, false) if is_slow && self.weight_decay == 0.0 => {
                run(Self { momentum: 0.0, centered: false, weight_decay: 0.0, ..slow });
            }
            (true, false) if is_slow => {
                run(Self { momentum: 0.0, centered: false, weight_decay: 1.0, ..slow });
            }
            (true, false) => run(Self { momentum: 0.0, centered: false, ..any }),
            (true, true) => run(Self { momentum: 0.0, centered: true, ..any }),
            (false, true) => run(Self { momentum: 1.0, centered: true, ..any }),
            (false, false) => run(Self { momentum: 1.0, centered: false, ..any }),
        }
    }

    #[inline(always)]
    fn holds_squares(&self, moment: usize) -> bool {
        moment == 0
    }

    fn check(&self) -> Result<(), Error> {
        self.check_ranges()
    }

    fn constants(&self, _t: u64) -> [f64; K::COUNT] {
        K {
            lr: self.lr,
            weight: weight(self.alpha),
            keep: 1.0 - self.alpha,
            eps: self.eps,
            weight_decay: self.weight_decay,
            momentum: self.momentum,
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
        [s, a, b]: [L; 3],
    ) -> (L, [L; 3]) {
        let k = K::from(*k);
        let grad = descent(self.maximize, k.sign, grad);
        let grad = l2(self.weight_decay, k.weight_decay, param, grad);
        let decay = MovingAverage::new(self.alpha, k.weight, k.keep);
        let s = decay.next_square(s, grad);
        let (square, a) = if self.centered {
            let a = decay.next(a, grad);
            ((-a).mul_add(a, s).max(a.splat(0.0)), a)
        } else {
            (s, a)
        };
        let direction = grad / (square.sqrt() + k.eps);
        let (direction, b) = if self.momentum == 0.0 {
            (direction, b)
        } else {
            let b = k.momentum.mul_add(b, direction);
            (b, b)
        };
        ((-k.lr).mul_add(direction, param), [s, a, b])
    }

    super::compiled_here!();
}
