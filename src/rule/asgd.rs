use super::{ANY_DECAY, descent, flag, l2, shrink, sign_of};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{Settings, settings},
};

/// Averaged stochastic gradient descent (Polyak and Juditsky, 1992), with the schedule of Bottou's
/// `sgd`.
///
/// ```text
/// g = -g                           if maximize
/// g = g + weight_decay * p         if weight_decay
/// e = lr / (1 + lambd * lr * (t - 1))^alpha
/// u = 1 / max(1, t - 1 - t0)
/// p = (1 - lambd * e) * p - e * g
/// a = a + u * (p - a)              a = p while u is 1
/// ```
///
/// Fields, names and defaults are PyTorch's; e and u depend on t alone and are not saved. Moments: `ax` (a),
/// the average, which is the result of the training.
///
/// A step moves 20 bytes a parameter in `f32`, and divides nothing.
///
/// # Examples
///
/// ```
/// use adamant::{Asgd, Optimizer};
///
/// let asgd = Asgd { lr: 0.5, lambd: 0.0, t0: 0.0, ..Asgd::default() };
/// let mut param = [1.0_f32];
/// let mut state = asgd.state(1);
/// for _ in 0..3 {
///     asgd.step(&mut param, &[1.0], &mut state)?;
/// }
/// assert_eq!(param, [-0.5]);
/// assert_eq!(state.moment_to_f32("ax"), Some(vec![-0.25]));
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Asgd {
    /// The learning rate of the first step: finite, at least 0. Default 1e-2.
    pub lr: f64,
    /// The strength of the decay of parameters and learning rate: finite, at least 0. Default 1e-4.
    pub lambd: f64,
    /// The exponent of the schedule, by which the learning rate falls: finite, at least 0. Default 0.75.
    pub alpha: f64,
    /// The number of steps before averaging begins: finite, at least 0. Default 1e6.
    pub t0: f64,
    /// The strength of L2 weight decay: finite, at least 0. Default 0.
    pub weight_decay: f64,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
}

settings! {
    Asgd {
        number lr: NOT_NEGATIVE = 1e-2;
        number lambd: NOT_NEGATIVE = 1e-4;
        number alpha: NOT_NEGATIVE = 0.75;
        number t0: NOT_NEGATIVE = 1e6;
        number weight_decay: NOT_NEGATIVE = 0.0;
        flag maximize = false;
    }
}

named_constants!(struct K { step_size, decays, share, average_share, weight_decay, sign });

impl Asgd {
    /// The step size of step `t`, and the share by which the average moves.
    pub(crate) fn scheduled(&self, t: u64) -> [f64; 2] {
        let done = (t - 1) as f64;
        let fall = libm::pow(1.0 + self.lambd * self.lr * done, self.alpha);
        [self.lr / fall, 1.0 / f64::max(1.0, done - self.t0)]
    }
}

impl Rule for Asgd {
    type Moments = Count<1>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 1] = ["ax"];

    #[inline(always)]
    fn specialise(self, mut run: impl FnMut(Self)) {
        if self.maximize || self.weight_decay != 0.0 || self.lambd == 0.0 {
            run(Self { lambd: ANY_DECAY, weight_decay: ANY_DECAY, maximize: true, ..self });
        } else {
            run(Self { lambd: 1.0, weight_decay: 0.0, maximize: false, ..self });
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.check_ranges()
    }

    fn constants(&self, t: u64) -> [f64; K::COUNT] {
        let [step_size, average_share] = self.scheduled(t);
        let share = self.lambd * step_size;
        K {
            step_size,
            decays: flag(self.lambd != 0.0),
            share,
            average_share,
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
        [average]: [L; 1],
    ) -> (L, [L; 1]) {
        let k = K::from(*k);
        let grad = descent(self.maximize, k.sign, grad);
        let grad = l2(self.weight_decay, k.weight_decay, param, grad);
        let param = shrink(self.lambd, k.decays, k.share, param);
        let param = (-k.step_size).mul_add(grad, param);
        let averages = k.average_share.less_than(param.splat(1.0));
        let moved = k.average_share.mul_add(param - average, average);
        (param, [L::select(averages, moved, param)])
    }

    super::compiled_here!();
}
