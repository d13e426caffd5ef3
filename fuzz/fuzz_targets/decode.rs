//! What targets make of the fuzzer's bytes.

#![allow(dead_code, reason = "each target takes what it needs")]

use std::{fmt, sync::LazyLock};

use adamant::{Isa, rule::Float};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Result, Unstructured};
use rand::{Rng, SeedableRng, rngs::ChaCha8Rng};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::support::{
    Misfit,
    mixed::{GradType, MomentType, ParamType, Types},
    number, ordinary,
};

/// Before all cases: builds the global pool, which serves calls from outside of all pools; as large everywhere, so that
/// a crash found on one machine is one on the next.
///
/// # Panics
///
/// If adamant was compiled without optimization: it has its scalar instruction set alone then, and cases of the others
/// would find nothing.
pub fn start() {
    #[cfg(target_arch = "x86_64")]
    let is_whole = Isa::Avx2.is_available() || !std::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    let is_whole = Isa::Neon.is_available() || cfg!(not(target_arch = "aarch64"));
    assert!(is_whole, "adamant was compiled without the instruction sets of this CPU");
    ThreadPoolBuilder::new().num_threads(3).build_global().expect("the global pool");
}

static POOLS: LazyLock<[ThreadPool; 4]> = LazyLock::new(|| {
    let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    [1, 2, 3, 7].map(pool)
});

/// How much a case may take. Long arrays, many rows and pools take a hundred times as long as others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    Small,
    Large,
}

/// Large one time in 64. A hash of all bytes decides, as some bytes of their own would be inherited:
/// most cases are mutants, and those of a large one would be large.
pub fn any_effort(bytes: &mut Unstructured<'_>) -> Result<Effort> {
    let all = bytes.peek_bytes(bytes.len()).unwrap_or_default();
    let mix = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = all.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    Ok(if (hash >> 32).is_multiple_of(64) { Effort::Large } else { Effort::Small })
}

/// Runs in one of the pools, or outside of all, as a small case always does.
pub fn in_pool(effort: Effort, pool: u8, run: impl FnOnce() + Send) {
    if effort == Effort::Small {
        return run();
    }
    match POOLS.get(usize::from(pool) % (POOLS.len() + 1)) {
        Some(pool) => pool.install(run),
        None => run(),
    }
}

/// So many elements are followed by the same ones again: making them takes longer than the step. A
/// prime, so that no element is where a cut or a register could exchange it for its equal.
pub const PERIOD: usize = 1021;

/// Those that this CPU lacks too: they must be refused.
pub fn any_isa(bytes: &mut Unstructured<'_>) -> Result<Isa> {
    bytes.choose(&Isa::ALL).copied()
}

/// Types of a tensor's arrays.
pub fn any_types(bytes: &mut Unstructured<'_>) -> Result<Types> {
    let mut moment = || bytes.choose(&MomentType::ALL).copied();
    Ok(Types {
        moments: [moment()?, moment()?, moment()?, moment()?],
        param: *bytes.choose(&ParamType::ALL)?,
        grad: *bytes.choose(&GradType::ALL)?,
        to_zero: bytes.arbitrary()?,
    })
}

/// One time in eight.
pub fn any_misfit(bytes: &mut Unstructured<'_>) -> Result<Option<Misfit>> {
    Ok(if bytes.ratio(1, 8)? {
        let (tensor, array, len): (u16, u8, u8) = bytes.arbitrary()?;
        Some(Misfit { tensor: tensor.into(), array: array.into(), len: len.into() })
    } else {
        None
    })
}

#[derive(Arbitrary, Debug)]
pub enum Cuts {
    At(Vec<u32>),
    Every(u16),
}

impl Cuts {
    /// Where to cut so many elements: into at most 1000 pieces or so, for speed.
    pub fn places(&self, len: usize) -> Vec<usize> {
        match self {
            Self::At(cuts) => cuts.iter().map(|&cut| cut as usize).collect(),
            Self::Every(piece) => {
                (0..len).step_by(usize::from(*piece).max(len / 1000 + 1)).collect()
            }
        }
    }
}

#[derive(Arbitrary, Debug)]
pub enum FloatName {
    F32,
    F64,
}

/// A step as large as these bits, less those shifted out.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub struct StepCount(u64, u8);

impl StepCount {
    pub fn get(self) -> u64 {
        self.0 >> (self.1 % 64)
    }
}

/// What kind of elements an array has.
#[derive(Arbitrary, Debug)]
pub enum Numbers {
    Ordinary,
    Special,
    /// Of any bits.
    Raw,
}

impl Numbers {
    /// An element of a column: parameters, gradients, moments.
    pub fn element<F: Float>(&self, column: usize, bits: u64) -> F {
        match self {
            Self::Ordinary => ordinary(column, bits),
            Self::Special => number(bits),
            Self::Raw => raw(bits),
        }
    }
}

/// Elements that are the same ones again after [`PERIOD`] of them, for each column.
pub fn repeated<T: Copy>(mut element: impl FnMut(usize) -> T) -> impl FnMut(usize, usize) -> T {
    let mut period = vec![];
    move |column, place| {
        if place == 0 {
            period.clear();
        }
        if place < PERIOD {
            period.push(element(column));
        }
        period[place % PERIOD]
    }
}

/// The number that is stored as these bits.
fn raw<F: Float>(bits: u64) -> F {
    F::from_f64(match F::NAME {
        "f32" => f32::from_bits(bits as u32).into(),
        _ => f64::from_bits(bits),
    })
}

#[derive(Arbitrary)]
pub struct Bits<'a>(&'a [u8]);

impl Bits<'_> {
    /// The bytes, eight at a time, and then random bits that the last eight, or fewer, are the seed
    /// of.
    pub fn words(&self) -> impl FnMut() -> u64 {
        let mut words = self.0.as_chunks().0.iter().map(|&word| u64::from_le_bytes(word));
        let last = self.0.rchunks(8).next().unwrap_or_default();
        let seed = last.iter().fold(0, |seed, &byte| seed << 8 | u64::from(byte));
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        move || words.next().unwrap_or_else(|| random.next_u64())
    }
}

impl fmt::Debug for Bits<'_> {
    /// On one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.0)
    }
}
