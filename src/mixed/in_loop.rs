//! A rule's loop with the conversions of its arrays in it: they cost little there, since the CPU makes them while it
//! waits for roots and quotients. Types that usually go together have a loop of their own, without branches on types.

use core::ops::Range;

use super::{
    MixedStep,
    columns::{
        Copied, EvenAndOdd, GradColumn, Halves, MomentColumn, Nearest, ParamColumn, Stochastic,
        ToZero, bf16_of, blocks_of, f32_of, pairs_of,
    },
    pairs::{Pair, Read, Write},
    strips::MomentBlock,
};
use crate::{
    array::{Draw, GradArray, Mixed, MomentArray, ParamArray, RandomOf},
    kernel::asks_ahead,
    rule::{Arity, MOMENTS, Many, Rule, moment_format},
    simd::{Simd, TOGETHER, Vector, Wide, Words},
    tensor::TensorArrays,
};

/// The combinations of types that have a loop: moments of one of three types, with the parameters and gradients that
/// usually go with them.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Loop {
    F32(Pairing),
    Bf16(Pairing),
    Q8(Pairing),
}

/// Types of parameters and gradients.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Pairing {
    F32AndF32,
    F32AndBf16,
    /// With a copy in bf16.
    CopiedAndF32,
    CopiedAndBf16,
    HalvesAndBf16,
    Bf16AndBf16,
    /// Rounded at random.
    StochasticAndBf16,
    F16AndF16,
}

impl Loop {
    /// Whether the loop itself can set gradients to zero. Only the loops for parameters with a copy can, whose
    /// gradients usually are zeroed: more loops would be too much code.
    pub(super) fn zeroes(self) -> bool {
        matches!(self, Self::F32(Pairing::CopiedAndF32 | Pairing::CopiedAndBf16))
    }

    /// Whether parameters or moments are rounded in the loop, at random.
    pub(super) fn is_random(self) -> bool {
        matches!(
            self,
            Self::Bf16(_)
                | Self::F32(Pairing::StochasticAndBf16)
                | Self::Q8(Pairing::StochasticAndBf16)
        )
    }

    pub(super) fn of(tensor: &TensorArrays<'_>) -> Option<Self> {
        use {GradArray as G, Pairing::*, ParamArray as P};
        let pairing = match (&tensor.param, &tensor.grad) {
            (P::F32(_), G::F32(_) | G::F32ToZero(_)) => F32AndF32,
            (P::F32(_), G::Bf16(_) | G::Bf16ToZero(_)) => F32AndBf16,
            (P::F32AndBf16(..), G::F32(_) | G::F32ToZero(_)) => CopiedAndF32,
            (P::F32AndBf16(..), G::Bf16(_) | G::Bf16ToZero(_)) => CopiedAndBf16,
            (P::Halves(..), G::Bf16(_) | G::Bf16ToZero(_)) => HalvesAndBf16,
            (P::Bf16(_), G::Bf16(_) | G::Bf16ToZero(_)) => Bf16AndBf16,
            (P::Bf16Stochastic(_), G::Bf16(_) | G::Bf16ToZero(_)) => StochasticAndBf16,
            (P::F16(_), G::F16(_) | G::F16ToZero(_)) => F16AndF16,
            _ => return None,
        };
        let all = |is: fn(&MomentArray<'_>) -> bool| {
            tensor.moments.iter().all(|moment| moment.len() == 0 || is(moment))
        };
        if all(|moment| matches!(moment, MomentArray::F32(_))) {
            // Arrays that are all in `f32` need no conversion.
            return (pairing != F32AndF32).then_some(Self::F32(pairing));
        }
        if all(|moment| matches!(moment, MomentArray::Bf16(_))) {
            let has_loop = matches!(pairing, F32AndF32 | StochasticAndBf16);
            return has_loop.then_some(Self::Bf16(pairing));
        }
        let has_loop = matches!(pairing, F32AndF32 | F32AndBf16 | StochasticAndBf16);
        let are_q8 = all(|moment| matches!(moment, MomentArray::Q8(..)));
        (has_loop && are_q8).then_some(Self::Q8(pairing))
    }
}

/// Elements of a tensor, whole pairs of registers, each array in its own type.
pub(super) struct Arrays<'s> {
    pub param: ParamArray<'s>,
    pub grad: GradArray<'s>,
    /// A moment that the rule does not use is empty.
    pub moments: [MomentArray<'s>; MOMENTS],
    /// Memory for the new values of 8-bit moments. They become codes once the largest value of the block is known.
    pub blocks: [&'s mut MomentBlock; MOMENTS],
    pub in_block: Range<usize>,
    pub draw: &'s Draw,
    /// The place of the first element in the run of `draw`.
    pub place: usize,
}

/// A step over whole pairs of registers, of arrays that have a loop.
#[inline(always)]
pub(super) fn sweep<S: Simd, R: Rule>(
    simd: S,
    rule: R,
    k: &Many<R::Constants, Pair<S>>,
    step: &MixedStep,
    kind: Loop,
    arrays: Arrays<'_>,
) {
    let Arrays { param, grad, moments, blocks, in_block, draw, place } = arrays;
    let sweep = Sweep::<S, R> { simd, rule, k, step, draw, place };
    use {GradArray as G, Pairing::*, ParamArray as P};
    match (kind, param, grad) {
        (Loop::F32(F32AndBf16), P::F32(param), G::Bf16(grad)) => {
            sweep.run(Nearest(param), grad, f32_of(moments));
        }
        (Loop::F32(CopiedAndF32), P::F32AndBf16(param, copy), G::F32(grad)) => {
            sweep.run(Copied(param, copy), grad, f32_of(moments));
        }
        (Loop::F32(CopiedAndF32), P::F32AndBf16(param, copy), G::F32ToZero(grad)) => {
            sweep.run(Copied(param, copy), ToZero(grad), f32_of(moments));
        }
        (Loop::F32(CopiedAndBf16), P::F32AndBf16(param, copy), G::Bf16(grad)) => {
            sweep.run(Copied(param, copy), grad, f32_of(moments));
        }
        (Loop::F32(CopiedAndBf16), P::F32AndBf16(param, copy), G::Bf16ToZero(grad)) => {
            sweep.run(Copied(param, copy), ToZero(grad), f32_of(moments));
        }
        (Loop::F32(HalvesAndBf16), P::Halves(high, low), G::Bf16(grad)) => {
            sweep.run(Halves(high, low), grad, f32_of(moments));
        }
        (Loop::F32(Bf16AndBf16), P::Bf16(param), G::Bf16(grad)) => {
            sweep.run(Nearest(param), grad, f32_of(moments));
        }
        (Loop::F32(StochasticAndBf16), P::Bf16Stochastic(param), G::Bf16(grad)) => {
            sweep.run(Stochastic(param), grad, f32_of(moments));
        }
        (Loop::F32(F16AndF16), P::F16(param), G::F16(grad)) => {
            sweep.run(Nearest(param), grad, f32_of(moments));
        }
        (Loop::Bf16(F32AndF32), P::F32(param), G::F32(grad)) => {
            sweep.run(Nearest(param), grad, bf16_of(moments));
        }
        (Loop::Bf16(StochasticAndBf16), P::Bf16Stochastic(param), G::Bf16(grad)) => {
            sweep.run(EvenAndOdd(param), EvenAndOdd(grad), pairs_of(moments));
        }
        (Loop::Q8(F32AndF32), P::F32(param), G::F32(grad)) => {
            sweep.run(Nearest(param), grad, blocks_of(simd, moments, blocks, in_block));
        }
        (Loop::Q8(F32AndBf16), P::F32(param), G::Bf16(grad)) => {
            sweep.run(Nearest(param), grad, blocks_of(simd, moments, blocks, in_block));
        }
        (Loop::Q8(StochasticAndBf16), P::Bf16Stochastic(param), G::Bf16(grad)) => {
            sweep.run(Stochastic(param), grad, blocks_of(simd, moments, blocks, in_block));
        }
        _ => debug_assert!(false, "`Loop::of` found these types"),
    }
}

struct Sweep<'s, S: Simd, R: Rule> {
    simd: S,
    rule: R,
    k: &'s Many<R::Constants, Pair<S>>,
    step: &'s MixedStep,
    draw: &'s Draw,
    place: usize,
}

impl<S: Simd, R: Rule> Sweep<'_, S, R> {
    #[inline(always)]
    fn run<P: ParamColumn<S>, M: MomentColumn<S>>(
        &self,
        mut param: P,
        mut grad: impl GradColumn<S>,
        mut moments: [M; MOMENTS],
    ) {
        let (simd, rule, pair) = (self.simd, self.rule, TOGETHER * Words::<S>::LANES);
        let factor = Wide([Vector::<S, f32>::splat(simd, self.step.grad_factor); TOGETHER]);
        let zero = Wide([Vector::splat(simd, 0.0); TOGETHER]);
        let ahead = Some(self.step.ahead).filter(|&ahead| asks_ahead::<S>() && ahead > 0);
        // Parameters are written one pair late. Otherwise these writes wait for quotients, and fill the CPU's queues
        // meanwhile.
        let is_random = P::IS_RANDOM || M::IS_RANDOM;
        let mut pairs = if is_random { Some(self.draw.pairs(simd, self.place)) } else { None };
        let (mut start, mut waiting) = (0, (zero, Mixed::none(simd)));
        while start < grad.len() {
            let read = Read { simd, range: start..start + pair, ahead };
            let grads = grad.read(&read) * factor;
            let params = param.read(&read);
            let mut values = R::Moments::from_fn(
                #[inline(always)]
                |_| zero,
            );
            R::Moments::unrolled(
                #[inline(always)]
                |moment| {
                    if rule.start(moment).is_some() {
                        let format = moment_format(&rule, moment);
                        values.as_mut()[moment] = moments[moment].read(&read, format);
                    }
                },
            );
            let (params, values) = rule.update(self.k, params, grads, values);
            if start > 0 {
                let (params, mixed) = waiting;
                param.write(&self.write(start - pair), mixed.bits(RandomOf::Param), params);
            }
            let write = self.write(start);
            grad.zero(&write);
            let mixed = match &mut pairs {
                Some(pairs) => pairs.next(),
                None => Mixed::none(simd),
            };
            waiting = (params, mixed);
            R::Moments::unrolled(
                #[inline(always)]
                |moment| {
                    if rule.start(moment).is_some() {
                        let random = mixed.bits(RandomOf::Moment(moment));
                        let format = moment_format(&rule, moment);
                        moments[moment].write(&write, format, random, values.as_ref()[moment]);
                    }
                },
            );
            start += pair;
        }
        if start > 0 {
            let (params, mixed) = waiting;
            param.write(&self.write(start - pair), mixed.bits(RandomOf::Param), params);
        }
        let behind = match &mut pairs {
            // The last element is the first of its pair of random bits, which the loop has not drawn.
            Some(pairs) if M::IN_BLOCKS && self.draw.is_second(self.place) => Some(pairs.next()),
            _ => None,
        };
        R::Moments::unrolled(
            #[inline(always)]
            |moment| {
                if rule.start(moment).is_some() {
                    let of = RandomOf::Moment(moment);
                    let bits = behind.map(
                        #[inline(always)]
                        |mixed| mixed.bits(of),
                    );
                    moments[moment].end(bits);
                }
            },
        );
    }

    /// How a pair of registers is written, from an element on.
    #[inline(always)]
    fn write(&self, start: usize) -> Write<S> {
        let range = start..start + TOGETHER * Words::<S>::LANES;
        Write { simd: self.simd, range }
    }
}
