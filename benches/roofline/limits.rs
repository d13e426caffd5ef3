//! What a step is measured against: rules that move a step's bytes or do its divisions, and the
//! loop that the compiler makes of the formula.

use std::ops::{Add, Div, Mul, Neg, Sub};

use adamant::{Arity, Count, Error, Float, Lanes, Many, Rule, Tensor};

/// Moves the bytes of a step with `N` moments, through the same kernel, and leaves every value as
/// it was.
#[derive(Clone, Copy)]
pub struct Stream<const N: usize>;

impl<const N: usize> Rule for Stream<N> {
    type Moments = Count<N>;
    type Constants = Count<1>;
    const MOMENT_NAMES: [&'static str; N] = ["moment"; N];

    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn constants(&self, _t: u64) -> [f64; 1] {
        [0.0]
    }

    #[inline(always)]
    fn update<L: Lanes>(
        &self,
        &[zero]: &[L; 1],
        param: L,
        grad: L,
        mut moments: [L; N],
    ) -> (L, [L; N]) {
        let nothing = zero * grad;
        for moment in &mut moments {
            *moment = *moment + nothing;
        }
        (param + nothing, moments)
    }
}

/// Keeps the divider busy with operands in registers: [`DIVISIONS`] divisions for each element that
/// it reads, each of a square root if `ROOT`.
#[derive(Clone, Copy)]
pub struct Divider<const ROOT: bool>;

const CHAINS: usize = 8;
const LINKS: usize = 32;
/// Divisions of [`Divider`] for each element.
pub const DIVISIONS: usize = CHAINS * LINKS;

impl<const ROOT: bool> Rule for Divider<ROOT> {
    type Moments = Count<0>;
    type Constants = Count<1>;
    const MOMENT_NAMES: [&'static str; 0] = [];

    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    fn constants(&self, _t: u64) -> [f64; 1] {
        // Leads every chain of roots to a number that no divider has a short cut for.
        [0.7]
    }

    #[inline(always)]
    fn update<L: Lanes>(&self, &[c]: &[L; 1], param: L, grad: L, []: [L; 0]) -> (L, [L; 0]) {
        // Each chain waits for itself; enough of them side by side, and the divider never idles.
        let mut chains = [param; CHAINS];
        for (chain, start) in chains.iter_mut().zip(1..) {
            *chain = grad.splat(f64::from(start)) + grad;
        }
        for _ in 0..LINKS {
            for chain in &mut chains {
                *chain = c / if ROOT { chain.sqrt() } else { *chain };
            }
        }
        let mut sum = param;
        for chain in chains {
            sum = sum.min(chain);
        }
        (sum, [])
    }
}

/// A plain number, whose products are not fused with sums: fused ones would be calls into a library
/// on the instruction set that the build is for.
#[derive(Clone, Copy)]
pub struct Plain<F>(pub F);

macro_rules! operator {
    ($($operator:ident::$method:ident),+) => {$(
        impl<F: Float> $operator for Plain<F> {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                Self(self.0.$method(other.0))
            }
        }
    )+};
}

operator!(Add::add, Sub::sub, Mul::mul, Div::div);

impl<F: Float> Neg for Plain<F> {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        Self(-self.0)
    }
}

impl<F: Float> Lanes for Plain<F> {
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

/// The formula as a loop that the compiler vectorises by itself.
#[inline(never)]
pub fn plain<R: Rule, F: Float>(rule: R, constants: &[f64], tensor: &mut Tensor<'_, R, F>) {
    let k = R::Constants::from_fn(|i| Plain(F::from_f64(constants[i])));
    let len = tensor.param.len();
    let (param, grad) = (&mut tensor.param[..len], &tensor.grad[..len]);
    let moments = tensor.moments.as_mut();
    let kept: Many<R::Moments, bool> = R::Moments::from_fn(|moment| rule.start(moment).is_some());
    let kept = kept.as_ref();
    for (moment, &kept) in moments.iter_mut().zip(kept) {
        *moment = &mut std::mem::take(moment)[..if kept { len } else { 0 }];
    }
    for i in 0..len {
        let old = R::Moments::from_fn(|moment| match kept[moment] {
            true => Plain(moments[moment][i]),
            false => Plain(F::default()),
        });
        let (next, new) = rule.update(&k, Plain(param[i]), Plain(grad[i]), old);
        param[i] = next.0;
        for ((moment, new), &kept) in moments.iter_mut().zip(new).zip(kept) {
            if kept {
                moment[i] = new.0;
            }
        }
    }
}
