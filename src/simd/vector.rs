//! One register with operators.

use core::ops::{Add, Div, Mul, Neg, Sub};

use pulp::Simd;

use super::{Lanes, MOST_LANES, Register};

/// A register of `F` on the instruction set `S`; `S` is the proof that this CPU has it.
#[derive(Clone, Copy)]
pub struct Vector<S: Simd, F: Register> {
    pub(super) simd: S,
    pub(super) register: F::Of<S>,
}

impl<S: Simd, F: Register> Vector<S, F> {
    #[inline(always)]
    pub(crate) fn new(simd: S, register: F::Of<S>) -> Self {
        Self { simd, register }
    }

    /// The same value in every lane.
    #[inline(always)]
    pub(crate) fn splat(simd: S, value: F) -> Self {
        Self { simd, register: <F as Register>::splat(simd, value) }
    }

    /// The same value in every lane, rounded to nearest. Constants of a step do not become 0 here: see
    /// [`fit_constants`](crate::kernel::fit_constants).
    #[inline(always)]
    pub(crate) fn nearest(simd: S, value: f64) -> Self {
        Self::splat(simd, F::nearest(value))
    }

    /// Less than a register of numbers, and zeros.
    #[inline(always)]
    pub(crate) fn load(simd: S, tail: &[F]) -> Self {
        Self::new(simd, F::load(simd, tail))
    }

    /// The inverse of [`load`](Self::load).
    #[inline(always)]
    pub(crate) fn store(self, tail: &mut [F]) {
        F::store(self.simd, tail, self.register);
    }

    /// A register of numbers. If there are fewer, the rest is zeros.
    #[inline(always)]
    pub(crate) fn read(simd: S, numbers: &[F]) -> Self {
        match F::split::<S>(numbers) {
            (&[register, ..], _) => Self::new(simd, register),
            (_, tail) => Self::load(simd, tail),
        }
    }

    /// The inverse of [`read`](Self::read).
    #[inline(always)]
    pub(crate) fn write(self, numbers: &mut [F]) {
        match F::split_mut::<S>(numbers) {
            ([register, ..], _) => *register = self.register,
            (_, tail) => self.store(tail),
        }
    }

    #[inline(always)]
    pub(crate) fn register(self) -> F::Of<S> {
        self.register
    }

    #[inline(always)]
    pub(crate) fn simd(self) -> S {
        self.simd
    }

    /// The value of the first lane.
    #[inline(always)]
    pub(crate) fn first(self) -> F {
        let mut lanes = [F::default(); MOST_LANES];
        F::split_mut::<S>(&mut lanes).0[0] = self.register;
        lanes[0]
    }
}

macro_rules! operator {
    ($($operator:ident::$method:ident),+) => {$(
        impl<S: Simd, F: Register> $operator for Vector<S, F> {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                let register = <F as Register>::$method(self.simd, self.register, other.register);
                Self { simd: self.simd, register }
            }
        }
    )+};
}

operator!(Add::add, Sub::sub, Mul::mul, Div::div);

impl<S: Simd, F: Register> Neg for Vector<S, F> {
    type Output = Self;

    #[inline(always)]
    fn neg(self) -> Self {
        Self { simd: self.simd, register: <F as Register>::neg(self.simd, self.register) }
    }
}

/// A comparison's outcome, with the proof that selecting by it needs.
#[derive(Clone, Copy)]
pub struct VectorMask<S: Simd, F: Register> {
    pub(super) simd: S,
    pub(super) mask: F::MaskOf<S>,
}

impl<S: Simd, F: Register> VectorMask<S, F> {
    #[inline(always)]
    pub(crate) fn new(simd: S, mask: F::MaskOf<S>) -> Self {
        Self { simd, mask }
    }

    #[inline(always)]
    pub(crate) fn mask(self) -> F::MaskOf<S> {
        self.mask
    }
}

impl<S: Simd, F: Register> Lanes for Vector<S, F> {
    type Mask = VectorMask<S, F>;

    #[inline(always)]
    fn splat(self, value: f64) -> Self {
        Self::nearest(self.simd, value)
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        let register =
            <F as Register>::mul_add(self.simd, self.register, factor.register, addend.register);
        Self { simd: self.simd, register }
    }

    #[inline(always)]
    fn sqrt(self) -> Self {
        Self { simd: self.simd, register: <F as Register>::sqrt(self.simd, self.register) }
    }

    #[inline(always)]
    fn abs(self) -> Self {
        Self { simd: self.simd, register: <F as Register>::abs(self.simd, self.register) }
    }

    #[inline(always)]
    fn less_than(self, other: Self) -> Self::Mask {
        let mask = <F as Register>::less_than(self.simd, self.register, other.register);
        VectorMask { simd: self.simd, mask }
    }

    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        let register = <F as Register>::select(mask.simd, mask.mask, yes.register, no.register);
        Self { simd: mask.simd, register }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        if const { X86_REGISTERS && !S::IS_SCALAR } {
            // The instruction takes its second operand unless the first is greater.
            Self::new(self.simd, <F as Register>::max(self.simd, other.register, self.register))
        } else {
            Self::select(self.less_than(other), other, self)
        }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        if const { X86_REGISTERS && !S::IS_SCALAR } {
            // The instruction takes its second operand unless the first is less.
            Self::new(self.simd, <F as Register>::min(self.simd, other.register, self.register))
        } else {
            Self::select(other.less_than(self), other, self)
        }
    }
}

/// Whether pulp's maximum and minimum are those of x86; elsewhere they treat NaN and the signs of
/// zeros in other ways.
const X86_REGISTERS: bool = cfg!(target_arch = "x86_64");
