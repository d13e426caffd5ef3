//! The end of a tensor that is less than the loop takes at a time, followed by zeros.

use half::{bf16, f16};

use crate::{
    Arity, Many, Rule,
    array::{GradArray, MomentArray, ParamArray},
    element::BLOCK,
    tensor::TensorArrays,
};

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
    pub(super) fn pad(&mut self, tensor: &TensorArrays<'_, R>, from: usize) -> TensorArrays<'_, R> {
        let Self { param, beside, rest, grad, moments } = self;
        let mut buffers = moments.as_mut().iter_mut();
        let mut arrays = tensor.moments.as_ref().iter();
        TensorArrays {
            param: match &tensor.param {
                ParamArray::F32(array) => ParamArray::F32(fill(&mut param.single, array, from)),
                ParamArray::F32AndBf16(array, copy) => ParamArray::F32AndBf16(
                    fill(&mut param.single, array, from),
                    fill(&mut beside.brain, copy, from),
                ),
                ParamArray::F32AndF16(array, copy) => ParamArray::F32AndF16(
                    fill(&mut param.single, array, from),
                    fill(&mut beside.half, copy, from),
                ),
                ParamArray::Halves(high, low) => {
                    ParamArray::Halves(fill(&mut param.brain, high, from), fill(rest, low, from))
                }
                ParamArray::Bf16(array) => ParamArray::Bf16(fill(&mut param.brain, array, from)),
                ParamArray::Bf16Stochastic(array) => {
                    ParamArray::Bf16Stochastic(fill(&mut param.brain, array, from))
                }
                ParamArray::F16(array) => ParamArray::F16(fill(&mut param.half, array, from)),
                // Steps in f64 go another way.
                ParamArray::F64(_) => ParamArray::F64(&mut []),
            },
            grad: match &tensor.grad {
                GradArray::F32(array) => GradArray::F32(fill(&mut grad.single, array, from)),
                GradArray::Bf16(array) => GradArray::Bf16(fill(&mut grad.brain, array, from)),
                GradArray::F16(array) => GradArray::F16(fill(&mut grad.half, array, from)),
                GradArray::F32ToZero(array) => {
                    GradArray::F32ToZero(fill(&mut grad.single, array, from))
                }
                GradArray::Bf16ToZero(array) => {
                    GradArray::Bf16ToZero(fill(&mut grad.brain, array, from))
                }
                GradArray::F16ToZero(array) => {
                    GradArray::F16ToZero(fill(&mut grad.half, array, from))
                }
                GradArray::F64(_) | GradArray::F64ToZero(_) => GradArray::F64(&[]),
            },
            moments: R::Moments::from_fn(|_| match (arrays.next(), buffers.next()) {
                (Some(MomentArray::F32(array)), Some((numbers, ..))) => {
                    MomentArray::F32(fill(&mut numbers.single, array, from))
                }
                (Some(MomentArray::Bf16(array)), Some((numbers, ..))) => {
                    MomentArray::Bf16(fill(&mut numbers.brain, array, from))
                }
                (Some(MomentArray::F16(array)), Some((numbers, ..))) => {
                    MomentArray::F16(fill(&mut numbers.half, array, from))
                }
                (Some(MomentArray::Q8(array, scales)), Some((_, codes, scale))) => {
                    *scale = [scales.get(from / BLOCK).copied().unwrap_or(0.0)];
                    MomentArray::Q8(fill(codes, array, from), scale)
                }
                (Some(MomentArray::F64(_)) | None, _) | (_, None) => MomentArray::F32(&mut []),
            }),
            first: tensor.first.wrapping_add(from as u64),
        }
    }

    /// Gives the elements back, as a step has left them.
    pub(super) fn unpad(&self, tensor: &mut TensorArrays<'_, R>, from: usize) {
        let Self { param, beside, rest, grad, moments } = self;
        match &mut tensor.param {
            ParamArray::F32(array) => take(array, &param.single, from),
            ParamArray::F32AndBf16(array, copy) => {
                take(array, &param.single, from);
                take(copy, &beside.brain, from);
            }
            ParamArray::F32AndF16(array, copy) => {
                take(array, &param.single, from);
                take(copy, &beside.half, from);
            }
            ParamArray::Halves(high, low) => {
                take(high, &param.brain, from);
                take(low, rest, from);
            }
            ParamArray::Bf16(array) | ParamArray::Bf16Stochastic(array) => {
                take(array, &param.brain, from)
            }
            ParamArray::F16(array) => take(array, &param.half, from),
            ParamArray::F64(_) => {}
        }
        match &mut tensor.grad {
            GradArray::F32(_) | GradArray::F64(_) | GradArray::Bf16(_) | GradArray::F16(_) => {}
            GradArray::F64ToZero(_) => {}
            GradArray::F32ToZero(array) => take(array, &grad.single, from),
            GradArray::Bf16ToZero(array) => take(array, &grad.brain, from),
            GradArray::F16ToZero(array) => take(array, &grad.half, from),
        }
        let moments = tensor.moments.as_mut().iter_mut().zip(moments.as_ref());
        for (moment, (numbers, codes, scale)) in moments {
            match moment {
                MomentArray::F32(array) => take(array, &numbers.single, from),
                MomentArray::Bf16(array) => take(array, &numbers.brain, from),
                MomentArray::F16(array) => take(array, &numbers.half, from),
                MomentArray::Q8(array, scales) => {
                    take(array, codes, from);
                    take(scales, scale, from / BLOCK);
                }
                MomentArray::F64(_) => {}
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
