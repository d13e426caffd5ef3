//! A formula as a plain loop, which the compiler vectorises by itself.

use std::ops::{Add, Div, Mul, Neg, Sub};

use adamant::{
    Isa,
    rule::{Arity, Float, Lanes, Many, Rule},
};

/// The most moments of a rule.
const MOST: usize = adamant::rule::MOMENTS;

/// Parameters, gradients and moments of one length; moments that the settings do without are empty.
pub struct Arrays<'a, F> {
    pub param: &'a mut [F],
    pub grad: &'a [F],
    pub moments: [&'a mut [F]; MOST],
}

impl<'a, F> Arrays<'a, F> {
    /// Cuts after so many elements.
    pub fn split_at(self, len: usize) -> (Self, Self) {
        let Self { param, grad, moments } = self;
        let (param, param_rest) = param.split_at_mut(len);
        let (grad, grad_rest) = grad.split_at(len);
        let mut rests: [&mut [F]; MOST] = Default::default();
        let mut places = rests.iter_mut();
        let moments = moments.map(|moment| {
            let (moment, rest) = moment.split_at_mut(if moment.is_empty() { 0 } else { len });
            if let Some(place) = places.next() {
                *place = rest;
            }
            moment
        });
        let rest = Self { param: param_rest, grad: grad_rest, moments: rests };
        (Self { param, grad, moments }, rest)
    }
}

/// The loop, built for any CPU of this kind.
#[inline(never)]
pub fn for_any_cpu<R: Rule, F: Float>(rule: R, constants: &[f64], arrays: &mut Arrays<'_, F>) {
    steps::<R, F, Unfused<F>>(rule, constants, arrays, Unfused, |unfused| unfused.0);
}

/// The loop, built for an instruction set; `None` where this CPU lacks it.
pub fn for_isa<R: Rule, F: Float>(
    isa: Isa,
    rule: R,
    constants: &[f64],
    arrays: &mut Arrays<'_, F>,
) {
    assert!(isa.is_available());
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the CPU has the instruction set.
        #[allow(unsafe_code, reason = "code for an instruction set")]
        Isa::Avx2 => unsafe { avx2(rule, constants, arrays) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the CPU has the instruction set.
        #[allow(unsafe_code, reason = "code for an instruction set")]
        Isa::Avx512 => unsafe { avx512(rule, constants, arrays) },
        // On AArch64 that is NEON, with fused products.
        Isa::Neon => steps::<R, F, F>(rule, constants, arrays, |x| x, |x| x),
        _ => for_any_cpu(rule, constants, arrays),
    }
}

/// # Safety
///
/// The CPU has the instruction set.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
#[allow(unsafe_code, reason = "code for an instruction set")]
unsafe fn avx2<R: Rule, F: Float>(rule: R, constants: &[f64], arrays: &mut Arrays<'_, F>) {
    steps::<R, F, F>(rule, constants, arrays, |x| x, |x| x);
}

/// # Safety
///
/// The CPU has the instruction set.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,fma")]
#[allow(unsafe_code, reason = "code for an instruction set")]
unsafe fn avx512<R: Rule, F: Float>(rule: R, constants: &[f64], arrays: &mut Arrays<'_, F>) {
    steps::<R, F, F>(rule, constants, arrays, |x| x, |x| x);
}

#[inline(always)]
fn steps<R: Rule, F: Float, L: Lanes>(
    rule: R,
    constants: &[f64],
    Arrays { param, grad, moments }: &mut Arrays<'_, F>,
    lane: impl Fn(F) -> L + Copy,
    number: impl Fn(L) -> F + Copy,
) {
    let k = &R::Constants::from_fn(|i| lane(F::from_f64(constants[i])));
    let kept = moments.each_ref().map(|moment| !moment.is_empty());
    let count = kept.iter().filter(|&&kept| kept).count();
    assert!(kept.is_sorted_by(|a, b| a >= b), "the moments that are kept are the first ones");
    let [a, b, c, d] = moments;
    // In a place of its own for each choice of the settings, as if the loop were written for these
    // settings alone.
    rule.specialise(
        #[inline(always)]
        |rule| match count {
            0 => sweep::<R, F, L, 0>(rule, k, param, grad, a, b, c, d, lane, number),
            1 => sweep::<R, F, L, 1>(rule, k, param, grad, a, b, c, d, lane, number),
            _ if count == R::MOMENT_NAMES.as_ref().len() => {
                sweep::<R, F, L, MOST>(rule, k, param, grad, a, b, c, d, lane, number);
            }
            _ => panic!("no loop for some of the moments: add a row here"),
        },
    );
}

/// The loop, for rules that keep their first `KEPT` moments, or as many as they have.
///
/// Each array is an argument of its own: so the compiler knows that they are different memory.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "each array is one")]
fn sweep<R: Rule, F: Float, L: Lanes, const KEPT: usize>(
    rule: R,
    k: &Many<R::Constants, L>,
    param: &mut [F],
    grad: &[F],
    a: &mut [F],
    b: &mut [F],
    c: &mut [F],
    d: &mut [F],
    lane: impl Fn(F) -> L,
    number: impl Fn(L) -> F,
) {
    let len = param.len();
    let kept = KEPT.min(R::MOMENT_NAMES.as_ref().len());
    // Lengths that the compiler knows to be equal need no checks in the loop.
    let grad = &grad[..len];
    let a = &mut a[..if kept > 0 { len } else { 0 }];
    let b = &mut b[..if kept > 1 { len } else { 0 }];
    let c = &mut c[..if kept > 2 { len } else { 0 }];
    let d = &mut d[..if kept > 3 { len } else { 0 }];
    for i in 0..len {
        let old: Many<R::Moments, L> = R::Moments::from_fn(
            #[inline(always)]
            |moment| match moment {
                0 if kept > 0 => lane(a[i]),
                1 if kept > 1 => lane(b[i]),
                2 if kept > 2 => lane(c[i]),
                3 if kept > 3 => lane(d[i]),
                _ => lane(F::default()),
            },
        );
        let (next, new) = rule.update(k, lane(param[i]), lane(grad[i]), old);
        let new = new.as_ref();
        param[i] = number(next);
        if kept > 0 {
            a[i] = number(new[0]);
        }
        if kept > 1 {
            b[i] = number(new[1]);
        }
        if kept > 2 {
            c[i] = number(new[2]);
        }
        if kept > 3 {
            d[i] = number(new[3]);
        }
    }
}

/// A number whose products are not fused with sums: fused ones would be calls into a library on the
/// instruction set that the build is for.
#[derive(Clone, Copy)]
struct Unfused<F>(F);

macro_rules! operator {
    ($($operator:ident::$method:ident),+) => {$(
        impl<F: Float> $operator for Unfused<F> {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(self.0.$method(other.0))
            }
        }
    )+};
}

operator!(Add::add, Sub::sub, Mul::mul, Div::div);

impl<F: Float> Neg for Unfused<F> {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl<F: Float> Lanes for Unfused<F> {
    type Mask = bool;

    #[inline(always)]
    fn splat(self, value: f64) -> Self {
        Self(F::from_f64(value))
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        self * factor + addend
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self(self.0.sqrt())
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self(self.0.abs())
    }

    #[inline(always)]
    fn less_than(self, other: Self) -> bool {
        self.0 < other.0
    }

    #[inline(always)]
    fn select(mask: bool, yes: Self, no: Self) -> Self {
        if mask { yes } else { no }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(self.0.max(other.0))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }
}
