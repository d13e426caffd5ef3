//! Optimizers as formulas for one parameter. Implement [`Rule`] to write your own.
//!
//! A type that implements [`Rule`] is an optimizer like those of the crate: it steps tensors
//! ([`Optimizer`](crate::Optimizer)), groups of a model ([`Group`](crate::Group)) and rows of tables
//! ([`RowOptimizer`](crate::table::RowOptimizer)), in every type and on every instruction set.
//!
//! | to | use |
//! |---|---|
//! | compute with a register of parameters | [`Lanes`] |
//! | say how many moments and constants there are | [`Count`] |
//! | name the constants | [`named_constants!`] |
//! | check the settings | [`check`] |
//! | compute `1 - beta^t` | [`bias_corrections`] |
//!
//! [`BuiltIn`] and [`WithOptimizer`] are for functions that are generic over the optimizers of the crate.
//!
//! # Examples
//!
//! Gradient descent with momentum:
//!
//! ```
//! use adamant::{
//!     Error, Optimizer,
//!     rule::{Count, Lanes, Rule, check, named_constants},
//! };
//!
//! #[derive(Clone, Copy)]
//! struct Momentum {
//!     lr: f64,
//!     momentum: f64,
//! }
//!
//! named_constants!(struct K { lr, momentum });
//!
//! impl Rule for Momentum {
//!     type Moments = Count<1>;
//!     type Constants = Count<{ K::COUNT }>;
//!     const MOMENT_NAMES: [&'static str; 1] = ["momentum_buffer"];
//!
//!     fn check(&self) -> Result<(), Error> {
//!         check("lr", self.lr, 0.0..=f64::MAX, "finite and at least 0")?;
//!         check("momentum", self.momentum, 0.0..=1.0, "in 0..=1")
//!     }
//!
//!     fn constants(&self, _t: u64) -> [f64; K::COUNT] {
//!         K { lr: self.lr, momentum: self.momentum }.into()
//!     }
//!
//!     #[inline(always)]
//!     fn update<L: Lanes>(
//!         &self,
//!         k: &[L; K::COUNT],
//!         param: L,
//!         grad: L,
//!         [buffer]: [L; 1],
//!     ) -> (L, [L; 1]) {
//!         let k = K::from(*k);
//!         let buffer = k.momentum.mul_add(buffer, grad);
//!         ((-k.lr).mul_add(buffer, param), [buffer])
//!     }
//! }
//!
//! let rule = Momentum { lr: 0.5, momentum: 0.9 };
//! let mut param = vec![1.0_f32; 100];
//! let mut state = rule.state(param.len());
//! rule.step(&mut param, &[1.0; 100], &mut state)?;
//! assert_eq!(param[99], 0.5);
//! # Ok::<(), adamant::Error>(())
//! ```

mod adabelief;
mod adadelta;
mod adagrad;
mod adam;
mod adamax;
mod adan;
mod ademamix;
mod adopt;
mod amsgrad;
mod any;
mod arity;
mod asgd;
mod constants;
mod ftrl;
mod lion;
mod list;
mod nadam;
mod parts;
mod radam;
mod rmsprop;
mod rprop;
mod sgd;
mod yogi;

pub use any::WithOptimizer;
pub use arity::{Arity, Count, Many};
#[doc(inline)]
pub use constants::named_constants;
pub use list::BuiltIn;
pub use parts::bias_corrections;

pub use crate::{array::Float, settings::values::check, simd::Lanes};

pub(crate) use adam::{CAUTIOUS, K as AdamConstants};
pub(crate) use nadam::momenta as nadam_momenta;
pub(crate) use radam::rectification as radam_rectification;

use parts::{
    ANY, ANY_DECAY, MovingAverage, POSITIVE, SLOW, are_slow, choose, decay, descent, flag, l2,
    larger, scaled_eps, shrink, sign, sign_of, signed_decay, weight,
};

use crate::{
    Error, Threads,
    array::Q8,
    dispatch::{self, Rows},
    isa::Cpu,
    kernel::Pass,
    optimizer::Known,
    table::RowSpan,
    tensor::Run,
};

/// The optimizers, which the root of the crate exports.
pub(crate) mod optimizers {
    pub use super::{
        adabelief::AdaBelief,
        adadelta::Adadelta,
        adagrad::AdaGrad,
        adam::{Adam, Epsilon},
        adamax::AdaMax,
        adan::Adan,
        ademamix::AdEmaMix,
        adopt::Adopt,
        amsgrad::AmsGrad,
        asgd::Asgd,
        ftrl::Ftrl,
        lion::Lion,
        list::AnyOptimizer,
        nadam::NAdam,
        radam::RAdam,
        rmsprop::RmsProp,
        rprop::Rprop,
        sgd::Sgd,
        yogi::Yogi,
    };
}

/// The largest number of moments that an optimizer has.
pub const MOMENTS: usize = 4;

/// A rule with more does not compile, for tensors and for rows.
///
/// ```compile_fail,E0080
/// # use adamant::{Error, rule::{Count, Lanes, Rule}, table::RowOptimizer};
/// # #[derive(Clone, Copy)]
/// # struct Five;
/// # impl Rule for Five {
/// #     type Moments = Count<5>;
/// #     type Constants = Count<0>;
/// #     const MOMENT_NAMES: [&'static str; 5] = ["a", "b", "c", "d", "e"];
/// #     fn check(&self) -> Result<(), Error> { Ok(()) }
/// #     fn constants(&self, _: u64) -> [f64; 0] { [] }
/// #     fn update<L: Lanes>(&self, _: &[L; 0], p: L, _: L, m: [L; 5]) -> (L, [L; 5]) { (p, m) }
/// # }
/// let _ = Five.row_state(10, 4);
/// ```
///
/// ```compile_fail,E0080
/// # use adamant::{Error, Optimizer, rule::{Count, Lanes, Rule}};
/// # #[derive(Clone, Copy)]
/// # struct Five;
/// # impl Rule for Five {
/// #     type Moments = Count<5>;
/// #     type Constants = Count<0>;
/// #     const MOMENT_NAMES: [&'static str; 5] = ["a", "b", "c", "d", "e"];
/// #     fn check(&self) -> Result<(), Error> { Ok(()) }
/// #     fn constants(&self, _: u64) -> [f64; 0] { [] }
/// #     fn update<L: Lanes>(&self, _: &[L; 0], p: L, _: L, m: [L; 5]) -> (L, [L; 5]) { (p, m) }
/// # }
/// let _ = Five.state(10);
/// ```
#[cfg(doctest)]
struct MostMoments;

/// An optimizer's formula. [`Optimizer`](crate::Optimizer) steps with every type that implements it, on
/// every instruction set, in `f32` and `f64`, on all threads. The [module](self) has an example.
pub trait Rule: Copy + Send + Sync + 'static {
    /// How many numbers the optimizer keeps for each parameter: [`Count<2>`](Count) for Adam. At most [`MOMENTS`]; a
    /// rule with more does not compile.
    type Moments: Arity;

    /// How many constants the formula has. At most 16; a rule with more does not compile.
    type Constants: Arity;

    /// The moments' names, for errors and checkpoints.
    const MOMENT_NAMES: Many<Self::Moments, &'static str>;

    /// The value that a moment starts from, by the moment's position; `None` if these hyper-parameters do
    /// not use the moment. By default, every moment is used and starts from 0.
    ///
    /// A moment that is not used has no memory: its slices are empty, and the formula reads 0.
    fn start(&self, moment: usize) -> Option<f64> {
        let _ = moment;
        Some(0.0)
    }

    /// Whether a moment, by its position, is an average or a sum of squares, and so never negative. In [8
    /// bits](crate::Q8), such a moment has a format of its own, with twice the range of exponents. By
    /// default, no moment is one.
    fn holds_squares(&self, moment: usize) -> bool {
        let _ = moment;
        false
    }

    /// Whether a moment, by its position, is a magnitude of gradients: never negative, not a square, and a
    /// divisor in the formula. In [8 bits](crate::Q8), rounding never makes such a moment 0. By default, no
    /// moment is one.
    fn holds_magnitudes(&self, moment: usize) -> bool {
        let _ = moment;
        false
    }

    /// Calls `run` once. Each call of `run` in the code of this method is compiled to a loop of its own, for some of
    /// the settings.
    ///
    /// If a call sets a field to a constant, such as `maximize: false`, the compiler removes the branches of
    /// [`update`](Self::update) on it from the loop. By default there is one call, with all settings as they are, and
    /// the loop has all branches.
    ///
    /// The rules of this crate have a loop for the default settings, which omits the operations that only other
    /// settings need. All other settings share a loop with all operations (`maximize: true`). In it, constants of the
    /// step switch operations on and off by products and masks: a few operations more, but no branches. Each kind of
    /// weight decay has a loop too where that gains much, and so has momentum in [`Sgd`](crate::Sgd) and
    /// [`RmsProp`](crate::RmsProp). Each loop is compiled for each type and instruction set. Mark the method
    /// `#[inline(always)]`, and call `run` in it directly. A closure that calls it is a function without the
    /// instruction set, at a hundredth of the speed.
    ///
    /// Debug builds with an `opt-level` below 3 call it only for loops that convert. Their other loops have all
    /// branches, so that the crate compiles in half the time (AMD EPYC, Zen 4).
    #[inline(always)]
    fn specialise(self, mut run: impl FnMut(Self)) {
        run(self);
    }

    /// Whether steps with arrays in 16 or 8 bits convert them in the rule's own loop, instead of in strips before and
    /// after it. This is faster if the CPU waits for roots and divisions of the formula. It takes
    /// longer to compile: each call of `run` in [`specialise_converting`](Self::specialise_converting) becomes 14 loops
    /// for each instruction set. That method can leave out some settings.
    const CONVERTS_IN_LOOP: bool = false;

    /// As [`specialise`](Self::specialise), for loops that convert, if the rule [has them](Self::CONVERTS_IN_LOOP).
    /// It calls `run` once, or not at all for settings whose steps convert in strips, and always the same for the same
    /// settings. By default, it is `specialise`.
    #[inline(always)]
    fn specialise_converting(self, run: impl FnMut(Self)) {
        self.specialise(run);
    }

    /// Whether lazy steps of a table in `f32` or `f64` have a loop over rows of the rule's own, compiled for each type
    /// and instruction set. Without it, each row is stepped as a tensor, which takes some 10 ns more. Of the rules of
    /// this crate, [`Adam`](crate::Adam), [`AdaGrad`](crate::AdaGrad), [`Sgd`](crate::Sgd) and [`Ftrl`](crate::Ftrl)
    /// have it.
    const ROWS_IN_LOOP: bool = false;

    /// Checks the hyper-parameters.
    ///
    /// # Errors
    ///
    /// Should be [`Error::HyperParameter`] for the first one out of its range; see [`check`].
    fn check(&self) -> Result<(), Error>;

    /// The constants of the formula in step `t`, counted from 1: everything that is the same for all
    /// parameters.
    ///
    /// They are computed in `f64`, and each is rounded once to the type of the step.
    fn constants(&self, t: u64) -> Many<Self::Constants, f64>;

    /// The formula: parameter, gradient and moments in, parameter and moments out.
    ///
    /// Mark it, and every function that it calls, `#[inline(always)]`: code that is not inlined here runs
    /// without the chosen instruction set, at a tenth of the speed. A branch on a field of `self` goes the
    /// same way for every parameter; [`specialise`](Self::specialise) takes it out of the loop.
    fn update<L: Lanes>(
        &self,
        k: &Many<Self::Constants, L>,
        param: L,
        grad: L,
        moments: Many<Self::Moments, L>,
    ) -> (L, Many<Self::Moments, L>);

    /// Takes a step of some elements. The rules of this crate have it from [`compiled_here!`].
    #[doc(hidden)]
    fn run_elements(&self, cpu: Cpu, pass: &Pass, known: Known<'_>, elements: Run<'_, '_>) {
        dispatch::run(*self, cpu, pass, known, elements);
    }

    /// Takes step `t` of rows of a table, each as if it were a tensor; as above.
    #[doc(hidden)]
    fn run_rows(
        &self,
        cpu: Cpu,
        constants: &Many<Self::Constants, f64>,
        t: u64,
        pass: &Pass,
        rows: Rows<'_>,
    ) {
        dispatch::run_rows(*self, cpu, constants, t, pass, rows);
    }

    /// Steps rows of a table in `f32` in [a loop of their own](Self::ROWS_IN_LOOP). The rules of this crate have it
    /// from [`rows_compiled_here!`].
    #[doc(hidden)]
    fn run_rows_f32(rows: RowSpan<'_, Self, f32>, threads: Threads<'_>) {
        rows.run(threads);
    }

    /// Steps rows of a table in `f64`; as above.
    #[doc(hidden)]
    fn run_rows_f64(rows: RowSpan<'_, Self, f64>, threads: Threads<'_>) {
        rows.run(threads);
    }
}

/// The format of a moment that is kept in 8 bits, by its position.
#[inline(always)]
pub(crate) fn moment_format<R: Rule>(rule: &R, moment: usize) -> Q8 {
    match (rule.holds_squares(moment), rule.holds_magnitudes(moment)) {
        (true, _) => Q8::Squares,
        (false, true) => Q8::Unsigned,
        (false, false) => Q8::Signed,
    }
}

/// Takes a step. In the crate of the unit tests it panics instead, so that no kernels are compiled there.
macro_rules! outside_unit_tests {
    ($step:expr) => {
        match cfg!(test) {
            true => unreachable!("a test that takes steps belongs into `tests/`"),
            false => $step,
        }
    };
}

/// The functions that step a rule of this crate, for its `impl Rule`. They are not generic, and so they are compiled in
/// this crate only. The ones that [`Rule`] provides would be compiled in every crate that steps with the rule, which
/// takes minutes. The crate of the unit tests has none, since it would compile them a second time.
macro_rules! compiled_here {
    () => {
        fn run_elements(
            &self,
            cpu: $crate::isa::Cpu,
            pass: &$crate::kernel::Pass,
            known: $crate::optimizer::Known<'_>,
            elements: $crate::tensor::Run<'_, '_>,
        ) {
            $crate::rule::outside_unit_tests!($crate::dispatch::run(
                *self, cpu, pass, known, elements
            ));
        }

        fn run_rows(
            &self,
            cpu: $crate::isa::Cpu,
            constants: &$crate::rule::Many<Self::Constants, f64>,
            t: u64,
            pass: &$crate::kernel::Pass,
            rows: $crate::dispatch::Rows<'_>,
        ) {
            $crate::rule::outside_unit_tests!($crate::dispatch::run_rows(
                *self, cpu, constants, t, pass, rows
            ));
        }
    };
}

/// As [`compiled_here!`], for rules whose rows have a loop of their own.
macro_rules! rows_compiled_here {
    () => {
        const ROWS_IN_LOOP: bool = true;

        fn run_rows_f32(rows: $crate::table::RowSpan<'_, Self, f32>, threads: $crate::Threads<'_>) {
            $crate::rule::outside_unit_tests!(rows.run(threads));
        }

        fn run_rows_f64(rows: $crate::table::RowSpan<'_, Self, f64>, threads: $crate::Threads<'_>) {
            $crate::rule::outside_unit_tests!(rows.run(threads));
        }
    };
}

pub(crate) use outside_unit_tests;

use {compiled_here, rows_compiled_here};
