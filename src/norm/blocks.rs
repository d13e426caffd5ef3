//! Sums over a block of gradients.

use half::{bf16, f16};

use super::NormOrder;
use crate::{
    array::Narrow,
    simd::{Simd, TILE, WithSimd, Words},
};

/// The number of elements of a block.
pub(crate) const BLOCK: usize = 4096;
/// The number of partial sums of a block: element j is added to sum `j % SUMS`.
const SUMS: usize = 32;

/// The types whose norms can be computed.
pub trait Summed: Copy + Send + Sync + 'static {
    /// Adds the squares of a block, each times the square of `scale`, to some sums.
    fn add_squares<S: Simd>(simd: S, block: &[Self], scale: f64, sums: &mut [f64; SUMS]);

    /// Adds the absolute values of a block to some sums.
    fn add_absolutes<S: Simd>(simd: S, block: &[Self], sums: &mut [f64; SUMS]);

    /// The largest absolute value of a block; NaN if the block has a NaN.
    fn largest<S: Simd>(simd: S, block: &[Self]) -> f64;
}

/// Adds each element to its sum. The sums are copied to a local array, so that they stay in registers.
macro_rules! add {
    ($block:ident, $sums:ident, |$sum:ident, $value:ident| $added:expr) => {
        let (chunks, rest) = $block.as_chunks::<SUMS>();
        let mut gathered = *$sums;
        for chunk in chunks {
            for i in 0..SUMS {
                let ($sum, $value) = (gathered[i], f64::from(chunk[i]));
                gathered[i] = $added;
            }
        }
        *$sums = gathered;
        for (sum, &value) in $sums.iter_mut().zip(rest) {
            let ($sum, $value) = (*sum, f64::from(value));
            *sum = $added;
        }
    };
}

/// Without the sign bit, floats have the order of their bits: numbers, infinity, NaN.
macro_rules! largest {
    ($float:ty, $bits:ty) => {
        #[inline(always)]
        fn largest<S: Simd>(_simd: S, block: &[Self]) -> f64 {
            let (chunks, rest) = block.as_chunks::<SUMS>();
            let mut most = [0; SUMS];
            for chunk in chunks {
                for i in 0..SUMS {
                    most[i] = most[i].max(chunk[i].to_bits() & (<$bits>::MAX >> 1));
                }
            }
            for (most, value) in most.iter_mut().zip(rest) {
                *most = (*most).max(value.to_bits() & (<$bits>::MAX >> 1));
            }
            let mut largest: $bits = 0;
            for most in most {
                largest = largest.max(most);
            }
            let largest = f64::from(<$float>::from_bits(largest));
            if largest.is_nan() { f64::NAN } else { largest }
        }
    };
}

/// The functions that `f32` and `f64` have in common.
macro_rules! summed {
    ($float:ty, $bits:ty) => {
        #[inline(always)]
        fn add_absolutes<S: Simd>(_simd: S, block: &[Self], sums: &mut [f64; SUMS]) {
            add!(block, sums, |sum, value| sum + value.abs());
        }

        largest!($float, $bits);
    };
}

impl Summed for f32 {
    #[inline(always)]
    fn add_squares<S: Simd>(_simd: S, block: &[Self], scale: f64, sums: &mut [f64; SUMS]) {
        if scale == 1.0 && !S::IS_SCALAR {
            // An `f64` holds the square of an `f32`, so that nothing is rounded but the sum. All sets but the scalar
            // one have the instruction.
            add!(block, sums, |sum, value| value.mul_add(value, sum));
        } else {
            add!(block, sums, |sum, value| sum + (value * scale) * (value * scale));
        }
    }

    summed!(f32, u32);
}

impl Summed for f64 {
    #[inline(always)]
    fn add_squares<S: Simd>(_simd: S, block: &[Self], scale: f64, sums: &mut [f64; SUMS]) {
        add!(block, sums, |sum, value| sum + (value * scale) * (value * scale));
    }

    summed!(f64, u64);
}

/// Widened to `f32`, one tile at a time.
macro_rules! half_summed {
    ($half:ty) => {
        impl Summed for $half {
            #[inline(always)]
            fn add_squares<S: Simd>(simd: S, block: &[Self], scale: f64, sums: &mut [f64; SUMS]) {
                let mut tile = [0.0; TILE];
                for block in block.chunks(TILE) {
                    let wide = widen(simd, block, &mut tile);
                    f32::add_squares(simd, wide, scale, sums);
                }
            }

            #[inline(always)]
            fn add_absolutes<S: Simd>(simd: S, block: &[Self], sums: &mut [f64; SUMS]) {
                let mut tile = [0.0; TILE];
                for block in block.chunks(TILE) {
                    f32::add_absolutes(simd, widen(simd, block, &mut tile), sums);
                }
            }

            largest!($half, u16);
        }
    };
}

half_summed!(bf16);
half_summed!(f16);

#[inline(always)]
fn widen<'a, S: Simd, E: Narrow>(simd: S, block: &[E], tile: &'a mut [f32; TILE]) -> &'a [f32] {
    let (wide, lanes) = (&mut tile[..block.len()], Words::<S>::LANES);
    for (wide, narrow) in wide.chunks_mut(lanes).zip(block.chunks(lanes)) {
        E::widen(simd, narrow).write(wide);
    }
    wide
}

/// The sum of a block, by the order of the norm.
pub(super) struct OfBlock<'a, E> {
    pub(super) values: &'a [E],
    pub(super) order: NormOrder,
    pub(super) scale: f64,
}

impl<E: Summed> WithSimd for OfBlock<'_, E> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        let mut sums = [0.0; SUMS];
        match self.order {
            NormOrder::Infinity => return E::largest(simd, self.values),
            NormOrder::One => E::add_absolutes(simd, self.values, &mut sums),
            NormOrder::Two => E::add_squares(simd, self.values, self.scale, &mut sums),
        }
        let mut half = SUMS / 2;
        while half > 0 {
            for i in 0..half {
                sums[i] += sums[i + half];
            }
            half /= 2;
        }
        sums[0]
    }
}
