//! f16: by instructions of the CPU where a set has them, and to the same bits by whole numbers.

use half::{f16, slice::HalfFloatSliceExt};
use pulp::Simd;

use super::Narrow;
use crate::{lanes::Vector, words::Words};

/// How much greater the exponents of `f32` are.
const SHIFT: u32 = (127 - 15) << 23;

impl Narrow for f16 {
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn widen<S: Simd>(simd: S, narrow: &[Self]) -> Vector<S, f32> {
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = avx512::widen(simd, narrow.reinterpret_cast()) {
            return wide;
        }
        let bits = Words::widen(simd, narrow.reinterpret_cast());
        let magnitude = (bits & 0x7fff) << 13;
        let normal = magnitude + SHIFT;
        let is_finite = magnitude.less_than(bits.all(0x7c00 << 13));
        let number = Words::select(is_finite, normal, normal + SHIFT);
        // A subnormal is a fraction of the smallest normal number, which is 2^-14.
        let one = bits.all(SHIFT + (1 << 23));
        let subnormal = Words::of((magnitude + one).floats() - one.floats());
        let is_subnormal = magnitude.less_than(bits.all(0x0400 << 13));
        let number = Words::select(is_subnormal, subnormal, number);
        let number = Words::select(number.are_numbers(), number, number | 0x0040_0000);
        (number | (bits & 0x8000) << 16).floats()
    }

    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn narrow<S: Simd>(narrow: &mut [Self], wide: Vector<S, f32>) {
        #[cfg(target_arch = "x86_64")]
        if avx512::narrow(narrow.reinterpret_cast_mut(), wide) {
            return;
        }
        let bits = Words::of(wide);
        let magnitude = bits & 0x7fff_ffff;
        let is_odd = magnitude >> 13 & 1;
        let normal = (magnitude + is_odd + 0xfff_u32.wrapping_sub(SHIFT)) >> 13;
        // The last bit of a number between 1/2 and 1 is worth as much as that of a subnormal f16.
        let half = f32::to_bits(0.5);
        let subnormal = Words::of(magnitude.floats() + bits.all(half).floats());
        let is_subnormal = magnitude.less_than(bits.all((127 - 14) << 23));
        let number = Words::select(is_subnormal, subnormal + half.wrapping_neg(), normal);
        let is_large = bits.all(f32::to_bits(65536.0) - 1).less_than(magnitude);
        let number = Words::select(is_large, bits.all(0x7c00), number);
        let quiet = magnitude >> 13 & 0x03ff | 0x7e00;
        let number = Words::select(bits.are_numbers(), number, quiet);
        (number | (bits >> 16 & 0x8000)).store_halves(narrow.reinterpret_cast_mut());
    }
}

/// A register at a time, of 512 bits; none if the set is another one, or there are fewer numbers.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use core::any::Any;

    use pulp::{Simd, cast, x86::V4};

    use crate::lanes::Vector;

    const LANES: usize = 16;
    /// To nearest, ties to even.
    const NEAREST: i32 = 0;

    #[inline(always)]
    fn set<S: Simd>(simd: S) -> Option<V4> {
        (&simd as &dyn Any).downcast_ref().copied()
    }

    #[inline(always)]
    pub(super) fn widen<S: Simd>(simd: S, narrow: &[u16]) -> Option<Vector<S, f32>> {
        let halves: [u16; LANES] = *narrow.first_chunk()?;
        let numbers: [f32; LANES] = cast(set(simd)?.avx512f._mm512_cvtph_ps(cast(halves)));
        Some(Vector::read(simd, &numbers))
    }

    #[inline(always)]
    pub(super) fn narrow<S: Simd>(narrow: &mut [u16], wide: Vector<S, f32>) -> bool {
        let (Some(narrow), Some(set)) = (narrow.first_chunk_mut(), set(wide.simd())) else {
            return false;
        };
        let mut numbers = [0.0_f32; LANES];
        wide.write(&mut numbers);
        let halves: [u16; LANES] = cast(set.avx512f._mm512_cvtps_ph::<NEAREST>(cast(numbers)));
        *narrow = halves;
        true
    }
}
