//! Arrays for the loops that convert: each is read and written as pairs of registers, one after the other.

use core::ops::Range;

use half::bf16;

use super::{
    pairs::{Pair, Read, Write},
    strips::MomentBlock,
};
use crate::{
    Q8,
    array::{MomentArray, Narrow, RandomBits},
    rule::MOMENTS,
    simd::{MOST_LANES, Simd, Wide, Words},
};

/// Gradients.
pub(super) trait GradColumn<S: Simd> {
    fn len(&self) -> usize;
    fn read(&self, read: &Read<S>) -> Pair<S>;

    /// Sets gradients to zero that are to be zeroed.
    #[inline(always)]
    fn zero(&mut self, _: &Write<S>) {}
}

impl<S: Simd, T: Narrow> GradColumn<S> for &[T] {
    #[inline(always)]
    fn len(&self) -> usize {
        <[T]>::len(self)
    }

    #[inline(always)]
    fn read(&self, read: &Read<S>) -> Pair<S> {
        read.widen(self)
    }
}

/// Set to zero when it has been read.
pub(super) struct ToZero<'s, T>(pub &'s mut [T]);

impl<S: Simd, T: Narrow> GradColumn<S> for ToZero<'_, T> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn read(&self, read: &Read<S>) -> Pair<S> {
        read.widen(self.0)
    }

    #[inline(always)]
    fn zero(&mut self, write: &Write<S>) {
        write.zero(self.0);
    }
}

/// Parameters.
pub(super) trait ParamColumn<S: Simd> {
    /// Whether random bits are taken.
    const IS_RANDOM: bool = false;

    fn read(&self, read: &Read<S>) -> Pair<S>;
    fn write(&mut self, write: &Write<S>, random: RandomBits<S>, values: Pair<S>);
}

/// Rounded to nearest.
pub(super) struct Nearest<'s, T>(pub &'s mut [T]);

impl<S: Simd, T: Narrow> ParamColumn<S> for Nearest<'_, T> {
    #[inline(always)]
    fn read(&self, read: &Read<S>) -> Pair<S> {
        read.widen(self.0)
    }

    #[inline(always)]
    fn write(&mut self, write: &Write<S>, _: RandomBits<S>, values: Pair<S>) {
        write.narrow(self.0, values);
    }
}

/// With a copy in bf16, rounded to nearest.
pub(super) struct Copied<'s>(pub &'s mut [f32], pub &'s mut [bf16]);

impl<S: Simd> ParamColumn<S> for Copied<'_> {
    #[inline(always)]
    fn read(&self, read: &Read<S>) -> Pair<S> {
        read.widen(self.0)
    }

    #[inline(always)]
    fn write(&mut self, write: &Write<S>, _: RandomBits<S>, values: Pair<S>) {
        write.narrow(self.0, values);
        write.narrow(self.1, values);
    }
}

/// In two halves.
pub(super) struct Halves<'s>(pub &'s mut [bf16], pub &'s mut [u16]);

impl<S: Simd> ParamColumn<S> for Halves<'_> {
    #[inline(always)]
    fn read(&self, read: &Read<S>) -> Pair<S> {
        read.join(self.0, self.1)
    }

    #[inline(always)]
    fn write(&mut self, write: &Write<S>, _: RandomBits<S>, values: Pair<S>) {
        write.split(self.0, self.1, values);
    }
}

/// Rounded at random.
pub(super) struct Stochastic<'s>(pub &'s mut [bf16]);

impl<S: Simd> ParamColumn<S> for Stochastic<'_> {
    const IS_RANDOM: bool = true;

    #[inline(always)]
    fn read(&self, read: &Read<S>) -> Pair<S> {
        read.widen(self.0)
    }

    #[inline(always)]
    fn write(&mut self, write: &Write<S>, random: RandomBits<S>, values: Pair<S>) {
        write.stochastic(self.0, values, random);
    }
}

/// Arrays for steps in which all are in bf16. Two neighbours are a word of 32 bits: the upper half is an `f32` after a
/// mask, the lower half after a shift. So one register takes the even elements and one the odd ones, and no number
/// moves to another lane. Parameters and moments are rounded at random.
pub(super) struct EvenAndOdd<T>(pub T);

impl<S: Simd> GradColumn<S> for EvenAndOdd<&[bf16]> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn read(&self, read: &Read<S>) -> Pair<S> {
        read.widen_even_and_odd(self.0)
    }
}

impl<S: Simd> ParamColumn<S> for EvenAndOdd<&mut [bf16]> {
    const IS_RANDOM: bool = true;

    #[inline(always)]
    fn read(&self, read: &Read<S>) -> Pair<S> {
        read.widen_even_and_odd(self.0)
    }

    #[inline(always)]
    fn write(&mut self, write: &Write<S>, random: RandomBits<S>, values: Pair<S>) {
        write.stochastic_even_and_odd(self.0, values, random);
    }
}

impl<S: Simd> MomentColumn<S> for EvenAndOdd<&mut [bf16]> {
    const IS_RANDOM: bool = true;

    #[inline(always)]
    fn read(&self, read: &Read<S>, _: Q8) -> Pair<S> {
        read.widen_even_and_odd(self.0)
    }

    #[inline(always)]
    fn write(&mut self, write: &Write<S>, _: Q8, random: RandomBits<S>, values: Pair<S>) {
        write.stochastic_even_and_odd(self.0, values, random);
    }
}

/// A moment.
pub(super) trait MomentColumn<S: Simd> {
    /// Whether random bits are taken.
    const IS_RANDOM: bool;
    /// Whether the new values become codes after the loop.
    const IN_BLOCKS: bool = false;

    fn read(&self, read: &Read<S>, format: Q8) -> Pair<S>;
    fn write(&mut self, write: &Write<S>, format: Q8, random: RandomBits<S>, values: Pair<S>);

    /// The work that is left after the loop. `behind` has the random bits of the last element, if that is the first of
    /// its pair.
    #[inline(always)]
    fn end(&mut self, _behind: Option<RandomBits<S>>) {}
}

impl<S: Simd> MomentColumn<S> for &mut [f32] {
    const IS_RANDOM: bool = false;

    #[inline(always)]
    fn read(&self, read: &Read<S>, _: Q8) -> Pair<S> {
        read.widen(self)
    }

    #[inline(always)]
    fn write(&mut self, write: &Write<S>, _: Q8, _: RandomBits<S>, values: Pair<S>) {
        write.narrow(self, values);
    }
}

impl<S: Simd> MomentColumn<S> for &mut [bf16] {
    const IS_RANDOM: bool = true;

    #[inline(always)]
    fn read(&self, read: &Read<S>, _: Q8) -> Pair<S> {
        read.widen(self)
    }

    #[inline(always)]
    fn write(&mut self, write: &Write<S>, _: Q8, random: RandomBits<S>, values: Pair<S>) {
        write.stochastic(self, values, random);
    }
}

/// Codes of a block with their scale, and where the new values go.
pub(super) struct Block<'s, S: Simd> {
    codes: &'s [u8],
    scale: f32,
    values: &'s mut [f32],
    /// The random bits of the new values, and room for a register of pairs after them.
    random: &'s mut [u16],
    largest: Words<S>,
    largest_of_all: &'s mut u32,
}

impl<S: Simd> MomentColumn<S> for Block<'_, S> {
    const IS_RANDOM: bool = true;
    const IN_BLOCKS: bool = true;

    #[inline(always)]
    fn read(&self, read: &Read<S>, format: Q8) -> Pair<S> {
        read.decode(format, self.codes, self.scale)
    }

    /// The largest value and the random bits are found here, while the CPU waits for roots and quotients.
    #[inline(always)]
    fn write(&mut self, write: &Write<S>, format: Q8, random: RandomBits<S>, values: Pair<S>) {
        let Wide(registers) = values;
        self.largest = format.largest(self.largest, registers);
        random.store(&mut self.random[write.range.clone()]);
        write.narrow(self.values, values);
    }

    #[inline(always)]
    fn end(&mut self, behind: Option<RandomBits<S>>) {
        *self.largest_of_all = self.largest.fold(u32::max);
        if let Some(random) = behind {
            random.store(&mut self.random[self.values.len()..]);
        }
    }
}

/// The moments of some elements. One that the rule does not use is empty.
pub(super) struct Moments<'s> {
    pub arrays: [MomentArray<'s>; MOMENTS],
    /// Memory for the new values of 8-bit moments. They become codes once the largest value of the block is known.
    pub blocks: [&'s mut MomentBlock; MOMENTS],
    pub in_block: Range<usize>,
}

/// Four moments that are of one type or empty. Not by `map`, which would be a call.
macro_rules! all_of {
    ($type:ident, $moments:expr) => {{
        let [a, b, c, d] = $moments;
        all_of!($type, a, b, c, d)
    }};
    ($type:ident, $($moment:ident),+) => {
        [$(match $moment {
            MomentArray::$type(moment) => moment,
            _ => &mut [],
        }),+]
    };
}

impl<'s> Moments<'s> {
    #[inline(always)]
    pub(super) fn f32(self) -> [&'s mut [f32]; MOMENTS] {
        all_of!(F32, self.arrays)
    }

    #[inline(always)]
    pub(super) fn bf16(self) -> [&'s mut [bf16]; MOMENTS] {
        all_of!(Bf16, self.arrays)
    }

    #[inline(always)]
    pub(super) fn even_and_odd(self) -> [EvenAndOdd<&'s mut [bf16]>; MOMENTS] {
        let [a, b, c, d] = self.bf16();
        [EvenAndOdd(a), EvenAndOdd(b), EvenAndOdd(c), EvenAndOdd(d)]
    }

    #[inline(always)]
    pub(super) fn blocks<S: Simd>(self, simd: S) -> [Block<'s, S>; MOMENTS] {
        let Self { arrays: [a, b, c, d], blocks: [of_a, of_b, of_c, of_d], in_block } = self;
        macro_rules! of {
            ($moment:ident, $block:ident) => {{
                let (codes, scale): (&[u8], f32) = match $moment {
                    MomentArray::Q8(codes, [scale, ..]) => (codes, *scale),
                    _ => (&[], 0.0),
                };
                Block {
                    codes,
                    scale,
                    values: &mut $block.values[in_block.clone()],
                    random: &mut $block.random.pairs()[..in_block.len() + 2 * MOST_LANES],
                    largest: Words::splat(simd, 0),
                    largest_of_all: &mut $block.largest,
                }
            }};
        }
        [of!(a, of_a), of!(b, of_b), of!(c, of_c), of!(d, of_d)]
    }
}
