use super::{
    ANY, ANY_DECAY, MovingAverage, SLOW, are_slow, descent, flag, shrink, sign, sign_of, weight,
};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{Settings, settings},
};

/// Lion (Chen et al., 2023): steps of one size, in the direction of a momentum's sign.
///
/// ```text
/// g = -g                           if maximize
/// p = (1 - lr * weight_decay) * p
/// c = beta1 * m + (1 - beta1) * g
/// p = p - lr * sign(c)
/// m = beta2 * m + (1 - beta2) * g
/// ```
///
/// The sign of zero is zero. Defaults are Keras's. Moments: `exp_avg` (m).
///
/// A step moves 20 bytes a parameter in `f32`, and divides nothing.
///
/// # Examples
///
/// ```
/// use adamant::{Lion, Optimizer};
///
/// let lion = Lion { lr: 0.25, ..Lion::default() };
/// let mut param = [1.0_f32, 1.0, 1.0];
/// let mut state = lion.state(3);
/// lion.step(&mut param, &[7.0, 0.0, -1e-20], &mut state)?;
/// assert_eq!(param, [0.75, 1.0, 1.25]);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lion {
    /// The learning rate, which is the size of every step: finite, at least 0. Default 1e-3. The paper
    /// recommends a third to a tenth of AdamW's.
    pub lr: f64,
    /// The weight of the momentum in the direction of the step: in 0..1. Default 0.9.
    pub beta1: f64,
    /// The decay of the momentum: in 0..1. Default 0.99.
    pub beta2: f64,
    /// The strength of decoupled weight decay: finite, at least 0. Default 0.
    pub weight_decay: f64,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
}

settings! {
    Lion {
        number lr: NOT_NEGATIVE = 1e-3;
        number beta1: DECAY = 0.9;
        number beta2: DECAY = 0.99;
        number weight_decay: NOT_NEGATIVE = 0.0;
        flag maximize = false;
    }
}

named_constants!(struct K { weight1, keep1, weight2, keep2, lr, decays, share, sign });

impl Rule for Lion {
    type Moments = Count<1>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 1] = ["exp_avg"];

    #[inline(always)]
    fn specialise(self, mut run: impl FnMut(Self)) {
        let slow = Self { beta1: SLOW, beta2: SLOW, maximize: false, ..self };
        if self.maximize || !are_slow([self.beta1, self.beta2]) {
            run(Self { beta1: ANY, beta2: ANY, weight_decay: ANY_DECAY, maximize: true, ..self });
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
        let share = self.lr * self.weight_decay;
        K {
            weight1: weight(self.beta1),
            keep1: 1.0 - self.beta1,
            weight2: weight(self.beta2),
            keep2: 1.0 - self.beta2,
            lr: self.lr,
            decays: flag(self.weight_decay != 0.0),
            share,
            sign: sign_of(self.maximize),
        }
        .into()
    }

    #[inline(always)]
    fn update<L: Lanes>(&self, k: &[L; K::COUNT], param: L, grad: L, [m]: [L; 1]) -> (L, [L; 1]) {
        let k = K::from(*k);
        let grad = descent(self.maximize, k.sign, grad);
        let param = shrink(self.weight_decay, k.decays, k.share, param);
        let direction = sign(MovingAverage::new(self.beta1, k.weight1, k.keep1).next(m, grad));
        (
            (-k.lr).mul_add(direction, param),
            [MovingAverage::new(self.beta2, k.weight2, k.keep2).next(m, grad)],
        )
    }

    super::compiled_here!();
}
