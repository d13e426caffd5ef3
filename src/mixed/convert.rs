//! Strips of numbers: from arrays of any type to `f32`, and back.

use half::{bf16, f16};
use pulp::Simd;

use crate::{
    element::{self, Half, Narrow, Q8},
    lanes::Vector,
    prefetch::{AHEAD, CACHE_LINE, prefetch},
    words::Words,
};

/// The elements of a strip: a whole number of pairs of registers, and a part of a block of 8-bit moments.
pub(super) const STRIP: usize = 256;

/// Runs for the range of each register: those of a whole strip where the slices have one, which frees the
/// loop of checks; otherwise of `len` elements, the last ones fewer than a register.
macro_rules! registers {
    ($len:expr, [$($from:ident),*], [$($to:ident),*], |$range:ident| $body:expr) => {
        let (lanes, len) = (Words::<S>::LANES, $len);
        if let ($(Some($from),)* $(Some($to),)*) =
            ($($from.first_chunk::<STRIP>(),)* $($to.first_chunk_mut::<STRIP>(),)*)
        {
            let mut start = 0;
            while start < STRIP {
                let $range = start..start + lanes;
                $body;
                start += lanes;
            }
        } else {
            let mut start = 0;
            while start < len {
                let $range = start..(start + lanes).min(len);
                $body;
                start += lanes;
            }
        }
    };
}

/// Numbers as `f32`.
#[inline(always)]
pub(super) fn widen<S: Simd, T: Narrow>(simd: S, from: &[T], to: &mut [f32]) {
    registers!(from.len(), [from], [to], |range| {
        T::widen(simd, &from[range.clone()]).write(&mut to[range]);
    });
}

/// The inverse of [`widen`], rounded to nearest.
#[inline(always)]
pub(super) fn narrow<S: Simd, T: Narrow>(simd: S, from: &[f32], to: &mut [T]) {
    registers!(to.len(), [from], [to], |range| {
        T::narrow(&mut to[range.clone()], Vector::read(simd, &from[range]));
    });
}

/// Two halves of numbers as `f32`.
#[inline(always)]
pub(super) fn join<S: Simd>(simd: S, high: &[bf16], low: &[u16], to: &mut [f32]) {
    registers!(high.len(), [high, low], [to], |range| {
        element::join(simd, &high[range.clone()], &low[range.clone()]).write(&mut to[range]);
    });
}

/// The inverse of [`join`].
#[inline(always)]
pub(super) fn split<S: Simd>(simd: S, from: &[f32], high: &mut [bf16], low: &mut [u16]) {
    registers!(high.len(), [from], [high, low], |range| {
        let values = Vector::read(simd, &from[range.clone()]);
        element::split(&mut high[range.clone()], &mut low[range], values);
    });
}

/// Codes of a block as `f32`.
#[inline(always)]
pub(super) fn decode<S: Simd>(simd: S, format: Q8, codes: &[u8], scale: f32, to: &mut [f32]) {
    let scale = Vector::splat(simd, scale);
    registers!(codes.len(), [codes], [to], |range| {
        format.widen(simd, &codes[range.clone()], scale).write(&mut to[range]);
    });
}

/// Rounds up or down at random, by 16 bits of `random` for each number.
#[inline(always)]
pub(super) fn narrow_stochastic<S: Simd>(
    simd: S,
    from: &[f32],
    random: &[u32; STRIP],
    half: Half,
    to: &mut [bf16],
) {
    registers!(to.len(), [from], [to], |range| {
        let words = Words::load(simd, &random[range.start..]);
        let values = Vector::read(simd, &from[range.clone()]);
        element::narrow_bf16(&mut to[range], values, half.share(words, 16));
    });
}

/// The same to f16, for a moment of a format.
#[inline(always)]
pub(super) fn narrow_stochastic_f16<S: Simd>(
    simd: S,
    format: Q8,
    from: &[f32],
    random: &[u32; STRIP],
    half: Half,
    to: &mut [f16],
) {
    registers!(to.len(), [from], [to], |range| {
        let words = Words::load(simd, &random[range.start..]);
        let values = Vector::read(simd, &from[range.clone()]);
        let share = half.share(words, element::F16_RANDOM_BITS);
        element::narrow_f16(format, &mut to[range], values, share);
    });
}

/// Asks for the memory of a strip ahead of its use.
#[inline(always)]
pub(super) fn prefetch_strip<T>(array: &[T], start: usize) {
    let mut ahead = 0;
    while ahead < STRIP {
        prefetch(array, start, AHEAD / size_of::<T>() + ahead);
        ahead += CACHE_LINE / size_of::<T>();
    }
}
