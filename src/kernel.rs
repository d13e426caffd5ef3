//! A rule over elements whose arrays are all of one type, on one instruction set. The loop is in `pairs`, and `mixed`
//! uses it, too.

mod pairs;

use crate::{
    Error, Tensor,
    array::Float,
    isa::Cpu,
    rule::{Arity, Many, Rule},
    simd::{Simd, Vector, WithSimd},
    tensor::{Part, Precision, Run, Slices, TypedArrays},
};
use pairs::sweep_with;
pub(crate) use pairs::{for_pairs, pairs, pairs_mut, registers, sweep, sweep_pairs, wide};

/// Refuses constants that are too large for the type of the step. Those that are no normal numbers of it are rounded to
/// it, and what is not 0 does not become 0. So the kernels need not look for that.
#[inline(always)]
pub(crate) fn fit_constants<F: Float>(constants: &mut [f64]) -> Result<(), Error> {
    for constant in constants {
        let size = constant.abs();
        if size != 0.0 && !(F::SMALLEST_NORMAL..=F::LARGEST).contains(&size) {
            *constant = fit_constant::<F>(*constant)?;
        }
    }
    Ok(())
}

/// [`fit_constants`] for steps in `f64`, or else in `f32`.
#[inline(always)]
pub(crate) fn fit_constants_to(is_f64: bool, constants: &mut [f64]) -> Result<(), Error> {
    match is_f64 {
        true => fit_constants::<f64>(constants),
        false => fit_constants::<f32>(constants),
    }
}

/// As [`fit_constants`], for one that is neither 0 nor a normal number of the type.
#[cold]
#[inline(never)]
fn fit_constant<F: Float>(value: f64) -> Result<f64, Error> {
    let rounded = F::constant(value);
    match rounded.is_finite() {
        // A number just above the largest one of the type is rounded to it.
        true => Ok(rounded.to_f64()),
        false => Err(Error::ConstantOverflow { value, float: F::NAME }),
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
    /// No options, for few elements.
    pub(crate) const DEFAULT: Self =
        Self { grad_factor: 1.0, flush_subnormals: false, seed: 0, ahead: 0 };

    /// How the step of a tensor is computed.
    #[inline]
    pub(crate) fn precision(&self, tensor: &Tensor<'_>) -> Precision {
        match tensor.precision_in_call {
            // The plain loop over f32 multiplies no gradients.
            Precision::F32 if self.grad_factor != 1.0 || self.flush_subnormals => Precision::Mixed,
            precision => precision,
        }
    }
}

/// Rows whose arrays are all of the type that is computed in.
pub trait TypedRows<F> {
    /// The next elements, of one row.
    fn next(&mut self) -> Option<TypedArrays<'_, F>>;
}

/// Takes a step of elements whose arrays are all of one type: of tensors, or of rows.
#[inline]
pub(crate) fn sweep_elements<R: Rule, F: Float>(
    rule: R,
    cpu: Cpu,
    constants: &Many<R::Constants, f64>,
    pass: &Pass,
    elements: Elements<'_, '_, '_, F>,
) {
    cpu.run(Sweep { rule, constants, pass, elements });
}

/// The elements of tensors that take the same step in the same precision.
pub(crate) struct Alike<'a, 'b, 'x> {
    pub(crate) run: &'a mut Run<'b, 'x>,
    pub(crate) t: u64,
    pub(crate) precision: Precision,
    pub(crate) pass: &'a Pass,
}

impl<'b, 'x> Alike<'_, 'b, 'x> {
    #[inline(always)]
    pub(crate) fn next_part(&mut self) -> Option<Part<'b, 'x>> {
        let Self { t, precision, pass, .. } = *self;
        self.run.next_if(
            #[inline(always)]
            |tensor| tensor.steps() + 1 == t && pass.precision(tensor) == precision,
        )
    }
}

/// Where the elements of a step come from.
pub(crate) enum Elements<'a, 'b, 'x, F> {
    Tensors(Alike<'a, 'b, 'x>),
    Rows(&'a mut dyn TypedRows<F>),
    /// One row, or one small tensor; `None` when it was taken. It takes no call of a function, before which the
    /// constants would leave their registers.
    Row(Option<&'a mut TypedArrays<'a, F>>),
}

impl<F: Float> Elements<'_, '_, '_, F> {
    /// The next elements, and the part of a tensor that they are.
    #[inline(always)]
    fn next<R: Rule>(&mut self) -> Option<(Slices<'_, R, F>, Option<Part<'_, '_>>)> {
        match self {
            Self::Tensors(alike) => alike.next_part().map(
                #[inline(always)]
                |part| (part.slices(), Some(part)),
            ),
            Self::Rows(rows) => rows.next().map(|arrays| (arrays.slices(), None)),
            Self::Row(arrays) => arrays.take().map(|arrays| (arrays.reborrow().slices(), None)),
        }
    }
}

/// A step of elements whose arrays are all of one type.
struct Sweep<'s, 'a, 'b, 'x, R: Rule, F: Float> {
    rule: R,
    constants: &'s Many<R::Constants, f64>,
    pass: &'s Pass,
    elements: Elements<'a, 'b, 'x, F>,
}

impl<R: Rule, F: Float> WithSimd for Sweep<'_, '_, '_, '_, R, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { rule, constants, pass, mut elements, .. } = self;
        let constants = constants.as_ref();
        let k = R::Constants::from_fn(
            #[inline(always)]
            |i| Vector::nearest(simd, constants[i]),
        );
        let factor = Vector::<S, F>::nearest(simd, pass.grad_factor);
        specialise::<S, R>(
            rule,
            #[inline(always)]
            |rule| {
                while let Some((mut slices, part)) = elements.next::<R>() {
                    sweep_with::<S, R, F, true>(
                        simd,
                        rule,
                        &k,
                        factor,
                        pass.ahead,
                        slices.reborrow(),
                    );
                    if F::SCALES {
                        if pass.flush_subnormals {
                            flush(slices.moments.as_mut());
                        }
                        if let Some(part) = part {
                            part.zero_grad();
                        }
                    }
                }
            },
        );
    }
}

/// [`Rule::specialise`], except on the scalar instruction set and in debug builds: their speed matters little, so one
/// loop with branches is enough.
#[inline(always)]
pub(crate) fn specialise<S: Simd, R: Rule>(rule: R, mut run: impl FnMut(R)) {
    // Fuzz targets are debug builds of the loops that are released.
    if const { S::IS_SCALAR || cfg!(all(few_loops, not(fuzzing))) } {
        run(rule);
    } else {
        rule.specialise(run);
    }
}

/// Makes subnormal moments zero, and -0 with them. Not inlined: each loop of each rule would have a copy.
#[inline(never)]
pub(crate) fn flush<F: Float>(moments: &mut [&mut [F]]) {
    for moment in moments {
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
