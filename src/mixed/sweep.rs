//! The rule's part of a step in mixed precision: strips of `f32`, whatever they come from.

use super::{
    MixedStep, Runs, in_loop,
    strips::{Scratch, Strip, Strips},
};
use crate::{
    kernel::{asks_ahead, pairs, pairs_mut, specialise, sweep_pairs},
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
            |i| Wide([Vector::<S, f32>::nearest(simd, constants[i]); TOGETHER]),
        );
        let factor = Wide([Vector::<S, f32>::splat(simd, step.grad_factor); TOGETHER]);
        let mut scratch = Scratch::new();
        specialise::<S, R>(
            rule,
            #[inline(always)]
            |rule| {
                while let Some(arrays) = runs.next() {
                    let in_loop =
                        const { Self::can_convert_in_loop::<S>() } && rule.converts_in_loop();
                    let mut strips = Strips::new(step, arrays, &mut scratch, in_loop);
                    while strips.turn() {
                        if const { Self::can_convert_in_loop::<S>() }
                            && in_loop
                            && let Some(kind) = strips.in_loop()
                        {
                            in_loop::sweep::<S, R>(simd, rule, &k, step, kind, strips.arrays());
                            continue;
                        }
                        let Strip { param, grad, moments } = strips.strip::<S>();
                        let [a, b, c, d] = moments;
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
                                simd, rule, &k, factor, ahead, param, grad, moments,
                            );
                        } else {
                            sweep_pairs::<S, R, f32>(
                                simd, rule, &k, factor, None, param, grad, moments,
                            );
                        }
                    }
                }
            },
        );
    }
}
