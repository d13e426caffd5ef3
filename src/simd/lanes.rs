//! The traits of registers: [`Lanes`], with which rules compute, and [`Register`], the lanes of a type in pulp's
//! registers.

use core::ops::{Add, Div, Mul, Neg, Sub};

use pulp::{Simd, bytemuck};

use super::fused::{Fused, ROUNDS_TWICE};

/// The numbers that a [`Rule`](crate::rule::Rule) computes with: one register of `f32` or `f64`, every
/// lane a parameter of its own.
///
/// The operators and methods round once each, to nearest even, and give the same bits on every
/// instruction set (which NaN comes out of NaNs is the CPU's choice).
///
/// Implement it to compute formulas with other numbers, in a test or a measurement.
pub trait Lanes:
    Copy
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// One truth value a lane.
    type Mask: Copy;

    /// The same value in every lane, rounded to nearest in the lanes' type.
    fn splat(self, value: f64) -> Self;

    /// `self * factor + addend`, rounded once.
    fn mul_add(self, factor: Self, addend: Self) -> Self;

    /// The square root.
    fn sqrt(self) -> Self;

    /// The absolute value.
    fn abs(self) -> Self;

    /// Where `self < other`; false where either is NaN.
    fn less_than(self, other: Self) -> Self::Mask;

    /// `yes` where the mask is true, `no` elsewhere.
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;

    /// `other` where `self < other`, `self` elsewhere: a NaN in `self` stays, one in `other` goes.
    fn max(self, other: Self) -> Self;

    /// `other` where `other < self`, `self` elsewhere: a NaN in `self` stays, one in `other` goes.
    fn min(self, other: Self) -> Self;
}

/// The number of elements that a loop takes at a time if it needs a copy of them in cache.
pub(crate) const TILE: usize = 1024;

/// How the lanes of a type lie in pulp's registers, for `f32` and `f64`. Private, so that
/// [`Float`](crate::rule::Float) is sealed.
pub trait Register: Lanes<Mask = bool> + Default + PartialOrd + 'static {
    /// A register full of `Self`.
    type Of<S: Simd>: Copy + Send + Sync;
    /// The outcome of a comparison.
    type MaskOf<S: Simd>: Copy;

    /// Whether the plain loop multiplies gradients; in `f32` the loop of mixed precision does.
    const SCALES: bool;
    /// The smallest number that is not subnormal.
    const SMALLEST_NORMAL: f64;
    /// Half the distance from 1 to the next number.
    const ROUNDING: f64;
    /// The largest finite number.
    const LARGEST: f64;
    /// Zeros for a tile.
    const ZEROS: &'static [Self; TILE];
    /// The number of terms after which a fast converging series is right to a rounding.
    const TERMS: usize;

    /// Rounds to nearest even.
    fn nearest(value: f64) -> Self;

    /// Rounds to nearest even. A `value` that is not 0 but would become 0 becomes the smallest number.
    fn rounded(value: f64) -> Self;

    fn lanes<S: Simd>() -> usize;
    fn split<S: Simd>(slice: &[Self]) -> (&[Self::Of<S>], &[Self]);
    fn split_mut<S: Simd>(slice: &mut [Self]) -> (&mut [Self::Of<S>], &mut [Self]);
    fn load<S: Simd>(simd: S, tail: &[Self]) -> Self::Of<S>;
    fn store<S: Simd>(simd: S, tail: &mut [Self], register: Self::Of<S>);
    fn splat<S: Simd>(simd: S, value: Self) -> Self::Of<S>;
    fn add<S: Simd>(simd: S, a: Self::Of<S>, b: Self::Of<S>) -> Self::Of<S>;
    fn sub<S: Simd>(simd: S, a: Self::Of<S>, b: Self::Of<S>) -> Self::Of<S>;
    fn mul<S: Simd>(simd: S, a: Self::Of<S>, b: Self::Of<S>) -> Self::Of<S>;
    fn div<S: Simd>(simd: S, a: Self::Of<S>, b: Self::Of<S>) -> Self::Of<S>;
    fn max<S: Simd>(simd: S, a: Self::Of<S>, b: Self::Of<S>) -> Self::Of<S>;
    fn min<S: Simd>(simd: S, a: Self::Of<S>, b: Self::Of<S>) -> Self::Of<S>;
    fn neg<S: Simd>(simd: S, a: Self::Of<S>) -> Self::Of<S>;
    fn mul_add<S: Simd>(simd: S, a: Self::Of<S>, b: Self::Of<S>, c: Self::Of<S>) -> Self::Of<S>;
    fn sqrt<S: Simd>(simd: S, a: Self::Of<S>) -> Self::Of<S>;
    fn abs<S: Simd>(simd: S, a: Self::Of<S>) -> Self::Of<S>;
    fn less_than<S: Simd>(simd: S, a: Self::Of<S>, b: Self::Of<S>) -> Self::MaskOf<S>;
    fn select<S: Simd>(
        simd: S,
        mask: Self::MaskOf<S>,
        yes: Self::Of<S>,
        no: Self::Of<S>,
    ) -> Self::Of<S>;
}

macro_rules! float {
    ($float:ty, $bits:ty, $register:ident, $mask:ident, $lanes:ident, $split:ident, $split_mut:ident,
     $load:ident, $store:ident, $splat:ident, $select:ident, $less_than:ident, $mul_add:ident,
     $($unary:ident = $unary_op:ident),+; $($binary:ident = $binary_op:ident),+) => {
        impl Lanes for $float {
            type Mask = bool;

            #[inline(always)]
            fn splat(self, value: f64) -> Self {
                value as Self
            }

            #[inline(always)]
            fn mul_add(self, factor: Self, addend: Self) -> Self {
                self.fused(factor, addend)
            }

            #[inline(always)]
            fn sqrt(self) -> Self {
                <$float>::sqrt(self)
            }

            #[inline(always)]
            fn abs(self) -> Self {
                <$float>::abs(self)
            }

            #[inline(always)]
            fn less_than(self, other: Self) -> bool {
                self < other
            }

            #[inline(always)]
            fn select(mask: bool, yes: Self, no: Self) -> Self {
                if mask { yes } else { no }
            }

            #[inline(always)]
            fn max(self, other: Self) -> Self {
                if self < other { other } else { self }
            }

            #[inline(always)]
            fn min(self, other: Self) -> Self {
                if other < self { other } else { self }
            }
        }

        impl Register for $float {
            type Of<S: Simd> = S::$register;
            type MaskOf<S: Simd> = S::$mask;

            const SCALES: bool = size_of::<Self>() == 8;
            const SMALLEST_NORMAL: f64 = <$float>::MIN_POSITIVE as f64;
            const ROUNDING: f64 = <$float>::EPSILON as f64 / 2.0;
            const LARGEST: f64 = <$float>::MAX as f64;
            const ZEROS: &'static [Self; TILE] = &[0.0; TILE];
            const TERMS: usize = 3 * size_of::<Self>() / 2;

            #[inline(always)]
            fn nearest(value: f64) -> Self {
                value as Self
            }
            #[inline(always)]
            fn rounded(value: f64) -> Self {
                let rounded = value as Self;
                // 0 becomes the smallest number of its sign, without a jump.
                let is_lost = (rounded == 0.0) & (value != 0.0);
                Self::from_bits(rounded.to_bits() | <$bits>::from(is_lost))
            }

            #[inline(always)]
            fn lanes<S: Simd>() -> usize {
                S::$lanes
            }
            #[inline(always)]
            fn split<S: Simd>(slice: &[Self]) -> (&[Self::Of<S>], &[Self]) {
                S::$split(slice)
            }
            #[inline(always)]
            fn split_mut<S: Simd>(slice: &mut [Self]) -> (&mut [Self::Of<S>], &mut [Self]) {
                S::$split_mut(slice)
            }
            #[inline(always)]
            fn load<S: Simd>(simd: S, tail: &[Self]) -> Self::Of<S> {
                simd.$load(tail)
            }
            #[inline(always)]
            fn store<S: Simd>(simd: S, tail: &mut [Self], register: Self::Of<S>) {
                simd.$store(tail, register);
            }
            #[inline(always)]
            fn splat<S: Simd>(simd: S, value: Self) -> Self::Of<S> {
                simd.$splat(value)
            }
            #[inline(always)]
            fn mul_add<S: Simd>(
                simd: S,
                a: Self::Of<S>,
                b: Self::Of<S>,
                c: Self::Of<S>,
            ) -> Self::Of<S> {
                // With one lane, pulp calls the same function as the standard library.
                if ROUNDS_TWICE && Self::lanes::<S>() == 1 {
                    return bytemuck::cast(Self::fused(
                        bytemuck::cast(a),
                        bytemuck::cast(b),
                        bytemuck::cast(c),
                    ));
                }
                simd.$mul_add(a, b, c)
            }
            #[inline(always)]
            fn less_than<S: Simd>(simd: S, a: Self::Of<S>, b: Self::Of<S>) -> Self::MaskOf<S> {
                simd.$less_than(a, b)
            }
            #[inline(always)]
            fn select<S: Simd>(
                simd: S,
                mask: Self::MaskOf<S>,
                yes: Self::Of<S>,
                no: Self::Of<S>,
            ) -> Self::Of<S> {
                simd.$select(mask, yes, no)
            }
            $(#[inline(always)]
            fn $unary<S: Simd>(simd: S, a: Self::Of<S>) -> Self::Of<S> {
                simd.$unary_op(a)
            })+
            $(#[inline(always)]
            fn $binary<S: Simd>(simd: S, a: Self::Of<S>, b: Self::Of<S>) -> Self::Of<S> {
                simd.$binary_op(a, b)
            })+
        }
    };
}

float!(f32, u32, f32s, m32s, F32_LANES, as_simd_f32s, as_mut_simd_f32s, partial_load_f32s,
    partial_store_f32s, splat_f32s, select_f32s, less_than_f32s, mul_add_f32s,
    sqrt = sqrt_f32s, abs = abs_f32s, neg = neg_f32s;
    max = max_f32s, min = min_f32s, add = add_f32s, sub = sub_f32s, mul = mul_f32s, div = div_f32s);
float!(f64, u64, f64s, m64s, F64_LANES, as_simd_f64s, as_mut_simd_f64s, partial_load_f64s,
    partial_store_f64s, splat_f64s, select_f64s, less_than_f64s, mul_add_f64s,
    sqrt = sqrt_f64s, abs = abs_f64s, neg = neg_f64s;
    max = max_f64s, min = min_f64s, add = add_f64s, sub = sub_f64s, mul = mul_f64s, div = div_f64s);

/// The lanes of the largest register there is.
pub(crate) const MOST_LANES: usize = 16;
