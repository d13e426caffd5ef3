//! A tensor as strips of `f32`, whatever its arrays hold.

use core::ops::Range;

use super::{
    MixedStep,
    convert::{self, STRIP},
};
use crate::{
    array::{BLOCK, Draw, GradArray, Half, MomentArray, ParamArray},
    kernel::TOGETHER,
    simd::{Lanes, Simd, Vector, WithSimd, Words},
    tensor::{MOMENTS, TensorArrays},
};

/// The random bits of the parameters; those of the moments are numbered from 0, and two moments share
/// the same ones.
const PARAM: u32 = u32::MAX;

/// Pairs of moments that share random bits.
const PAIRS: usize = MOMENTS.div_ceil(2);

/// Elements whose random bits have one source: less than 2^32 are.
const RUN: usize = 1 << 30;

/// Memory for what is not in `f32`, on cache lines.
#[repr(align(64))]
pub(super) struct Scratch {
    param: [f32; STRIP],
    grad: [f32; STRIP],
    random: [u32; STRIP],
    /// A block of each moment: the scale of moments of 8 bits is known at its end.
    moments: [[f32; BLOCK]; MOMENTS],
    /// The random bits of a block, for each pair of moments.
    of_pairs: [[u32; BLOCK]; PAIRS],
    words: [u32; BLOCK],
}

impl Scratch {
    pub(super) fn new() -> Self {
        Self {
            param: [0.0; STRIP],
            grad: [0.0; STRIP],
            random: [0; STRIP],
            moments: [[0.0; BLOCK]; MOMENTS],
            of_pairs: [[0; BLOCK]; PAIRS],
            words: [0; BLOCK],
        }
    }
}

/// Elements of a tensor in `f32`, whole pairs of registers: the elements and zeros. A moment that the rule
/// does without is empty.
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
    /// Whether a pair of moments takes random bits.
    draws: [bool; PAIRS],
    has_blocks: bool,
    /// Whether all moments are in `f32`, and stay as the rule leaves them.
    plain_moments: bool,
    /// The most elements of a strip: all, where there is nothing to do between strips.
    most: usize,
    /// The strip that is open; none before the first one.
    start: usize,
    len: usize,
    /// Whether arrays in `f32` are stepped in place: the strip is of whole pairs of registers.
    in_place: bool,
    draw: Draw,
}

impl<'a, 's> Strips<'a, 's> {
    pub(super) fn new(
        step: &'s MixedStep,
        tensor: TensorArrays<'a>,
        scratch: &'s mut Scratch,
    ) -> Self {
        let mut draws = [false; PAIRS];
        for (position, moment) in tensor.moments.iter().enumerate() {
            draws[position / 2] |= !matches!(moment, MomentArray::F32(_));
        }
        let is_blocked = |moment: &MomentArray<'_>| matches!(moment, MomentArray::Q8(..));
        let has_blocks = tensor.moments.iter().any(is_blocked);
        let plain_moments = draws == [false; PAIRS] && !step.flush_subnormals;
        let is_plain =
            matches!((&tensor.param, &tensor.grad), (ParamArray::F32(_), GradArray::F32(_)));
        let most = match is_plain && plain_moments {
            true => usize::MAX,
            false => STRIP,
        };
        let draw = step.random.from(tensor.first, RUN);
        let (start, len, in_place) = (0, 0, true);
        Self {
            step,
            tensor,
            scratch,
            draws,
            has_blocks,
            plain_moments,
            most,
            start,
            len,
            in_place,
            draw,
        }
    }

    /// Writes the open strip back, and opens the next one.
    #[inline(always)]
    pub(super) fn next<S: Simd>(&mut self) -> Option<Strip<'_>> {
        // Not in `turn`: six slices that are written one by one and read as a whole stall the CPU.
        self.turn().then(
            #[inline(always)]
            || self.strip(TOGETHER * Words::<S>::LANES),
        )
    }

    /// What is done between strips; whether there is another one. Inlined, it would be there for each rule
    /// and each kind of its settings.
    #[inline(never)]
    fn turn(&mut self) -> bool {
        self.step.cpu.run(Turn { strips: self })
    }

    fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }

    #[inline(always)]
    fn close<S: Simd>(&mut self, simd: S) {
        if self.len == 0 {
            return;
        }
        self.close_moments(simd);
        let (range, in_place) = (self.range(), self.in_place);
        let Self { tensor, scratch, .. } = self;
        let values = &scratch.param[..range.len().min(STRIP)];
        match &mut tensor.param {
            ParamArray::F32(array) if !in_place => array[range.clone()].copy_from_slice(values),
            ParamArray::F32(_) | ParamArray::F64(_) => {}
            ParamArray::F32AndBf16(array, copy) => {
                if !in_place {
                    array[range.clone()].copy_from_slice(values);
                }
                convert::narrow(simd, &array[range.clone()], &mut copy[range.clone()]);
            }
            ParamArray::F32AndF16(array, copy) => {
                if !in_place {
                    array[range.clone()].copy_from_slice(values);
                }
                convert::narrow(simd, &array[range.clone()], &mut copy[range.clone()]);
            }
            ParamArray::Halves(high, low) => {
                convert::split(simd, values, &mut high[range.clone()], &mut low[range.clone()]);
            }
            ParamArray::Bf16(array) => convert::narrow(simd, values, &mut array[range.clone()]),
            ParamArray::Bf16Stochastic(array) => {
                let random = &mut scratch.random;
                draw(simd, &self.draw, PARAM, range.start % RUN, range.len(), random);
                let array = &mut array[range.clone()];
                convert::narrow_stochastic(simd, values, random, Half::Lower, array);
            }
            ParamArray::F16(array) => convert::narrow(simd, values, &mut array[range.clone()]),
        }
        match &mut tensor.grad {
            GradArray::F32ToZero(grad) => grad[range].fill(0.0),
            GradArray::Bf16ToZero(grad) => grad[range].fill(half::bf16::ZERO),
            GradArray::F16ToZero(grad) => grad[range].fill(half::f16::ZERO),
            GradArray::F32(_) | GradArray::Bf16(_) | GradArray::F16(_) => {}
            // Steps in f64 go another way.
            GradArray::F64(_) | GradArray::F64ToZero(_) => {}
        }
    }

    #[inline(always)]
    fn close_moments<S: Simd>(&mut self, simd: S) {
        if self.plain_moments && self.in_place {
            return;
        }
        let (range, in_place) = (self.range(), self.in_place);
        let offset = range.start % BLOCK;
        let in_block = offset..offset + range.len();
        let Self { step, tensor, scratch, draws, .. } = self;
        for (pair, random) in scratch.of_pairs.iter_mut().enumerate() {
            if draws[pair] {
                let random = &mut random[offset..];
                draw(simd, &self.draw, pair as u32, range.start % RUN, range.len(), random);
            }
        }
        for (position, moment) in tensor.moments.iter_mut().enumerate() {
            if moment.len() == 0 {
                continue;
            }
            let values = &mut scratch.moments[position][in_block.clone()];
            if step.flush_subnormals {
                match moment {
                    MomentArray::F32(array) if in_place => flush(simd, &mut array[range.clone()]),
                    _ => flush(simd, values),
                }
            }
            let random = &scratch.of_pairs[position / 2][offset..];
            match moment {
                MomentArray::F32(array) if !in_place => {
                    array[range.clone()].copy_from_slice(values);
                }
                MomentArray::Bf16(array) => {
                    let array = &mut array[range.clone()];
                    convert::narrow_stochastic(simd, values, random, half_of(position), array);
                }
                MomentArray::F16(array) => {
                    let (format, half) = (step.formats[position], half_of(position));
                    let array = &mut array[range.clone()];
                    convert::narrow_stochastic_f16(simd, format, values, random, half, array);
                }
                // Moments of 8 bits follow at the end of their block.
                _ => {}
            }
        }
        let ends = range.end.is_multiple_of(BLOCK) || range.end == tensor.param.len();
        if self.has_blocks && ends {
            self.close_block(simd, (range.end - 1) / BLOCK * BLOCK..range.end);
        }
    }

    /// The values of a block of each moment of 8 bits, as codes and a scale.
    #[inline(always)]
    fn close_block<S: Simd>(&mut self, simd: S, block: Range<usize>) {
        let Self { step, tensor, scratch, .. } = self;
        let Scratch { moments, of_pairs, words, .. } = &mut **scratch;
        for (position, moment) in tensor.moments.iter_mut().enumerate() {
            let MomentArray::Q8(codes, scales) = moment else { continue };
            let (values, random) = (&mut moments[position], &of_pairs[position / 2]);
            let format = step.formats[position];
            let largest = format.largest_of(simd, &values[..block.len()]);
            let encoder = format.encoder(largest, half_of(position));
            scales[block.start / BLOCK] = encoder.scale;
            let codes = &mut codes[block.clone()];
            match codes.first_chunk_mut() {
                Some(codes) => encoder.narrow(simd, codes, values, random, words),
                None => {
                    let mut whole = [0; BLOCK];
                    encoder.narrow(simd, &mut whole, values, random, words);
                    codes.copy_from_slice(&whole[..codes.len()]);
                }
            }
        }
    }

    #[inline(always)]
    fn open<S: Simd>(&mut self, simd: S) -> bool {
        let pair = TOGETHER * Words::<S>::LANES;
        self.start += self.len;
        let left = self.tensor.param.len() - self.start;
        self.len = match left < pair {
            true => left,
            false => (left / pair * pair).min(self.most),
        };
        self.in_place = left >= pair;
        if self.len == 0 {
            return false;
        }
        if self.start.is_multiple_of(RUN) {
            let first = self.tensor.first.wrapping_add(self.start as u64);
            self.draw = self.step.random.from(first, RUN);
        }
        if self.most > STRIP && self.in_place {
            return true;
        }
        let (range, in_place) = (self.range(), self.in_place);
        let offset = range.start % BLOCK;
        let Self { step, tensor, scratch, .. } = self;
        if !in_place {
            scratch.param.fill(0.0);
            scratch.grad.fill(0.0);
            for values in &mut scratch.moments {
                values[offset..].fill(0.0);
            }
        }
        let (param, grad) = (&mut scratch.param, &mut scratch.grad);
        match &tensor.param {
            ParamArray::F32(array)
            | ParamArray::F32AndBf16(array, _)
            | ParamArray::F32AndF16(array, _) => {
                if !in_place {
                    param[..range.len()].copy_from_slice(&array[range.clone()]);
                }
            }
            ParamArray::Halves(high, low) => {
                convert::join(simd, &high[range.clone()], &low[range.clone()], param);
            }
            ParamArray::Bf16(array) | ParamArray::Bf16Stochastic(array) => {
                convert::widen(simd, &array[range.clone()], param);
            }
            ParamArray::F16(array) => convert::widen(simd, &array[range.clone()], param),
            ParamArray::F64(_) => {}
        }
        match &tensor.grad {
            GradArray::F32(array) if !in_place => {
                grad[..range.len()].copy_from_slice(&array[range.clone()]);
            }
            GradArray::F32ToZero(array) if !in_place => {
                grad[..range.len()].copy_from_slice(&array[range.clone()]);
            }
            GradArray::Bf16(array) => convert::widen(simd, &array[range.clone()], grad),
            GradArray::Bf16ToZero(array) => convert::widen(simd, &array[range.clone()], grad),
            GradArray::F16(array) => convert::widen(simd, &array[range.clone()], grad),
            GradArray::F16ToZero(array) => convert::widen(simd, &array[range.clone()], grad),
            GradArray::F32(_) | GradArray::F32ToZero(_) => {}
            GradArray::F64(_) | GradArray::F64ToZero(_) => {}
        }
        if self.plain_moments && in_place {
            return true;
        }
        for (position, moment) in tensor.moments.iter().enumerate() {
            let values = &mut scratch.moments[position][offset..];
            match moment {
                MomentArray::F32(array) if !in_place && !array.is_empty() => {
                    values[..range.len()].copy_from_slice(&array[range.clone()]);
                }
                MomentArray::F32(_) | MomentArray::F64(_) => {}
                MomentArray::Bf16(array) => convert::widen(simd, &array[range.clone()], values),
                MomentArray::F16(array) => convert::widen(simd, &array[range.clone()], values),
                MomentArray::Q8(codes, scales) => {
                    let (format, scale) = (step.formats[position], scales[range.start / BLOCK]);
                    convert::decode(simd, format, &codes[range.clone()], scale, values);
                }
            }
        }
        true
    }

    /// The strip that is open.
    #[inline(always)]
    fn strip(&mut self, pair: usize) -> Strip<'_> {
        let (range, in_place) = (self.range(), self.in_place);
        let len = if in_place { self.len } else { pair };
        let offset = range.start % BLOCK;
        let Self { tensor, scratch, .. } = self;
        let mut moments: [&mut [f32]; MOMENTS] = Default::default();
        for ((slot, array), values) in
            moments.iter_mut().zip(&mut tensor.moments).zip(&mut scratch.moments)
        {
            *slot = match array {
                MomentArray::F32([]) => continue,
                MomentArray::F32(array) if in_place => &mut array[range.clone()],
                _ => &mut values[offset..offset + len],
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

/// What is done between the rule's strips, in one call.
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

/// The random bits of some elements, the first of which has a place in the run of `draw`; and of those
/// behind them, up to whole pairs of registers.
#[inline(always)]
fn draw<S: Simd>(simd: S, draw: &Draw, stream: u32, place: usize, len: usize, random: &mut [u32]) {
    let mut start = 0;
    while start < len {
        for words in draw.bits::<S, TOGETHER>(simd, stream, place + start) {
            words.store(&mut random[start..start + Words::<S>::LANES]);
            start += Words::<S>::LANES;
        }
    }
}

/// Makes subnormal numbers zero, and -0 with them.
#[inline(always)]
fn flush<S: Simd>(simd: S, values: &mut [f32]) {
    let (smallest, zero) = (Vector::splat(simd, f32::MIN_POSITIVE), Vector::splat(simd, 0.0));
    for values in values.chunks_mut(Words::<S>::LANES) {
        let value = Vector::read(simd, values);
        Vector::select(value.abs().less_than(smallest), zero, value).write(values);
    }
}

/// Which half of the random bits of its pair a moment has.
#[inline(always)]
fn half_of(position: usize) -> Half {
    if position.is_multiple_of(2) { Half::Lower } else { Half::Upper }
}
