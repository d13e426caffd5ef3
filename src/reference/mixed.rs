//! Numbers of 16 and 8 bits.

use half::{bf16, f16};

use crate::{Q8, rule::Lanes};

/// The 16 random bits that round an element in step `t`: of a moment, by its number, or of the parameters, whose
/// `array` is `u32::MAX`. It is a counter, hashed. An even element and the next share 32 bits, of which the even one
/// has the lower half. [`moment_f16`] takes the highest 13 of the 16.
pub fn random(seed: u64, t: u64, array: u32, element: u64) -> u32 {
    let mix = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let pair = element / 2;
    let key = mix(seed ^ mix(t)) ^ mix((pair >> 32) ^ 0x9e37_79b9_7f4a_7c15);
    let x = (pair as u32).wrapping_mul(0x9e37_79b9).wrapping_add(key as u32);
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d);
    let x = (x ^ (x >> 15) ^ (key >> 32) as u32).wrapping_mul(match array {
        0 => 0x846c_a68b,
        1 => 0xc2b2_ae35,
        2 => 0x85eb_ca77,
        3 => 0x27d4_eb2f,
        _ => 0x9e37_79b1,
    });
    let x = x ^ (x >> 16);
    if element.is_multiple_of(2) { x & 0xffff } else { x >> 16 }
}

/// One of the two neighbours of a number, chosen by `random`, of 0 to 65,535. If that is uniform, the probability of
/// the neighbour further from 0 is the distance from the other one, in units of the distance between both.
pub fn stochastic_bf16(value: f32, random: u32) -> bf16 {
    if !value.is_finite() {
        return bf16::from_f32(value);
    }
    let nearer = (value.to_bits() >> 16) as u16;
    let part_of_the_way = value.to_bits() & 0xffff;
    bf16::from_bits(if part_of_the_way + random > 0xffff { nearer + 1 } else { nearer })
}

/// One of the two neighbours of a number, as in [`stochastic_bf16`], by `random` of 0 to 8,191. A number that is
/// subnormal in f16 is first rounded to a multiple of 2^-37, a 2^13th of the distance between neighbours; beyond the
/// largest number, 65,504, the neighbour is infinite.
pub fn stochastic_f16(value: f32, random: u32) -> f16 {
    if value.is_nan() {
        return f16::from_f32(value);
    }
    let (magnitude, least_normal) = (value.abs(), f32::powi(2.0, -14));
    let (fine, moved_by) = match magnitude < least_normal {
        true => ((magnitude + least_normal).to_bits(), least_normal.to_bits()),
        // The difference between the exponents of the two types.
        false => (magnitude.to_bits(), 112 << 23),
    };
    let bits = ((fine + random - moved_by) >> 13).min(f16::INFINITY.to_bits().into());
    f16::from_bits(bits as u16).copysign(f16::from_f32(value))
}

/// A moment of a [format](Q8) in f16: [`stochastic_f16`] with limits. A number of the signed format stays finite. A
/// number of another format that is not 0 becomes at least 2^-24, the smallest number, since formulas divide by it.
pub fn moment_f16(format: Q8, value: f32, random: u32) -> f16 {
    let number = stochastic_f16(value, random);
    match format {
        Q8::Signed if number.is_infinite() => f16::MAX.copysign(number),
        Q8::Squares | Q8::Unsigned if number == f16::ZERO && value != 0.0 => {
            f16::MIN_POSITIVE_SUBNORMAL.copysign(number)
        }
        _ => number,
    }
}

/// An `f32` as its nearest bf16, ties away from 0, and the lower half of its bits.
pub fn split(value: f32) -> (bf16, u16) {
    if value.is_nan() {
        return (bf16::from_f32(value), 0);
    }
    let low = value.to_bits() as u16;
    let high = (value.to_bits() >> 16) as u16;
    (bf16::from_bits(if low >= 0x8000 { high + 1 } else { high }), low)
}

/// The inverse of [`split`].
pub fn join(high: bf16, low: u16) -> f32 {
    let upper = if low >= 0x8000 { high.to_bits().wrapping_sub(1) } else { high.to_bits() };
    f32::from_bits(u32::from(upper) << 16 | u32::from(low))
}

/// A moment where [`StepOptions::flush_subnormals`](crate::StepOptions::flush_subnormals) is set: 0 for every
/// subnormal number and for -0.
pub fn flush_subnormal(value: f32) -> f32 {
    if value.abs() < f32::MIN_POSITIVE { 0.0 } else { value }
}

/// The number that a code of [`Q8`] stands for, at a scale of 1.
pub fn q8_number(format: Q8, code: u8) -> f32 {
    let number = |code: u8, bits_of_fraction: i32, bias: i32| {
        let fraction = f32::from(code) / f32::powi(2.0, bits_of_fraction);
        let (exponent, fraction) = (fraction.floor() as i32, fraction.fract());
        f32::powi(2.0, exponent - bias) * (1.0 + fraction) - f32::powi(2.0, -bias)
    };
    match format {
        Q8::Signed if code >= 128 => -number(code - 128, 3, 15),
        Q8::Signed => number(code, 3, 15),
        Q8::Squares => number(code, 3, 31),
        Q8::Unsigned => number(code, 4, 15),
    }
}

/// A block of [`Q8`]: its codes and its scale. Each element goes to one of its two neighbours, by a
/// number of 0 to 65,535 of its own.
pub fn q8_block(format: Q8, values: &[f32], random: &[u32]) -> (Vec<u8>, f32) {
    const SMALLEST: f32 = 1.880_791e-37; // 2^-122
    const LARGEST: f32 = 3.389_531_4e38; // 1.9921875 * 2^127
    let is_valid = |value: &f32| *value >= 0.0 || (format == Q8::Signed && *value < 0.0);
    if !values.iter().all(is_valid) {
        return (vec![0; values.len()], f32::NAN);
    }
    let largest = values.iter().fold(0.0, |largest, value| f32::max(largest, value.abs()));
    if largest == 0.0 {
        let code = |value: &f32| match format {
            Q8::Signed if value.is_sign_negative() => 128,
            _ => 0,
        };
        return (values.iter().map(code).collect(), 0.0);
    }
    let (top, least, least_code, shift) = match format {
        Q8::Signed => (127, f32::powi(2.0, -15), 0, 20),
        Q8::Squares => (255, f32::powi(2.0, -31), 1, 20),
        Q8::Unsigned => (255, f32::powi(2.0, -15), 2, 19),
    };
    let top = q8_number(format, top);
    let largest = largest.clamp(SMALLEST, LARGEST);
    // A little less, so that no code is beyond the largest one.
    let inverse = (top - 4.0 * f32::EPSILON) / largest;
    let code = |(&value, &random): (&f32, &u32)| {
        // Between two floats that are codes, moved by the least one, the bits are in proportion.
        let moved = Lanes::mul_add(value.abs().min(LARGEST), inverse, least);
        let above = moved.to_bits() - least.to_bits();
        let code = ((above + (random << (shift - 16))) >> shift) as u8;
        match format {
            Q8::Signed if value.is_sign_negative() => code | 128,
            _ if value == 0.0 => code,
            _ => code.max(least_code),
        }
    };
    (values.iter().zip(random).map(code).collect(), largest * (1.0 / top))
}
