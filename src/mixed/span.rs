//! The arrays of a tensor in mixed precision, as the registers that the one loop wants.

use core::ops::Range;

use pulp::Simd;

use super::{
    lot::{self, LOT, Lot, lanes},
    sweep::MixedStep,
};
use crate::{
    Arity, Many, Rule,
    array::{GradArray, MomentArray, ParamArray},
    element::{BLOCK, Draw, Half, Q8},
    kernel::{Arrays, Values, sweep_arrays},
    lanes::{Lanes, Vector, Wide},
    tensor::TensorArrays,
    words::Words,
};

/// The random bits of the parameters; those of the moments are numbered from 0, and two moments share
/// the same ones.
const PARAM: u32 = u32::MAX;

/// Moments of 8 bits on their way from the formula to their codes, a block of each: the scale of a
/// block is known at its end.
pub(super) struct Blocks<R: Rule> {
    values: Many<R::Moments, [f32; BLOCK]>,
    /// For every second moment, its own and the next one's.
    random: Many<R::Moments, [u32; BLOCK]>,
    words: [u32; BLOCK],
}

impl<R: Rule> Blocks<R> {
    pub(super) fn new() -> Self {
        Self {
            values: R::Moments::from_fn(|_| [0.0; BLOCK]),
            random: R::Moments::from_fn(|_| [0; BLOCK]),
            words: [0; BLOCK],
        }
    }
}

/// A tensor of whole blocks or lots, of which all elements or the first ones count.
pub(super) struct Span<'a, S: Simd, R: Rule> {
    simd: S,
    rule: R,
    step: &'a MixedStep<'a, R>,
    factor: Lot<S>,
    tensor: TensorArrays<'a, R>,
    len: usize,
    /// Whether a moment or the one behind it takes random bits, and whether at the end of a block.
    draws: Many<R::Moments, (bool, bool)>,
    blocks: &'a mut Blocks<R>,
    /// The run of elements in hand, a block if there are any: its first element, the number of its
    /// lots, and its random bits.
    start: usize,
    lots: usize,
    draw: Draw,
    /// The scales of the block in hand, and the largest elements so far.
    scales: Many<R::Moments, Vector<S, f32>>,
    largest: Many<R::Moments, Words<S>>,
}

/// Elements of a run whose random bits have one source: less than 2^32 are.
const RUN: usize = 1 << 30;

impl<'a, S: Simd, R: Rule> Span<'a, S, R> {
    #[inline(always)]
    pub(super) fn new(
        simd: S,
        rule: R,
        step: &'a MixedStep<'a, R>,
        blocks: &'a mut Blocks<R>,
        tensor: TensorArrays<'a, R>,
        len: usize,
    ) -> Self {
        let mut draws = R::Moments::from_fn(|_| (false, false));
        for (position, moment) in tensor.moments.as_ref().iter().enumerate() {
            let (draws, keeps) = &mut draws.as_mut()[position / 2 * 2];
            *draws |= !matches!(moment, MomentArray::F32(_));
            *keeps |= matches!(moment, MomentArray::Q8(..));
        }
        Self {
            simd,
            rule,
            step,
            factor: lot::splat(simd, step.grad_factor.into()),
            draw: step.random.from(tensor.first, 1),
            tensor,
            len,
            draws,
            blocks,
            start: 0,
            lots: 0,
            scales: R::Moments::from_fn(
                #[inline(always)]
                |_| Vector::splat(simd, 0.0),
            ),
            largest: R::Moments::from_fn(
                #[inline(always)]
                |_| Words::splat(simd, 0),
            ),
        }
    }

    /// Takes the step.
    #[inline(always)]
    pub(super) fn sweep(&mut self, k: &Many<R::Constants, Lot<S>>, has_blocks: bool) {
        while self.start < self.len {
            let len = (self.len - self.start).min(if has_blocks { BLOCK } else { RUN });
            let first = self.tensor.first.wrapping_add(self.start as u64);
            self.draw = self.step.random.from(first, len);
            self.lots = len.div_ceil(lanes::<S>());
            if has_blocks {
                self.begin_blocks();
            }
            // The loop is large, and so it is there once: `prefetch` finds out whether to ask.
            sweep_arrays::<R, _, _, true>(self.rule, k, self);
            if has_blocks {
                self.end_blocks(len);
            }
            self.start += len;
        }
    }

    #[inline(always)]
    fn begin_blocks(&mut self) {
        R::Moments::unrolled(
            #[inline(always)]
            |position| {
                if let MomentArray::Q8(_, scales) = &self.tensor.moments.as_ref()[position]
                    && let Some(&scale) = scales.get(self.start / BLOCK)
                {
                    self.scales.as_mut()[position] = Vector::splat(self.simd, scale);
                    self.largest.as_mut()[position] = Words::splat(self.simd, 0);
                }
            },
        );
    }

    /// The values of a block of each moment of 8 bits, as codes and a scale.
    #[inline(always)]
    fn end_blocks(&mut self, len: usize) {
        let Blocks { values, random, words } = &mut *self.blocks;
        let mut encoders = R::Moments::from_fn(|_| None);
        R::Moments::unrolled(
            #[inline(always)]
            |position| {
                if let MomentArray::Q8(_, scales) = &mut self.tensor.moments.as_mut()[position]
                    && let Some(scale) = scales.get_mut(self.start / BLOCK)
                {
                    let format = Q8::of(&self.rule, position);
                    let largest = match len {
                        BLOCK => self.largest.as_ref()[position],
                        // Less what the zeros behind the last element have become.
                        len => format.largest_of(self.simd, &values.as_ref()[position][..len]),
                    };
                    let encoder = format.encoder(largest, stream_of(position).1);
                    *scale = encoder.scale;
                    encoders.as_mut()[position] = Some(encoder);
                }
            },
        );
        R::Moments::unrolled(
            #[inline(always)]
            |position| {
                if let Some(encoder) = encoders.as_ref()[position]
                    && let MomentArray::Q8(codes, _) = &mut self.tensor.moments.as_mut()[position]
                    && let Some(codes) = codes.get_mut(self.start..)
                    && let Some(codes) = codes.first_chunk_mut()
                {
                    let random = &random.as_ref()[position / 2 * 2];
                    let values = &mut values.as_mut()[position];
                    encoder.narrow(self.simd, codes, values, random, words);
                }
            },
        );
    }

    /// The elements of a lot.
    #[inline(always)]
    fn place(&self, lot: usize) -> Range<usize> {
        let start = self.start + lot * lanes::<S>();
        start..start + lanes::<S>()
    }

    #[inline(always)]
    fn load_moment(&self, position: usize, place: Range<usize>) -> Lot<S> {
        let simd = self.simd;
        match &self.tensor.moments.as_ref()[position] {
            MomentArray::F32(moment) => lot::read(simd, &moment[place]),
            MomentArray::Bf16(moment) => lot::read(simd, &moment[place]),
            MomentArray::F16(moment) => lot::read(simd, &moment[place]),
            MomentArray::Q8(codes, _) => {
                let format = Q8::of(&self.rule, position);
                lot::decode(simd, format, &codes[place], self.scales.as_ref()[position])
            }
            MomentArray::F64(_) => lot::splat(simd, 0.0),
        }
    }

    #[inline(always)]
    fn store_moment(
        &mut self,
        position: usize,
        place: Range<usize>,
        mut value: Lot<S>,
        drawn: [Words<S>; LOT],
    ) {
        if self.step.flush_subnormals {
            let smallest = value.splat(f32::MIN_POSITIVE.into());
            value = Wide::select(value.abs().less_than(smallest), value.splat(0.0), value);
        }
        match &mut self.tensor.moments.as_mut()[position] {
            MomentArray::F32(moment) => lot::write(&mut moment[place], value),
            MomentArray::Bf16(moment) => {
                let (_, half) = stream_of(position);
                lot::write_stochastic(&mut moment[place], value, drawn, half);
            }
            MomentArray::F16(moment) => {
                let format = Q8::of(&self.rule, position);
                let (_, half) = stream_of(position);
                lot::write_stochastic_f16(&mut moment[place], value, format, drawn, half);
            }
            MomentArray::Q8(..) => {
                lot::write(&mut self.blocks.values.as_mut()[position][in_block(&place)], value);
                let largest = &mut self.largest.as_mut()[position];
                *largest = Q8::of(&self.rule, position).largest(*largest, value.0);
            }
            MomentArray::F64(_) => {}
        }
    }
}

/// The same elements, from the start of their block.
#[inline(always)]
fn in_block(place: &Range<usize>) -> Range<usize> {
    let start = place.start % BLOCK;
    start..start + place.len()
}

impl<S: Simd, R: Rule> Arrays<R, Lot<S>> for Span<'_, S, R> {
    #[inline(always)]
    fn prefetch(&self, register: usize) {
        if !self.step.prefetch {
            return;
        }
        let start = self.place(register).start;
        match &self.tensor.param {
            ParamArray::F32(param) => lot::prefetch::<S, _>(param, start),
            ParamArray::F32AndBf16(param, copy) => {
                lot::prefetch::<S, _>(param, start);
                lot::prefetch::<S, _>(copy, start);
            }
            ParamArray::F32AndF16(param, copy) => {
                lot::prefetch::<S, _>(param, start);
                lot::prefetch::<S, _>(copy, start);
            }
            ParamArray::Halves(high, low) => {
                lot::prefetch::<S, _>(high, start);
                lot::prefetch::<S, _>(low, start);
            }
            ParamArray::Bf16(param) | ParamArray::Bf16Stochastic(param) => {
                lot::prefetch::<S, _>(param, start);
            }
            ParamArray::F16(param) => lot::prefetch::<S, _>(param, start),
            ParamArray::F64(_) => {}
        }
        match &self.tensor.grad {
            GradArray::F32(grad) => lot::prefetch::<S, _>(grad, start),
            GradArray::F32ToZero(grad) => lot::prefetch::<S, _>(grad, start),
            GradArray::Bf16(grad) => lot::prefetch::<S, _>(grad, start),
            GradArray::Bf16ToZero(grad) => lot::prefetch::<S, _>(grad, start),
            GradArray::F16(grad) => lot::prefetch::<S, _>(grad, start),
            GradArray::F16ToZero(grad) => lot::prefetch::<S, _>(grad, start),
            GradArray::F64(_) | GradArray::F64ToZero(_) => {}
        }
        for moment in self.tensor.moments.as_ref() {
            match moment {
                MomentArray::F32(moment) => lot::prefetch::<S, _>(moment, start),
                MomentArray::Bf16(moment) => lot::prefetch::<S, _>(moment, start),
                MomentArray::F16(moment) => lot::prefetch::<S, _>(moment, start),
                MomentArray::Q8(codes, _) => lot::prefetch::<S, _>(codes, start),
                MomentArray::F64(_) => {}
            }
        }
    }

    #[inline(always)]
    fn load(&self, register: usize) -> Option<Values<R, Lot<S>>> {
        if register >= self.lots {
            return None;
        }
        let (simd, place) = (self.simd, self.place(register));
        let param = match &self.tensor.param {
            ParamArray::F32(param)
            | ParamArray::F32AndBf16(param, _)
            | ParamArray::F32AndF16(param, _) => lot::read(simd, &param[place.clone()]),
            ParamArray::Halves(high, low) => {
                lot::join(simd, &high[place.clone()], &low[place.clone()])
            }
            ParamArray::Bf16(param) | ParamArray::Bf16Stochastic(param) => {
                lot::read(simd, &param[place.clone()])
            }
            ParamArray::F16(param) => lot::read(simd, &param[place.clone()]),
            // Steps in f64 go another way.
            ParamArray::F64(_) => lot::splat(simd, 0.0),
        };
        let grad = match &self.tensor.grad {
            GradArray::F32(grad) => lot::read(simd, &grad[place.clone()]),
            GradArray::F32ToZero(grad) => lot::read(simd, &grad[place.clone()]),
            GradArray::Bf16(grad) => lot::read(simd, &grad[place.clone()]),
            GradArray::Bf16ToZero(grad) => lot::read(simd, &grad[place.clone()]),
            GradArray::F16(grad) => lot::read(simd, &grad[place.clone()]),
            GradArray::F16ToZero(grad) => lot::read(simd, &grad[place.clone()]),
            GradArray::F64(_) | GradArray::F64ToZero(_) => lot::splat(simd, 0.0),
        };
        let mut moments = R::Moments::from_fn(
            #[inline(always)]
            |_| lot::splat(simd, 0.0),
        );
        // What `from_fn` calls is not inlined if it is large, and would run without the instruction
        // set.
        R::Moments::unrolled(
            #[inline(always)]
            |position| {
                if self.rule.start(position).is_some() {
                    moments.as_mut()[position] = self.load_moment(position, place.clone());
                }
            },
        );
        Some((param, grad * self.factor, moments))
    }

    #[inline(always)]
    fn store(&mut self, register: usize, param: Lot<S>, moments: Many<R::Moments, Lot<S>>) {
        let (simd, place) = (self.simd, self.place(register));
        let from = place.start - self.start;
        let mut drawn = [Words::splat(simd, 0); LOT];
        R::Moments::unrolled(
            #[inline(always)]
            |position| {
                let (stream, half) = stream_of(position);
                let (draws, keeps) = self.draws.as_ref()[position];
                if half == Half::Lower && draws {
                    drawn = self.draw.bits(simd, stream, from);
                    if keeps {
                        let random = &mut self.blocks.random.as_mut()[position];
                        lot::store(&mut random[in_block(&place)], drawn);
                    }
                }
                if self.rule.start(position).is_some() {
                    self.store_moment(position, place.clone(), moments.as_ref()[position], drawn);
                }
            },
        );
        match &mut self.tensor.param {
            ParamArray::F32(array) => lot::write(&mut array[place.clone()], param),
            ParamArray::F32AndBf16(array, copy) => {
                lot::write(&mut array[place.clone()], param);
                lot::write(&mut copy[place.clone()], param);
            }
            ParamArray::F32AndF16(array, copy) => {
                lot::write(&mut array[place.clone()], param);
                lot::write(&mut copy[place.clone()], param);
            }
            ParamArray::Halves(high, low) => {
                lot::split(&mut high[place.clone()], &mut low[place.clone()], param);
            }
            ParamArray::Bf16(array) => lot::write(&mut array[place.clone()], param),
            ParamArray::Bf16Stochastic(array) => {
                let drawn = self.draw.bits(simd, PARAM, from);
                lot::write_stochastic(&mut array[place.clone()], param, drawn, Half::Lower);
            }
            ParamArray::F16(array) => lot::write(&mut array[place.clone()], param),
            ParamArray::F64(_) => {}
        }
        let zero = lot::splat(simd, 0.0);
        match &mut self.tensor.grad {
            GradArray::F32(_) | GradArray::F64(_) | GradArray::Bf16(_) | GradArray::F16(_) => {}
            GradArray::F64ToZero(_) => {}
            GradArray::F32ToZero(grad) => lot::write(&mut grad[place], zero),
            GradArray::Bf16ToZero(grad) => lot::write(&mut grad[place], zero),
            GradArray::F16ToZero(grad) => lot::write(&mut grad[place], zero),
        }
    }
}

/// The stream of a moment's random bits, and which half of them is its own.
#[inline(always)]
fn stream_of(position: usize) -> (u32, Half) {
    let half = if position.is_multiple_of(2) { Half::Lower } else { Half::Upper };
    (position as u32 / 2, half)
}
