//! The rule's part of a step in mixed precision: strips of `f32`, whatever they come from.

use super::{
    MixedStep, in_loop,
    strips::{Scratch, Strip, Strips},
};
use crate::{
    Arity, Many, Rule, Tensor,
    kernel::{TOGETHER, asks_ahead, pairs, pairs_mut, specialise, sweep_pairs},
    simd::{Simd, Vector, Wide, WithSimd},
    tensor::Run,
};

pub(super) struct Sweep<'a, 'b, 'x, R: Rule, A> {
    pub rule: R,
    pub constants: &'a Many<R::Constants, f64>,
    pub step: &'a MixedStep,
    pub elements: &'a mut Run<'b, 'x>,
    /// Whether a tensor takes the same step.
    pub alike: A,
}

impl<R: Rule, A: Fn(&Tensor<'_>) -> bool> WithSimd for Sweep<'_, '_, '_, R, A> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rule, constants, step, elements, alike } = self;
        let constants = constants.as_ref();
        let k = R::Constants::from_fn(
            #[inline(always)]
            |i| Wide([Vector::<S, f32>::constant(simd, constants[i]); TOGETHER]),
        );
        let factor = Wide([Vector::<S, f32>::splat(simd, step.grad_factor); TOGETHER]);
        let mut scratch = Scratch::new();
        specialise::<S, R>(
            rule,
            #[inline(always)]
            |rule| {
                while let Some(part) = elements.next_if(&alike) {
                    let in_loop = !S::IS_SCALAR && rule.converts_in_loop();
                    let mut strips = Strips::new(step, part.arrays(), &mut scratch, in_loop);
                    while strips.turn() {
                        if in_loop && let Some(kind) = strips.in_loop() {
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
                        if step.prefetch && asks_ahead::<S>() {
                            sweep_pairs::<S, R, f32, true>(
                                simd, rule, &k, factor, param, grad, moments,
                            );
                        } else {
                            sweep_pairs::<S, R, f32, false>(
                                simd, rule, &k, factor, param, grad, moments,
                            );
                        }
                    }
                }
            },
        );
    }
}
