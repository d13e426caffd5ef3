//! Any step in mixed precision gives the bits of the reference, is left out where the norm says so, or
//! is refused for a reason and writes nothing.

#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

mod decode;

use adamant::{BuiltIn, Error, Exec, Isa, Pass};
use decode::{
    Bits, Cuts, Numbers, StepCount, any_isa, any_misfit, build_global_pool, in_pool, repeated,
};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary, Result, Unstructured},
    fuzz_target,
};
use support::{
    Columns, Draw, Misfit, Way, WithRule,
    mixed::{
        GradType, MixedColumns, MomentType, ParamType, Types, check_mixed, check_mixed_refused,
        leaves_out,
    },
    with_rule,
};

fuzz_target!(init: build_global_pool(), |case: Case<'_>| case.run());

/// What the fuzzer decides.
#[derive(Arbitrary, Debug)]
struct Case<'a> {
    /// Which optimizer, see [`with_rule`].
    rule: u8,
    t: StepCount,
    more_steps: u8,
    #[arbitrary(with = any_tensors)]
    tensors: Vec<Drawing>,
    pass: PassDrawing,
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

fn any_types(bytes: &mut Unstructured<'_>) -> Result<Types> {
    let mut moment = || bytes.choose(&MomentType::ALL).copied();
    Ok(Types {
        moments: [moment()?, moment()?, moment()?],
        param: *bytes.choose(&ParamType::ALL)?,
        grad: *bytes.choose(&GradType::ALL)?,
        to_zero: bytes.arbitrary()?,
    })
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
struct PassDrawing {
    /// Whether there is a factor other than 1.
    scales: bool,
    norm: Norm,
    flush_subnormals: bool,
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
        in_pool(self.pool, || with_rule(self.rule, self));
    }

    fn judge<R: BuiltIn>(&self) {
        let mut bits = self.bits.words();
        let mut draw = Draw::new(&mut bits);
        let (rule, in_range) = (draw.rule::<R>(), draw.in_range);
        let pass = self.pass.get(&mut bits);
        let before: Vec<_> =
            self.tensors.iter().map(|tensor| tensor.columns(&rule, &mut bits)).collect();
        let way = self.way();
        // There is nothing to put it into.
        let misfit = if before.is_empty() { None } else { self.misfit.as_ref() };

        let t = self.t.get();
        let steps = t..=t.saturating_add(u64::from(self.more_steps) % 3);
        let lacking = !self.isa.is_available();
        let bad_factor = !leaves_out(&pass) && !(pass.grad_factor as f32).is_finite();
        let overflow = |t| rule.constants(t).as_ref().iter().any(|&k| !(k as f32).is_finite());
        let always_bad = !in_range || lacking || bad_factor || misfit.is_some();
        let bad = |&t: &u64| always_bad || t == 0 || overflow(t);
        let Some(t) = steps.clone().find(bad) else {
            return check_mixed(&rule, steps, pass, &before, &way);
        };

        let error = check_mixed_refused(&rule, t, pass, &before, &way, misfit);
        let deserved = match error {
            Error::HyperParameter { name: "grad_factor", .. } => bad_factor,
            Error::HyperParameter { .. } => !in_range,
            Error::IsaUnavailable { .. } => lacking,
            Error::LengthMismatch { .. }
            | Error::UnusedMoment { .. }
            | Error::ScalesMismatch { .. } => misfit.is_some(),
            Error::ZeroStep => t == 0,
            Error::ConstantOverflow { .. } => overflow(t),
            _ => false,
        };
        assert!(deserved, "{error}: {rule:?}, step {t}, {pass:?}, {way:?}");
    }

    fn way(&self) -> Way {
        let longest = self.tensors.iter().map(Drawing::len).max().unwrap_or(0);
        Way {
            exec: Exec { isa: self.isa, parallel: self.parallel },
            offset: usize::from(self.offset % 64),
            cuts: self.cuts.places(longest),
            at_once: self.at_once,
        }
    }
}

impl PassDrawing {
    fn get(&self, bits: &mut dyn FnMut() -> u64) -> Pass {
        Pass {
            grad_factor: if self.scales { Draw::new(bits).finite() } else { 1.0 },
            grad_norm: match self.norm {
                Norm::Unknown => None,
                Norm::Finite => Some(f64::MAX),
                Norm::Infinite => Some(f64::INFINITY),
                Norm::Nan => Some(f64::NAN),
            },
            flush_subnormals: self.flush_subnormals,
            seed: self.seed.get(),
        }
    }
}

impl Drawing {
    fn columns<R: BuiltIn>(&self, rule: &R, bits: &mut dyn FnMut() -> u64) -> MixedColumns {
        let element = |column| self.numbers.element(column, bits());
        let columns = Columns::new(rule, self.len(), repeated(element));
        let mut columns = MixedColumns::new(rule, &columns, self.types, self.first.get());
        if let Numbers::Raw = self.numbers {
            columns.overwrite(repeated(|_| bits()));
        }
        columns
    }

    /// Mostly few, often about as many as some blocks have; sometimes enough to be cut for the threads
    /// of a pool, seldom enough to be so from outside of it, which takes long.
    fn len(&self) -> usize {
        let (size, len) = self.len;
        let len = usize::from(len);
        match size {
            // 0 and 255 are bytes that the fuzzer likes, so they are among the others.
            64..72 => 16_384 + len / 4,
            72..74 => 131_072 + len,
            128..192 => (len / 8 % 5 * 256 + len % 8).saturating_sub(4),
            _ => len % 1024,
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
