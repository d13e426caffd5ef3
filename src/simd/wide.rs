//! Two registers as one.

use core::ops::{Add, Div, Mul, Neg, Sub};

use super::Lanes;

/// The number of registers that a loop takes at a time. With one, too many instructions wait for each other. On
/// AVX2 two are a cache line.
pub(crate) const TOGETHER: usize = 2;

/// Two registers that take each operation together.
#[derive(Clone, Copy)]
pub(crate) struct Wide<V>(pub [V; TOGETHER]);

// Each register is named. A loop would be unrolled in every operation of every kernel, and the crate would take 4 to
// 8 % longer to compile (Zen 4). No `map` or `zip`: functions that they call may not be inlined, and would run without
// the instruction set. No closures: in builds without optimization, their stack frames add up.

macro_rules! each {
    ($($method:ident($($other:ident),*)),+) => {$(
        #[inline(always)]
        fn $method(self $(, $other: Self)*) -> Self {
            Self([self.0[0].$method($($other.0[0]),*), self.0[1].$method($($other.0[1]),*)])
        }
    )+};
}

macro_rules! operator {
    ($($operator:ident::$method:ident($($other:ident),*)),+) => {$(
        impl<L: Lanes> $operator for Wide<L> {
            type Output = Self;

            each!($method($($other),*));
        }
    )+};
}

operator!(Add::add(other), Sub::sub(other), Mul::mul(other), Div::div(other), Neg::neg());

impl<L: Lanes> Lanes for Wide<L> {
    type Mask = Wide<L::Mask>;

    #[inline(always)]
    fn splat(self, value: f64) -> Self {
        Self([self.0[0].splat(value); TOGETHER])
    }

    each!(mul_add(factor, addend), sqrt(), abs(), max(other), min(other));

    #[inline(always)]
    fn less_than(self, other: Self) -> Self::Mask {
        Wide([self.0[0].less_than(other.0[0]), self.0[1].less_than(other.0[1])])
    }

    #[inline(always)]
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self {
        Self([L::select(mask.0[0], yes.0[0], no.0[0]), L::select(mask.0[1], yes.0[1], no.0[1])])
    }
}
