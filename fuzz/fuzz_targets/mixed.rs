//! Any step in mixed precision gives the bits of the reference, is left out where the norm says so, or
//! is refused for a reason and writes nothing.

#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

mod decode;

use adamant::{Error, Isa, StepOptions, rule::BuiltIn};
use decode::{
    Bits, Cuts, Effort, Numbers, StepCount, any_effort, any_isa, any_misfit, any_types, in_pool,
    repeated, start,
};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary, Result, Unstructured},
    fuzz_target,
};
use support::{
    Columns, Draw, Misfit, Way, WithRule, exec,
    mixed::{MixedColumns, Types, check_mixed, check_mixed_refused, needs_norm},
    with_rule,
};

fuzz_target!(init: start(), |case: Case<'_>| case.run());

/// What the fuzzer decides.
#[derive(Arbitrary, Debug)]
struct Case<'a> {
    #[arbitrary(with = any_effort)]
    effort: Effort,
    /// Which optimizer, see [`with_rule`].
    rule: u8,
    t: StepCount,
    more_steps: u8,
    #[arbitrary(with = any_tensors)]
    tensors: Vec<Drawing>,
    options: OptionsDrawing,
    #[arbitrary(with = any_isa)]
    isa: Isa,
    parallel: bool,
    /// See [`in_pool`].
    pool: u8,
    offset: u8,
    /// The same for each tensor.
    cuts: Cuts,
    at_once: bool,
    #[arbitrary(with = any_misfit)]
    misfit: Option<Misfit>,
    /// Hyper-parameters and elements.
    bits: Bits<'a>,
}

/// Up to 4.
fn any_tensors(bytes: &mut Unstructured<'_>) -> Result<Vec<Drawing>> {
    let count = bytes.int_in_range(0..=4)?;
    (0..count).map(|_| bytes.arbitrary()).collect()
}

/// A tensor.
#[derive(Arbitrary, Debug)]
struct Drawing {
    #[arbitrary(with = any_types)]
    types: Types,
    /// The number of elements, see [`Self::len`].
    len: (u8, u16),
    first: First,
    numbers: Numbers,
}

/// The number of the first element.
#[derive(Arbitrary, Debug)]
enum First {
    Any(u64),
    /// So many before a multiple of 2^32.
    Before(u8, u16),
    /// So many before 2^64.
    BeforeLast(u16),
}

#[derive(Arbitrary, Debug)]
struct OptionsDrawing {
    /// Whether there is a factor other than 1.
    scales: bool,
    norm: Norm,
    flush_subnormals: bool,
    skip_nonfinite: bool,
    seed: StepCount,
}

#[derive(Arbitrary, Debug)]
enum Norm {
    Unknown,
    Finite,
    Infinite,
    Nan,
}

impl WithRule for &Case<'_> {
    fn run<R: BuiltIn>(self) {
        self.judge::<R>();
    }
}

impl Case<'_> {
    fn run(&self) {
        in_pool(self.effort, self.pool, || with_rule(self.rule, self));
    }

    fn judge<R: BuiltIn>(&self) {
        let mut bits = self.bits.words();
        let mut draw = Draw::new(&mut bits);
        let (rule, in_range) = (draw.rule::<R>(), draw.in_range);
        let options = self.options.get(&mut bits);
        let before: Vec<_> = self
            .tensors
            .iter()
            .map(|tensor| tensor.columns(self.effort, &rule, &mut bits))
            .collect();
        // Each of several calls would have a norm of its own.
        let mut way = self.way();
        way.at_once |= needs_norm(&options);
        // There is nothing to put it into.
        let misfit = if before.is_empty() { None } else { self.misfit.as_ref() };

        // The one after the steps taken.
        let t = self.t.get().max(1);
        let steps = t..=t.saturating_add(u64::from(self.more_steps) % 3);
        let lacking = !self.isa.is_available();
        let factor = options.grad_factor;
        let bad_factor = !(factor.is_normal() && factor > 0.0)
            || !before.is_empty() && !(factor as f32).is_normal();
        // Without a tensor there is no step count, and there are no constants.
        let overflow = |t| {
            !before.is_empty()
                && rule.constants(t).as_ref().iter().any(|&k| !(k as f32).is_finite())
        };
        let always_bad = !in_range || lacking || bad_factor || misfit.is_some();
        let bad = |&t: &u64| always_bad || overflow(t);
        let Some(t) = steps.clone().find(bad) else {
            return check_mixed(&rule, steps, options, &before, &way);
        };

        let error = check_mixed_refused(&rule, t - 1, options, &before, &way, misfit);
        let deserved = match error {
            Error::Option { name: "grad_factor", .. } => bad_factor,
            Error::HyperParameter { .. } => !in_range,
            Error::IsaUnavailable { .. } => lacking,
            Error::LengthMismatch { .. }
            | Error::UnusedMoment { .. }
            | Error::ScalesMismatch { .. } => misfit.is_some(),
            Error::ConstantOverflow { .. } => overflow(t),
            _ => false,
        };
        assert!(deserved, "{error}: {rule:?}, step {t}, {options:?}, {way:?}");
    }

    fn way(&self) -> Way {
        let longest = self.tensors.iter().map(|tensor| tensor.len(self.effort)).max().unwrap_or(0);
        Way {
            exec: exec(self.isa, self.parallel),
            offset: usize::from(self.offset % 64),
            cuts: self.cuts.places(longest),
            at_once: self.at_once,
        }
    }
}

impl OptionsDrawing {
    fn get(&self, bits: &mut dyn FnMut() -> u64) -> StepOptions<'static> {
        StepOptions {
            grad_factor: if self.scales { Draw::new(bits).finite().abs() } else { 1.0 },
            grad_norm: match self.norm {
                Norm::Unknown => None,
                Norm::Finite => Some(f64::MAX),
                Norm::Infinite => Some(f64::INFINITY),
                Norm::Nan => Some(f64::NAN),
            },
            flush_subnormals: self.flush_subnormals,
            skip_nonfinite: self.skip_nonfinite,
            seed: self.seed.get(),
            ..StepOptions::default()
        }
    }
}

impl Drawing {
    fn columns<R: BuiltIn>(
        &self,
        effort: Effort,
        rule: &R,
        bits: &mut dyn FnMut() -> u64,
    ) -> MixedColumns {
        let element = |column| self.numbers.element(column, bits());
        let columns = Columns::new(rule, self.len(effort), repeated(element));
        let mut columns = MixedColumns::new(rule, &columns, self.types, self.first.get());
        if let Numbers::Raw = self.numbers {
            columns.overwrite(repeated(|_| bits()));
        }
        columns
    }

    /// Mostly few, sometimes about as many as some blocks have; in large cases often enough to be cut
    /// for the threads of a pool, or even from outside of it.
    fn len(&self, effort: Effort) -> usize {
        let (size, len) = self.len;
        let len = usize::from(len);
        match (effort, size) {
            (Effort::Large, 64..96) => 16_384 + len / 4,
            (Effort::Large, 96..100) => 131_072 + len,
            (_, 128..160) => (len / 8 % 5 * 256 + len % 8).saturating_sub(4),
            _ => len % 96,
        }
    }
}

impl First {
    fn get(&self) -> u64 {
        match *self {
            Self::Any(first) => first,
            Self::Before(multiple, before) => {
                ((1 + u64::from(multiple)) << 32) - u64::from(before % 2048)
            }
            Self::BeforeLast(before) => u64::from(before % 2048).wrapping_neg(),
        }
    }
}
