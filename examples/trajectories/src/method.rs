//! The nine optimizers, each behind the same closure.

use adamant::{AdaGrad, AdaMax, Adadelta, Adam, Lion, Optimizer, RmsProp, Sgd, Storage};
use anyhow::Result;

/// Of the two kinds of SGD that have a momentum.
pub const MOMENTUM: f64 = 0.9;

/// How a step follows from a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Sgd,
    Momentum,
    Nesterov,
    AdaGrad,
    Adadelta,
    RmsProp,
    Adam,
    AdaMax,
    Lion,
}

/// Updates the parameters by one gradient.
pub type Stepper = Box<dyn FnMut(&mut [f64], &[f64]) -> Result<()>>;

impl Method {
    pub const ALL: [Self; 9] = [
        Self::Sgd,
        Self::Momentum,
        Self::Nesterov,
        Self::AdaGrad,
        Self::Adadelta,
        Self::RmsProp,
        Self::Adam,
        Self::AdaMax,
        Self::Lion,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sgd => "SGD",
            Self::Momentum => "momentum",
            Self::Nesterov => "Nesterov",
            Self::AdaGrad => "AdaGrad",
            Self::Adadelta => "Adadelta",
            Self::RmsProp => "RMSProp",
            Self::Adam => "Adam",
            Self::AdaMax => "AdaMax",
            Self::Lion => "Lion",
        }
    }

    /// Prepares to step `len` parameters: all but the learning rate and the momentum is default.
    pub fn stepper(self, lr: f64, len: usize) -> Stepper {
        let momentum = MOMENTUM;
        match self {
            Self::Sgd => stepper(Sgd { lr, ..Sgd::default() }, len),
            Self::Momentum => stepper(Sgd { lr, momentum, ..Sgd::default() }, len),
            Self::Nesterov => stepper(Sgd { lr, momentum, nesterov: true, ..Sgd::default() }, len),
            Self::AdaGrad => stepper(AdaGrad { lr, ..AdaGrad::default() }, len),
            Self::Adadelta => stepper(Adadelta { lr, ..Adadelta::default() }, len),
            Self::RmsProp => stepper(RmsProp { lr, ..RmsProp::default() }, len),
            Self::Adam => stepper(Adam { lr, ..Adam::default() }, len),
            Self::AdaMax => stepper(AdaMax { lr, ..AdaMax::default() }, len),
            Self::Lion => stepper(Lion { lr, ..Lion::default() }, len),
        }
    }
}

fn stepper<R: Optimizer + 'static>(rule: R, len: usize) -> Stepper {
    let mut state = rule.state_in(Storage::F64, len);
    Box::new(move |params, grads| Ok(rule.step(params, grads, &mut state)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_descends() {
        for method in Method::ALL {
            let mut stepper = method.stepper(0.01, 2);
            let mut params = [1.0, -1.0];
            for _ in 0..10 {
                let grads = params;
                stepper(&mut params, &grads).unwrap();
            }
            assert!(params[0] < 1.0 && params[1] > -1.0, "{}: {params:?}", method.name());
        }
    }
}
