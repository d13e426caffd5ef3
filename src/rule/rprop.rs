use core::ops::Bound;

use super::{check, descent, sign, sign_of};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{NumberRange, Settings, settings},
};

/// Rprop (Riedmiller and Braun, 1993): each parameter has its own step size, which grows while the gradient
/// keeps its sign. It is for gradients of all data, not of batches.
///
/// ```text
/// g = -g                           if maximize
/// s = s * etaplus                  if g * b > 0
/// s = s * etaminus, g = 0          if g * b < 0
/// s = min(max(s, step_size_min), step_size_max)
/// p = p - s * sign(g)
/// b = g
/// ```
///
/// The sign of zero is zero. Fields, names and defaults are PyTorch's, whose pairs `etas` and
/// `step_sizes` are two fields each. Moments: `prev` (b) and `step_size` (s), which starts from `lr`.
///
/// Keep `step_size` out of 8 bits: beside a much larger one of its block, a small step size is rounded up.
///
/// A step moves 28 bytes a parameter in `f32`, and divides nothing.
///
/// # Examples
///
/// ```
/// use adamant::{Optimizer, Rprop};
///
/// let rprop = Rprop { lr: 0.25, etaplus: 2.0, ..Rprop::default() };
/// let mut param = [1.0_f32];
/// let mut state = rprop.state(1);
/// rprop.step(&mut param, &[9.0], &mut state)?;
/// assert_eq!(param, [0.75]);
/// rprop.step(&mut param, &[7.0], &mut state)?;
/// assert_eq!(param, [0.25]);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rprop {
    /// The value that the step sizes start from: finite, at least 0. Default 1e-2.
    ///
    /// [`Optimizer::state`](crate::Optimizer::state) sets it. Memory of your own must be set to it. A
    /// step does not use it.
    pub lr: f64,
    /// The factor of a step size where the gradient changes its sign: over 0, less than 1. Default 0.5.
    pub etaminus: f64,
    /// The factor of a step size where the gradient keeps its sign: finite, over 1. Default 1.2.
    pub etaplus: f64,
    /// The smallest step size: finite, at least 0. Default 1e-6.
    pub step_size_min: f64,
    /// The largest step size: finite, at least `step_size_min`. Default 50.
    pub step_size_max: f64,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
}

const SHRINKING: NumberRange = NumberRange {
    start: Bound::Excluded(0.0),
    end: Bound::Excluded(1.0),
    words: "over 0 and less than 1",
};

const GROWING: NumberRange = NumberRange {
    start: Bound::Excluded(1.0),
    end: Bound::Included(f64::MAX),
    words: "finite and over 1",
};

settings! {
    Rprop {
        number lr: NOT_NEGATIVE = 1e-2;
        number etaminus: SHRINKING = 0.5;
        number etaplus: GROWING = 1.2;
        number step_size_min: NOT_NEGATIVE = 1e-6;
        number step_size_max: NOT_NEGATIVE = 50.0;
        flag maximize = false;
    }
}

named_constants!(struct K { etaminus, etaplus, least, most, sign });

impl Rule for Rprop {
    type Moments = Count<2>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 2] = ["prev", "step_size"];

    fn start(&self, moment: usize) -> Option<f64> {
        Some([0.0, self.lr][moment])
    }

    fn check(&self) -> Result<(), Error> {
        self.check_ranges()?;
        let (least, most) = (self.step_size_min, self.step_size_max);
        check("step_size_max", most, least.., "at least step_size_min")
    }

    fn constants(&self, _t: u64) -> [f64; K::COUNT] {
        K {
            etaminus: self.etaminus,
            etaplus: self.etaplus,
            least: self.step_size_min,
            most: self.step_size_max,
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
        [prev, step_size]: [L; 2],
    ) -> (L, [L; 2]) {
        let k = K::from(*k);
        let grad = descent(true, k.sign, grad);
        let (zero, product) = (grad.splat(0.0), grad * prev);
        let turned = product.less_than(zero);
        // A product that is neither below nor over 0 is 0 or NaN. Plus 1, it is the factor 1, or stays NaN.
        let not_kept = L::select(turned, k.etaminus, product + product.splat(1.0));
        let factor = L::select(zero.less_than(product), k.etaplus, not_kept);
        let step_size = (step_size * factor).max(k.least).min(k.most);
        let grad = L::select(turned, zero, grad);
        ((-step_size).mul_add(sign(grad), param), [grad, step_size])
    }

    super::compiled_here!();
}
