//! Some registers together, as they are read from arrays of any type and written there.

use core::ops::Range;

use half::{bf16, f16};
use pulp::Simd;

use crate::{
    element::{self, Half, Narrow, Q8},
    lanes::{Vector, Wide},
    prefetch::{self, AHEAD, CACHE_LINE},
    words::Words,
};

/// How many: whatever is decided for an array is decided once for so many registers.
pub(super) const LOT: usize = 4;

pub(super) type Lot<S> = Wide<Vector<S, f32>, LOT>;

/// The elements of a lot.
#[inline(always)]
pub(super) fn lanes<S: Simd>() -> usize {
    LOT * Words::<S>::LANES
}

/// The elements of one register out of those of a lot.
#[inline(always)]
fn part<S: Simd>(register: usize) -> Range<usize> {
    let lanes = Words::<S>::LANES;
    register * lanes..(register + 1) * lanes
}

#[inline(always)]
pub(super) fn splat<S: Simd>(simd: S, value: f64) -> Lot<S> {
    Wide([Vector::constant(simd, value); LOT])
}

#[inline(always)]
pub(super) fn read<S: Simd, T: Narrow>(simd: S, lot: &[T]) -> Lot<S> {
    let mut values = splat(simd, 0.0);
    for (register, value) in values.0.iter_mut().enumerate() {
        *value = T::widen(simd, &lot[part::<S>(register)]);
    }
    values
}

#[inline(always)]
pub(super) fn write<S: Simd, T: Narrow>(lot: &mut [T], values: Lot<S>) {
    for (register, value) in values.0.into_iter().enumerate() {
        T::narrow(&mut lot[part::<S>(register)], value);
    }
}

#[inline(always)]
pub(super) fn decode<S: Simd>(simd: S, format: Q8, codes: &[u8], scale: Vector<S, f32>) -> Lot<S> {
    let mut values = splat(simd, 0.0);
    for (register, value) in values.0.iter_mut().enumerate() {
        *value = format.widen(simd, &codes[part::<S>(register)], scale);
    }
    values
}

#[inline(always)]
pub(super) fn join<S: Simd>(simd: S, high: &[bf16], low: &[u16]) -> Lot<S> {
    let mut values = splat(simd, 0.0);
    for (register, value) in values.0.iter_mut().enumerate() {
        let part = part::<S>(register);
        *value = element::join(simd, &high[part.clone()], &low[part]);
    }
    values
}

#[inline(always)]
pub(super) fn split<S: Simd>(high: &mut [bf16], low: &mut [u16], values: Lot<S>) {
    for (register, value) in values.0.into_iter().enumerate() {
        let part = part::<S>(register);
        element::split(&mut high[part.clone()], &mut low[part], value);
    }
}

/// Random bits to memory.
#[inline(always)]
pub(super) fn store<S: Simd>(words: &mut [u32], lot: [Words<S>; LOT]) {
    for (register, lot) in lot.into_iter().enumerate() {
        lot.store(&mut words[part::<S>(register)]);
    }
}

#[inline(always)]
pub(super) fn write_stochastic<S: Simd>(
    lot: &mut [bf16],
    values: Lot<S>,
    random: [Words<S>; LOT],
    half: Half,
) {
    for (register, (value, random)) in values.0.into_iter().zip(random).enumerate() {
        let share = half.share(random, 16);
        element::narrow_bf16(&mut lot[part::<S>(register)], value, share);
    }
}

#[inline(always)]
pub(super) fn write_stochastic_f16<S: Simd>(
    lot: &mut [f16],
    values: Lot<S>,
    format: Q8,
    random: [Words<S>; LOT],
    half: Half,
) {
    for (register, (value, random)) in values.0.into_iter().zip(random).enumerate() {
        let share = half.share(random, element::F16_RANDOM_BITS);
        element::narrow_f16(format, &mut lot[part::<S>(register)], value, share);
    }
}

/// Asks for the memory of a lot ahead of its use.
#[inline(always)]
pub(super) fn prefetch<S: Simd, T>(slice: &[T], start: usize) {
    let mut ahead = 0;
    while ahead < lanes::<S>() {
        prefetch::prefetch(slice, start, AHEAD / size_of::<T>() + ahead);
        ahead += CACHE_LINE / size_of::<T>();
    }
}
