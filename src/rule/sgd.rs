use super::{ANY_DECAY, POSITIVE, check, descent, l2, sign_of};
use crate::{
    Error,
    rule::{Count, Lanes, Rule, named_constants},
    settings::{Settings, settings},
};

/// Stochastic gradient descent, with momentum (Polyak, 1964) or Nesterov's (Sutskever et al., 2013).
///
/// ```text
/// g = -g                           if maximize
/// g = g + weight_decay * p         if weight_decay
/// b = momentum * b + (1 - dampening) * g      b = g in step 1
/// g = g + momentum * b             if nesterov
/// g = b                            if momentum and not nesterov
/// p = p - lr * g
/// ```
///
/// Fields, names and defaults are PyTorch's. Moments: `momentum_buffer` (b), only with momentum.
///
/// A step moves 12 bytes a parameter in `f32`, 20 with momentum, and divides nothing.
///
/// # Examples
///
/// ```
/// use adamant::{Optimizer, Sgd};
///
/// let sgd = Sgd { lr: 0.5, momentum: 0.5, ..Sgd::default() };
/// let mut param = [1.0_f32];
/// let mut state = sgd.state(1);
/// sgd.step(&mut param, &[1.0], &mut state)?;
/// sgd.step(&mut param, &[1.0], &mut state)?;
/// assert_eq!(param, [1.0 - 0.5 * 1.0 - 0.5 * 1.5]);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// The learning rate: finite, at least 0. Default 1e-3.
    pub lr: f64,
    /// The share of the last step's direction that is kept: finite, at least 0. Default 0.
    pub momentum: f64,
    /// The share of the gradient that is not added to the momentum, from step 2 on: finite. Default 0.
    pub dampening: f64,
    /// The strength of L2 weight decay: finite, at least 0. Default 0.
    pub weight_decay: f64,
    /// Whether to use Nesterov's momentum. It needs a `momentum` over 0 and a `dampening` of 0. Default
    /// false.
    pub nesterov: bool,
    /// Whether to maximise instead of to minimise. Default false.
    pub maximize: bool,
}

settings! {
    Sgd {
        number lr: NOT_NEGATIVE = 1e-3;
        number momentum: NOT_NEGATIVE = 0.0;
        number dampening: FINITE = 0.0;
        number weight_decay: NOT_NEGATIVE = 0.0;
        flag nesterov = false;
        flag maximize = false;
    }
}

named_constants!(struct K { lr, momentum, keep, weight_decay, sign });

impl Rule for Sgd {
    type Moments = Count<1>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 1] = ["momentum_buffer"];

    fn start(&self, _moment: usize) -> Option<f64> {
        (self.momentum != 0.0).then_some(0.0)
    }

    #[inline(always)]
    fn specialise(self, mut run: impl FnMut(Self)) {
        // Three kinds of momentum. Each has a loop that only minimizes, without weight decay, and a loop for all else.
        if self.maximize || self.weight_decay != 0.0 {
            let any = Self { maximize: true, weight_decay: ANY_DECAY, ..self };
            if self.momentum == 0.0 {
                run(Self { momentum: 0.0, ..any });
            } else if self.nesterov {
                run(Self { nesterov: true, momentum: 1.0, ..any });
            } else {
                run(Self { nesterov: false, momentum: 1.0, ..any });
            }
        } else {
            let plain = Self { maximize: false, weight_decay: 0.0, ..self };
            if self.momentum == 0.0 {
                run(Self { momentum: 0.0, ..plain });
            } else if self.nesterov {
                run(Self { nesterov: true, momentum: 1.0, ..plain });
            } else {
                run(Self { nesterov: false, momentum: 1.0, ..plain });
            }
        }
    }

    fn check(&self) -> Result<(), Error> {
        self.check_ranges()?;
        if self.nesterov {
            check("dampening", self.dampening, 0.0..=0.0, "0 with nesterov")?;
            check("momentum", self.momentum, POSITIVE, "over 0 with nesterov")?;
        }
        Ok(())
    }

    fn constants(&self, t: u64) -> [f64; K::COUNT] {
        let keep = if t == 1 { 1.0 } else { 1.0 - self.dampening };
        K {
            lr: self.lr,
            momentum: self.momentum,
            keep,
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
        [buffer]: [L; 1],
    ) -> (L, [L; 1]) {
        let k = K::from(*k);
        let grad = descent(self.maximize, k.sign, grad);
        let grad = l2(self.weight_decay, k.weight_decay, param, grad);
        let (direction, buffer) = if self.momentum == 0.0 {
            (grad, buffer)
        } else {
            let buffer = k.momentum.mul_add(buffer, k.keep * grad);
            (if self.nesterov { k.momentum.mul_add(buffer, grad) } else { buffer }, buffer)
        };
        ((-k.lr).mul_add(direction, param), [buffer])
    }

    super::compiled_here!();
    super::rows_compiled_here!();
}
