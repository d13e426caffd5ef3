//! The one loop: a rule over spans of memory, on one instruction set.

use core::{marker::PhantomData, mem};

use crate::{
    Arity, Error, Float, MOMENTS, Many, RowRule, Rule, Tensor,
    isa::Cpu,
    mixed,
    optimizer::{Constants, of_rule},
    simd::{Register, Simd, Vector, Wide, WithSimd, prefetch_item},
    tensor::{Precision, Run, Slices, TensorArrays},
};

/// A step whose hyper-parameters nothing can be wrong with any more.
pub(crate) struct Step<R: RowRule> {
    pub cpu: Cpu,
    pub constants: Many<R::RowConstants, f64>,
}

impl<R: RowRule> Step<R> {
    /// Step `t`, to be computed in `F`.
    #[inline]
    pub(crate) fn new<F: Float>(rule: &R, cpu: Cpu, t: u64) -> Result<Self, Error> {
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
        Ok(Self { cpu, constants })
    }
}

/// What all elements of a call share, besides the rule.
pub struct Pass {
    /// What gradients are multiplied by.
    pub grad_factor: f64,
    pub flush_subnormals: bool,
    pub seed: u64,
    /// Whether the arrays are so large that asking for memory ahead can pay.
    pub prefetch: bool,
}

impl Pass {
    /// What a step of a tensor goes through.
    #[inline]
    fn precision(&self, tensor: &Tensor<'_>) -> Precision {
        match tensor.precision() {
            // The plain loop over f32 multiplies no gradients.
            Precision::F32 if self.grad_factor != 1.0 || self.flush_subnormals => Precision::Mixed,
            precision => precision,
        }
    }
}

/// Takes a step of some elements. `known` are the constants of a step, which may be that of the
/// elements.
#[inline]
pub(crate) fn run<R: Rule>(
    rule: R,
    cpu: Cpu,
    pass: &Pass,
    known: (u64, &Constants),
    mut elements: Run<'_, '_>,
) {
    while let Some(tensor) = elements.peek() {
        let t = tensor.steps() + 1;
        let precision = pass.precision(tensor);
        let constants = match known {
            (known, constants) if known == t => of_rule::<R>(constants),
            _ => constants(&rule, t),
        };
        let alike =
            |tensor: &Tensor<'_>| tensor.steps() + 1 == t && pass.precision(tensor) == precision;
        let elements = &mut elements;
        match precision {
            Precision::F32 => cpu.run(Sweep::<R, f32, _> {
                rule,
                constants: &constants,
                pass,
                elements,
                alike,
                float: PhantomData,
            }),
            Precision::F64 => cpu.run(Sweep::<R, f64, _> {
                rule,
                constants: &constants,
                pass,
                elements,
                alike,
                float: PhantomData,
            }),
            Precision::Mixed => {
                let mut runs = Alike { elements, alike };
                mixed::run(rule, cpu, &constants, t, pass, &mut runs);
            }
        }
    }
}

/// The constants of a step. Not inlined: the compiler would begin with them where they are known.
#[inline(never)]
fn constants<R: Rule>(rule: &R, t: u64) -> Many<R::Constants, f64> {
    rule.constants(t)
}

/// The elements of tensors that take the same step.
struct Alike<'a, 'b, 'x, A> {
    elements: &'a mut Run<'b, 'x>,
    alike: A,
}

impl<A: Fn(&Tensor<'_>) -> bool> mixed::Runs for Alike<'_, '_, '_, A> {
    fn next(&mut self) -> Option<TensorArrays<'_>> {
        self.elements.next_if(&self.alike).map(|part| part.arrays())
    }
}

/// A step of elements whose arrays are all of one type.
struct Sweep<'a, 'b, 'x, R: Rule, F, A> {
    rule: R,
    constants: &'a Many<R::Constants, f64>,
    pass: &'a Pass,
    elements: &'a mut Run<'b, 'x>,
    /// Whether a tensor takes the same step.
    alike: A,
    float: PhantomData<F>,
}

impl<R: Rule, F: Float, A: Fn(&Tensor<'_>) -> bool> WithSimd for Sweep<'_, '_, '_, R, F, A> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rule, constants, pass, elements, alike, .. } = self;
        let constants = constants.as_ref();
        let k = R::Constants::from_fn(
            #[inline(always)]
            |i| Vector::<S, F>::constant(simd, constants[i]),
        );
        let factor = Vector::<S, F>::constant(simd, pass.grad_factor);
        specialise::<S, R>(
            rule,
            #[inline(always)]
            |rule| {
                while let Some(part) = elements.next_if(&alike) {
                    let mut slices = part.slices::<R, F>();
                    // Of 256 bits and of 512: whether this CPU gains, the call knows.
                    if pass.prefetch && S::U32_LANES >= 8 {
                        sweep_with::<S, R, F, true>(simd, rule, &k, factor, slices.reborrow());
                    } else {
                        sweep_with::<S, R, F, false>(simd, rule, &k, factor, slices.reborrow());
                    }
                    if F::SCALES {
                        if pass.flush_subnormals {
                            flush(slices);
                        }
                        part.zero_grad();
                    }
                }
            },
        );
    }
}

/// [`Rule::specialise`] where there are registers. Without them one place is enough: it is not for speed.
#[inline(always)]
pub(crate) fn specialise<S: Simd, R: Rule>(rule: R, mut run: impl FnMut(R)) {
    if S::IS_SCALAR {
        run(rule);
    } else {
        rule.specialise(run);
    }
}

/// Makes subnormal moments zero, and -0 with them.
#[inline(always)]
fn flush<R: Rule, F: Float>(mut slices: Slices<'_, R, F>) {
    for moment in slices.moments.as_mut() {
        for value in moment.iter_mut() {
            if value.abs() < F::from_f64(F::SMALLEST_NORMAL) {
                *value = F::default();
            }
        }
    }
}

/// Whether loops that convert may ask for memory ahead on this instruction set, if the call does: see
/// [`Cpu::asks_ahead`](crate::isa::Cpu::asks_ahead). With 512 bits that is not measured.
#[inline(always)]
pub(crate) fn asks_ahead<S: Simd>() -> bool {
    S::U32_LANES == 8
}

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
    sweep_with::<S, R, F, false>(simd, rule, k, Vector::constant(simd, 1.0), slices);
}

/// Registers that the plain loop takes at a time: with one, the CPU finds too little that does not wait
/// for something else. On AVX2 two are a cache line.
pub(crate) const TOGETHER: usize = 2;

/// Pairs of registers.
type PairsOf<S, F> = [[<F as Register>::Of<S>; TOGETHER]];

/// As many whole pairs of registers as a slice has.
#[inline(always)]
pub(crate) fn pairs<S: Simd, F: Float>(slice: &[F]) -> &PairsOf<S, F> {
    F::split::<S>(slice).0.as_chunks().0
}

/// As [`pairs`], to write to.
#[inline(always)]
pub(crate) fn pairs_mut<S: Simd, F: Float>(slice: &mut [F]) -> &mut PairsOf<S, F> {
    F::split_mut::<S>(slice).0.as_chunks_mut().0
}

/// A step over arrays that hold what is computed in: pairs of registers, then what is left, by the same
/// formula.
#[inline(always)]
fn sweep_with<S: Simd, R: Rule, F: Float, const PREFETCH: bool>(
    simd: S,
    rule: R,
    k: &Many<R::Constants, Vector<S, F>>,
    factor: Vector<S, F>,
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
    let wide = R::Constants::from_fn(
        #[inline(always)]
        |i| Wide([k.as_ref()[i]; TOGETHER]),
    );
    let factor_of_pair = F::SCALES.then_some(Wide([factor; TOGETHER]));
    sweep_pairs::<S, R, F, PREFETCH>(
        simd,
        rule,
        &wide,
        factor_of_pair,
        pairs_mut::<S, F>(param),
        pairs::<S, F>(grad),
        arrays,
    );

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
                None => Vector::constant(simd, 0.0),
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

/// A step over pairs of registers, with gradients that are multiplied by a factor, if there is one: say
/// whether where the call is, for the compiler. Moments that the rule does without are empty.
#[inline(always)]
pub(crate) fn sweep_pairs<S: Simd, R: Rule, F: Float, const PREFETCH: bool>(
    simd: S,
    rule: R,
    k: &Many<R::Constants, Wide<Vector<S, F>, TOGETHER>>,
    factor: Option<Wide<Vector<S, F>, TOGETHER>>,
    param: &mut PairsOf<S, F>,
    grad: &PairsOf<S, F>,
    moments: [&mut PairsOf<S, F>; MOMENTS],
) {
    // `validate` found all lengths equal; said once more here, it frees the loop of checks.
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
    // Every load stands before the first store: mixed, they stall each other where the arrays share page offsets.
    // With 512 bits they also do where an array begins some lines after another, as an allocator places them. So
    // the loads of the next pair stand there, too, if there are registers for them.
    let loads_next = S::U32_LANES == 16 && R::MOMENT_NAMES.as_ref().len() <= 2;
    if loads_next {
        let Some(last) = count.checked_sub(1) else { return };
        let mut loaded = pairs.load(0);
        for pair in 0..count {
            if PREFETCH {
                pairs.prefetch(pair);
            }
            let (param, grad, moments) = loaded;
            let (param, moments) = rule.update(k, param, grad, moments);
            // Behind the last pair, that one again: a jump less.
            loaded = pairs.load((pair + 1).min(last));
            pairs.store(pair, param, moments);
        }
        return;
    }
    for pair in 0..count {
        if PREFETCH {
            pairs.prefetch(pair);
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

/// Arrays that hold what is computed in, as pairs of registers.
struct Pairs<'a, S: Simd, R: Rule, F: Float> {
    simd: S,
    rule: R,
    param: &'a mut PairsOf<S, F>,
    grad: &'a PairsOf<S, F>,
    moments: [&'a mut PairsOf<S, F>; MOMENTS],
    /// What gradients are multiplied by.
    factor: Option<Wide<Vector<S, F>, TOGETHER>>,
}

impl<S: Simd, R: Rule, F: Float> Pairs<'_, S, R, F> {
    /// Asks for the memory of a pair ahead.
    #[inline(always)]
    fn prefetch(&self, pair: usize) {
        prefetch_item(self.param, pair);
        prefetch_item(self.grad, pair);
        R::Moments::unrolled(
            #[inline(always)]
            |moment| {
                if self.rule.start(moment).is_some() {
                    prefetch_item(self.moments[moment], pair);
                }
            },
        );
    }

    /// A pair of each array.
    #[inline(always)]
    fn load(&self, pair: usize) -> Values<R, Wide<Vector<S, F>, TOGETHER>> {
        let mut grad = wide(self.simd, self.grad[pair]);
        if let Some(factor) = self.factor {
            grad = grad * factor;
        }
        let zero = Wide([Vector::constant(self.simd, 0.0); TOGETHER]);
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
        param: Wide<Vector<S, F>, TOGETHER>,
        moments: Many<R::Moments, Wide<Vector<S, F>, TOGETHER>>,
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
) -> Wide<Vector<S, F>, TOGETHER> {
    Wide([Vector::new(simd, first), Vector::new(simd, second)])
}

/// The inverse of [`wide`].
#[inline(always)]
pub(crate) fn registers<S: Simd, F: Float>(
    vectors: Wide<Vector<S, F>, TOGETHER>,
) -> [F::Of<S>; TOGETHER] {
    let Wide([first, second]) = vectors;
    [first.register(), second.register()]
}
