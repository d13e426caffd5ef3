//! Optimizers by number, and the hyper-parameters of all of them.

use super::{
    memory::{Claims, Place},
    status::{Failure, adamant_status, guarded, refuse},
    versioned::{self, versioned},
};
use adamant::{
    AdEmaMix, AdaGrad, AdaMax, Adadelta, Adam, Adopt, AmsGrad, Epsilon, Lion, NAdam, RAdam,
    RmsProp, RowRule, RowWiseAdam, Rule, Sgd,
};

/// The optimizers: the fields of `adamant_hyper` that each reads, besides `lr` and `maximize`, and
/// its moments, in their order.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum adamant_optimizer {
    /// SGD: momentum, dampening, weight_decay (L2), nesterov. Moment, only with momentum:
    /// momentum_buffer.
    ADAMANT_SGD = 1,
    /// AdaGrad: lr_decay, weight_decay (L2), initial_accumulator_value, eps. Moment: sum, which starts
    /// from initial_accumulator_value.
    ADAMANT_ADAGRAD = 2,
    /// Adadelta: rho, eps, weight_decay (L2). Moments: square_avg, acc_delta.
    ADAMANT_ADADELTA = 3,
    /// RMSProp: alpha, eps, weight_decay (L2), momentum, centered. Moments: square_avg; grad_avg, only
    /// if centered; momentum_buffer, only with momentum.
    ADAMANT_RMSPROP = 4,
    /// Adam: beta1, beta2, eps, epsilon, weight_decay (L2, or of the parameters themselves if
    /// decoupled_weight_decay), cautious. Moments: exp_avg, exp_avg_sq.
    ADAMANT_ADAM = 5,
    /// AdamW: Adam with other defaults, a decoupled weight decay of 0.01. The same fields and moments.
    ADAMANT_ADAMW = 6,
    /// AMSGrad: the fields of Adam. Moments: exp_avg, exp_avg_sq, max_exp_avg_sq.
    ADAMANT_AMSGRAD = 7,
    /// AdaMax: beta1, beta2, eps, weight_decay (L2). Moments: exp_avg, exp_inf.
    ADAMANT_ADAMAX = 8,
    /// NAdam: beta1, beta2, eps, weight_decay, momentum_decay, decoupled_weight_decay. Moments:
    /// exp_avg, exp_avg_sq.
    ADAMANT_NADAM = 9,
    /// RAdam: beta1, beta2, eps, weight_decay, decoupled_weight_decay. Moments: exp_avg, exp_avg_sq.
    ADAMANT_RADAM = 10,
    /// Lion: beta1, beta2, weight_decay (decoupled). Moment: exp_avg.
    ADAMANT_LION = 11,
    /// ADOPT: beta1, beta2, eps, weight_decay, decoupled_weight_decay. Moments: exp_avg, exp_avg_sq.
    ADAMANT_ADOPT = 12,
    /// AdEMAMix: beta1, beta2, beta3, alpha, beta3_warmup, alpha_warmup, eps, weight_decay (decoupled).
    /// Moments: exp_avg_fast, exp_avg_slow, exp_avg_sq.
    ADAMANT_ADEMAMIX = 13,
    /// Adam with one second moment a row, for lazy steps on rows of a table only: the fields of Adam.
    /// Moments: exp_avg, as long as the table; exp_avg_sq, an element for each row.
    ADAMANT_ROW_WISE_ADAM = 14,
}

/// Where the epsilon of Adam stands.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum adamant_epsilon {
    /// Added to the root of the corrected second moment: the paper's Algorithm 1, PyTorch, JAX.
    ADAMANT_EPSILON_STANDARD = 0,
    /// Added to the root of the second moment as it is: TensorFlow, Keras, PyTorch's SparseAdam.
    ADAMANT_EPSILON_HAT = 1,
}

/// The hyper-parameters of all optimizers; each reads its own (see `adamant_optimizer`) and takes no
/// notice of the others. Names and defaults are PyTorch's where it has the optimizer.
///
/// `adamant_hyper_init` fills in the defaults; set what is to differ after it. Any field may change
/// from step to step, as for a schedule. Fields that count as true or false are 1 or 0.
///
/// The first 24 bytes must be there; a smaller `size` gives the other fields their defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct adamant_hyper {
    /// `sizeof(adamant_hyper)`.
    pub size: usize,
    /// One of `adamant_optimizer`.
    pub optimizer: u32,
    /// Whether to climb instead of to descend.
    pub maximize: u32,
    /// The learning rate: finite, at least 0.
    pub lr: f64,
    /// The decay of the average of gradients: at least 0, less than 1.
    pub beta1: f64,
    /// The decay of the average of squared gradients: at least 0, less than 1. (Lion: of the momentum.)
    pub beta2: f64,
    /// AdEMAMix: the decay of the slow average: at least 0, less than 1.
    pub beta3: f64,
    /// What keeps the denominator away from 0: finite, at least 0.
    pub eps: f64,
    /// The strength of weight decay: finite, at least 0.
    pub weight_decay: f64,
    /// SGD, RMSProp: the momentum: finite, at least 0.
    pub momentum: f64,
    /// SGD: the share of the gradient that the momentum is spared, after step 1: finite.
    pub dampening: f64,
    /// RMSProp: the decay of the averages, at least 0, less than 1. AdEMAMix: the weight of the slow
    /// average, finite, at least 0.
    pub alpha: f64,
    /// Adadelta: the decay of both averages: at least 0, at most 1.
    pub rho: f64,
    /// AdaGrad: how fast the learning rate falls with the steps: finite, at least 0.
    pub lr_decay: f64,
    /// AdaGrad: what the sum starts from: finite, at least 0.
    pub initial_accumulator_value: f64,
    /// NAdam: how fast the momentum approaches beta1: finite, at least 0.
    pub momentum_decay: f64,
    /// AdEMAMix: the steps in which the slow average's decay grows from beta1 to beta3.
    pub beta3_warmup: u64,
    /// AdEMAMix: the steps in which the slow average's weight grows from 0 to alpha.
    pub alpha_warmup: u64,
    /// One of `adamant_epsilon`.
    pub epsilon: u32,
    /// Whether weight_decay shrinks the parameters themselves (AdamW) instead of adding to the
    /// gradient (L2).
    pub decoupled_weight_decay: u32,
    /// Whether to leave a parameter that Adam would move against its gradient of this step.
    pub cautious: u32,
    /// SGD: whether to look ahead by the momentum; takes momentum over 0 and no dampening.
    pub nesterov: u32,
    /// RMSProp: whether to divide by the deviation instead of by the root of the mean square.
    pub centered: u32,
    /// 0.
    pub reserved: u32,
}

versioned!(adamant_hyper: beta1, beta2, beta3, eps, weight_decay, momentum, dampening, alpha, rho,
    lr_decay, initial_accumulator_value, momentum_decay, beta3_warmup, alpha_warmup, epsilon, cautious,
    centered);

impl adamant_hyper {
    /// What no optimizer's defaults say, and none reads.
    const ZEROS: Self = Self {
        size: size_of::<Self>(),
        optimizer: 0,
        maximize: 0,
        lr: 0.0,
        beta1: 0.0,
        beta2: 0.0,
        beta3: 0.0,
        eps: 0.0,
        weight_decay: 0.0,
        momentum: 0.0,
        dampening: 0.0,
        alpha: 0.0,
        rho: 0.0,
        lr_decay: 0.0,
        initial_accumulator_value: 0.0,
        momentum_decay: 0.0,
        beta3_warmup: 0,
        alpha_warmup: 0,
        epsilon: 0,
        decoupled_weight_decay: 0,
        cautious: 0,
        nesterov: 0,
        centered: 0,
        reserved: 0,
    };

    /// Whether the optimizer steps rows of tables only.
    pub(super) fn is_for_rows(&self) -> bool {
        self.optimizer == adamant_optimizer::ADAMANT_ROW_WISE_ADAM as u32
    }

    /// The caller's, which no array of the call may overlap; copied into `room` only if it is of an
    /// earlier version.
    ///
    /// # Safety
    ///
    /// As [`versioned::size_of_struct`], for as long as it is used.
    #[inline]
    pub(super) unsafe fn read<'a>(
        pointer: *const Self,
        room: &'a mut Option<Self>,
        claims: &mut Claims,
    ) -> Result<&'a Self, Failure> {
        // SAFETY: the same promise.
        let size = unsafe { versioned::size_of_struct(pointer, "hyper")? };
        claims.note(pointer.addr(), size, Place::of(&"hyper"));
        if size >= size_of::<Self>() {
            // SAFETY: aligned, whole, and written by nobody: the same promise.
            return Ok(unsafe { &*pointer });
        }
        // SAFETY: `size` bytes are there, by the same promise; here and below.
        let found = unsafe { versioned::read_sized(pointer, size, Self::ZEROS) };
        let defaults = defaults(found.optimizer)?;
        // SAFETY: as above.
        Ok(room.insert(unsafe { versioned::read_sized(pointer, size, defaults) }))
    }
}

/// A field of an optimizer, as C has it.
trait Field: Sized {
    type Raw;
    fn read(raw: Self::Raw, name: &str) -> Result<Self, Failure>;
    fn raw(self) -> Self::Raw;
}

macro_rules! plain_fields {
    ($($field:ty),+) => {$(
        impl Field for $field {
            type Raw = Self;

            #[inline(always)]
            fn read(raw: Self, _name: &str) -> Result<Self, Failure> {
                Ok(raw)
            }

            fn raw(self) -> Self {
                self
            }
        }
    )+};
}

plain_fields!(f64, u64);

impl Field for bool {
    type Raw = u32;

    #[inline(always)]
    fn read(raw: u32, name: &str) -> Result<Self, Failure> {
        flag(raw, name)
    }

    fn raw(self) -> u32 {
        self.into()
    }
}

impl Field for Epsilon {
    type Raw = u32;

    #[inline(always)]
    fn read(raw: u32, name: &str) -> Result<Self, Failure> {
        const STANDARD: u32 = adamant_epsilon::ADAMANT_EPSILON_STANDARD as u32;
        const HAT: u32 = adamant_epsilon::ADAMANT_EPSILON_HAT as u32;
        match raw {
            STANDARD => Ok(Self::Standard),
            HAT => Ok(Self::Hat),
            _ => refuse!(ADAMANT_UNKNOWN_VALUE, "{name} is {raw}, which is no adamant_epsilon"),
        }
    }

    fn raw(self) -> u32 {
        match self {
            Self::Standard => adamant_epsilon::ADAMANT_EPSILON_STANDARD as u32,
            Self::Hat => adamant_epsilon::ADAMANT_EPSILON_HAT as u32,
        }
    }
}

/// A number that counts as false or true.
#[inline(always)]
pub(super) fn flag(raw: u32, name: &str) -> Result<bool, Failure> {
    match raw {
        0 => Ok(false),
        1 => Ok(true),
        _ => refuse!(ADAMANT_UNKNOWN_VALUE, "{name} is {raw}, but must be 0 or 1"),
    }
}

/// A rule that can be read from the hyper-parameters of C.
trait FromHyper: RowRule {
    fn from_hyper(hyper: &adamant_hyper) -> Result<Self, Failure>;
    fn write(self, hyper: &mut adamant_hyper);
}

/// The fields of each rule, by the names that they have on both sides.
macro_rules! fields {
    ($($rule:ident { $($field:ident),+ })+) => {$(
        impl FromHyper for $rule {
            #[inline(always)]
            fn from_hyper(hyper: &adamant_hyper) -> Result<Self, Failure> {
                Ok(Self { $($field: Field::read(hyper.$field, stringify!($field))?),+ })
            }

            fn write(self, hyper: &mut adamant_hyper) {
                $(hyper.$field = self.$field.raw();)+
            }
        }
    )+};
}

fields! {
    Sgd { lr, momentum, dampening, weight_decay, nesterov, maximize }
    AdaGrad { lr, lr_decay, weight_decay, initial_accumulator_value, eps, maximize }
    Adadelta { lr, rho, eps, weight_decay, maximize }
    RmsProp { lr, alpha, eps, weight_decay, momentum, centered, maximize }
    Adam { lr, beta1, beta2, eps, epsilon, weight_decay, decoupled_weight_decay, maximize, cautious }
    AdaMax { lr, beta1, beta2, eps, weight_decay, maximize }
    NAdam {
        lr, beta1, beta2, eps, weight_decay, momentum_decay, decoupled_weight_decay, maximize
    }
    RAdam { lr, beta1, beta2, eps, weight_decay, decoupled_weight_decay, maximize }
    Lion { lr, beta1, beta2, weight_decay, maximize }
    Adopt { lr, beta1, beta2, eps, weight_decay, decoupled_weight_decay, maximize }
    AdEmaMix {
        lr, beta1, beta2, beta3, alpha, beta3_warmup, alpha_warmup, eps, weight_decay, maximize
    }
}

macro_rules! wrappers_of_adam {
    ($($rule:ident),+) => {$(
        impl FromHyper for $rule {
            #[inline(always)]
            fn from_hyper(hyper: &adamant_hyper) -> Result<Self, Failure> {
                Adam::from_hyper(hyper).map(Self)
            }

            fn write(self, hyper: &mut adamant_hyper) {
                self.0.write(hyper);
            }
        }
    )+};
}

wrappers_of_adam!(AmsGrad, RowWiseAdam);

/// Something to do with an optimizer.
pub(super) trait WithRule {
    type Output;
    fn run<R: Rule>(self, rule: R) -> Result<Self::Output, Failure>;
}

/// Something to do with an optimizer for rows.
pub(super) trait WithRowRule {
    type Output;
    fn run<R: RowRule>(self, rule: R) -> Result<Self::Output, Failure>;
}

/// The rule of each number, with its defaults; the last one is for rows only.
macro_rules! optimizers {
    (
        all { $($name:ident: $rule:ident = $default:expr;)+ }
        rows_only { $row:ident: $row_rule:ident = $row_default:expr; }
    ) => {
        /// The defaults of an optimizer.
        fn defaults(optimizer: u32) -> Result<adamant_hyper, Failure> {
            let mut hyper = adamant_hyper { optimizer, ..adamant_hyper::ZEROS };
            match optimizer {
                $(number if number == adamant_optimizer::$name as u32 => $default.write(&mut hyper),)+
                number if number == adamant_optimizer::$row as u32 => $row_default.write(&mut hyper),
                number => return Err(unknown(number)),
            }
            Ok(hyper)
        }

        /// Runs with the rule that was chosen.
        pub(super) fn with_rule<W: WithRule>(
            hyper: &adamant_hyper,
            with: W,
        ) -> Result<W::Output, Failure> {
            check_reserved(hyper)?;
            match hyper.optimizer {
                $(number if number == adamant_optimizer::$name as u32 => {
                    with.run($rule::from_hyper(hyper)?)
                })+
                number if number == adamant_optimizer::$row as u32 => {
                    refuse!(ADAMANT_UNSUPPORTED, "{} is for lazy steps on rows only", stringify!($row))
                }
                number => Err(unknown(number)),
            }
        }

        /// Runs with the rule that was chosen, which may be for rows only.
        pub(super) fn with_row_rule<W: WithRowRule>(
            hyper: &adamant_hyper,
            with: W,
        ) -> Result<W::Output, Failure> {
            check_reserved(hyper)?;
            match hyper.optimizer {
                $(number if number == adamant_optimizer::$name as u32 => {
                    with.run($rule::from_hyper(hyper)?)
                })+
                number if number == adamant_optimizer::$row as u32 => {
                    with.run($row_rule::from_hyper(hyper)?)
                }
                number => Err(unknown(number)),
            }
        }
    };
}

optimizers! {
    all {
        ADAMANT_SGD: Sgd = Sgd::default();
        ADAMANT_ADAGRAD: AdaGrad = AdaGrad::default();
        ADAMANT_ADADELTA: Adadelta = Adadelta::default();
        ADAMANT_RMSPROP: RmsProp = RmsProp::default();
        ADAMANT_ADAM: Adam = Adam::default();
        ADAMANT_ADAMW: Adam = Adam::adamw();
        ADAMANT_AMSGRAD: AmsGrad = AmsGrad::default();
        ADAMANT_ADAMAX: AdaMax = AdaMax::default();
        ADAMANT_NADAM: NAdam = NAdam::default();
        ADAMANT_RADAM: RAdam = RAdam::default();
        ADAMANT_LION: Lion = Lion::default();
        ADAMANT_ADOPT: Adopt = Adopt::default();
        ADAMANT_ADEMAMIX: AdEmaMix = AdEmaMix::default();
    }
    rows_only {
        ADAMANT_ROW_WISE_ADAM: RowWiseAdam = RowWiseAdam(Adam::default());
    }
}

#[cold]
fn unknown(optimizer: u32) -> Failure {
    let status = adamant_status::ADAMANT_UNKNOWN_VALUE;
    Failure::new(status, format_args!("optimizer is {optimizer}, which is no adamant_optimizer"))
}

fn check_reserved(hyper: &adamant_hyper) -> Result<(), Failure> {
    match hyper.reserved {
        0 => Ok(()),
        other => refuse!(ADAMANT_UNKNOWN_VALUE, "reserved is {other}, but must be 0"),
    }
}

/// The hyper-parameters of an Adam without wrapping, or why they are not.
pub(super) fn adam(hyper: &adamant_hyper) -> Result<Adam, Failure> {
    check_reserved(hyper)?;
    const ADAM: u32 = adamant_optimizer::ADAMANT_ADAM as u32;
    const ADAMW: u32 = adamant_optimizer::ADAMANT_ADAMW as u32;
    match hyper.optimizer {
        ADAM | ADAMW => Adam::from_hyper(hyper),
        other => {
            defaults(other)?;
            refuse!(
                ADAMANT_UNSUPPORTED,
                "optimizer is {other}, but dense-equivalent steps are for ADAMANT_ADAM ({ADAM}) and \
                 ADAMANT_ADAMW ({ADAMW})"
            )
        }
    }
}

/// # Hyper-parameters
///
/// Fills in an optimizer's defaults; `size` is `sizeof(adamant_hyper)`. Fields that the optimizer does
/// not read become 0.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for hyper, ADAMANT_STRUCT_SIZE for size,
/// ADAMANT_UNKNOWN_VALUE for optimizer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_hyper_init(
    hyper: *mut adamant_hyper,
    size: usize,
    optimizer: u32,
) -> adamant_status {
    guarded(|| {
        let defaults = defaults(optimizer)?;
        // SAFETY: `size` bytes may be written: the caller's promise.
        unsafe { versioned::write(hyper, size, "hyper", defaults) }
    })
}
