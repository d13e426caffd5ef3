//! A product and a sum, rounded once on every system.

/// Whether the C library rounds twice in `fma` and `fmaf`, which Rust calls where the compiler does not
/// know of an instruction: that of the GNU toolchain on Windows (rust-lang/rust#140515).
pub(crate) const ROUNDS_TWICE: bool = cfg!(all(windows, target_env = "gnu"));

/// `self * factor + addend`, rounded once.
pub(crate) trait Fused: Sized {
    fn fused(self, factor: Self, addend: Self) -> Self;
}

macro_rules! fused {
    ($($float:ty: $libm:path),+) => {$(
        impl Fused for $float {
            #[inline(always)]
            fn fused(self, factor: Self, addend: Self) -> Self {
                if ROUNDS_TWICE {
                    $libm(self, factor, addend)
                } else {
                    <$float>::mul_add(self, factor, addend)
                }
            }
        }
    )+};
}

fused!(f32: libm::fmaf, f64: libm::fma);

#[cfg(test)]
mod tests {
    use core::hint::black_box;

    use super::Fused;
    use crate::simd::Lanes;

    /// Just above the middle of two floats: rounded to more digits first, it would be the middle, and
    /// then the even one below.
    #[test]
    fn a_sum_just_above_the_middle_of_two_floats_is_rounded_up() {
        let power = |exponent| f32::powi(2.0, exponent);
        let factor = black_box(1.0 + power(-12));
        let (right, addend) = (1.0 + power(-11) + power(-23), power(-60));
        for found in [
            factor.fused(factor, addend),
            Lanes::mul_add(factor, factor, addend),
            libm::fmaf(factor, factor, addend),
        ] {
            assert_eq!(found.to_bits(), right.to_bits());
        }

        let power = |exponent| f64::powi(2.0, exponent);
        let (a, b) = (black_box(1.0 + power(-26)), black_box(1.0 + power(-27)));
        let (right, addend) = (1.0 + power(-26) + power(-27) + power(-52), power(-100));
        for found in [a.fused(b, addend), Lanes::mul_add(a, b, addend), libm::fma(a, b, addend)] {
            assert_eq!(found.to_bits(), right.to_bits());
        }
    }
}
