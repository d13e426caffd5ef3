//! The one loop: a rule over spans of memory, on one instruction set.

use core::{marker::PhantomData, mem};

use pulp::{Simd, WithSimd};

use crate::{
    Arity, Error, Float, Many, RowRule, Rule, Tensor,
    isa::Cpu,
    lanes::{Lanes, Register, Vector},
    mixed,
    optimizer::{Constants, of_rule},
    prefetch::{self, AHEAD},
    tensor::{Precision, Run, Slices},
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
    /// Whether to ask for memory ahead, in steps whose arrays are all of one type, and in others.
    pub prefetch_plain: bool,
    pub prefetch_mixed: bool,
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
            _ => rule.constants(t),
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
            Precision::Mixed => mixed::run(rule, cpu, &constants, t, pass, elements, alike),
        }
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
        rule.specialise(
            #[inline(always)]
            |rule| {
                while let Some(part) = elements.next_if(&alike) {
                    let mut slices = part.slices::<R, F>();
                    let prefetch = pass.prefetch_plain;
                    if F::SCALES {
                        let registers = Registers::new(simd, rule, slices.reborrow());
                        sweep_arrays(rule, &k, &mut Scaled { registers, factor }, prefetch);
                        part.zero_grad();
                    } else {
                        sweep(simd, rule, &k, slices.reborrow(), prefetch);
                    }
                    if F::SCALES && pass.flush_subnormals {
                        flush(slices);
                    }
                }
            },
        );
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

/// A place in the arrays of a tensor.
#[derive(Clone, Copy)]
pub(crate) enum At {
    /// A whole register, by its number.
    Whole(usize),
    /// What is left behind the last one.
    Tail,
}

/// A parameter, its gradient and its moments, a register of each.
pub(crate) type Values<R, L> = (L, L, Many<<R as Rule>::Moments, L>);

/// The arrays of a tensor, as registers of what is computed in, whatever they hold.
pub(crate) trait Arrays<R: Rule, L: Lanes> {
    /// Whether a tail, less than a register, is any different.
    const HAS_TAILS: bool;

    /// The number of whole registers, and whether there is a tail behind them.
    fn registers(&self) -> (usize, bool);

    /// Asks for the memory of a register ahead.
    fn prefetch(&self, register: usize);

    fn load(&self, at: At) -> Values<R, L>;

    fn store(&mut self, at: At, param: L, moments: Many<R::Moments, L>);
}

/// The one loop, over arrays that hold what is computed in.
#[inline(always)]
pub(crate) fn sweep<S: Simd, R: Rule, F: Float>(
    simd: S,
    rule: R,
    k: &Many<R::Constants, Vector<S, F>>,
    tensor: Slices<'_, R, F>,
    prefetch: bool,
) {
    sweep_arrays(rule, k, &mut Registers::new(simd, rule, tensor), prefetch);
}

/// The one loop: whole registers first, then the rest by the same formula.
#[inline(always)]
pub(crate) fn sweep_arrays<R: Rule, L: Lanes, A: Arrays<R, L>>(
    rule: R,
    k: &Many<R::Constants, L>,
    arrays: &mut A,
    prefetch: bool,
) {
    let (whole, has_tail) = arrays.registers();
    for register in 0..whole {
        if prefetch {
            arrays.prefetch(register);
        }
        // Every load stands before the first store: mixed, they stall each other where the arrays
        // share page offsets.
        let (param, grad, moments) = arrays.load(At::Whole(register));
        let (param, moments) = rule.update(k, param, grad, moments);
        arrays.store(At::Whole(register), param, moments);
    }
    if A::HAS_TAILS && has_tail {
        let (param, grad, moments) = arrays.load(At::Tail);
        let (param, moments) = rule.update(k, param, grad, moments);
        arrays.store(At::Tail, param, moments);
    }
}

/// The whole registers of an array, and its tail.
type Cut<'a, S, F> = (&'a mut [<F as Register>::Of<S>], &'a mut [F]);

/// The arrays of a tensor that hold what is computed in: whole registers and the tail of each.
struct Registers<'a, S: Simd, R: Rule, F: Float> {
    simd: S,
    param: Cut<'a, S, F>,
    grad: (&'a [F::Of<S>], &'a [F]),
    moments: Many<R::Moments, Cut<'a, S, F>>,
    kept: Many<R::Moments, bool>,
}

impl<'a, S: Simd, R: Rule, F: Float> Registers<'a, S, R, F> {
    #[inline(always)]
    fn new(simd: S, rule: R, slices: Slices<'a, R, F>) -> Self {
        let Slices { param, grad, moments } = slices;
        let param = F::split_mut::<S>(param);
        let mut grad = F::split::<S>(grad);
        let mut moments = R::Moments::map(
            moments,
            #[inline(always)]
            |moment| F::split_mut::<S>(moment),
        );
        let kept = R::Moments::from_fn(
            #[inline(always)]
            |moment| rule.start(moment).is_some(),
        );
        // `validate` found all lengths equal; said once more here, it frees the loop of checks.
        let len = param.0.len();
        grad.0 = &grad.0[..len];
        for ((moments, _), &kept) in moments.as_mut().iter_mut().zip(kept.as_ref()) {
            if kept {
                *moments = &mut mem::take(moments)[..len];
            }
        }
        Self { simd, param, grad, moments, kept }
    }
}

impl<S: Simd, R: Rule, F: Float> Arrays<R, Vector<S, F>> for Registers<'_, S, R, F> {
    const HAS_TAILS: bool = true;

    #[inline(always)]
    fn registers(&self) -> (usize, bool) {
        (self.param.0.len(), !self.param.1.is_empty())
    }

    #[inline(always)]
    fn prefetch(&self, register: usize) {
        let ahead = AHEAD / size_of::<F::Of<S>>();
        prefetch::prefetch(self.param.0, register, ahead);
        prefetch::prefetch(self.grad.0, register, ahead);
        let moments = self.moments.as_ref().iter().zip(self.kept.as_ref());
        for ((moments, _), _) in moments.filter(|(_, kept)| **kept) {
            prefetch::prefetch(moments, register, ahead);
        }
    }

    #[inline(always)]
    fn load(&self, at: At) -> Values<R, Vector<S, F>> {
        let (simd, kept) = (self.simd, self.kept.as_ref());
        let moments = self.moments.as_ref();
        match at {
            At::Whole(i) => (
                Vector::new(simd, self.param.0[i]),
                Vector::new(simd, self.grad.0[i]),
                R::Moments::from_fn(
                    #[inline(always)]
                    |moment| match kept[moment] {
                        true => Vector::new(simd, moments[moment].0[i]),
                        false => Vector::constant(simd, 0.0),
                    },
                ),
            ),
            At::Tail => (
                Vector::load(simd, self.param.1),
                Vector::load(simd, self.grad.1),
                R::Moments::from_fn(
                    #[inline(always)]
                    |moment| Vector::load(simd, moments[moment].1),
                ),
            ),
        }
    }

    #[inline(always)]
    fn store(&mut self, at: At, param: Vector<S, F>, moments: Many<R::Moments, Vector<S, F>>) {
        match at {
            At::Whole(i) => self.param.0[i] = param.register(),
            At::Tail => param.store(self.param.1),
        }
        let arrays = self.moments.as_mut().iter_mut().zip(moments).zip(self.kept.as_ref());
        for (((whole, tail), moment), &kept) in arrays {
            if kept {
                match at {
                    At::Whole(i) => whole[i] = moment.register(),
                    At::Tail => moment.store(tail),
                }
            }
        }
    }
}

/// Arrays whose gradients are multiplied as they are read.
struct Scaled<'a, S: Simd, R: Rule, F: Float> {
    registers: Registers<'a, S, R, F>,
    factor: Vector<S, F>,
}

impl<S: Simd, R: Rule, F: Float> Arrays<R, Vector<S, F>> for Scaled<'_, S, R, F> {
    const HAS_TAILS: bool = true;

    #[inline(always)]
    fn registers(&self) -> (usize, bool) {
        self.registers.registers()
    }

    #[inline(always)]
    fn prefetch(&self, register: usize) {
        self.registers.prefetch(register);
    }

    #[inline(always)]
    fn load(&self, at: At) -> Values<R, Vector<S, F>> {
        let (param, grad, moments) = self.registers.load(at);
        (param, grad * self.factor, moments)
    }

    #[inline(always)]
    fn store(&mut self, at: At, param: Vector<S, F>, moments: Many<R::Moments, Vector<S, F>>) {
        self.registers.store(at, param, moments);
    }
}
