//! The one loop: a rule over spans of memory, on one instruction set.

use core::mem;

use pulp::{Simd, WithSimd};

use crate::{
    Arity, Error, Exec, Float, Many, RowRule, Rule, Tensor,
    isa::Cpu,
    lanes::Vector,
    prefetch::{self, AHEAD},
};

/// A step whose hyper-parameters nothing can be wrong with any more.
pub(crate) struct Step<R: RowRule> {
    pub cpu: Cpu,
    pub rule: R,
    pub constants: Many<R::RowConstants, f64>,
}

impl<R: RowRule> Step<R> {
    /// Step `t`, to be computed in `F`.
    #[inline]
    pub(crate) fn new<F: Float>(rule: &R, exec: Exec, t: u64) -> Result<Self, Error> {
        let cpu = exec.isa.cpu()?;
        rule.check_rule()?;
        if t == 0 {
            return Err(Error::ZeroStep);
        }
        let constants = rule.step_constants(t);
        for &value in constants.as_ref() {
            if !F::from_f64(value).is_finite() {
                return Err(Error::ConstantOverflow { value, float: F::NAME });
            }
        }
        Ok(Self { cpu, rule: *rule, constants })
    }
}

impl<R: Rule> Step<R> {
    /// Takes the step of some tensors, on the calling thread. `prefetch` says whether to ask for
    /// memory ahead: where it comes from beyond the second cache.
    #[inline]
    pub(crate) fn run<F: Float>(&self, tensors: &mut [Tensor<'_, R, F>], prefetch: bool) {
        self.cpu.run(Sweep { step: self, tensors, prefetch });
    }
}

struct Sweep<'a, 'x, R: Rule, F: Float> {
    step: &'a Step<R>,
    tensors: &'a mut [Tensor<'x, R, F>],
    prefetch: bool,
}

impl<R: Rule, F: Float> WithSimd for Sweep<'_, '_, R, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { step, tensors, prefetch } = self;
        let constants = step.constants.as_ref();
        let k = R::Constants::from_fn(
            #[inline(always)]
            |i| Vector::constant(simd, constants[i]),
        );
        step.rule.specialise(
            #[inline(always)]
            |rule| {
                for tensor in tensors.iter_mut() {
                    sweep(simd, rule, &k, tensor.reborrow(), prefetch);
                }
            },
        );
    }
}

/// Whole registers first, then the rest by the same formula.
#[inline(always)]
pub(crate) fn sweep<S: Simd, R: Rule, F: Float>(
    simd: S,
    rule: R,
    k: &Many<R::Constants, Vector<S, F>>,
    tensor: Tensor<'_, R, F>,
    prefetch: bool,
) {
    let Tensor { param, grad, moments } = tensor;
    let (params, param_tail) = F::split_mut::<S>(param);
    let (grads, grad_tail) = F::split::<S>(grad);
    let mut moments = R::Moments::map(
        moments,
        #[inline(always)]
        |moment| F::split_mut::<S>(moment),
    );

    let zero = Vector::constant(simd, 0.0);
    let kept = R::Moments::from_fn(
        #[inline(always)]
        |moment| rule.start(moment).is_some(),
    );
    let kept = kept.as_ref();

    // `validate` found all lengths equal; said once more here, it frees the loop of checks.
    let len = params.len();
    let grads = &grads[..len];
    for ((moments, _), &kept) in moments.as_mut().iter_mut().zip(kept) {
        if kept {
            *moments = &mut mem::take(moments)[..len];
        }
    }
    let ahead = AHEAD / size_of::<F::Of<S>>();
    for i in 0..len {
        if prefetch {
            prefetch::prefetch(params, i, ahead);
            prefetch::prefetch(grads, i, ahead);
            for ((moments, _), _) in moments.as_ref().iter().zip(kept).filter(|(_, kept)| **kept) {
                prefetch::prefetch(moments, i, ahead);
            }
        }
        // Every load stands before the first store: mixed, they stall each other where the arrays
        // share page offsets.
        let param = Vector::new(simd, params[i]);
        let grad = Vector::new(simd, grads[i]);
        let old = R::Moments::from_fn(
            #[inline(always)]
            |moment| match kept[moment] {
                true => Vector::new(simd, moments.as_ref()[moment].0[i]),
                false => zero,
            },
        );
        let (param, new) = rule.update(k, param, grad, old);
        params[i] = param.register();
        for (((moments, _), moment), &kept) in moments.as_mut().iter_mut().zip(new).zip(kept) {
            if kept {
                moments[i] = moment.register();
            }
        }
    }

    if !param_tail.is_empty() {
        let param = Vector::load(simd, param_tail);
        let grad = Vector::load(simd, grad_tail);
        let old = R::Moments::from_fn(
            #[inline(always)]
            |moment| Vector::load(simd, moments.as_ref()[moment].1),
        );
        let (param, new) = rule.update(k, param, grad, old);
        param.store(param_tail);
        for (((_, tail), moment), &kept) in moments.as_mut().iter_mut().zip(new).zip(kept) {
            if kept {
                moment.store(tail);
            }
        }
    }
}
