//! Numbers of 16 bits: how registers of them are widened to `f32` and narrowed back.
//!
//! Inlined without optimization, these conversions need 1 MB of stack. So builds with debug assertions need not inline
//! them.

use half::{bf16, slice::HalfFloatSliceExt};

use crate::simd::{Simd, Vector, Words};

/// A type that steps in `f32` read and write.
pub(crate) trait Narrow: Copy + Default + 'static {
    /// A register of numbers. If there are fewer, the rest is zeros.
    fn widen<S: Simd>(simd: S, narrow: &[Self]) -> Vector<S, f32>;

    /// The inverse of [`widen`](Self::widen), rounded to nearest, ties to even; NaN stays NaN.
    fn narrow<S: Simd>(narrow: &mut [Self], wide: Vector<S, f32>);
}

impl Narrow for f32 {
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn widen<S: Simd>(simd: S, same: &[Self]) -> Vector<S, f32> {
        Vector::read(simd, same)
    }

    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn narrow<S: Simd>(same: &mut [Self], wide: Vector<S, f32>) {
        wide.write(same);
    }
}

impl Narrow for bf16 {
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn widen<S: Simd>(simd: S, narrow: &[Self]) -> Vector<S, f32> {
        (Words::widen(simd, narrow.reinterpret_cast()) << 16).floats()
    }

    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn narrow<S: Simd>(narrow: &mut [Self], wide: Vector<S, f32>) {
        let is_odd = Words::of(wide) >> 16 & 1;
        narrow_bf16(narrow, wide, is_odd + 0x7fff);
    }
}

/// Rounds to bf16: adds `share`, of 16 bits, to the lower half of a number, and goes up to the next bf16 if the sum
/// carries. With 16 random bits, the probability of this is the distance from the lower neighbour, in units of the
/// distance between both.
#[cfg_attr(debug_assertions, inline)]
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn narrow_bf16<S: Simd>(narrow: &mut [bf16], wide: Vector<S, f32>, share: Words<S>) {
    let bits = Words::of(wide);
    // The lower half of infinity is 0, so infinity stays.
    let rounded = Words::select(bits.are_numbers(), bits + share, bits | 0x0040_0000);
    (rounded >> 16).store_halves(narrow.reinterpret_cast_mut());
}

/// Pairs of numbers that lie side by side: the even ones, and the odd ones.
#[cfg_attr(debug_assertions, inline)]
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn widen_bf16_pairs<S: Simd>(simd: S, narrow: &[bf16]) -> [Vector<S, f32>; 2] {
    let pairs = Words::load_pairs(simd, narrow.reinterpret_cast());
    [(pairs << 16).floats(), (pairs & 0xffff_0000).floats()]
}

/// The inverse of [`widen_bf16_pairs`], rounded as by [`narrow_bf16`], for results of arithmetic on bf16. A NaN among
/// them is quiet, and its lower half is 0, so that it cannot carry.
#[cfg_attr(debug_assertions, inline)]
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn narrow_bf16_pairs<S: Simd>(
    narrow: &mut [bf16],
    [even, odd]: [Vector<S, f32>; 2],
    shares: [Words<S>; 2],
) {
    let (even, odd) = (Words::of(even) + shares[0], Words::of(odd) + shares[1]);
    (even >> 16 | odd & 0xffff_0000).store_pairs(narrow.reinterpret_cast_mut());
}

/// A number as its nearest bf16, ties away from zero, and the rest: see
/// [`Param::from_halves`](crate::Param::from_halves).
#[cfg_attr(debug_assertions, inline)]
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn split<S: Simd>(high: &mut [bf16], low: &mut [u16], wide: Vector<S, f32>) {
    let bits = Words::of(wide);
    narrow_bf16(high, wide, bits.all(0x8000));
    Words::select(bits.are_numbers(), bits, bits.all(0)).store_halves(low);
}

/// The inverse of [`split`].
#[cfg_attr(debug_assertions, inline)]
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn join<S: Simd>(simd: S, high: &[bf16], low: &[u16]) -> Vector<S, f32> {
    let high = Words::widen(simd, high.reinterpret_cast()) << 16;
    // As a signed number.
    let low = Words::widen(simd, low);
    (high + (low ^ 0x8000) + 0xffff_8000).floats()
}
