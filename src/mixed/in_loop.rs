//! A rule's loop with the conversions of its arrays in it: they cost little there, since the CPU makes them while it
//! waits for roots and quotients. Types that usually go together have a loop of their own, without branches on types.

use super::{
    MixedStep,
    columns::{
        Copied, EvenAndOdd, GradColumn, Halves, MomentColumn, Moments, Nearest, ParamColumn,
        Stochastic, ToZero,
    },
    pairs::{Pair, Read, Write},
    strips::Strips,
};
use crate::{
    array::{Draw, GradArray, Mixed, MomentArray, ParamArray, RandomOf},
    isa::apart,
    kernel::{asks_ahead, for_pairs},
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
    CopiedAndF32ToZero,
    CopiedAndBf16,
    CopiedAndBf16ToZero,
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
        matches!(self, Self::F32(Pairing::CopiedAndF32ToZero | Pairing::CopiedAndBf16ToZero))
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
            (P::F32AndBf16(..), G::F32(_)) => CopiedAndF32,
            (P::F32AndBf16(..), G::F32ToZero(_)) => CopiedAndF32ToZero,
            (P::F32AndBf16(..), G::Bf16(_)) => CopiedAndBf16,
            (P::F32AndBf16(..), G::Bf16ToZero(_)) => CopiedAndBf16ToZero,
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
    pub moments: Moments<'s>,
    pub draw: &'s Draw,
    /// The place of the first element in the run of `draw`.
    pub place: usize,
}

/// Steps over the strip that is open, and over those after it that have the same loop. Tells whether another strip is
/// open then.
#[inline(always)]
pub(super) fn sweep<S: Simd, R: Rule>(
    simd: S,
    rule: R,
    k: &Many<R::Constants, Vector<S, f32>>,
    step: &MixedStep,
    kind: Loop,
    strips: &mut Strips<'_, '_>,
) -> bool {
    let mut sweep = Sweep::<S, R> { simd, rule, k, step, kind, strips };
    /// Runs the loop for some types, with the columns that its arrays become.
    macro_rules! run {
        ($param:pat, $grad:pat, $moments:ident => $columns:expr) => {
            sweep.run(
                #[inline(always)]
                |strip, Arrays { param, grad, moments: $moments, draw, place }| {
                    let ($param, $grad) = (param, grad) else {
                        return debug_assert!(false, "`Loop::of` found these types");
                    };
                    let (param, grad, moments) = $columns;
                    strip.run(draw, place, param, grad, moments);
                },
            )
        };
    }
    use {GradArray as G, Pairing::*, ParamArray as P};
    match kind {
        // `Loop::of` does not find the first of these two, nor the pairings of bf16 and of 8 bits that are not named.
        Loop::F32(F32AndF32 | F32AndBf16) => {
            run!(P::F32(p), G::Bf16(g), m => (Nearest(p), g, m.f32()))
        }
        Loop::F32(CopiedAndF32) => {
            run!(P::F32AndBf16(p, copy), G::F32(g), m => (Copied(p, copy), g, m.f32()))
        }
        Loop::F32(CopiedAndF32ToZero) => {
            run!(P::F32AndBf16(p, copy), G::F32ToZero(g), m => {
                (Copied(p, copy), ToZero(g), m.f32())
            })
        }
        Loop::F32(CopiedAndBf16) => {
            run!(P::F32AndBf16(p, copy), G::Bf16(g), m => (Copied(p, copy), g, m.f32()))
        }
        Loop::F32(CopiedAndBf16ToZero) => {
            run!(P::F32AndBf16(p, copy), G::Bf16ToZero(g), m => {
                (Copied(p, copy), ToZero(g), m.f32())
            })
        }
        Loop::F32(HalvesAndBf16) => {
            run!(P::Halves(high, low), G::Bf16(g), m => (Halves(high, low), g, m.f32()))
        }
        Loop::F32(Bf16AndBf16) => {
            run!(P::Bf16(p), G::Bf16(g), m => (Nearest(p), g, m.f32()))
        }
        Loop::F32(StochasticAndBf16) => {
            run!(P::Bf16Stochastic(p), G::Bf16(g), m => (Stochastic(p), g, m.f32()))
        }
        Loop::F32(F16AndF16) => {
            run!(P::F16(p), G::F16(g), m => (Nearest(p), g, m.f32()))
        }
        Loop::Bf16(StochasticAndBf16) => {
            run!(P::Bf16Stochastic(p), G::Bf16(g), m => {
                (EvenAndOdd(p), EvenAndOdd(g), m.even_and_odd())
            })
        }
        Loop::Bf16(_) => {
            run!(P::F32(p), G::F32(g), m => (Nearest(p), g, m.bf16()))
        }
        Loop::Q8(F32AndBf16) => {
            run!(P::F32(p), G::Bf16(g), m => (Nearest(p), g, m.blocks(simd)))
        }
        Loop::Q8(StochasticAndBf16) => {
            run!(P::Bf16Stochastic(p), G::Bf16(g), m => (Stochastic(p), g, m.blocks(simd)))
        }
        Loop::Q8(_) => {
            run!(P::F32(p), G::F32(g), m => (Nearest(p), g, m.blocks(simd)))
        }
    }
}

/// Strips that have the same loop.
struct Sweep<'s, 'a, 'b, S: Simd, R: Rule> {
    simd: S,
    rule: R,
    k: &'s Many<R::Constants, Vector<S, f32>>,
    step: &'s MixedStep,
    kind: Loop,
    strips: &'s mut Strips<'a, 'b>,
}

impl<S: Simd, R: Rule> Sweep<'_, '_, '_, S, R> {
    /// Calls `run` for each strip, in a function of its own: with the loops for all types in one function, the compiler
    /// takes several times as long for each.
    #[inline(always)]
    fn run(&mut self, run: impl Fn(&Strip<'_, S, R>, Arrays<'_>)) -> bool {
        let Self { simd, rule, k, step, kind, strips } = self;
        let mut is_open = true;
        apart(
            *simd,
            #[inline(always)]
            || {
                rule.specialise_converting(
                    #[inline(always)]
                    |rule| {
                        // A copy, which no array overlaps as far as the compiler knows: it stays in registers.
                        let k = for_pairs::<S, R, f32>(k);
                        let strip = Strip { simd: *simd, rule, k: &k, step };
                        while is_open && strips.in_loop() == Some(*kind) {
                            run(&strip, strips.arrays());
                            is_open = strips.turn();
                        }
                    },
                );
            },
        );
        is_open
    }
}

/// What a strip's loop has of the step, with settings that the compiler knows.
struct Strip<'s, S: Simd, R: Rule> {
    simd: S,
    rule: R,
    k: &'s Many<R::Constants, Pair<S>>,
    step: &'s MixedStep,
}

impl<S: Simd, R: Rule> Strip<'_, S, R> {
    #[inline(always)]
    fn run<P: ParamColumn<S>, M: MomentColumn<S>>(
        &self,
        draw: &Draw,
        place: usize,
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
        let mut pairs = if is_random { Some(draw.pairs(simd, place)) } else { None };
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
            Some(pairs) if M::IN_BLOCKS && draw.is_second(place) => Some(pairs.next()),
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
