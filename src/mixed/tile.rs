//! The one loop in mixed precision: tile by tile, each array widened if it has to be.

use core::ops::Range;

use half::{bf16, f16};
use pulp::{Simd, WithSimd};

use super::{Grad, MixedTensor, Moment, Param, Pass};
use crate::{
    Arity, Many, Rule, Tensor,
    element::{self, BLOCK, Q8, Random},
    kernel::{Step, sweep},
    lanes::Vector,
};

/// A step in mixed precision, that nothing can be wrong with any more.
pub(super) struct MixedStep<R: Rule> {
    pub step: Step<R>,
    pub pass: Pass,
    pub grad_factor: f32,
    pub random: Random,
}

pub(super) struct Sweep<'a, 'x, R: Rule> {
    pub step: &'a MixedStep<R>,
    pub tensors: &'a mut [MixedTensor<'x, R>],
}

impl<R: Rule> WithSimd for Sweep<'_, '_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { step, tensors } = self;
        let constants = step.step.constants.as_ref();
        let k = R::Constants::from_fn(
            #[inline(always)]
            |i| Vector::<S, f32>::constant(simd, constants[i]),
        );
        let mut tiles = Tiles::<R>::new();
        step.step.rule.specialise(
            #[inline(always)]
            |rule| {
                for tensor in tensors.iter_mut() {
                    let mut start = 0;
                    while start < tensor.len() {
                        let end = (start + TILE).min(tensor.len());
                        tiles.sweep(simd, rule, &k, step, tensor, start, end);
                        start = end;
                    }
                }
            },
        );
    }
}

/// Elements that are widened at a time. Few, so that the CPU's prefetchers, which go on while a tile is
/// computed, do not lie idle for long: four times as many take up to twice as long from memory.
const TILE: usize = BLOCK;

/// A tile of each array that is not `f32`, widened.
struct Tiles<R: Rule> {
    param: [f32; TILE],
    grad: [f32; TILE],
    moments: Many<R::Moments, [f32; TILE]>,
    random: [u32; TILE],
}

/// The random bits of the parameters; those of the moments are numbered from 0.
const PARAM: u32 = u32::MAX;

impl<R: Rule> Tiles<R> {
    #[inline(always)]
    fn new() -> Self {
        Self {
            param: [0.0; TILE],
            grad: [0.0; TILE],
            moments: R::Moments::from_fn(|_| [0.0; TILE]),
            random: [0; TILE],
        }
    }

    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "what is the same for all tiles, and the tile")]
    fn sweep<S: Simd>(
        &mut self,
        simd: S,
        rule: R,
        k: &Many<R::Constants, Vector<S, f32>>,
        step: &MixedStep<R>,
        tensor: &mut MixedTensor<'_, R>,
        start: usize,
        end: usize,
    ) {
        let len = end - start;
        let first = tensor.first.wrapping_add(start as u64);
        let MixedTensor { param, grad, moments, .. } = tensor;
        // In a loop of its own: what `from_fn` calls is not inlined, and would run without the
        // instruction set.
        let arrays = moments.as_ref().iter().zip(self.moments.as_mut());
        for (position, (moment, tile)) in arrays.enumerate() {
            if moment.len() > 0 {
                widen_moment(moment, format_of(&rule, position), start..end, &mut tile[..len]);
            }
        }
        let mut arrays = moments.as_mut().iter_mut().zip(self.moments.as_mut());
        let values = Tensor::<R, f32> {
            param: widened_param(param, start..end, &mut self.param[..len]),
            grad: widened_grad(grad, start..end, &mut self.grad[..len], step.grad_factor),
            moments: R::Moments::from_fn(
                #[inline(always)]
                |_| match arrays.next() {
                    Some((moment, _)) if moment.len() == 0 => &mut [],
                    Some((Moment::F32(moment), _)) => &mut moment[start..end],
                    Some((Moment::Bf16(_) | Moment::Q8(..), tile)) => &mut tile[..len],
                    None => &mut [],
                },
            ),
        };
        sweep(simd, rule, k, values, false);

        let mut drawn = None;
        for (position, (moment, tile)) in
            moments.as_mut().iter_mut().zip(self.moments.as_mut()).enumerate()
        {
            if moment.len() == 0 {
                // The rule does without it.
                continue;
            }
            if step.pass.flush_subnormals {
                flush_subnormals(match moment {
                    Moment::F32(moment) => &mut moment[start..end],
                    Moment::Bf16(_) | Moment::Q8(..) => &mut tile[..len],
                });
            }
            if let Moment::F32(_) = moment {
                continue;
            }
            // Two moments share the halves of the same bits.
            let (stream, half) = (position as u32 / 2, position as u32 % 2 * 16);
            if drawn != Some(stream) {
                step.random.stream(stream).fill(first, &mut self.random[..len]);
                drawn = Some(stream);
            }
            let (tile, random) = (&tile[..len], &self.random[..len]);
            match moment {
                Moment::F32(_) => {}
                Moment::Bf16(moment) => {
                    element::narrow_bf16_stochastic(&mut moment[start..end], tile, random, half);
                }
                Moment::Q8(codes, scales) => {
                    let format = format_of(&rule, position);
                    let blocks = codes[start..end].chunks_mut(BLOCK).zip(tile.chunks(BLOCK));
                    let scales = &mut scales[start / BLOCK..];
                    for (((codes, tile), random), scale) in
                        blocks.zip(random.chunks(BLOCK)).zip(scales)
                    {
                        format.narrow(codes, scale, tile, random, half);
                    }
                }
            }
        }
        let tile = &self.param[..len];
        match param {
            Param::F32(_) => {}
            Param::F32AndBf16(param, copy) => {
                element::narrow_bf16(&mut copy[start..end], &param[start..end]);
            }
            Param::F32AndF16(param, copy) => {
                element::narrow_f16(&mut copy[start..end], &param[start..end]);
            }
            Param::Split(high, low) => {
                element::split(&mut high[start..end], &mut low[start..end], tile);
            }
            Param::Bf16(param) => element::narrow_bf16(&mut param[start..end], tile),
            Param::Bf16Stochastic(param) => {
                step.random.stream(PARAM).fill(first, &mut self.random[..len]);
                let random = &self.random[..len];
                element::narrow_bf16_stochastic(&mut param[start..end], tile, random, 0);
            }
            Param::F16(param) => element::narrow_f16(&mut param[start..end], tile),
        }
        match grad {
            Grad::F32(_) | Grad::Bf16(_) | Grad::F16(_) => {}
            Grad::F32ToZero(grad) => grad[start..end].fill(0.0),
            Grad::Bf16ToZero(grad) => grad[start..end].fill(bf16::ZERO),
            Grad::F16ToZero(grad) => grad[start..end].fill(f16::ZERO),
        }
    }
}

#[inline(always)]
fn widened_param<'a>(
    param: &'a mut Param<'_>,
    range: Range<usize>,
    tile: &'a mut [f32],
) -> &'a mut [f32] {
    match param {
        Param::F32(param) | Param::F32AndBf16(param, _) | Param::F32AndF16(param, _) => {
            return &mut param[range];
        }
        Param::Split(high, low) => element::join(tile, &high[range.clone()], &low[range]),
        Param::Bf16(param) | Param::Bf16Stochastic(param) => {
            element::widen_bf16(tile, &param[range]);
        }
        Param::F16(param) => element::widen_f16(tile, &param[range]),
    }
    tile
}

/// The gradients, times a factor.
#[inline(always)]
fn widened_grad<'a>(
    grad: &'a Grad<'_>,
    range: Range<usize>,
    tile: &'a mut [f32],
    factor: f32,
) -> &'a [f32] {
    match grad {
        Grad::F32(grad) if factor == 1.0 => return &grad[range],
        Grad::F32ToZero(grad) if factor == 1.0 => return &grad[range],
        Grad::F32(grad) => tile.copy_from_slice(&grad[range]),
        Grad::F32ToZero(grad) => tile.copy_from_slice(&grad[range]),
        Grad::Bf16(grad) => element::widen_bf16(tile, &grad[range]),
        Grad::Bf16ToZero(grad) => element::widen_bf16(tile, &grad[range]),
        Grad::F16(grad) => element::widen_f16(tile, &grad[range]),
        Grad::F16ToZero(grad) => element::widen_f16(tile, &grad[range]),
    }
    if factor != 1.0 {
        for grad in &mut *tile {
            *grad *= factor;
        }
    }
    tile
}

#[inline(always)]
fn widen_moment(moment: &Moment<'_>, format: Q8, range: Range<usize>, tile: &mut [f32]) {
    match moment {
        Moment::F32(_) => {}
        Moment::Bf16(moment) => element::widen_bf16(tile, &moment[range]),
        Moment::Q8(codes, scales) => {
            format.widen(tile, &codes[range.clone()], &scales[range.start / BLOCK..]);
        }
    }
}

#[inline(always)]
pub(super) fn format_of<R: Rule>(rule: &R, moment: usize) -> Q8 {
    if rule.holds_squares(moment) { Q8::Squares } else { Q8::Signed }
}

#[inline(always)]
fn flush_subnormals(values: &mut [f32]) {
    for value in values {
        *value = if value.abs() < f32::MIN_POSITIVE { 0.0 } else { *value };
    }
}
