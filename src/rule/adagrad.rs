use super::{ANY_DECAY, descent, l2, sign_of};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{Settings, settings},
};

/// AdaGrad (Duchi, Hazan and Singer, 2011).
///
/// ```text
/// g = -g                           if maximize
/// g = g + weight_decay * p         if weight_decay
/// s = s + g^2
/// p = p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)
/// ```
///
/// Fields, names and defaults are PyTorch's. Moments: `sum` (s).
///
/// A step moves 20 bytes a parameter in `f32`, and costs one square root and one division.
///
/// # Examples
///
/// ```
/// use adamant::{AdaGrad, Optimizer};
///
/// let adagrad = AdaGrad { lr: 0.5, ..AdaGrad::default() };
/// let mut param = [1.0_f32, -1.0];
/// let mut state = adagrad.state(2);
/// adagrad.step(&mut param, &[4.0, -0.25], &mut state)?;
/// assert_eq!(param, [0.5, -0.5]);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdaGrad {
    /// The learning rate: finite, at least 0. Default 1e-2.
    pub lr: f64,
    /// How fast the learning rate falls with the steps: finite, at least 0. Default 0.
    pub lr_decay: f64,
    /// The strength of L2 weight decay: finite, at least 0. Default 0.
    pub weight_decay: f64,
    /// The value that the sum starts from: finite, at least 0. Default 0.
    ///
    /// [`Optimizer::state`](crate::Optimizer::state) sets it. Memory of your own must be set to it.
    pub initial_accumulator_value: f64,
    /// Added to the denominator, so that it is not 0: finite, at least 0. Default 1e-10.
    pub eps: f64,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
}

settings! {
    AdaGrad {
        number lr: NOT_NEGATIVE = 1e-2;
        number lr_decay: NOT_NEGATIVE = 0.0;
        number weight_decay: NOT_NEGATIVE = 0.0;
        number initial_accumulator_value: NOT_NEGATIVE = 0.0;
        number eps: NOT_NEGATIVE = 1e-10;
        flag maximize = false;
    }
}

named_constants!(struct K { step_size, eps, weight_decay, start, sign });

impl Rule for AdaGrad {
    type Moments = Count<1>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 1] = ["sum"];

    fn start(&self, _moment: usize) -> Option<f64> {
        Some(self.initial_accumulator_value)
    }

    #[inline(always)]
    fn holds_squares(&self, _moment: usize) -> bool {
        true
    }

    #[inline(always)]
    fn specialise(self, mut run: impl FnMut(Self)) {
        if self.maximize || self.weight_decay != 0.0 {
            run(Self { weight_decay: ANY_DECAY, maximize: true, ..self });
        } else {
            run(Self { weight_decay: 0.0, maximize: false, ..self });
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.check_ranges()
    }

    fn constants(&self, t: u64) -> [f64; K::COUNT] {
        let step_size = self.lr / (1.0 + (t - 1) as f64 * self.lr_decay);
        // The formula does not use the start value. It is among the constants so that a value that the type
        // of the step cannot hold is refused.
        let start = self.initial_accumulator_value;
        let sign = sign_of(self.maximize);
        K { step_size, eps: self.eps, weight_decay: self.weight_decay, start, sign }.into()
    }

    #[inline(always)]
    fn update<L: Lanes>(&self, k: &[L; K::COUNT], param: L, grad: L, [sum]: [L; 1]) -> (L, [L; 1]) {
        let k = K::from(*k);
        let grad = descent(self.maximize, k.sign, grad);
        let grad = l2(self.weight_decay, k.weight_decay, param, grad);
        let sum = grad.mul_add(grad, sum);
        let param = (-k.step_size).mul_add(grad / (sum.sqrt() + k.eps), param);
        (param, [sum])
    }

    super::compiled_here!();
    super::rows_compiled_here!();
}
