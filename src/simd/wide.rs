//! Two registers as one.

use core::ops::{Add, Div, Mul, Neg, Sub};

use super::{Lanes, Register, Simd, Vector, VectorMask};

/// The number of registers that a loop takes at a time. With one, too many instructions wait for each other. On
/// AVX2 two are a cache line.
pub(crate) const TOGETHER: usize = 2;

/// Two registers that take each operation together.
#[derive(Clone, Copy)]
pub(crate) struct Wide<V>(pub [V; TOGETHER]);

// Each register is named. A loop would be unrolled in every operation of every kernel, and the crate would take 4 to
// 8 % longer to compile (Zen 4). The operations of `Vector` are not called: in incremental builds, LLVM would get a
// tenth more lines of its IR. No `map` or `zip`: functions that they call may not be inlined, and would run without the
// instruction set. No closures: in builds without optimization, their stack frames add up.

macro_rules! each {
    ($($method:ident($($other:ident),*)),+) => {$(
        #[inline(always)]
        fn $method(self $(, $other: Self)*) -> Self {
            Self([
                Vector {
                    simd: self.0[0].simd,
                    register: <F as Register>::$method(
                        self.0[0].simd,
                        self.0[0].register
                        $(, $other.0[0].register)*
                    ),
                },
                Vector {
                    simd: self.0[1].simd,
                    register: <F as Register>::$method(
                        self.0[1].simd,
                        self.0[1].register
                        $(, $other.0[1].register)*
                    ),
                },
            ])
        }
    )+};
}

macro_rules! operator {
    ($($operator:ident::$method:ident($($other:ident),*)),+) => {$(
        impl<S: Simd, F: Register> $operator for Wide<Vector<S, F>> {
            type Output = Self;

            each!($method($($other),*));
        }
    )+};
}

operator!(Add::add(other), Sub::sub(other), Mul::mul(other), Div::div(other), Neg::neg());

impl<S: Simd, F: Register> Lanes for Wide<Vector<S, F>> {
    type Mask = Wide<VectorMask<S, F>>;

    #[inline(always)]
    fn splat(self, value: f64) -> Self {
        Self([self.0[0].splat(value); TOGETHER])
    }

    each!(mul_add(factor, addend), sqrt(), abs());

    #[inline(always)]
    fn less_than(self, other: Self) -> Self::Mask {
        Wide([
            VectorMask {
                simd: self.0[0].simd,
                mask: <F as Register>::less_than(
                    self.0[0].simd,
                    self.0[0].register,
                    other.0[0].register,
                ),
            },
            VectorMask {
                simd: self.0[1].simd,
                mask: <F as Register>::less_than(
                    self.0[1].simd,
                    self.0[1].register,
                    other.0[1].register,
                ),
            },
        ])
    }

    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        let Wide([of_first, of_second]) = mask;
        Self([
            Vector {
                simd: of_first.simd,
                register: <F as Register>::select(
                    of_first.simd,
                    of_first.mask,
                    yes.0[0].register,
                    no.0[0].register,
                ),
            },
            Vector {
                simd: of_second.simd,
                register: <F as Register>::select(
                    of_second.simd,
                    of_second.mask,
                    yes.0[1].register,
                    no.0[1].register,
                ),
            },
        ])
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self([self.0[0].max(other.0[0]), self.0[1].max(other.0[1])])
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self([self.0[0].min(other.0[0]), self.0[1].min(other.0[1])])
    }
}
