//! How a strip is written back.

use core::ops::Range;

use super::{MomentBlock, Scratch, Strips};
use crate::{
    array::{BLOCK, GradArray, MomentArray, ParamArray, RandomOf},
    mixed::convert::{self, STRIP},
    rule::MOMENTS,
    simd::{Lanes, Simd, Vector, Words},
};

impl Strips<'_, '_> {
    /// Sets gradients that are to be zeroed to zero.
    #[inline]
    pub(super) fn zero_grad(&mut self) {
        let strip = self.range();
        match &mut self.tensor.grad {
            GradArray::F32ToZero(grad) => grad[strip].fill(0.0),
            GradArray::Bf16ToZero(grad) => grad[strip].fill(half::bf16::ZERO),
            GradArray::F16ToZero(grad) => grad[strip].fill(half::f16::ZERO),
            GradArray::F32(_) | GradArray::Bf16(_) | GradArray::F16(_) => {}
            // Steps in `f64` never come here.
            GradArray::F64(_) | GradArray::F64ToZero(_) => {}
        }
    }

    /// Writes the parameters of a strip back.
    #[inline(always)]
    pub(super) fn narrow_param<S: Simd>(&mut self, simd: S) {
        let (range, place, in_place) = (self.range(), self.place(), self.in_place);
        let Self { tensor, scratch, draw, .. } = self;
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
                let block = &mut scratch.random;
                let random = draw.fill(simd, RandomOf::Param, place, range.len(), block);
                convert::narrow_stochastic(simd, values, random, &mut array[range.clone()]);
            }
            ParamArray::F16(array) => convert::narrow(simd, values, &mut array[range.clone()]),
            ParamArray::F16Stochastic(array) => {
                let block = &mut scratch.random;
                let random = draw.fill(simd, RandomOf::Param, place, range.len(), block);
                let array = &mut array[range.clone()];
                convert::narrow_stochastic_f16(simd, None, values, random, array);
            }
        }
    }

    /// Writes the moments of a strip back, except those of 8 bits.
    #[inline(always)]
    pub(super) fn narrow_moments<S: Simd>(&mut self, simd: S) {
        if self.plain_moments && self.in_place {
            return;
        }
        let (range, place, in_place) = (self.range(), self.place(), self.in_place);
        let offset = place % BLOCK;
        let in_block = offset..offset + range.len();
        let Self { step, tensor, scratch, draw, .. } = self;
        let Scratch { moments, random, .. } = &mut **scratch;
        for (position, moment) in tensor.moments.iter_mut().enumerate() {
            if moment.len() == 0 {
                continue;
            }
            let values = &mut moments[position].values[in_block.clone()];
            if step.flush_subnormals {
                match moment {
                    MomentArray::F32(array) if in_place => flush(simd, &mut array[range.clone()]),
                    _ => flush(simd, values),
                }
            }
            let of = RandomOf::Moment(position);
            match moment {
                MomentArray::F32(array) if !in_place => {
                    array[range.clone()].copy_from_slice(values);
                }
                MomentArray::Bf16(array) => {
                    let random = draw.fill(simd, of, place, range.len(), random);
                    convert::narrow_stochastic(simd, values, random, &mut array[range.clone()]);
                }
                MomentArray::F16(array) => {
                    let random = draw.fill(simd, of, place, range.len(), random);
                    let (format, array) = (Some(step.formats[position]), &mut array[range.clone()]);
                    convert::narrow_stochastic_f16(simd, format, values, random, array);
                }
                // Moments of 8 bits follow at the end of their block.
                _ => {}
            }
        }
    }

    /// Writes the values of a block of each 8-bit moment as codes and a scale. If the rule's loop took the whole block,
    /// it has found the largest values and the random bits.
    #[inline(always)]
    pub(super) fn close_block<S: Simd>(&mut self, simd: S, block: Range<usize>, is_in_loop: bool) {
        let place = block.start - self.drawn_from;
        let Self { step, tensor, scratch, draw, .. } = self;
        let Scratch { moments, random, .. } = &mut **scratch;
        // All scales first: the CPU makes one while it waits for another.
        let mut encoders = [None; MOMENTS];
        for (position, moment) in tensor.moments.iter_mut().enumerate() {
            if let MomentArray::Q8(_, scales) = moment {
                let (format, moment) = (step.formats[position], &moments[position]);
                let encoder = format.encoder(match is_in_loop {
                    true => moment.largest,
                    false => format.largest_of(simd, &moment.values[..block.len()]),
                });
                scales[block.start / BLOCK] = encoder.scale;
                encoders[position] = Some(encoder);
            }
        }
        for (position, moment) in tensor.moments.iter_mut().enumerate() {
            let (MomentArray::Q8(codes, _), Some(encoder)) = (moment, encoders[position]) else {
                continue;
            };
            let of = RandomOf::Moment(position);
            let MomentBlock { values, random: of_moment, .. } = &mut moments[position];
            let random = match is_in_loop {
                true => of_moment.elements(draw.is_second(place)),
                false => draw.fill(simd, of, place, block.len(), random),
            };
            let codes = &mut codes[block.clone()];
            match codes.first_chunk_mut() {
                Some(codes) => encoder.encode(simd, values, random, codes),
                None => {
                    let mut whole = [0; BLOCK];
                    encoder.encode(simd, values, random, &mut whole);
                    codes.copy_from_slice(&whole[..codes.len()]);
                }
            }
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
