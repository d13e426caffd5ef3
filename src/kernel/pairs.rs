//! The loop of all steps: a rule over arrays of the type that is computed in, two registers at a time.

use core::mem;

use crate::{
    array::Float,
    rule::{Arity, MOMENTS, Many, Rule},
    simd::{Register, Simd, TOGETHER, Vector, Wide, prefetch_item},
    tensor::Slices,
};

/// A parameter, its gradient and its moments, a register of each.
type Values<R, L> = (L, L, Many<<R as Rule>::Moments, L>);

/// A step over a few elements in cache, of gradients as they are.
#[inline(always)]
pub(crate) fn sweep<S: Simd, R: Rule, F: Float>(
    simd: S,
    rule: R,
    k: &Many<R::Constants, Vector<S, F>>,
    slices: Slices<'_, R, F>,
) {
    let factor = Vector::splat(simd, F::nearest(1.0));
    sweep_with::<S, R, F, false>(simd, rule, k, factor, 0, slices);
}

/// Pairs of registers.
type PairsOf<S, F> = [[<F as Register>::Of<S>; TOGETHER]];

/// The whole pairs of registers of a slice.
#[inline(always)]
pub(crate) fn pairs<S: Simd, F: Float>(slice: &[F]) -> &PairsOf<S, F> {
    F::split::<S>(slice).0.as_chunks().0
}

/// As [`pairs`], to write to.
#[inline(always)]
pub(crate) fn pairs_mut<S: Simd, F: Float>(slice: &mut [F]) -> &mut PairsOf<S, F> {
    F::split_mut::<S>(slice).0.as_chunks_mut().0
}

/// Constants for pairs of registers.
#[inline(always)]
pub(crate) fn for_pairs<S: Simd, R: Rule, F: Float>(
    k: &Many<R::Constants, Vector<S, F>>,
) -> Many<R::Constants, Wide<Vector<S, F>>> {
    R::Constants::from_fn(
        #[inline(always)]
        |i| Wide([k.as_ref()[i]; TOGETHER]),
    )
}

/// A step over arrays of the type that is computed in: pairs of registers, then the remaining elements by the same
/// formula. `ahead` is that of [`Pass`](super::Pass). If it is always 0, `CAN_ASK` is false: one loop less to compile.
#[inline(always)]
pub(super) fn sweep_with<S: Simd, R: Rule, F: Float, const CAN_ASK: bool>(
    simd: S,
    rule: R,
    k: &Many<R::Constants, Vector<S, F>>,
    factor: Vector<S, F>,
    ahead: usize,
    slices: Slices<'_, R, F>,
) {
    let pair = F::lanes::<S>() * TOGETHER;
    let whole = slices.param.len() / pair * pair;
    let Slices { param, grad, mut moments } = slices;
    let (param, mut param_rest) = param.split_at_mut(whole);
    let (grad, mut grad_rest) = grad.split_at(whole);
    let mut rests: [&mut [F]; MOMENTS] = [&mut [], &mut [], &mut [], &mut []];
    let mut take = |moment: usize| -> &mut PairsOf<S, F> {
        let Some(array) = moments.as_mut().get_mut(moment) else { return &mut [] };
        if rule.start(moment).is_none() {
            return &mut [];
        }
        let (array, rest) = mem::take(array).split_at_mut(whole);
        rests[moment] = rest;
        pairs_mut::<S, F>(array)
    };
    // Not by a loop, which the compiler would unroll too late to see that the lengths are the same.
    let arrays = [take(0), take(1), take(2), take(3)];
    let wide = for_pairs::<S, R, F>(k);
    let factor_of_pair = F::SCALES.then_some(Wide([factor; TOGETHER]));
    let (param, grad) = (pairs_mut::<S, F>(param), pairs::<S, F>(grad));
    // Loops of 256 and 512 bits can ask ahead.
    if const { CAN_ASK && S::U32_LANES >= 8 } && ahead > 0 {
        let ahead = Some(ahead);
        sweep_pairs::<S, R, F>(simd, rule, &wide, factor_of_pair, ahead, param, grad, arrays);
    } else {
        sweep_pairs::<S, R, F>(simd, rule, &wide, factor_of_pair, None, param, grad, arrays);
    }

    while !param_rest.is_empty() {
        let len = param_rest.len().min(F::lanes::<S>());
        let param = Vector::<S, F>::read(simd, &param_rest[..len]);
        let mut grad = Vector::<S, F>::read(simd, &grad_rest[..len]);
        if F::SCALES {
            grad = grad * factor;
        }
        let moments = R::Moments::from_fn(
            #[inline(always)]
            |moment| match rule.start(moment) {
                Some(_) => Vector::read(simd, &rests[moment][..len]),
                None => Vector::splat(simd, F::default()),
            },
        );
        let (param, moments) = rule.update(k, param, grad, moments);
        param.write(&mut param_rest[..len]);
        R::Moments::unrolled(
            #[inline(always)]
            |moment| {
                if rule.start(moment).is_some() {
                    let rest = mem::take(&mut rests[moment]);
                    moments.as_ref()[moment].write(&mut rest[..len]);
                    rests[moment] = &mut rest[len..];
                }
            },
        );
        param_rest = &mut param_rest[len..];
        grad_rest = &grad_rest[len..];
    }
}

/// A step over pairs of registers. If there is a `factor`, it multiplies the gradients. If there is a distance `ahead`,
/// memory is prefetched that many bytes ahead. The compiler must see in each call whether both are `Some` or `None`;
/// otherwise the loop tests for it. Moments that the settings do not use are empty.
#[allow(clippy::too_many_arguments, reason = "all that the loop must know when it is compiled")]
#[inline(always)]
pub(crate) fn sweep_pairs<S: Simd, R: Rule, F: Float>(
    simd: S,
    rule: R,
    k: &Many<R::Constants, Wide<Vector<S, F>>>,
    factor: Option<Wide<Vector<S, F>>>,
    ahead: Option<usize>,
    param: &mut PairsOf<S, F>,
    grad: &PairsOf<S, F>,
    moments: [&mut PairsOf<S, F>; MOMENTS],
) {
    // All lengths were checked. Taking slices of this length shows it to the compiler, which then omits checks in the
    // loop.
    let count = param.len();
    let [a, b, c, d] = moments;
    let of_rule = |moment: usize, array| -> &mut PairsOf<S, F> {
        let has = moment < R::MOMENT_NAMES.as_ref().len() && rule.start(moment).is_some();
        if has { first::<S, F>(array, count) } else { &mut [] }
    };
    let mut pairs = Pairs {
        simd,
        rule,
        param,
        grad: &grad[..count],
        moments: [of_rule(0, a), of_rule(1, b), of_rule(2, c), of_rule(3, d)],
        factor,
    };
    // All loads come before the first store: a load waits for an earlier store to the same offset of another page. With
    // 512 bits it also waits if one array begins a few cache lines after another, as allocators place them. So the
    // loads of the next pair come before the stores, too, if there are registers for them.
    if const { S::U32_LANES == 16 && R::Moments::COUNT <= 2 } {
        let Some(last) = count.checked_sub(1) else { return };
        let mut loaded = pairs.load(0);
        for pair in 0..count {
            if let Some(ahead) = ahead {
                pairs.prefetch(pair, ahead);
            }
            let (param, grad, moments) = loaded;
            let (param, moments) = rule.update(k, param, grad, moments);
            // After the last pair, the last one is loaded again, which saves a branch.
            loaded = pairs.load((pair + 1).min(last));
            pairs.store(pair, param, moments);
        }
        return;
    }
    for pair in 0..count {
        if let Some(ahead) = ahead {
            pairs.prefetch(pair, ahead);
        }
        let (param, grad, moments) = pairs.load(pair);
        let (param, moments) = rule.update(k, param, grad, moments);
        pairs.store(pair, param, moments);
    }
}

/// The first few pairs.
#[inline(always)]
fn first<S: Simd, F: Float>(array: &mut PairsOf<S, F>, count: usize) -> &mut PairsOf<S, F> {
    &mut array[..count]
}

/// Arrays of the type that is computed in, as pairs of registers.
struct Pairs<'a, S: Simd, R: Rule, F: Float> {
    simd: S,
    rule: R,
    param: &'a mut PairsOf<S, F>,
    grad: &'a PairsOf<S, F>,
    moments: [&'a mut PairsOf<S, F>; MOMENTS],
    /// The factor of the gradients.
    factor: Option<Wide<Vector<S, F>>>,
}

impl<S: Simd, R: Rule, F: Float> Pairs<'_, S, R, F> {
    /// Prefetches the memory that is `ahead` bytes after a pair, of each array.
    #[inline(always)]
    fn prefetch(&self, pair: usize, ahead: usize) {
        prefetch_item(self.param, pair, ahead);
        prefetch_item(self.grad, pair, ahead);
        R::Moments::unrolled(
            #[inline(always)]
            |moment| {
                if self.rule.start(moment).is_some() {
                    prefetch_item(self.moments[moment], pair, ahead);
                }
            },
        );
    }

    /// A pair of each array.
    #[inline(always)]
    fn load(&self, pair: usize) -> Values<R, Wide<Vector<S, F>>> {
        let mut grad = wide(self.simd, self.grad[pair]);
        if let Some(factor) = self.factor {
            grad = grad * factor;
        }
        let zero = Wide([Vector::splat(self.simd, F::default()); TOGETHER]);
        let mut moments = R::Moments::from_fn(
            #[inline(always)]
            |_| zero,
        );
        R::Moments::unrolled(
            #[inline(always)]
            |moment| {
                if self.rule.start(moment).is_some() {
                    moments.as_mut()[moment] = wide(self.simd, self.moments[moment][pair]);
                }
            },
        );
        (wide(self.simd, self.param[pair]), grad, moments)
    }

    #[inline(always)]
    fn store(
        &mut self,
        pair: usize,
        param: Wide<Vector<S, F>>,
        moments: Many<R::Moments, Wide<Vector<S, F>>>,
    ) {
        self.param[pair] = registers(param);
        R::Moments::unrolled(
            #[inline(always)]
            |moment| {
                if self.rule.start(moment).is_some() {
                    self.moments[moment][pair] = registers(moments.as_ref()[moment]);
                }
            },
        );
    }
}

/// A pair of registers as one.
#[inline(always)]
pub(crate) fn wide<S: Simd, F: Float>(
    simd: S,
    [first, second]: [F::Of<S>; TOGETHER],
) -> Wide<Vector<S, F>> {
    Wide([Vector::new(simd, first), Vector::new(simd, second)])
}

/// The inverse of [`wide`].
#[inline(always)]
pub(crate) fn registers<S: Simd, F: Float>(vectors: Wide<Vector<S, F>>) -> [F::Of<S>; TOGETHER] {
    let Wide([first, second]) = vectors;
    [first.register(), second.register()]
}
