//! Pairs of registers of `f32`, out of arrays of any type and into them.

use core::ops::Range;

use half::bf16;

use crate::{
    Q8,
    array::{Draw, Half, Narrow, narrow_bf16},
    kernel::TOGETHER,
    simd::{Simd, Vector, Wide, Words, prefetch_near},
};

/// The random bits of the parameters; those of the moments are numbered from 0, and two moments share
/// the same ones.
pub(super) const PARAM: u32 = u32::MAX;

/// A pair of registers.
pub(super) type Pair<S> = Wide<Vector<S, f32>, TOGETHER>;

/// A pair of registers of random bits.
pub(super) type Bits<S> = [Words<S>; TOGETHER];

/// How a pair of registers is read from any array.
pub(super) struct Read<S: Simd> {
    pub simd: S,
    pub range: Range<usize>,
    pub asks_ahead: bool,
}

impl<S: Simd> Read<S> {
    /// The parts of an array that go to the two registers.
    #[inline(always)]
    fn registers<'a, T>(&self, array: &'a [T]) -> (&'a [T], &'a [T]) {
        let array = &array[self.range.clone()];
        array.split_at(Words::<S>::LANES)
    }

    #[inline(always)]
    pub(super) fn widen<T: Narrow>(&self, array: &[T]) -> Pair<S> {
        if self.asks_ahead {
            prefetch_near(array, self.range.start);
        }
        let (first, second) = self.registers(array);
        Wide([T::widen(self.simd, first), T::widen(self.simd, second)])
    }

    /// Codes of a block.
    #[inline(always)]
    pub(super) fn decode(&self, format: Q8, codes: &[u8], scale: f32) -> Pair<S> {
        let scale = Vector::splat(self.simd, scale);
        let (first, second) = self.registers(codes);
        Wide([format.widen(self.simd, first, scale), format.widen(self.simd, second, scale)])
    }
}

/// How a pair of registers is written to any array.
pub(super) struct Write<'d, S: Simd> {
    pub simd: S,
    pub range: Range<usize>,
    pub draw: &'d Draw,
    /// The place of the first element in the run of `draw`.
    pub place: usize,
}

impl<S: Simd> Write<'_, S> {
    /// Calls `write` with each register and its part of an array.
    #[inline(always)]
    fn each<T>(
        &self,
        array: &mut [T],
        values: Pair<S>,
        mut write: impl FnMut(&mut [T], Vector<S, f32>, usize),
    ) {
        let array = &mut array[self.range.clone()];
        let (first, second) = array.split_at_mut(Words::<S>::LANES);
        let Wide([one, other]) = values;
        write(first, one, 0);
        write(second, other, 1);
    }

    #[inline(always)]
    pub(super) fn narrow<T: Narrow>(&self, array: &mut [T], values: Pair<S>) {
        self.each(
            array,
            values,
            #[inline(always)]
            |array, values, _| T::narrow(array, values),
        );
    }

    #[inline(always)]
    pub(super) fn stochastic(
        &self,
        array: &mut [bf16],
        values: Pair<S>,
        random: Bits<S>,
        half: Half,
    ) {
        self.each(
            array,
            values,
            #[inline(always)]
            |array, values, register| narrow_bf16(array, values, half.share(random[register])),
        );
    }

    #[inline(always)]
    pub(super) fn random(&self, stream: u32) -> Bits<S> {
        self.draw.bits::<S, TOGETHER>(self.simd, stream, self.place)
    }
}
