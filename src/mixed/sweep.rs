//! A step in mixed precision over some tensors, on one instruction set.

use pulp::{Simd, WithSimd};

use super::{
    lot::{self, Lot, lanes},
    padding::Padding,
    span::{Blocks, Span},
};
use crate::{
    Arity, Many, Rule, Tensor,
    array::MomentArray,
    element::{BLOCK, Random},
    tensor::{Run, TensorArrays},
};

/// A step in mixed precision.
pub(super) struct MixedStep<'a, R: Rule> {
    pub rule: R,
    pub constants: &'a Many<R::Constants, f64>,
    pub grad_factor: f32,
    pub flush_subnormals: bool,
    pub random: Random,
    /// Whether to ask for memory ahead.
    pub prefetch: bool,
}

pub(super) struct Sweep<'a, 'b, 'x, R: Rule, A> {
    pub step: &'a MixedStep<'a, R>,
    pub elements: &'a mut Run<'b, 'x>,
    /// Whether a tensor takes the same step.
    pub alike: A,
}

impl<R: Rule, A: Fn(&Tensor<'_>) -> bool> WithSimd for Sweep<'_, '_, '_, R, A> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { step, elements, alike } = self;
        let constants = step.constants.as_ref();
        let k = R::Constants::from_fn(
            #[inline(always)]
            |i| lot::splat(simd, constants[i]),
        );
        let mut scratch = Scratch::new();
        // Four registers share one branch here, so specialising the rule gains nothing.
        while let Some(part) = elements.next_if(&alike) {
            scratch.sweep(simd, step.rule, &k, step, part.arrays());
        }
    }
}

/// Memory beside that of the tensors.
struct Scratch<R: Rule> {
    blocks: Blocks<R>,
    padding: Option<Padding<R>>,
}

impl<R: Rule> Scratch<R> {
    fn new() -> Self {
        Self { blocks: Blocks::new(), padding: None }
    }

    /// Takes the step of a tensor: what is whole, and then the end, followed by zeros, in the same
    /// place of the code.
    #[inline(always)]
    fn sweep<S: Simd>(
        &mut self,
        simd: S,
        rule: R,
        k: &Many<R::Constants, Lot<S>>,
        step: &MixedStep<'_, R>,
        mut tensor: TensorArrays<'_, R>,
    ) {
        let is_blocked = |moment: &MomentArray<'_>| matches!(moment, MomentArray::Q8(..));
        let has_blocks = tensor.moments.as_ref().iter().any(is_blocked);
        let grain = if has_blocks { BLOCK } else { lanes::<S>() };
        let rest = tensor.len() % grain;
        let whole = tensor.len() - rest;
        for (len, is_whole) in [(whole, true), (rest, false)] {
            if len == 0 {
                continue;
            }
            let part = match is_whole {
                true => tensor.reborrow(),
                false => self.padding.get_or_insert_with(Padding::new).pad(&tensor, whole),
            };
            Span::new(simd, rule, step, &mut self.blocks, part, len).sweep(k, has_blocks);
        }
        if let Some(padding) = &self.padding
            && rest > 0
        {
            padding.unpad(&mut tensor, whole);
        }
    }
}
