use super::{
    ANY, ANY_DECAY, MovingAverage, SLOW, are_slow, bias_corrections, descent, l2, scaled_eps,
    sign_of, weight,
};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{Settings, settings},
};

/// Yogi (Zaheer et al., 2018): Adam whose second moment changes by at most a share of the squared gradient.
///
/// ```text
/// g = -g                           if maximize
/// g = g + weight_decay * p         if weight_decay
/// m = beta1 * m + (1 - beta1) * g
/// v = v - (1 - beta2) * sign(v - g^2) * g^2
/// p = p - lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps)
/// ```
///
/// The bias corrections, which the paper leaves out, are those of optax and of TensorFlow's addons; the
/// defaults are theirs and the paper's. Moments: `exp_avg` (m) and `exp_avg_sq` (v), which starts from
/// `initial_accumulator_value`.
///
/// A step moves 28 bytes a parameter in `f32`, and costs one square root and one division.
///
/// # Examples
///
/// ```
/// use adamant::{Optimizer, Yogi};
///
/// let mut param = [1.0_f32];
/// let mut state = Yogi::default().state(1);
/// Yogi::default().step(&mut param, &[0.5], &mut state)?;
/// assert!(param[0] < 1.0);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yogi {
    /// The learning rate: finite, at least 0. Default 1e-2.
    pub lr: f64,
    /// The decay of the gradient's average m: in 0..1. Default 0.9.
    pub beta1: f64,
    /// The decay of v: the share `1 - beta2` of the squared gradient moves it. In 0..1. Default 0.999.
    pub beta2: f64,
    /// Added to the denominator, so that it is not 0: finite, at least 0. Default 1e-3.
    pub eps: f64,
    /// The value that v starts from: finite, at least 0. Default 1e-6.
    ///
    /// [`Optimizer::state`](crate::Optimizer::state) sets it. Memory of your own must be set to it.
    pub initial_accumulator_value: f64,
    /// The strength of L2 weight decay: finite, at least 0. Default 0.
    pub weight_decay: f64,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
}

settings! {
    Yogi {
        number lr: NOT_NEGATIVE = 1e-2;
        number beta1: DECAY = 0.9;
        number beta2: DECAY = 0.999;
        number eps: NOT_NEGATIVE = 1e-3;
        number initial_accumulator_value: NOT_NEGATIVE = 1e-6;
        number weight_decay: NOT_NEGATIVE = 0.0;
        flag maximize = false;
    }
}

named_constants!(struct K { weight1, keep1, keep2, step_size, eps, weight_decay, start, sign });

impl Rule for Yogi {
    type Moments = Count<2>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 2] = ["exp_avg", "exp_avg_sq"];

    fn start(&self, moment: usize) -> Option<f64> {
        Some([0.0, self.initial_accumulator_value][moment])
    }

    #[inline(always)]
    fn holds_squares(&self, moment: usize) -> bool {
        moment == 1
    }

    #[inline(always)]
    fn specialise(self, mut run: impl FnMut(Self)) {
        let slow = Self { beta1: SLOW, maximize: false, ..self };
        if self.maximize || !are_slow([self.beta1]) {
            run(Self { beta1: ANY, weight_decay: ANY_DECAY, maximize: true, ..self });
        } else if self.weight_decay == 0.0 {
            run(Self { weight_decay: 0.0, ..slow });
        } else {
            run(Self { weight_decay: 1.0, ..slow });
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.check_ranges()
    }

    /// The start value is here only so that one that the type of the step cannot hold is refused.
    ///
    /// With c = sqrt(1 - beta2^t), `m / (sqrt(v) / c + eps) = c * m / (sqrt(v) + eps * c)`.
    fn constants(&self, t: u64) -> [f64; K::COUNT] {
        let [correction1, correction2] = bias_corrections([self.beta1, self.beta2], t);
        let correction2 = correction2.sqrt();
        K {
            weight1: weight(self.beta1),
            keep1: 1.0 - self.beta1,
            keep2: 1.0 - self.beta2,
            step_size: self.lr * correction2 / correction1,
            eps: scaled_eps(self.eps, correction2),
            weight_decay: self.weight_decay,
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
        [m, v]: [L; 2],
    ) -> (L, [L; 2]) {
        let k = K::from(*k);
        let grad = descent(self.maximize, k.sign, grad);
        let grad = l2(self.weight_decay, k.weight_decay, param, grad);
        let m = MovingAverage::new(self.beta1, k.weight1, k.keep1).next(m, grad);
        let (square, distance) = (grad * grad, grad.mul_add(grad, -v));
        // A distance that is neither below nor over 0 is 0 or NaN. Then it is the movement itself.
        let zero = v.splat(0.0);
        let move_down = L::select(distance.less_than(zero), -square, distance);
        let movement = L::select(zero.less_than(distance), square, move_down);
        // Once v is infinite, inf - inf would make it NaN. So it stays infinite, and the parameter as it is.
        let is_finite = v.less_than(v.splat(f64::INFINITY));
        let v = L::select(is_finite, k.keep2.mul_add(movement, v), v);
        ((-k.step_size).mul_add(m / (v.sqrt() + k.eps), param), [m, v])
    }

    super::compiled_here!();
}
