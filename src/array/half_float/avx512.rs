//! A register at a time, of 512 bits; none if the set is another one, or there are fewer numbers.

use core::any::Any;

use pulp::{Simd, cast, x86::V4};

use crate::simd::Vector;

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
