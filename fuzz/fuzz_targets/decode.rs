//! What every target makes of the fuzzer's bytes.

use std::{fmt, sync::LazyLock};

use adamant::{Float, Isa};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Result, Unstructured};
use rand::{Rng, SeedableRng, rngs::ChaCha8Rng};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::support::{number, ordinary};

/// The global pool serves calls from outside of all pools; as large everywhere, so that a crash
/// found on one machine is one on the next.
pub fn build_global_pool() {
    ThreadPoolBuilder::new().num_threads(3).build_global().expect("the global pool");
}

static POOLS: LazyLock<[ThreadPool; 4]> = LazyLock::new(|| {
    let pool = |threads| ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    [1, 2, 3, 7].map(pool)
});

/// Runs in one of the pools, or outside of all.
pub fn in_pool(pool: u8, run: impl FnOnce() + Send) {
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
