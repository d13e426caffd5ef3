//! Loops that keep the divider busy, with operands in registers.

use std::{collections::BTreeMap, hint::black_box, sync::Mutex, time::Duration};

use adamant::{Isa, rule::Float};

use super::Place;
use crate::timing::time;

/// Each chain waits for itself; enough of them side by side, and the divider never idles. How many are enough, and
/// which number a CPU takes well, is tried out: on Zen 4, eight of 256 bits take a quarter longer in some runs.
const CHAINS: [usize; 3] = [4, 8, 16];
/// Elements that each thread divides in a repetition.
pub const DIVIDED: usize = 1 << 16;

/// The time in which every thread does [`DIVIDED`] divisions, each by a root of a root of ..., of so many.
pub fn divider<F: Float>(roots: u32, place: Place, repetitions: usize) -> Duration {
    let loops = Loops { isa: place.isa, roots, is_f64: size_of::<F>() == 8 };
    let chains = loops.fastest();
    let run = || {
        for _ in 0..repetitions {
            loops.run(chains);
        }
    };
    time(1, || {
        if place.parallel {
            rayon::broadcast(|_| run());
        } else {
            run();
        }
    })
}

/// Loops that differ in their number of chains.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Loops {
    isa: Isa,
    roots: u32,
    is_f64: bool,
}

/// Choices that were made.
static CHOSEN: Mutex<BTreeMap<Loops, usize>> = Mutex::new(BTreeMap::new());

impl Loops {
    /// The number of chains that takes the least time, unless that has been found before.
    fn fastest(self) -> usize {
        let mut chosen = CHOSEN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *chosen.entry(self).or_insert_with(|| {
            // The least of some times: whatever else runs can only make them longer.
            let least = |&chains: &usize| (0..20).map(|_| time(4, || self.run(chains))).min();
            CHAINS.into_iter().min_by_key(least).expect("there are some numbers of chains")
        })
    }

    fn run(self, chains: usize) {
        match chains {
            4 => self.run_of::<4>(),
            8 => self.run_of::<8>(),
            16 => self.run_of::<16>(),
            _ => panic!("no loop of {chains} chains: add one here"),
        }
    }

    #[allow(unsafe_code, reason = "code for an instruction set")]
    fn run_of<const CHAINS: usize>(self) {
        let Self { isa, roots, is_f64 } = self;
        assert!(isa.is_available());
        // SAFETY: the CPU has the instruction set.
        unsafe {
            match (isa, is_f64) {
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx2, false) => x86::avx2_f32::<CHAINS>(roots),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx2, true) => x86::avx2_f64::<CHAINS>(roots),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx512, false) => x86::avx512_f32::<CHAINS>(roots),
                #[cfg(target_arch = "x86_64")]
                (Isa::Avx512, true) => x86::avx512_f64::<CHAINS>(roots),
                #[cfg(target_arch = "aarch64")]
                (Isa::Neon, false) => neon::f32::<CHAINS>(roots),
                #[cfg(target_arch = "aarch64")]
                (Isa::Neon, true) => neon::f64::<CHAINS>(roots),
                (_, false) => scalar_f32::<CHAINS>(roots),
                (_, true) => scalar_f64::<CHAINS>(roots),
            }
        }
    }
}

/// Where a chain of roots of quotients ends up: no divider has a short cut for it.
const DIVIDEND: f64 = 0.7;

/// A function that divides, in registers of so many lanes.
macro_rules! divider {
    ($name:ident, $lanes:literal, $float:ty, $splat:expr, $sqrt:expr, $div:expr
     $(, $feature:literal)?) => {
        /// # Safety
        ///
        /// The CPU has the instruction set.
        #[allow(unsafe_code, reason = "code for an instruction set")]
        #[allow(unused_unsafe, reason = "some of these functions are safe, depending on the compiler")]
        $(#[target_feature(enable = $feature)])?
        pub unsafe fn $name<const CHAINS: usize>(roots: u32) {
            // SAFETY: intrinsics of the instruction set that the caller promised.
            unsafe {
                let splat = $splat;
                let dividend = splat(black_box(DIVIDEND as $float));
                let mut chains: [_; CHAINS] =
                    std::array::from_fn(|chain| splat(black_box(chain as $float + 1.5)));
                for _ in 0..DIVIDED / (CHAINS * $lanes) {
                    match roots {
                        0 => {
                            for chain in &mut chains {
                                *chain = $div(dividend, *chain);
                            }
                        }
                        1 => {
                            for chain in &mut chains {
                                *chain = $div(dividend, $sqrt(*chain));
                            }
                        }
                        2 => {
                            for chain in &mut chains {
                                *chain = $div(dividend, $sqrt($sqrt(*chain)));
                            }
                        }
                        _ => panic!("no loop of {roots} roots: add one here"),
                    }
                }
                black_box(chains);
            }
        }
    };
}

// One at a time: the compiler would put several into a register otherwise.
divider!(scalar_f32, 1, f32, |x: f32| x, |x: f32| black_box(x).sqrt(), |a: f32, b: f32| a
    / black_box(b));
divider!(scalar_f64, 1, f64, |x: f64| x, |x: f64| black_box(x).sqrt(), |a: f64, b: f64| a
    / black_box(b));

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::x86_64::*, hint::black_box};

    use super::{DIVIDED, DIVIDEND};

    divider!(
        avx2_f32,
        8,
        f32,
        |x| _mm256_set1_ps(x),
        |x| _mm256_sqrt_ps(x),
        |a, b| _mm256_div_ps(a, b),
        "avx2"
    );
    divider!(
        avx2_f64,
        4,
        f64,
        |x| _mm256_set1_pd(x),
        |x| _mm256_sqrt_pd(x),
        |a, b| _mm256_div_pd(a, b),
        "avx2"
    );
    divider!(
        avx512_f32,
        16,
        f32,
        |x| _mm512_set1_ps(x),
        |x| _mm512_sqrt_ps(x),
        |a, b| { _mm512_div_ps(a, b) },
        "avx512f"
    );
    divider!(
        avx512_f64,
        8,
        f64,
        |x| _mm512_set1_pd(x),
        |x| _mm512_sqrt_pd(x),
        |a, b| { _mm512_div_pd(a, b) },
        "avx512f"
    );
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use std::{arch::aarch64::*, hint::black_box};

    use super::{DIVIDED, DIVIDEND};

    divider!(f32, 4, f32, |x| vdupq_n_f32(x), |x| vsqrtq_f32(x), |a, b| vdivq_f32(a, b), "neon");
    divider!(f64, 2, f64, |x| vdupq_n_f64(x), |x| vsqrtq_f64(x), |a, b| vdivq_f64(a, b), "neon");
}
