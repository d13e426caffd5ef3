//! Pairs of registers of `f32`, out of arrays of any type and into them.

use core::ops::Range;

use half::bf16;

use crate::{
    Q8,
    array::{Narrow, RandomBits, join, narrow_bf16, narrow_bf16_pairs, split, widen_bf16_pairs},
    simd::{Simd, TOGETHER, Vector, Wide, Words, prefetch_near},
};

/// A pair of registers.
pub(super) type Pair<S> = Wide<Vector<S, f32>>;

/// How a pair of registers is read from any array.
pub(super) struct Read<S: Simd> {
    pub simd: S,
    pub range: Range<usize>,
    /// How far ahead to ask for memory, in bytes of each array.
    pub ahead: Option<usize>,
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
        if let Some(ahead) = self.ahead {
            prefetch_near(array, self.range.start, ahead);
        }
        let (first, second) = self.registers(array);
        Wide([T::widen(self.simd, first), T::widen(self.simd, second)])
    }

    /// The even elements in one register, and the odd ones in the other.
    #[inline(always)]
    pub(super) fn widen_even_and_odd(&self, array: &[bf16]) -> Pair<S> {
        if let Some(ahead) = self.ahead {
            prefetch_near(array, self.range.start, ahead);
        }
        Wide(widen_bf16_pairs(self.simd, &array[self.range.clone()]))
    }

    /// Two halves.
    #[inline(always)]
    pub(super) fn join(&self, high: &[bf16], low: &[u16]) -> Pair<S> {
        let (high, low) = (self.registers(high), self.registers(low));
        Wide([join(self.simd, high.0, low.0), join(self.simd, high.1, low.1)])
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
pub(super) struct Write<S: Simd> {
    pub simd: S,
    pub range: Range<usize>,
}

impl<S: Simd> Write<S> {
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

    /// As registers: `fill` can become a call of memset.
    #[inline(always)]
    pub(super) fn zero<T: Narrow>(&self, array: &mut [T]) {
        self.narrow(array, Wide([Vector::splat(self.simd, 0.0); TOGETHER]));
    }

    /// Two halves.
    #[inline(always)]
    pub(super) fn split(&self, high: &mut [bf16], low: &mut [u16], values: Pair<S>) {
        let (first, second) = low[self.range.clone()].split_at_mut(Words::<S>::LANES);
        let low = [first, second];
        self.each(
            high,
            values,
            #[inline(always)]
            |high, values, register| split(high, &mut *low[register], values),
        );
    }

    #[inline(always)]
    pub(super) fn stochastic(&self, array: &mut [bf16], values: Pair<S>, random: RandomBits<S>) {
        let shares = random.halves(self.simd);
        self.each(
            array,
            values,
            #[inline(always)]
            |array, values, register| narrow_bf16(array, values, shares[register]),
        );
    }

    /// The even elements are in one register, and the odd ones in the other.
    #[inline(always)]
    pub(super) fn stochastic_even_and_odd(
        &self,
        array: &mut [bf16],
        Wide(values): Pair<S>,
        random: RandomBits<S>,
    ) {
        narrow_bf16_pairs(&mut array[self.range.clone()], values, random.even_and_odd());
    }
}
