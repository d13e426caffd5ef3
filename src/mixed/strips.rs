//! A tensor as strips of `f32`, whatever its arrays hold.

mod read;
mod write;

use core::ops::Range;

use super::{
    MixedStep,
    columns::Moments,
    convert::STRIP,
    in_loop::{Arrays, Loop},
};
use crate::{
    array::{BLOCK, Draw, GradArray, MomentArray, ParamArray, RandomBlock},
    rule::MOMENTS,
    simd::{Simd, TOGETHER, WithSimd, Words},
    tensor::TensorArrays,
};

/// The most elements that share a [`Draw`]; it takes fewer than 2^33.
const RUN: usize = 1 << 30;

/// The most elements of a strip that only has its gradients zeroed afterwards: 8 KiB of gradients, which are still in
/// the first cache then.
const ZEROED: usize = 2 << 10;

/// Memory for `f32` copies of arrays in other types, aligned to cache lines.
#[repr(align(64))]
pub(super) struct Scratch {
    param: [f32; STRIP],
    grad: [f32; STRIP],
    moments: [MomentBlock; MOMENTS],
    /// The random bits of a block.
    random: RandomBlock,
}

/// The new values of a block of a moment. They are kept until the end of the block, since the scale of 8 bits is known
/// only then.
pub(super) struct MomentBlock {
    pub values: [f32; BLOCK],
    /// The random bits of the values. This and `largest`, the bits of the largest value, are written by loops that take
    /// a whole block of 8 bits.
    pub random: RandomBlock,
    pub largest: u32,
}

impl MomentBlock {
    const fn new() -> Self {
        Self { values: [0.0; BLOCK], random: RandomBlock::new(), largest: 0 }
    }
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            param: [0.0; STRIP],
            grad: [0.0; STRIP],
            moments: [const { MomentBlock::new() }; MOMENTS],
            random: RandomBlock::new(),
        }
    }
}

/// Some elements of a tensor in `f32`, padded with zeros to whole pairs of registers. A moment that the rule does not
/// use is empty.
pub(super) struct Strip<'s> {
    pub param: &'s mut [f32],
    pub grad: &'s [f32],
    pub moments: [&'s mut [f32]; MOMENTS],
}

/// The strips of a tensor, one after the other.
pub(super) struct Strips<'a, 's> {
    step: &'s MixedStep,
    tensor: TensorArrays<'a>,
    scratch: &'s mut Scratch,
    has_blocks: bool,
    /// Whether all moments are in `f32`, and stay as the rule leaves them.
    plain_moments: bool,
    /// Whether all arrays are in `f32`.
    is_plain: bool,
    /// The rule's loop that converts the arrays, if there is one.
    in_loop: Option<Loop>,
    /// The most elements of a strip that needs no conversion.
    most: usize,
    /// The strip that is open; none before the first one.
    start: usize,
    len: usize,
    /// Whether arrays in `f32` are stepped in place: the strip is of whole pairs of registers.
    in_place: bool,
    /// The number of elements before those of the rule's loop: 1 if it rounds at random and the first element is an
    /// odd one, since pairs of random bits begin with even ones.
    alone: usize,
    /// The random bits of a run, and its first element.
    draw: Draw,
    drawn_from: usize,
}

impl<'a, 's> Strips<'a, 's> {
    pub(super) fn new(
        step: &'s MixedStep,
        tensor: TensorArrays<'a>,
        scratch: &'s mut Scratch,
        in_loop: bool,
    ) -> Self {
        let is_f32 = |moment: &MomentArray<'_>| matches!(moment, MomentArray::F32(_));
        let is_blocked = |moment: &MomentArray<'_>| matches!(moment, MomentArray::Q8(..));
        let has_blocks = tensor.moments.iter().any(is_blocked);
        let plain_moments = tensor.moments.iter().all(is_f32) && !step.flush_subnormals;
        let is_plain = plain_moments
            && matches!(tensor.param, ParamArray::F32(_))
            && matches!(tensor.grad, GradArray::F32(_) | GradArray::F32ToZero(_));
        let in_loop = (in_loop && !step.flush_subnormals).then(|| Loop::of(&tensor)).flatten();
        let is_kept =
            matches!(tensor.grad, GradArray::F32(_) | GradArray::Bf16(_) | GradArray::F16(_));
        let zeroes_in_loop = in_loop.is_some_and(Loop::zeroes);
        let most = match has_blocks {
            true => STRIP,
            false if is_kept || zeroes_in_loop => RUN,
            false => ZEROED,
        };
        // Blocks of 8 bits begin with the first element, so that none can be left out.
        let pairs_up = in_loop.is_some_and(Loop::is_random) && !has_blocks;
        let alone = usize::from(pairs_up && !tensor.first.is_multiple_of(2));
        let draw = step.random.from(tensor.first, RUN.min(tensor.param.len()));
        let (start, len, in_place) = (0, 0, true);
        Self {
            step,
            tensor,
            scratch,
            has_blocks,
            plain_moments,
            is_plain,
            in_loop,
            most,
            start,
            len,
            in_place,
            alone,
            draw,
            drawn_from: 0,
        }
    }

    /// Closes the open strip and opens the next; false if there is none. Not inlined: each loop of each rule would have
    /// a copy.
    #[inline(never)]
    pub(super) fn turn(&mut self) -> bool {
        self.step.cpu.run(Turn { strips: self })
    }

    /// The loop that takes the arrays of the open strip as they are, if there is one.
    pub(super) fn in_loop(&self) -> Option<Loop> {
        let draw = &self.draw;
        self.in_loop.filter(|kind| {
            let has_bits = match kind {
                _ if kind.is_random() => draw.has_one_source() && !draw.is_second(self.place()),
                Loop::Q8(_) => draw.has_one_source(),
                _ => true,
            };
            self.in_place && has_bits
        })
    }

    /// Draws the random bits of a run, of which the next strip is the first.
    fn draw(&mut self) {
        let first = self.tensor.first.wrapping_add(self.start as u64);
        let left = self.tensor.param.len() - self.start;
        self.draw = self.step.random.from(first, RUN.min(left));
        self.drawn_from = self.start;
    }

    /// The place of the open strip in the run of `draw`.
    fn place(&self) -> usize {
        self.start - self.drawn_from
    }

    fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }

    #[inline(always)]
    fn close<S: Simd>(&mut self, simd: S) {
        if self.len == 0 {
            return;
        }
        let in_loop = self.in_loop();
        if in_loop.is_none() {
            self.narrow_param(simd);
            self.narrow_moments(simd);
        }
        if !in_loop.is_some_and(Loop::zeroes) {
            self.zero_grad();
        }
        let end = self.start + self.len;
        if self.has_blocks && (end.is_multiple_of(BLOCK) || end == self.tensor.param.len()) {
            let is_in_loop = in_loop.is_some() && self.len == BLOCK;
            self.close_block(simd, (end - 1) / BLOCK * BLOCK..end, is_in_loop);
        }
    }

    #[inline(always)]
    fn open<S: Simd>(&mut self, simd: S) -> bool {
        let pair = TOGETHER * Words::<S>::LANES;
        self.start += self.len;
        let left = self.tensor.param.len() - self.start;
        if self.place() == RUN || (self.start == self.alone && self.drawn_from != self.alone) {
            self.draw();
        }
        let is_alone = self.start < self.alone;
        self.in_place = left >= pair && !is_alone;
        let converts = !(self.is_plain && self.in_place) && self.in_loop().is_none();
        let most = if converts { STRIP } else { self.most };
        self.len = match self.in_place {
            true => (left / pair * pair).min(most - self.place() % most),
            false if is_alone => left.min(self.alone),
            false => left,
        };
        if self.len > 0 && converts {
            self.widen(simd);
        }
        self.len > 0
    }

    /// The arrays of the open strip as they are, for the rule's loop.
    #[inline(always)]
    pub(super) fn arrays(&mut self) -> Arrays<'_> {
        let zeroes = self.in_loop().is_some_and(Loop::zeroes);
        let range = self.range();
        let place = self.place();
        let in_block = place % BLOCK..place % BLOCK + range.len().min(STRIP);
        let Self { tensor, scratch, draw, .. } = self;
        let TensorArrays { param, grad, moments: [a, b, c, d], .. } = tensor;
        let [of_a, of_b, of_c, of_d] = &mut scratch.moments;
        Arrays {
            param: param.slice_mut(range.clone()),
            grad: match grad.slice_mut(range.clone()) {
                grad if zeroes => grad,
                // They are zeroed when the strip is closed.
                GradArray::F32ToZero(grad) => GradArray::F32(grad),
                GradArray::Bf16ToZero(grad) => GradArray::Bf16(grad),
                GradArray::F16ToZero(grad) => GradArray::F16(grad),
                grad => grad,
            },
            moments: Moments {
                // Not by `map`, which would be a call.
                arrays: [slice(a, &range), slice(b, &range), slice(c, &range), slice(d, &range)],
                blocks: [of_a, of_b, of_c, of_d],
                in_block,
            },
            draw,
            place,
        }
    }

    /// The strip that is open, as `f32`.
    #[inline(always)]
    pub(super) fn strip<S: Simd>(&mut self) -> Strip<'_> {
        let (range, in_place) = (self.range(), self.in_place);
        let len = if in_place { self.len } else { TOGETHER * Words::<S>::LANES };
        let offset = self.place() % BLOCK;
        let Self { tensor, scratch, .. } = self;
        let mut moments: [&mut [f32]; MOMENTS] = Default::default();
        for ((slot, array), block) in
            moments.iter_mut().zip(&mut tensor.moments).zip(&mut scratch.moments)
        {
            *slot = match array {
                MomentArray::F32([]) => continue,
                MomentArray::F32(array) if in_place => &mut array[range.clone()],
                _ => &mut block.values[offset..offset + len],
            };
        }
        Strip {
            param: match &mut tensor.param {
                ParamArray::F32(array)
                | ParamArray::F32AndBf16(array, _)
                | ParamArray::F32AndF16(array, _)
                    if in_place =>
                {
                    &mut array[range.clone()]
                }
                _ => &mut scratch.param[..len],
            },
            grad: match &tensor.grad {
                GradArray::F32(array) if in_place => &array[range],
                GradArray::F32ToZero(array) if in_place => &array[range],
                _ => &scratch.grad[..len],
            },
            moments,
        }
    }
}

/// Some elements of a moment; none if the rule does not use the moment.
#[inline(always)]
fn slice<'s>(moment: &'s mut MomentArray<'_>, range: &Range<usize>) -> MomentArray<'s> {
    match moment {
        MomentArray::F32([]) => MomentArray::F32(&mut []),
        moment => moment.slice_mut(range.clone()),
    }
}

/// The work between two strips, [`Strips::turn`], on an instruction set.
struct Turn<'t, 'a, 's> {
    strips: &'t mut Strips<'a, 's>,
}

impl WithSimd for Turn<'_, '_, '_> {
    type Output = bool;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> bool {
        self.strips.close(simd);
        self.strips.open(simd)
    }
}
