//! Any dense step gives the bits of the reference, or is refused for a reason and writes nothing.

#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

mod decode;

use adamant::{
    Error, Isa,
    rule::{BuiltIn, Float},
};
use decode::{
    Bits, Cuts, Effort, FloatName, Numbers, PERIOD, StepCount, any_effort, any_isa, any_misfit,
    in_pool, start,
};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary},
    fuzz_target,
};
use support::{Columns, Draw, Misfit, Way, WithRule, check, check_refused, exec, with_rule};

fuzz_target!(init: start(), |case: Case<'_>| case.run());

/// What the fuzzer decides.
#[derive(Arbitrary, Debug)]
struct Case<'a> {
    #[arbitrary(with = any_effort)]
    effort: Effort,
    /// Which optimizer, see [`with_rule`].
    rule: u8,
    float: FloatName,
    t: StepCount,
    more_steps: u8,
    /// The number of elements, see [`Self::len`].
    len: (u8, u16),
    numbers: Numbers,
    #[arbitrary(with = any_isa)]
    isa: Isa,
    parallel: bool,
    /// See [`in_pool`].
    pool: u8,
    offset: u8,
    cuts: Cuts,
    at_once: bool,
    #[arbitrary(with = any_misfit)]
    misfit: Option<Misfit>,
    /// Hyper-parameters and elements.
    bits: Bits<'a>,
}

impl WithRule for &Case<'_> {
    fn run<R: BuiltIn>(self) {
        match self.float {
            FloatName::F32 => self.judge::<R, f32>(),
            FloatName::F64 => self.judge::<R, f64>(),
        }
    }
}

impl Case<'_> {
    fn run(&self) {
        in_pool(self.effort, self.pool, || with_rule(self.rule, self));
    }

    fn judge<R: BuiltIn, F: Float>(&self) {
        let mut bits = self.bits.words();
        let mut draw = Draw::new(&mut bits);
        let (rule, in_range) = (draw.rule::<R>(), draw.in_range);
        let before = self.columns::<R, F>(&rule, &mut bits);
        let way = self.way();

        // The one after the steps taken; none comes after the last number.
        let t = self.t.get().max(1);
        let steps = t..=t.saturating_add(u64::from(self.more_steps) % 3);
        let lacking = !self.isa.is_available();
        let overflow = |t| rule.constants(t).as_ref().iter().any(|&k| !F::from_f64(k).is_finite());
        let bad = |&t: &u64| !in_range || lacking || self.misfit.is_some() || overflow(t);
        let Some(t) = steps.clone().find(bad) else {
            return check(&rule, steps, &before, &way);
        };

        let error = check_refused(&rule, t - 1, &before, &way, self.misfit.as_ref());
        let deserved = match error {
            Error::HyperParameter { .. } => !in_range,
            Error::IsaUnavailable { .. } => lacking,
            Error::LengthMismatch { .. } | Error::UnusedMoment { .. } => self.misfit.is_some(),
            Error::ConstantOverflow { .. } => overflow(t),
            _ => false,
        };
        assert!(deserved, "{error}: {rule:?}, step {t}, {way:?}");
    }

    fn columns<R: BuiltIn, F: Float>(&self, rule: &R, mut bits: impl FnMut() -> u64) -> Columns<F> {
        let len = self.len();
        let mut columns =
            Columns::new(rule, len.min(PERIOD), |column, _| self.numbers.element(column, bits()));
        let Columns { param, grad, moments } = &mut columns;
        [param, grad].into_iter().chain(moments).for_each(|column| repeat(column, len));
        columns
    }

    /// Mostly few; in large cases often enough to be cut for the threads of a pool, or even from outside
    /// of it.
    fn len(&self) -> usize {
        let (size, len) = self.len;
        match (self.effort, size) {
            (Effort::Large, 64..128) => 16_384 + usize::from(len / 4),
            (Effort::Large, 128..144) => 131_072 + usize::from(len),
            (_, 192..224) => usize::from(len % 1024),
            _ => usize::from(len % 96),
        }
    }

    fn way(&self) -> Way {
        Way {
            exec: exec(self.isa, self.parallel),
            offset: usize::from(self.offset % 64),
            cuts: self.cuts.places(self.len()),
            at_once: self.at_once,
        }
    }
}

/// Appends the elements over and over; nothing to a moment that the rule does without.
fn repeat<F: Float>(column: &mut Vec<F>, len: usize) {
    let period = column.len();
    if period > 0 {
        column.reserve_exact(len - period);
    }
    while (1..len).contains(&column.len()) {
        column.extend_from_within(..period.min(len - column.len()));
    }
}
