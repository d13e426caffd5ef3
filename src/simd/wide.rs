//! Several registers as one.

use core::ops::{Add, Div, Mul, Neg, Sub};

use super::Lanes;

/// `N` registers that take each operation together. Work that is done once for all of them costs an `N`th each.
#[derive(Clone, Copy)]
pub(crate) struct Wide<V, const N: usize>(pub [V; N]);

// Loops instead of the library's `map` and `zip`: functions that those call may not be inlined, and would run without
// the instruction set. No closures: in builds without optimization, their stack frames add up.

macro_rules! each {
    ($($method:ident($($other:ident),*)),+) => {$(
        #[inline(always)]
        fn $method(mut self $(, $other: Self)*) -> Self {
            for i in 0..N {
                self.0[i] = self.0[i].$method($($other.0[i]),*);
            }
            self
        }
    )+};
}

macro_rules! operator {
    ($($operator:ident::$method:ident($($other:ident),*)),+) => {$(
        impl<L: Lanes, const N: usize> $operator for Wide<L, N> {
            type Output = Self;

            each!($method($($other),*));
        }
    )+};
}

operator!(Add::add(other), Sub::sub(other), Mul::mul(other), Div::div(other), Neg::neg());

impl<L: Lanes, const N: usize> Lanes for Wide<L, N> {
    type Mask = Wide<L::Mask, N>;

    #[inline(always)]
    fn splat(self, value: f64) -> Self {
        Self([self.0[0].splat(value); N])
    }

    each!(mul_add(factor, addend), sqrt(), abs(), max(other), min(other));

    #[inline(always)]
    fn less_than(self, other: Self) -> Self::Mask {
        let mut masks = [self.0[0].less_than(other.0[0]); N];
        let mut i = 1;
        while i < N {
            masks[i] = self.0[i].less_than(other.0[i]);
            i += 1;
        }
        Wide(masks)
    }

    #[inline(always)]
    fn select(mask: Self::Mask, mut yes: Self, no: Self) -> Self {
        for i in 0..N {
            yes.0[i] = L::select(mask.0[i], yes.0[i], no.0[i]);
        }
        yes
    }
}
