//! Numbers of 16 and 8 bits.

use half::bf16;

use crate::Q8;

/// 32 random bits of an element in step `t`: a counter, hashed. `stream` is 0 for the first two
/// moments, of which the first takes the lower 16 bits and the second the upper ones, 1 for the third,
/// and `u32::MAX` for the parameters, which take the lower ones.
pub fn random(seed: u64, t: u64, stream: u32, element: u64) -> u32 {
    let mix = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let step = mix(seed ^ mix(t));
    let upper = mix((element >> 32) ^ 0x9e37_79b9_7f4a_7c15);
    let first = step as u32 ^ upper as u32;
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
    let (exponent, fraction) = match format {
        Q8::Signed => (code >> 3 & 15, f32::from(code & 7) / 8.0),
        Q8::Squares => (code >> 4, f32::from(code & 15) / 16.0),
    };
    let number = f32::powi(2.0, i32::from(exponent) - 15) * (1.0 + fraction) - f32::powi(2.0, -15);
    if format == Q8::Signed && code >= 128 { -number } else { number }
}

/// A block of [`Q8`]: its codes and its scale. Each element goes to one of its two neighbours, by a
/// number of 0 to 65,535 of its own.
pub fn q8_block(format: Q8, values: &[f32], random: &[u32]) -> (Vec<u8>, f32) {
    let largest = values.iter().fold(0.0, |largest, value| f32::max(largest, value.abs()));
    let is_valid = |value: &f32| value.is_finite() && (format == Q8::Signed || *value >= 0.0);
    let top = q8_number(format, if format == Q8::Signed { 127 } else { 255 });
    let scale = match format {
        _ if !values.iter().all(is_valid) => f32::NAN,
        Q8::Signed => largest / top,
        Q8::Squares => largest.sqrt() / top,
    };
    if scale.is_nan() {
        return (vec![0; values.len()], scale);
    }
    let scale = if scale < 1e-37 { 0.0 } else { scale };
    let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
    let least = f32::powi(2.0, -15);
    let code = |(&value, &random): (&f32, &u32)| {
        // Between two floats that are codes, moved by the least one, the bits are in proportion.
        let above = |number: f32| (number + least).to_bits().wrapping_sub(least.to_bits());
        match format {
            Q8::Signed => {
                let bits = above(value.abs() * inverse).wrapping_add(random * 16);
                (bits >> 20).min(127) as u8 | if value.is_sign_negative() { 128 } else { 0 }
            }
            Q8::Squares => {
                let root = value.sqrt() * inverse;
                let lower = (above(root) >> 19).min(255) as u8;
                let upper = lower.saturating_add(1);
                let [from, to] = [lower, upper].map(|code| q8_number(format, code).powi(2));
                let point = from + (to - from) * (random as f32 / 65536.0);
                if root * root > point { upper } else { lower }
            }
        }
    };
    (values.iter().zip(random).map(code).collect(), scale)
}
