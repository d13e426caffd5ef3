//! Words to bytes, by instructions that pulp has no method for.

use core::any::Any;

use pulp::{
    Simd, cast,
    x86::{V3, V4},
};

/// Writes the lowest byte of each word of a register; `false` if the set is another one, or there are fewer bytes
/// than words. Compilers make one move for each byte of it.
#[inline(always)]
pub(super) fn narrow<S: Simd>(simd: S, words: S::u32s, bytes: &mut [u8]) -> bool {
    let set = &simd as &dyn Any;
    if let (Some(set), Some(bytes)) = (set.downcast_ref::<V4>(), bytes.first_chunk_mut()) {
        let mut all = [0_u32; 16];
        S::as_mut_simd_u32s(&mut all).0[0] = words;
        let narrow: [u8; 16] = cast(set.avx512f._mm512_cvtepi32_epi8(cast(all)));
        *bytes = narrow;
        return true;
    }
    if let (Some(set), Some(bytes)) = (set.downcast_ref::<V3>(), bytes.first_chunk_mut()) {
        let mut all = [0_u32; 8];
        S::as_mut_simd_u32s(&mut all).0[0] = simd.and_u32s(words, simd.splat_u32s(0xff));
        let [lower, upper]: [[u32; 4]; 2] = cast(all);
        let halves = set.sse4_1._mm_packus_epi32(cast(lower), cast(upper));
        let [narrow, _]: [[u8; 8]; 2] = cast(set.sse2._mm_packus_epi16(halves, halves));
        *bytes = narrow;
        return true;
    }
    false
}
