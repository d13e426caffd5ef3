//! The end of a tensor that is less than the loop takes at a time, followed by zeros.

use half::{bf16, f16};

use super::{Grad, MixedTensor, Moment, Param};
use crate::{Arity, Many, Rule, element::BLOCK};

/// Room for an end of any types: of the parameters, what stands beside them, gradients and moments.
pub(super) struct Padding<R: Rule> {
    param: Numbers,
    beside: Numbers,
    rest: [u16; BLOCK],
    grad: Numbers,
    moments: Many<R::Moments, (Numbers, [u8; BLOCK], [f32; 1])>,
}

struct Numbers {
    single: [f32; BLOCK],
    brain: [bf16; BLOCK],
    half: [f16; BLOCK],
}

impl Numbers {
    fn new() -> Self {
        Self { single: [0.0; BLOCK], brain: [bf16::ZERO; BLOCK], half: [f16::ZERO; BLOCK] }
    }
}

impl<R: Rule> Padding<R> {
    pub(super) fn new() -> Self {
        Self {
            param: Numbers::new(),
            beside: Numbers::new(),
            rest: [0; BLOCK],
            grad: Numbers::new(),
            moments: R::Moments::from_fn(|_| (Numbers::new(), [0; BLOCK], [0.0])),
        }
    }

    /// The elements of a tensor from one on, which are less than a block, followed by zeros.
    pub(super) fn pad(&mut self, tensor: &MixedTensor<'_, R>, from: usize) -> MixedTensor<'_, R> {
        let Self { param, beside, rest, grad, moments } = self;
        let mut buffers = moments.as_mut().iter_mut();
        let mut arrays = tensor.moments.as_ref().iter();
        MixedTensor {
            param: match &tensor.param {
                Param::F32(array) => Param::F32(fill(&mut param.single, array, from)),
                Param::F32AndBf16(array, copy) => Param::F32AndBf16(
                    fill(&mut param.single, array, from),
                    fill(&mut beside.brain, copy, from),
                ),
                Param::F32AndF16(array, copy) => Param::F32AndF16(
                    fill(&mut param.single, array, from),
                    fill(&mut beside.half, copy, from),
                ),
                Param::Split(high, low) => {
                    Param::Split(fill(&mut param.brain, high, from), fill(rest, low, from))
                }
                Param::Bf16(array) => Param::Bf16(fill(&mut param.brain, array, from)),
                Param::Bf16Stochastic(array) => {
                    Param::Bf16Stochastic(fill(&mut param.brain, array, from))
                }
                Param::F16(array) => Param::F16(fill(&mut param.half, array, from)),
            },
            grad: match &tensor.grad {
                Grad::F32(array) => Grad::F32(fill(&mut grad.single, array, from)),
                Grad::Bf16(array) => Grad::Bf16(fill(&mut grad.brain, array, from)),
                Grad::F16(array) => Grad::F16(fill(&mut grad.half, array, from)),
                Grad::F32ToZero(array) => Grad::F32ToZero(fill(&mut grad.single, array, from)),
                Grad::Bf16ToZero(array) => Grad::Bf16ToZero(fill(&mut grad.brain, array, from)),
                Grad::F16ToZero(array) => Grad::F16ToZero(fill(&mut grad.half, array, from)),
            },
            moments: R::Moments::from_fn(|_| match (arrays.next(), buffers.next()) {
                (Some(Moment::F32(array)), Some((numbers, ..))) => {
                    Moment::F32(fill(&mut numbers.single, array, from))
                }
                (Some(Moment::Bf16(array)), Some((numbers, ..))) => {
                    Moment::Bf16(fill(&mut numbers.brain, array, from))
                }
                (Some(Moment::Q8(array, scales)), Some((_, codes, scale))) => {
                    *scale = [scales.get(from / BLOCK).copied().unwrap_or(0.0)];
                    Moment::Q8(fill(codes, array, from), scale)
                }
                (None, _) | (_, None) => Moment::F32(&mut []),
            }),
            first: tensor.first.wrapping_add(from as u64),
        }
    }

    /// Gives the elements back, as a step has left them.
    pub(super) fn unpad(&self, tensor: &mut MixedTensor<'_, R>, from: usize) {
        let Self { param, beside, rest, grad, moments } = self;
        match &mut tensor.param {
            Param::F32(array) => take(array, &param.single, from),
            Param::F32AndBf16(array, copy) => {
                take(array, &param.single, from);
                take(copy, &beside.brain, from);
            }
            Param::F32AndF16(array, copy) => {
                take(array, &param.single, from);
                take(copy, &beside.half, from);
            }
            Param::Split(high, low) => {
                take(high, &param.brain, from);
                take(low, rest, from);
            }
            Param::Bf16(array) | Param::Bf16Stochastic(array) => take(array, &param.brain, from),
            Param::F16(array) => take(array, &param.half, from),
        }
        match &mut tensor.grad {
            Grad::F32(_) | Grad::Bf16(_) | Grad::F16(_) => {}
            Grad::F32ToZero(array) => take(array, &grad.single, from),
            Grad::Bf16ToZero(array) => take(array, &grad.brain, from),
            Grad::F16ToZero(array) => take(array, &grad.half, from),
        }
        let moments = tensor.moments.as_mut().iter_mut().zip(moments.as_ref());
        for (moment, (numbers, codes, scale)) in moments {
            match moment {
                Moment::F32(array) => take(array, &numbers.single, from),
                Moment::Bf16(array) => take(array, &numbers.brain, from),
                Moment::Q8(array, scales) => {
                    take(array, codes, from);
                    take(scales, scale, from / BLOCK);
                }
            }
        }
    }
}

/// The end of an array, followed by zeros; nothing for a moment that the rule does without.
fn fill<'p, T: Copy + Default>(
    padded: &'p mut [T; BLOCK],
    array: &[T],
    from: usize,
) -> &'p mut [T] {
    let Some(end) = array.get(from..) else { return &mut [] };
    let (numbers, zeros) = padded.split_at_mut(end.len());
    numbers.copy_from_slice(end);
    zeros.fill(T::default());
    padded
}

fn take<T: Copy>(array: &mut [T], padded: &[T], from: usize) {
    if let Some(end) = array.get_mut(from..)
        && let Some(numbers) = padded.get(..end.len())
    {
        end.copy_from_slice(numbers);
    }
}
