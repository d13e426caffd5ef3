use super::{ANY, ANY_DECAY, MovingAverage, SLOW, are_slow, descent, l2, sign_of, weight};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{Settings, settings},
};

/// Adadelta (Zeiler, 2012).
///
/// ```text
/// g = -g                           if maximize
/// g = g + weight_decay * p         if weight_decay
/// s = rho * s + (1 - rho) * g^2
/// d = sqrt(a + eps) / sqrt(s + eps) * g
/// a = rho * a + (1 - rho) * d^2
/// p = p - lr * d
/// ```
///
/// The quotient of the roots is computed as the root of the quotient. Fields, names and defaults are
/// PyTorch's. Moments: `square_avg` (s) and `acc_delta` (a).
///
/// A step moves 28 bytes a parameter in `f32`, and costs one square root and one division.
///
/// # Examples
///
/// ```
/// use adamant::{Adadelta, Optimizer};
///
/// let mut param = [1.0_f32];
/// let mut state = Adadelta::default().state(1);
/// Adadelta::default().step(&mut param, &[1.0], &mut state)?;
/// assert!(param[0] < 1.0);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adadelta {
    /// A factor of the step: finite, at least 0. Default 1.
    pub lr: f64,
    /// The decay of both averages: in 0..=1. Default 0.9.
    pub rho: f64,
    /// Added below both roots, so that they are not 0: finite, at least 0. Default 1e-6.
    pub eps: f64,
    /// The strength of L2 weight decay: finite, at least 0. Default 0.
    pub weight_decay: f64,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
}

settings! {
    Adadelta {
        number lr: NOT_NEGATIVE = 1.0;
        number rho: SHARE = 0.9;
        number eps: NOT_NEGATIVE = 1e-6;
        number weight_decay: NOT_NEGATIVE = 0.0;
        flag maximize = false;
    }
}

/// 2^-64, and 2^-32.
const SMALL: f64 = ROOT_OF_SMALL * ROOT_OF_SMALL;
const ROOT_OF_SMALL: f64 = 1.0 / 4_294_967_296.0;

named_constants!(struct K { lr, weight, keep, eps, weight_decay, sign });

impl Rule for Adadelta {
    type Moments = Count<2>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 2] = ["square_avg", "acc_delta"];

    #[inline(always)]
    fn holds_squares(&self, _moment: usize) -> bool {
        true
    }

    #[inline(always)]
    fn specialise(self, mut run: impl FnMut(Self)) {
        let slow = Self { rho: SLOW, maximize: false, ..self };
        if self.maximize || !are_slow([self.rho]) {
            run(Self { rho: ANY, weight_decay: ANY_DECAY, maximize: true, ..self });
        } else if self.weight_decay == 0.0 {
            run(Self { weight_decay: 0.0, ..slow });
        } else {
            run(Self { weight_decay: 1.0, ..slow });
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.check_ranges()
    }

    fn constants(&self, _t: u64) -> [f64; K::COUNT] {
        K {
            lr: self.lr,
            weight: weight(self.rho),
            keep: 1.0 - self.rho,
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
        [s, a]: [L; 2],
    ) -> (L, [L; 2]) {
        let k = K::from(*k);
        let grad = descent(self.maximize, k.sign, grad);
        let grad = l2(self.weight_decay, k.weight_decay, param, grad);
        let decay = MovingAverage::new(self.rho, k.weight, k.keep);
        let s = decay.next_square(s, grad);
        // A quotient below 2^-64 is computed times 2^64, so that it is not rounded to 0.
        let (above, below) = (a + k.eps, s + k.eps);
        let times = above * grad.splat(1.0 / SMALL);
        let is_small = times.less_than(below);
        let scaled = L::select(is_small, times, above);
        let delta = (scaled / below).sqrt() * grad;
        let delta = L::select(is_small, delta * grad.splat(ROOT_OF_SMALL), delta);
        let a = decay.next_square(a, delta);
        ((-k.lr).mul_add(delta, param), [s, a])
    }

    super::compiled_here!();
}
