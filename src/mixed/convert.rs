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
pub(super) const STRIP: usize = 128;

/// Each register of some elements: the number of the first one, and of the one behind the last.
macro_rules! registers {
    ($len:expr, |$start:ident, $end:ident| $body:expr) => {
        let len = $len;
        // Of a length that is known, each register is whole: no checks in the loop.
        if len == STRIP {
            let mut $start = 0;
            while $start < STRIP {
                let $end = $start + Words::<S>::LANES;
                $body;
                $start = $end;
            }
        } else {
            let mut $start = 0;
            while $start < len {
                let $end = ($start + Words::<S>::LANES).min(len);
                $body;
                $start = $end;
            }
        }
    };
}

/// Numbers as `f32`.
#[inline(always)]
pub(super) fn widen<S: Simd, T: Narrow>(simd: S, from: &[T], to: &mut [f32]) {
    registers!(from.len(), |start, end| T::widen(simd, &from[start..end])
        .write(&mut to[start..end]));
}

/// The inverse of [`widen`], rounded to nearest.
#[inline(always)]
pub(super) fn narrow<S: Simd, T: Narrow>(simd: S, from: &[f32], to: &mut [T]) {
    registers!(to.len(), |start, end| T::narrow(
        &mut to[start..end],
        Vector::read(simd, &from[start..end])
    ));
}

/// Two halves of numbers as `f32`.
#[inline(always)]
pub(super) fn join<S: Simd>(simd: S, high: &[bf16], low: &[u16], to: &mut [f32]) {
    registers!(high.len(), |start, end| element::join(simd, &high[start..end], &low[start..end])
        .write(&mut to[start..end]));
}

/// The inverse of [`join`].
#[inline(always)]
pub(super) fn split<S: Simd>(simd: S, from: &[f32], high: &mut [bf16], low: &mut [u16]) {
    registers!(high.len(), |start, end| element::split(
        &mut high[start..end],
        &mut low[start..end],
        Vector::read(simd, &from[start..end])
    ));
}

/// Codes of a block as `f32`.
#[inline(always)]
pub(super) fn decode<S: Simd>(simd: S, format: Q8, codes: &[u8], scale: f32, to: &mut [f32]) {
    let scale = Vector::splat(simd, scale);
    registers!(codes.len(), |start, end| format
        .widen(simd, &codes[start..end], scale)
        .write(&mut to[start..end]));
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
    registers!(to.len(), |start, end| {
        let share = half.share(Words::load(simd, &random[start..start + Words::<S>::LANES]), 16);
        element::narrow_bf16(&mut to[start..end], Vector::read(simd, &from[start..end]), share);
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
    registers!(to.len(), |start, end| {
        let words = Words::load(simd, &random[start..start + Words::<S>::LANES]);
        let share = half.share(words, element::F16_RANDOM_BITS);
        let values = Vector::read(simd, &from[start..end]);
        element::narrow_f16(format, &mut to[start..end], values, share);
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
