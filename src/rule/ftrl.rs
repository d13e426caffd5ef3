use core::ops::Bound;

use super::{descent, sign_of};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{NumberRange, Settings, settings},
};

/// FTRL-Proximal (McMahan et al., 2013): AdaGrad that sets parameters to 0 where L1 regularization is
/// stronger than the gradients so far.
///
/// ```text
/// g = -g                           if maximize
/// h = g + 2 * l2_shrinkage_regularization_strength * p
/// a = n + g^2
/// z = z + h - (sqrt(a) - sqrt(n)) / lr * p
/// n = a
/// c = min(max(z, -l1_regularization_strength), l1_regularization_strength)
/// p = (c - z) * lr / (sqrt(n) + beta + 2 * lr * l2_regularization_strength)
/// ```
///
/// Names and defaults are Keras's; its `learning_rate` is `lr` here, and its `learning_rate_power` is
/// -0.5, the default and the paper's. Moments: `accumulator` (n), which starts from
/// `initial_accumulator_value`, and `linear` (z).
///
/// Where n is infinite, p and z stay as they are.
///
/// Keep `linear` in `f32`: parameters are computed from it anew in each step, so that in 8 bits each rounding moves
/// them, further than a step does, and in bf16 a little.
///
/// A step moves 28 bytes a parameter in `f32`, and costs two square roots and one division.
///
/// # Examples
///
/// ```
/// use adamant::{Ftrl, Optimizer};
///
/// let ftrl = Ftrl { lr: 0.5, l1_regularization_strength: 1.0, ..Ftrl::default() };
/// let mut param = [0.0_f32, 0.0];
/// let mut state = ftrl.state(2);
/// ftrl.step(&mut param, &[0.5, -4.0], &mut state)?;
/// assert!(param[0] == 0.0 && param[1] > 0.0);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ftrl {
    /// The learning rate: finite, over 0. Default 1e-3.
    pub lr: f64,
    /// The value that the accumulator starts from: finite, at least 0. Default 0.1.
    ///
    /// [`Optimizer::state`](crate::Optimizer::state) sets it. Memory of your own must be set to it. If it,
    /// `beta` and `l2_regularization_strength` are all 0, a parameter whose gradients were all 0 becomes NaN.
    pub initial_accumulator_value: f64,
    /// The strength of L1 regularization: finite, at least 0. Default 0.
    pub l1_regularization_strength: f64,
    /// The strength of L2 regularization, in the denominator: finite, at least 0. Default 0.
    pub l2_regularization_strength: f64,
    /// The strength of L2 regularization that is added to the gradient: finite, at least 0. Default 0.
    pub l2_shrinkage_regularization_strength: f64,
    /// The paper's beta, which is added to the root of the accumulator: finite, at least 0. Default 0.
    pub beta: f64,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
}

const POSITIVE: NumberRange = NumberRange {
    start: Bound::Excluded(0.0),
    end: Bound::Included(f64::MAX),
    words: "finite and over 0",
};

settings! {
    Ftrl {
        number lr: POSITIVE = 1e-3;
        number initial_accumulator_value: NOT_NEGATIVE = 0.1;
        number l1_regularization_strength: NOT_NEGATIVE = 0.0;
        number l2_regularization_strength: NOT_NEGATIVE = 0.0;
        number l2_shrinkage_regularization_strength: NOT_NEGATIVE = 0.0;
        number beta: NOT_NEGATIVE = 0.0;
        flag maximize = false;
    }
}

named_constants!(struct K { lr, inverse_lr, l1, l2, shrinkage, start, sign });

impl Rule for Ftrl {
    type Moments = Count<2>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 2] = ["accumulator", "linear"];

    fn start(&self, moment: usize) -> Option<f64> {
        Some([self.initial_accumulator_value, 0.0][moment])
    }

    #[inline(always)]
    fn holds_squares(&self, moment: usize) -> bool {
        moment == 0
    }

    fn check(&self) -> Result<(), Error> {
        self.check_ranges()
    }

    /// The start value is here only so that one that the type of the step cannot hold is refused.
    fn constants(&self, _t: u64) -> [f64; K::COUNT] {
        K {
            lr: self.lr,
            inverse_lr: 1.0 / self.lr,
            l1: self.l1_regularization_strength,
            l2: self.beta + 2.0 * self.lr * self.l2_regularization_strength,
            shrinkage: 2.0 * self.l2_shrinkage_regularization_strength,
            start: self.initial_accumulator_value,
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
        [n, z]: [L; 2],
    ) -> (L, [L; 2]) {
        let k = K::from(*k);
        let grad = descent(true, k.sign, grad);
        let next_n = grad.mul_add(grad, n);
        let root = next_n.sqrt();
        let sigma = (root - n.sqrt()) * k.inverse_lr;
        let next_z = z + (-sigma).mul_add(param, k.shrinkage.mul_add(param, grad));
        let excess = next_z.max(-k.l1).min(k.l1) - next_z;
        let next = excess * k.lr / (root + k.l2);
        // Once n is infinite, inf / inf would make the parameter NaN. So it stays as it is.
        let is_number = next_n.less_than(next_n.splat(f64::INFINITY));
        let is_infinite = next_n.splat(0.0).less_than(next_n);
        let open = |next, now| L::select(is_number, next, L::select(is_infinite, now, next));
        (open(next, param), [next_n, open(next_z, z)])
    }

    super::compiled_here!();
    super::rows_compiled_here!();
}
