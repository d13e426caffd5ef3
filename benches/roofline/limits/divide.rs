//! Loops that keep the divider busy, with operands in registers.

use std::{hint::black_box, time::Duration};

use adamant::{Float, Isa};

use super::Place;
use crate::timing::time;

/// Each chain waits for itself; enough of them side by side, and the divider never idles.
const CHAINS: usize = 8;
/// Elements that each thread divides in a repetition.
pub const DIVIDED: usize = 1 << 16;

/// The time in which every thread does [`DIVIDED`] divisions, each by a root of a root of ..., of so many.
pub fn divider<F: Float>(roots: u32, place: Place, repetitions: usize) -> Duration {
    let is_f64 = size_of::<F>() == 8;
    let run = || {
        for _ in 0..repetitions {
            divide(place.isa, roots, is_f64);
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

#[allow(unsafe_code, reason = "code for an instruction set")]
fn divide(isa: Isa, roots: u32, is_f64: bool) {
    assert!(isa.is_available());
    // SAFETY: the CPU has the instruction set.
    unsafe {
        match (isa, is_f64) {
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, false) => x86::avx2_f32(roots),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx2, true) => x86::avx2_f64(roots),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, false) => x86::avx512_f32(roots),
            #[cfg(target_arch = "x86_64")]
            (Isa::Avx512, true) => x86::avx512_f64(roots),
            #[cfg(target_arch = "aarch64")]
            (Isa::Neon, false) => neon::f32(roots),
            #[cfg(target_arch = "aarch64")]
            (Isa::Neon, true) => neon::f64(roots),
            (_, false) => scalar_f32(roots),
            (_, true) => scalar_f64(roots),
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
        pub unsafe fn $name(roots: u32) {
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

    use super::{CHAINS, DIVIDED, DIVIDEND};

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

    use super::{CHAINS, DIVIDED, DIVIDEND};

    divider!(f32, 4, f32, |x| vdupq_n_f32(x), |x| vsqrtq_f32(x), |a, b| vdivq_f32(a, b), "neon");
    divider!(f64, 2, f64, |x| vdupq_n_f64(x), |x| vsqrtq_f64(x), |a, b| vdivq_f64(a, b), "neon");
}
