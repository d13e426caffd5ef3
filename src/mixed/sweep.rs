//! The rule's part of a step in mixed precision: strips of `f32`, whatever they come from.

use super::{
    MixedStep, Runs, in_loop,
    strips::{Scratch, Strip, Strips},
};
use crate::{
    kernel::{asks_ahead, for_pairs, pairs, pairs_mut, specialise, sweep_pairs},
    rule::{Arity, Many, Rule},
    simd::{Simd, TOGETHER, Vector, Wide, WithSimd},
};

pub(super) struct Sweep<'a, R: Rule> {
    pub rule: R,
    pub constants: &'a Many<R::Constants, f64>,
    pub step: &'a MixedStep,
    pub runs: &'a mut dyn Runs,
}

impl<R: Rule> Sweep<'_, R> {
    /// Whether the rule can have loops that convert. A constant, since the compiler would otherwise compile these loops
    /// before it finds that no call reaches them.
    const fn can_convert_in_loop<S: Simd>() -> bool {
        !S::IS_SCALAR && R::CONVERTS_IN_LOOP
    }
}

impl<R: Rule> WithSimd for Sweep<'_, R> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rule, constants, step, runs } = self;
        let constants = constants.as_ref();
        let k = R::Constants::from_fn(
            #[inline(always)]
            |i| Vector::nearest(simd, constants[i]),
        );
        let factor = Wide([Vector::<S, f32>::splat(simd, step.grad_factor); TOGETHER]);
        let mut converts = false;
        if const { Self::can_convert_in_loop::<S>() } {
            rule.specialise_converting(
                #[inline(always)]
                |_| converts = true,
            );
        }
        let mut scratch = Scratch::new();
        while let Some(arrays) = runs.next() {
            let mut strips = Strips::new(step, arrays, &mut scratch, converts);
            let mut is_open = strips.turn();
            while is_open {
                if const { Self::can_convert_in_loop::<S>() }
                    && let Some(kind) = strips.in_loop()
                {
                    is_open = in_loop::sweep::<S, R>(simd, rule, &k, step, kind, &mut strips);
                    continue;
                }
                specialise::<S, R>(
                    rule,
                    #[inline(always)]
                    |rule| {
                        let k = &for_pairs::<S, R, f32>(&k);
                        while is_open && strips.in_loop().is_none() {
                            let Strip { param, grad, moments: [a, b, c, d] } = strips.strip::<S>();
                            let param = pairs_mut::<S, f32>(param);
                            let grad = pairs::<S, f32>(grad);
                            let moments = [
                                pairs_mut::<S, f32>(a),
                                pairs_mut::<S, f32>(b),
                                pairs_mut::<S, f32>(c),
                                pairs_mut::<S, f32>(d),
                            ];
                            let factor = Some(factor);
                            if const { asks_ahead::<S>() } && step.ahead > 0 {
                                let ahead = Some(step.ahead);
                                sweep_pairs::<S, R, f32>(
                                    simd, rule, k, factor, ahead, param, grad, moments,
                                );
                            } else {
                                sweep_pairs::<S, R, f32>(
                                    simd, rule, k, factor, None, param, grad, moments,
                                );
                            }
                            is_open = strips.turn();
                        }
                    },
                );
            }
        }
    }
}
