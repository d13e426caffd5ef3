//! A rule over the elements of a call, on one instruction set: all arrays of one type here, others in
//! `mixed`. The loop of both is in `pairs`.

mod pairs;

use core::marker::PhantomData;

use crate::{
    Error, Tensor,
    array::Float,
    isa::Cpu,
    mixed,
    optimizer::{Constants, of_rule},
    rule::{Arity, Many, Rule},
    simd::{Simd, Vector, WithSimd},
    table::RowRule,
    tensor::{Precision, Run, Slices, TensorArrays},
};
use pairs::sweep_with;
pub(crate) use pairs::{TOGETHER, pairs, pairs_mut, registers, sweep, sweep_pairs, wide};

/// A step whose settings were checked.
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

/// The options that all elements of a call share.
pub struct Pass {
    /// The factor of the gradients.
    pub grad_factor: f64,
    pub flush_subnormals: bool,
    pub seed: u64,
    /// How far ahead to ask for memory, in bytes of each array; 0 for not at all. See
    /// [`Cpu::ahead`](crate::isa::Cpu::ahead).
    pub ahead: usize,
}

impl Pass {
    /// How the step of a tensor is computed.
    #[inline]
    fn precision(&self, tensor: &Tensor<'_>) -> Precision {
        match tensor.precision() {
            // The plain loop over f32 multiplies no gradients.
            Precision::F32 if self.grad_factor != 1.0 || self.flush_subnormals => Precision::Mixed,
            precision => precision,
        }
    }
}

/// Takes a step of some elements. `known` is a step number with its constants, which are used if the elements take
/// this step.
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

/// The constants of a step. Not inlined: the compiler would compute them first, even if they are known.
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
                    // Loops of 256 and 512 bits can ask ahead.
                    if const { S::U32_LANES >= 8 } && pass.ahead > 0 {
                        let ahead = Some(pass.ahead);
                        sweep_with(simd, rule, &k, factor, ahead, slices.reborrow());
                    } else {
                        sweep_with(simd, rule, &k, factor, None, slices.reborrow());
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

/// [`Rule::specialise`], but for the scalar instruction set, which is not for speed: there one loop is enough.
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
/// [`Cpu::ahead`](crate::isa::Cpu::ahead). With 512 bits that is not measured.
#[inline(always)]
pub(crate) const fn asks_ahead<S: Simd>() -> bool {
    S::U32_LANES == 8
}
