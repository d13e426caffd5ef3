//! A register at a time, of 256 bits; none if the set is another one, or there are fewer numbers.

use core::{
    any::TypeId,
    arch::x86_64::{_MM_FROUND_TO_NEAREST_INT, _mm256_cvtph_ps, _mm256_cvtps_ph},
};

use pulp::{Simd, cast, x86::V3};

use crate::simd::Vector;

const LANES: usize = 8;

#[inline(always)]
fn is_avx2<S: Simd>() -> bool {
    TypeId::of::<S>() == TypeId::of::<V3>()
}

#[inline(always)]
pub(super) fn widen<S: Simd>(simd: S, narrow: &[u16]) -> Option<Vector<S, f32>> {
    let halves: [u16; LANES] = *narrow.first_chunk().filter(|_| is_avx2::<S>())?;
    // SAFETY: who runs on AVX2 was found to have F16C: `Isa::arch`.
    let numbers: [f32; LANES] = cast(unsafe { _mm256_cvtph_ps(cast(halves)) });
    Some(Vector::read(simd, &numbers))
}

#[inline(always)]
pub(super) fn narrow<S: Simd>(narrow: &mut [u16], wide: Vector<S, f32>) -> bool {
    let Some(narrow) = narrow.first_chunk_mut::<LANES>().filter(|_| is_avx2::<S>()) else {
        return false;
    };
    let mut numbers = [0.0_f32; LANES];
    wide.write(&mut numbers);
    // SAFETY: as in `widen`.
    let halves = unsafe { _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(cast(numbers)) };
    *narrow = cast(halves);
    true
}
