//! A step in mixed precision over some tensors, on one instruction set.

use pulp::{Simd, WithSimd};

use super::{
    MixedTensor, Moment, Pass,
    lot::{self, Lot, lanes},
    padding::Padding,
    span::{Blocks, Span},
};
use crate::{
    Arity, Many, Rule,
    element::{BLOCK, Random},
    kernel::Step,
};

/// A step in mixed precision, that nothing can be wrong with any more.
pub(super) struct MixedStep<R: Rule> {
    pub step: Step<R>,
    pub pass: Pass,
    pub grad_factor: f32,
    pub random: Random,
    /// Whether to ask for memory ahead.
    pub prefetch: bool,
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
            |i| lot::splat(simd, constants[i]),
        );
        let mut scratch = Scratch::new();
        // The branches of a rule cost little, since a lot takes each once: it is not specialised.
        for tensor in tensors.iter_mut() {
            scratch.sweep(simd, step.step.rule, &k, step, tensor);
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
        step: &MixedStep<R>,
        tensor: &mut MixedTensor<'_, R>,
    ) {
        let is_blocked = |moment: &Moment<'_>| matches!(moment, Moment::Q8(..));
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
                false => self.padding.get_or_insert_with(Padding::new).pad(tensor, whole),
            };
            Span::new(simd, rule, step, &mut self.blocks, part, len).sweep(k, has_blocks);
        }
        if let Some(padding) = &self.padding
            && rest > 0
        {
            padding.unpad(tensor, whole);
        }
    }
}
