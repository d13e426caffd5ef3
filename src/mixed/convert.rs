//! Strips of numbers: from arrays of any type to `f32`, and back.

use half::{bf16, f16};

use crate::{
    array::{self, BLOCK, Narrow, Q8},
    simd::{Simd, Vector, Words},
};

/// The most elements of a strip that is converted: a block of 8-bit moments. Shorter strips were slower, since each has
/// a fixed cost, and longer ones were not faster.
pub(super) const STRIP: usize = BLOCK;

/// Runs for the range of each register. If the slices have a whole strip, the number of registers is a constant, and
/// the loop needs no checks. Otherwise the ranges are those of `len` elements, and the last one can be less than a
/// register.
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
        array::join(simd, &high[range.clone()], &low[range.clone()]).write(&mut to[range]);
    });
}

/// The inverse of [`join`].
#[inline(always)]
pub(super) fn split<S: Simd>(simd: S, from: &[f32], high: &mut [bf16], low: &mut [u16]) {
    registers!(high.len(), [from], [high, low], |range| {
        let values = Vector::read(simd, &from[range.clone()]);
        array::split(&mut high[range.clone()], &mut low[range], values);
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

/// Rounds up or down at random, by 16 bits for each number.
#[inline(always)]
pub(super) fn narrow_stochastic<S: Simd>(
    simd: S,
    from: &[f32],
    random: &[u16; STRIP],
    to: &mut [bf16],
) {
    registers!(to.len(), [from], [to], |range| {
        let share = Words::widen(simd, &random[range.clone()]);
        array::narrow_bf16(&mut to[range.clone()], Vector::read(simd, &from[range]), share);
    });
}

/// The same to f16, for a moment of a format, or a parameter, which has none.
#[inline(always)]
pub(super) fn narrow_stochastic_f16<S: Simd>(
    simd: S,
    format: Option<Q8>,
    from: &[f32],
    random: &[u16; STRIP],
    to: &mut [f16],
) {
    registers!(to.len(), [from], [to], |range| {
        let share = Words::widen(simd, &random[range.clone()]);
        let share = share >> (16 - array::F16_RANDOM_BITS);
        let values = Vector::read(simd, &from[range.clone()]);
        array::narrow_f16(format, &mut to[range], values, share);
    });
}
