//! Rust's hyper-parameters as C's, for tests that call both.

use std::any::Any;

use adamant::{
    AdEmaMix, AdaGrad, AdaMax, Adadelta, Adam, Adopt, AmsGrad, Epsilon, Lion, NAdam, RAdam,
    RmsProp, RowWiseAdam, Sgd,
};

use super::{adamant_hyper, adamant_hyper_init, adamant_optimizer, adamant_status};

/// A field as C has it.
trait Raw {
    type Raw;
    fn raw(self) -> Self::Raw;
}

impl Raw for f64 {
    type Raw = f64;

    fn raw(self) -> f64 {
        self
    }
}

impl Raw for u64 {
    type Raw = u64;

    fn raw(self) -> u64 {
        self
    }
}

impl Raw for bool {
    type Raw = u32;

    fn raw(self) -> u32 {
        self.into()
    }
}

impl Raw for Epsilon {
    type Raw = u32;

    fn raw(self) -> u32 {
        (self == Self::Hat).into()
    }
}

/// The defaults of an optimizer, from C.
pub fn defaults(optimizer: adamant_optimizer) -> adamant_hyper {
    let mut hyper = std::mem::MaybeUninit::<adamant_hyper>::uninit();
    // SAFETY: as much memory as it says, all of which is written where it succeeds.
    unsafe {
        let status =
            adamant_hyper_init(hyper.as_mut_ptr(), size_of::<adamant_hyper>(), optimizer as u32);
        assert_eq!(status, adamant_status::ADAMANT_OK);
        hyper.assume_init()
    }
}

macro_rules! hyper {
    ($any:ident: $($rule:ident $optimizer:ident { $($field:ident),+ })+) => {
        $(if let Some(rule) = $any.downcast_ref::<$rule>() {
            return adamant_hyper {
                $($field: rule.$field.raw(),)+
                ..defaults(adamant_optimizer::$optimizer)
            };
        })+
    };
}

/// The hyper-parameters of any of the crate's rules.
pub fn hyper_of(rule: &dyn Any) -> adamant_hyper {
    if let Some(AmsGrad(adam)) = rule.downcast_ref() {
        return wrapped(adam, adamant_optimizer::ADAMANT_AMSGRAD);
    }
    if let Some(RowWiseAdam(adam)) = rule.downcast_ref() {
        return wrapped(adam, adamant_optimizer::ADAMANT_ROW_WISE_ADAM);
    }
    hyper! { rule:
        Sgd ADAMANT_SGD { lr, momentum, dampening, weight_decay, nesterov, maximize }
        AdaGrad ADAMANT_ADAGRAD {
            lr, lr_decay, weight_decay, initial_accumulator_value, eps, maximize
        }
        Adadelta ADAMANT_ADADELTA { lr, rho, eps, weight_decay, maximize }
        RmsProp ADAMANT_RMSPROP { lr, alpha, eps, weight_decay, momentum, centered, maximize }
        Adam ADAMANT_ADAM {
            lr, beta1, beta2, eps, epsilon, weight_decay, decoupled_weight_decay, maximize, cautious
        }
        AdaMax ADAMANT_ADAMAX { lr, beta1, beta2, eps, weight_decay, maximize }
        NAdam ADAMANT_NADAM {
            lr, beta1, beta2, eps, weight_decay, momentum_decay, decoupled_weight_decay, maximize
        }
        RAdam ADAMANT_RADAM {
            lr, beta1, beta2, eps, weight_decay, decoupled_weight_decay, maximize
        }
        Lion ADAMANT_LION { lr, beta1, beta2, weight_decay, maximize }
        Adopt ADAMANT_ADOPT {
            lr, beta1, beta2, eps, weight_decay, decoupled_weight_decay, maximize
        }
        AdEmaMix ADAMANT_ADEMAMIX {
            lr, beta1, beta2, beta3, alpha, beta3_warmup, alpha_warmup, eps, weight_decay, maximize
        }
    }
    panic!("no rule of the crate")
}

fn wrapped(adam: &Adam, optimizer: adamant_optimizer) -> adamant_hyper {
    adamant_hyper { optimizer: optimizer as u32, ..hyper_of(adam) }
}
