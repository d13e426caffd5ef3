//! Numbers of 16 and 8 bits.

use half::bf16;

use crate::Q8;

/// 32 random bits of an element in step `t`: a counter, hashed. `stream` is 0 for the first two
/// moments, of which the first takes the lower bits and the second the upper ones, 1 for the third, and
/// `u32::MAX` for the parameters, which take the lower ones. [`stochastic_bf16`] takes 16 bits and
/// [`q8_block`] 20.
pub fn random(seed: u64, t: u64, stream: u32, element: u64) -> u32 {
    let mix = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let step = mix(seed ^ mix(t));
    let upper = mix((element >> 32) ^ 0x9e37_79b9_7f4a_7c15);
    let first = step as u32 ^ stream.wrapping_mul(0x85eb_ca6b) ^ upper as u32;
    let second = (step >> 32) as u32 ^ stream.wrapping_mul(0x9e37_79b9) ^ (upper >> 32) as u32;
    let x = (element as u32).wrapping_add(first);
    let x = (x ^ (x >> 16)).wrapping_mul(0x7feb_352d) ^ second;
    let x = (x ^ (x >> 15)).wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// One of the two neighbours of a number: the one further from 0 with the probability that is the part
/// of the way there, if `random` is any of 0 to 65,535 alike.
pub fn stochastic_bf16(value: f32, random: u32) -> bf16 {
    if !value.is_finite() {
        return bf16::from_f32(value);
    }
    let nearer = (value.to_bits() >> 16) as u16;
    let part_of_the_way = value.to_bits() & 0xffff;
    bf16::from_bits(if part_of_the_way + random > 0xffff { nearer + 1 } else { nearer })
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

/// A moment where [`Pass::flush_subnormals`](crate::Pass::flush_subnormals) is set: 0 for every
/// subnormal number and for -0.
pub fn flush_subnormal(value: f32) -> f32 {
    if value.abs() < f32::MIN_POSITIVE { 0.0 } else { value }
}

/// What a code of [`Q8`] stands for, less the scale.
pub fn q8_number(format: Q8, code: u8) -> f32 {
    let fraction = f32::from(code & 7) / 8.0;
    let number = |exponent: u8, bias: i32| {
        f32::powi(2.0, i32::from(exponent) - bias) * (1.0 + fraction) - f32::powi(2.0, -bias)
    };
    match format {
        Q8::Signed if code >= 128 => -number(code >> 3 & 15, 15),
        Q8::Signed => number(code >> 3, 15),
        Q8::Squares => number(code >> 3, 31),
    }
}

/// A block of [`Q8`]: its codes and its scale. Each element goes to one of its two neighbours, by a
/// number of 0 to 2^20 - 1 of its own.
pub fn q8_block(format: Q8, values: &[f32], random: &[u32]) -> (Vec<u8>, f32) {
    let largest = values.iter().fold(0.0, |largest, value| f32::max(largest, value.abs()));
    let is_valid = |value: &f32| value.is_finite() && (format == Q8::Signed || *value >= 0.0);
    let (top, least) = match format {
        Q8::Signed => (127, f32::powi(2.0, -15)),
        Q8::Squares => (255, f32::powi(2.0, -31)),
    };
    if !values.iter().all(is_valid) {
        return (vec![0; values.len()], f32::NAN);
    }
    let top_number = q8_number(format, top);
    let scale = largest * (1.0 / top_number);
    let scale = if scale < 1e-37 { 0.0 } else { scale };
    // A little less, so that no code is beyond the largest one.
    let inverse = if scale > 0.0 { (top_number - 4.0 * f32::EPSILON) / largest } else { 0.0 };
    let code = |(&value, &random): (&f32, &u32)| {
        // Between two floats that are codes, moved by the least one, the bits are in proportion.
        let above = value.abs().mul_add(inverse, least).to_bits() - least.to_bits();
        let code = ((above + random) >> 20) as u8;
        if format == Q8::Signed && value.is_sign_negative() { code | 128 } else { code }
    };
    (values.iter().zip(random).map(code).collect(), scale)
}
