//! How a strip is read.

use super::Strips;
use crate::{
    array::{BLOCK, GradArray, MomentArray, ParamArray},
    mixed::convert,
    simd::Simd,
};

impl Strips<'_, '_> {
    /// Copies arrays to the scratch memory, as `f32`: those in other types, or all of them if the strip is less than a
    /// pair of registers, with zeros up to a whole pair.
    #[inline(always)]
    pub(super) fn widen<S: Simd>(&mut self, simd: S) {
        let (range, in_place) = (self.range(), self.in_place);
        let offset = self.place() % BLOCK;
        let Self { step, tensor, scratch, .. } = self;
        if !in_place {
            scratch.param.fill(0.0);
            scratch.grad.fill(0.0);
            for block in &mut scratch.moments {
                block.values[offset..].fill(0.0);
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
            ParamArray::F16(array) | ParamArray::F16Stochastic(array) => {
                convert::widen(simd, &array[range.clone()], param);
            }
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
            return;
        }
        for (position, moment) in tensor.moments.iter().enumerate() {
            let values = &mut scratch.moments[position].values[offset..];
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
    }
}
