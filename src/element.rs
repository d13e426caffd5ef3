//! Numbers of 16 bits: how a tile is widened to `f32` and narrowed back.
//!
//! The loops are plain Rust, which vectorises on the instruction set of the task that they are
//! inlined into; nothing here differs from one set to another.

mod q8;

pub(crate) use q8::BLOCK;
pub use q8::Q8;

use half::{bf16, f16, slice::HalfFloatSliceExt};

/// Where the random bits of stochastic rounding come from: a counter, so that they depend on nothing
/// but the seed, the step, and the element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Random {
    keys: [u32; 2],
}

impl Random {
    /// The source of one step.
    pub(crate) fn new(seed: u64, t: u64) -> Self {
        let key = mix(seed ^ mix(t));
        Self { keys: [key as u32, (key >> 32) as u32] }
    }

    /// Another source of the same step.
    #[inline(always)]
    pub(crate) fn stream(self, number: u32) -> Self {
        Self { keys: [self.keys[0], self.keys[1] ^ number.wrapping_mul(0x9e37_79b9)] }
    }

    /// 32 bits for each of the elements from `first` on, which are few.
    #[inline(always)]
    pub(crate) fn fill(self, first: u64, bits: &mut [u32]) {
        // The upper half of a number changes within a tile at most once; both halves of the tile are
        // the same loop.
        let before = (u64::from(u32::MAX - first as u32) + 1).min(bits.len() as u64) as usize;
        let (low, high) = bits.split_at_mut(before);
        self.fill_half(first, low);
        self.fill_half(first.wrapping_add(before as u64), high);
    }

    #[inline(always)]
    fn fill_half(self, first: u64, bits: &mut [u32]) {
        let upper = mix((first >> 32) ^ 0x9e37_79b9_7f4a_7c15);
        let keys = [self.keys[0] ^ upper as u32, self.keys[1] ^ (upper >> 32) as u32];
        for (bits, place) in bits.iter_mut().zip(0..) {
            *bits = hash(keys, (first as u32).wrapping_add(place));
        }
    }
}

/// SplitMix64's finaliser (Steele et al., 2014).
fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// Two rounds of multiply and shift, each with a key of its own (constants by Wellons, 2018).
#[inline(always)]
pub(crate) fn hash([first, second]: [u32; 2], counter: u32) -> u32 {
    let x = counter.wrapping_add(first);
    let x = (x ^ x >> 16).wrapping_mul(0x7feb_352d) ^ second;
    let x = (x ^ x >> 15).wrapping_mul(0x846c_a68b);
    x ^ x >> 16
}

#[inline(always)]
pub(crate) fn widen_bf16(wide: &mut [f32], narrow: &[bf16]) {
    for (wide, narrow) in wide.iter_mut().zip(narrow) {
        *wide = f32::from_bits(u32::from(narrow.to_bits()) << 16);
    }
}

/// Rounds to nearest, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn narrow_bf16(narrow: &mut [bf16], wide: &[f32]) {
    for (narrow, wide) in narrow.iter_mut().zip(wide) {
        let bits = wide.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
        *narrow = bf16::from_bits(keep_nan(bits, rounded));
    }
}

/// Rounds up with the probability that is the part of the way from the lower neighbour; the upper or
/// the lower half of the random bits decides.
#[inline(always)]
pub(crate) fn narrow_bf16_stochastic(
    narrow: &mut [bf16],
    wide: &[f32],
    random: &[u32],
    shift: u32,
) {
    for ((narrow, wide), random) in narrow.iter_mut().zip(wide).zip(random) {
        let bits = wide.to_bits();
        let rounded = bits.wrapping_add(random >> shift & 0xffff) >> 16;
        // Infinity has no neighbour to go to.
        let is_finite = bits & 0x7f80_0000 != 0x7f80_0000;
        *narrow = bf16::from_bits(keep_nan(bits, if is_finite { rounded } else { bits >> 16 }));
    }
}

/// The upper half of a number, or a quiet NaN where the number is NaN.
#[inline(always)]
fn keep_nan(bits: u32, upper: u32) -> u16 {
    let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
    (if is_nan { bits >> 16 | 0x40 } else { upper }) as u16
}

/// A number as its nearest bf16, ties away from zero, and what is left: see
/// [`Param::Split`](crate::Param::Split).
#[inline(always)]
pub(crate) fn split(high: &mut [bf16], low: &mut [u16], wide: &[f32]) {
    for ((high, low), wide) in high.iter_mut().zip(low).zip(wide) {
        let bits = wide.to_bits();
        let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
        *high = bf16::from_bits(keep_nan(bits, bits.wrapping_add(0x8000) >> 16));
        *low = if is_nan { 0 } else { bits as u16 };
    }
}

/// The inverse of [`split`].
#[inline(always)]
pub(crate) fn join(wide: &mut [f32], high: &[bf16], low: &[u16]) {
    for ((wide, high), &low) in wide.iter_mut().zip(high).zip(low) {
        let rest = i32::from(low.cast_signed()) as u32;
        *wide = f32::from_bits((u32::from(high.to_bits()) << 16).wrapping_add(rest));
    }
}

#[inline(always)]
pub(crate) fn widen_f16(wide: &mut [f32], narrow: &[f16]) {
    narrow.convert_to_f32_slice(wide);
}

/// Rounds to nearest, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn narrow_f16(narrow: &mut [f16], wide: &[f32]) {
    narrow.convert_from_f32_slice(wide);
}
