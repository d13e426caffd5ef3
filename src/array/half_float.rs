//! f16: by instructions of the CPU where a set has them, and to the same bits by whole numbers.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "pulp has no F16C")]
mod f16c;
#[cfg(target_arch = "aarch64")]
#[allow(unsafe_code, reason = "pulp has no f16")]
mod neon;

use half::{f16, slice::HalfFloatSliceExt};

use super::{Narrow, Q8};
use crate::simd::{Simd, Vector, Words};

/// The difference of the exponent biases of `f32` and f16, as bits of an `f32`.
const SHIFT: u32 = (127 - 15) << 23;

impl Narrow for f16 {
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn widen<S: Simd>(simd: S, narrow: &[Self]) -> Vector<S, f32> {
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = avx512::widen(simd, narrow.reinterpret_cast()) {
            return wide;
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(wide) = f16c::widen(simd, narrow.reinterpret_cast()) {
            return wide;
        }
        #[cfg(target_arch = "aarch64")]
        if let Some(wide) = neon::widen(simd, narrow.reinterpret_cast()) {
            return wide;
        }
        let bits = Words::widen(simd, narrow.reinterpret_cast());
        let magnitude = (bits & 0x7fff) << 13;
        let normal = magnitude + SHIFT;
        let is_finite = magnitude.less_than(bits.all(0x7c00 << 13));
        let number = Words::select(is_finite, normal, normal + SHIFT);
        // A subnormal is a fraction of the smallest normal number, which is 2^-14.
        let one = bits.all(SHIFT + (1 << 23));
        let subnormal = Words::of((magnitude + one).floats() - one.floats());
        let is_subnormal = magnitude.less_than(bits.all(0x0400 << 13));
        let number = Words::select(is_subnormal, subnormal, number);
        let number = Words::select(number.are_numbers(), number, number | 0x0040_0000);
        (number | (bits & 0x8000) << 16).floats()
    }

    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    fn narrow<S: Simd>(narrow: &mut [Self], wide: Vector<S, f32>) {
        #[cfg(target_arch = "x86_64")]
        if avx512::narrow(narrow.reinterpret_cast_mut(), wide)
            || f16c::narrow(narrow.reinterpret_cast_mut(), wide)
        {
            return;
        }
        #[cfg(target_arch = "aarch64")]
        if neon::narrow(narrow.reinterpret_cast_mut(), wide) {
            return;
        }
        let bits = Words::of(wide);
        let magnitude = bits & 0x7fff_ffff;
        let is_odd = magnitude >> 13 & 1;
        let normal = (magnitude + is_odd + 0xfff_u32.wrapping_sub(SHIFT)) >> 13;
        // The last bit of a number between 1/2 and 1 is worth as much as that of a subnormal f16.
        let half = f32::to_bits(0.5);
        let subnormal = Words::of(magnitude.floats() + bits.all(half).floats());
        let is_subnormal = magnitude.less_than(bits.all((127 - 14) << 23));
        let number = Words::select(is_subnormal, subnormal + half.wrapping_neg(), normal);
        let is_large = bits.all(f32::to_bits(65536.0) - 1).less_than(magnitude);
        let number = Words::select(is_large, bits.all(0x7c00), number);
        let quiet = magnitude >> 13 & 0x03ff | 0x7e00;
        let number = Words::select(bits.are_numbers(), number, quiet);
        (number | (bits >> 16 & 0x8000)).store_halves(narrow.reinterpret_cast_mut());
    }
}

/// The bits of the smallest normal f16, 2^-14, as an `f32`.
const NORMAL: u32 = (127 - 14) << 23;
/// Random bits of an element: as many as an `f32` has more than an f16.
pub(crate) const F16_RANDOM_BITS: u32 = 13;

/// Rounds to f16: adds `share`, of 13 bits, to the 13 bits that are lost, and goes up to the next f16 if the sum
/// carries. With 13 random bits, the probability of this is the distance from the lower neighbour, in units of the
/// distance between both.
///
/// A moment of a signed format stays finite. One of another format is a divisor: it can become infinite, but stays
/// above 0. A parameter, which has no format, becomes infinite or 0. NaN stays NaN.
#[cfg_attr(debug_assertions, inline)]
#[cfg_attr(not(debug_assertions), inline(always))]
pub(crate) fn narrow_f16<S: Simd>(
    format: Option<Q8>,
    narrow: &mut [f16],
    wide: Vector<S, f32>,
    share: Words<S>,
) {
    const INFINITY: u32 = 0x7c00;
    let bits = Words::of(wide);
    let magnitude = bits & 0x7fff_ffff;
    // After 2^-14 is added, a number that is subnormal in f16 has 13 bits to lose, as other numbers have.
    let normal = bits.all(NORMAL);
    let is_subnormal = magnitude.less_than(normal);
    let moved = Words::of(magnitude.floats() + normal.floats());
    let moved_back = Words::select(
        is_subnormal,
        bits.all(NORMAL.wrapping_neg()),
        bits.all(SHIFT.wrapping_neg()),
    );
    let fine = Words::select(is_subnormal, moved, magnitude) + share;
    let mut number = (fine + moved_back) >> F16_RANDOM_BITS;
    let largest = if format == Some(Q8::Signed) { INFINITY - 1 } else { INFINITY };
    number = number.min(bits.all(largest));
    if matches!(format, Some(Q8::Squares | Q8::Unsigned)) {
        // 1 unless the magnitude is 0.
        number = number.max(magnitude.min(bits.all(1)));
    }
    let quiet = magnitude >> 13 & 0x03ff | 0x7e00;
    let number = Words::select(bits.are_numbers(), number, quiet);
    (number | (bits >> 16 & 0x8000)).store_halves(narrow.reinterpret_cast_mut());
}

/// A moment of a format as the nearest f16, within the same bounds.
pub(crate) fn nearest_f16(format: Q8, value: f32) -> f16 {
    let number = f16::from_f32(value);
    match format {
        Q8::Signed if number.is_infinite() => f16::MAX.copysign(number),
        Q8::Squares | Q8::Unsigned if number == f16::ZERO && value != 0.0 => {
            f16::MIN_POSITIVE_SUBNORMAL
        }
        _ => number,
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::{F16_RANDOM_BITS, narrow_f16};
    use crate::{
        Isa, Q8,
        reference::{moment_f16, stochastic_f16},
        simd::{MOST_LANES, Simd, Vector, WithSimd, Words},
    };

    struct Narrow<'a> {
        format: Option<Q8>,
        values: &'a [f32],
        random: &'a [u32],
        narrow: &'a mut [f16],
    }

    impl WithSimd for Narrow<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            let lanes = Words::<S>::LANES;
            for start in (0..self.values.len()).step_by(lanes) {
                let part = start..start + lanes;
                let values = Vector::read(simd, &self.values[part.clone()]);
                let random = Words::load(simd, &self.random[part.clone()]);
                narrow_f16(self.format, &mut self.narrow[part], values, random);
            }
        }
    }

    /// The formats of moments, and none, as for parameters.
    const FORMATS: [Option<Q8>; 4] =
        [Some(Q8::Signed), Some(Q8::Squares), Some(Q8::Unsigned), None];

    #[test]
    fn f16_rounded_at_random_has_the_reference_bits() {
        // Every exponent and sign; a stride that is prime.
        let values: Vec<f32> = (0..u32::MAX).step_by(40_009).map(f32::from_bits).collect();
        let values = &values[..values.len() / MOST_LANES * MOST_LANES];
        for isa in Isa::available() {
            for format in FORMATS {
                for multiplier in [0, 0x9e37_79b9, u32::MAX] {
                    let random: Vec<u32> = (0..values.len() as u32)
                        .map(|place| (place ^ 1).wrapping_mul(multiplier) >> (32 - F16_RANDOM_BITS))
                        .collect();
                    let mut narrow = vec![f16::ZERO; values.len()];
                    let narrowed = Narrow { format, values, random: &random, narrow: &mut narrow };
                    isa.cpu().expect("available").run(narrowed);
                    for (place, &value) in values.iter().enumerate() {
                        let (found, random) = (narrow[place], random[place]);
                        let expected = match format {
                            Some(format) => moment_f16(format, value, random),
                            None => stochastic_f16(value, random),
                        };
                        let is_same = found == expected && found.to_bits() == expected.to_bits();
                        let are_nan = found.is_nan() && expected.is_nan() && value.is_nan();
                        assert!(is_same || are_nan, "{isa} {format:?} {value} {random}: {found}");
                    }
                }
            }
        }
    }

    #[test]
    fn f16_rounded_at_random_is_a_neighbour_and_right_on_average() {
        let all_random = || 0..1_u32 << F16_RANDOM_BITS;
        for value in [1.0_f32, 0.1, 3e4, 6.1e-5, 5e-5, 1e-6, 3e-8, 1e-9, 65503.9] {
            for value in [value, -value] {
                let sum: f64 = all_random()
                    .map(|random| {
                        let found = moment_f16(Q8::Signed, value, random);
                        let nearest = f16::from_f32(value);
                        let apart = found.to_bits().abs_diff(nearest.to_bits());
                        assert!(apart <= 1, "{value}: {found}");
                        found.to_f64()
                    })
                    .sum();
                let mean = sum / all_random().len() as f64;
                // Numbers that are subnormal in f16 are first rounded to 2^-37.
                let error = (mean - f64::from(value)).abs();
                assert!(error <= (-38.0_f64).exp2(), "{value}: {mean}");
            }
        }
    }

    #[test]
    fn f16_moments_stay_in_their_range() {
        let (none, all) = (0, (1 << F16_RANDOM_BITS) - 1);
        for random in [none, all] {
            for large in [65_520.0, 1e30, f32::INFINITY] {
                let signed = |value| moment_f16(Q8::Signed, value, random);
                assert_eq!([signed(large), signed(-large)], [f16::MAX, f16::MIN]);
            }
            for format in [Q8::Squares, Q8::Unsigned] {
                assert_eq!(moment_f16(format, 65_536.0, random), f16::INFINITY);
                for small in [f32::from_bits(1), 1e-20, 1e-9] {
                    let found = moment_f16(format, small, none);
                    assert_eq!(found, f16::MIN_POSITIVE_SUBNORMAL);
                }
                assert_eq!(moment_f16(format, 0.0, random), f16::ZERO);
            }
        }
        // Between the largest number and infinity.
        assert_eq!(stochastic_f16(65_520.0, none), f16::MAX);
        assert_eq!(stochastic_f16(65_520.0, all), f16::INFINITY);
    }
}
