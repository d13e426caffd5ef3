use super::{
    ANY, ANY_DECAY, MovingAverage, SLOW, are_slow, bias_corrections, descent, l2, larger, sign_of,
    weight,
};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{Settings, settings},
};

/// AdaMax (Kingma and Ba, 2015, section 7): Adam with the infinity norm.
///
/// ```text
/// g = -g                           if maximize
/// g = g + weight_decay * p         if weight_decay
/// m = beta1 * m + (1 - beta1) * g
/// u = max(beta2 * u, |g| + eps)
/// p = p - lr / (1 - beta1^t) * m / u
/// ```
///
/// Fields, names and defaults are PyTorch's. Moments: `exp_avg` (m) and `exp_inf` (u).
///
/// A step moves 28 bytes a parameter in `f32`, and costs one division.
///
/// # Examples
///
/// ```
/// use adamant::{AdaMax, Optimizer};
///
/// let adamax = AdaMax { lr: 0.5, ..AdaMax::default() };
/// let mut param = [1.0_f32, -1.0];
/// let mut state = adamax.state(2);
/// adamax.step(&mut param, &[4.0, -0.25], &mut state)?;
/// assert_eq!(param, [0.5, -0.5]);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaMax {
    /// The learning rate: finite, at least 0. Default 2e-3.
    pub lr: f64,
    /// The decay of the gradient's average: in 0..1. Default 0.9.
    pub beta1: f64,
    /// The decay of the norm: in 0..1. Default 0.999.
    pub beta2: f64,
    /// Added to the gradient's magnitude, so that the norm is not 0: finite, at least 0. Default 1e-8.
    pub eps: f64,
    /// The strength of L2 weight decay: finite, at least 0. Default 0.
    pub weight_decay: f64,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
}

settings! {
    AdaMax {
        number lr: NOT_NEGATIVE = 2e-3;
        number beta1: DECAY = 0.9;
        number beta2: DECAY = 0.999;
        number eps: NOT_NEGATIVE = 1e-8;
        number weight_decay: NOT_NEGATIVE = 0.0;
        flag maximize = false;
    }
}

/// 2^100: quotients above it are computed smaller. Those of usual steps are far below.
const LARGE: f64 = (1_u128 << 100) as f64;
/// 2^32.
const SCALE: f64 = 4_294_967_296.0;

named_constants!(struct K { weight1, keep1, beta2, step_size, eps, weight_decay, sign });

impl Rule for AdaMax {
    type Moments = Count<2>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 2] = ["exp_avg", "exp_inf"];

    #[inline(always)]
    fn holds_magnitudes(&self, moment: usize) -> bool {
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

    fn constants(&self, t: u64) -> [f64; K::COUNT] {
        let [correction] = bias_corrections([self.beta1], t);
        let step_size = self.lr / correction;
        K {
            weight1: weight(self.beta1),
            keep1: 1.0 - self.beta1,
            beta2: self.beta2,
            step_size,
            eps: self.eps,
            weight_decay: self.weight_decay,
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
        [m, u]: [L; 2],
    ) -> (L, [L; 2]) {
        let k = K::from(*k);
        let grad = descent(self.maximize, k.sign, grad);
        let grad = l2(self.weight_decay, k.weight_decay, param, grad);
        let m = MovingAverage::new(self.beta1, k.weight1, k.keep1).next(m, grad);
        let u = larger(k.beta2 * u, grad.abs() + k.eps);
        // A large quotient can overflow although the step does not. So it is computed smaller, and the step
        // size takes the factor.
        let is_large = (u * u.splat(LARGE)).less_than(m.abs());
        let m_scaled = L::select(is_large, m * m.splat(1.0 / SCALE), m);
        let step_size = L::select(is_large, k.step_size * m.splat(SCALE), k.step_size);
        ((-step_size).mul_add(m_scaled / u, param), [m, u])
    }

    super::compiled_here!();
}
