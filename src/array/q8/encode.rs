//! Numbers to codes.

use super::{BLOCK, Q8};
use crate::simd::{Lanes, Simd, Vector, WithSimd, Words};

/// 2^-122. A block whose largest element is smaller is encoded as if it were this one, since the inverse of its scale
/// could be infinite.
const SMALLEST: f32 = f32::from_bits((127 - 122) << 23);
/// Larger elements become this one, 1.9921875 * 2^127: decoded, it is still finite after some roundings.
const LARGEST: f32 = f32::from_bits(0x7f7f_0000);
/// Random bits of an element.
const RANDOM_BITS: u32 = 16;

impl Q8 {
    /// The bits of the largest element so far, in each lane, with these registers. The bits of numbers that are not
    /// negative are in the order of the numbers; those of NaN and of negative numbers are larger.
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn largest<S: Simd, const N: usize>(
        self,
        mut largest: Words<S>,
        values: [Vector<S, f32>; N],
    ) -> Words<S> {
        for value in values {
            largest = largest.max(match self {
                Self::Signed => Words::of(value) & 0x7fff_ffff,
                // -0 becomes 0.
                Self::Squares | Self::Unsigned => {
                    Words::of(value + Vector::splat(value.simd(), 0.0))
                }
            });
        }
        largest
    }

    /// The bits of the largest element of a block.
    #[inline(always)]
    pub(crate) fn largest_of<S: Simd>(self, simd: S, values: &[f32]) -> u32 {
        let mut largest = Words::splat(simd, 0);
        if let Some(block) = values.first_chunk::<BLOCK>() {
            let (lanes, mut other, mut start) = (Words::<S>::LANES, largest, 0);
            while start < BLOCK {
                largest = self.largest(largest, [Vector::read(simd, &block[start..start + lanes])]);
                start += lanes;
                other = self.largest(other, [Vector::read(simd, &block[start..start + lanes])]);
                start += lanes;
            }
            return largest.max(other).fold(u32::max);
        }
        for values in values.chunks(Words::<S>::LANES) {
            largest = self.largest(largest, [Vector::read(simd, values)]);
        }
        largest.fold(u32::max)
    }

    /// The encoder of a block, by the [bits of its largest element](Self::largest_of).
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn encoder(self, bits: u32) -> Encoder {
        let largest = f32::from_bits(bits).clamp(SMALLEST, LARGEST);
        let (scale, inverse) = match bits {
            0 => (0.0, 0.0),
            1..=INFINITY => {
                let top = self.top();
                // Smaller by some roundings, so that no code exceeds the largest one.
                (largest * (1.0 / top), (top - 4.0 * f32::EPSILON) / largest)
            }
            _ => (f32::NAN, 0.0),
        };
        Encoder { format: self, scale, inverse, saturates: bits > LARGEST.to_bits() }
    }
}

/// The bits of infinity; NaN and negative numbers have more.
const INFINITY: u32 = f32::INFINITY.to_bits();

/// Turns the numbers of a block into codes.
#[derive(Clone, Copy)]
pub(crate) struct Encoder {
    format: Q8,
    pub(crate) scale: f32,
    inverse: f32,
    saturates: bool,
}

impl Encoder {
    /// The codes of a block, each rounded to one of its two neighbours by 16 random bits. If the block is shorter,
    /// `block` may have any numbers after it.
    #[inline(always)]
    pub(crate) fn encode<S: Simd>(
        &self,
        simd: S,
        block: &mut [f32; BLOCK],
        random: &[u16; BLOCK],
        codes: &mut [u8; BLOCK],
    ) {
        if self.scale.is_nan() {
            return codes.fill(0);
        }
        if self.saturates {
            block.iter_mut().for_each(|value| *value = value.clamp(-LARGEST, LARGEST));
        }
        // Each format has a loop of its own, without branches on the format.
        match self.format {
            Q8::Signed => self.encode_as(simd, Q8::Signed, block, random, codes),
            Q8::Squares => self.encode_as(simd, Q8::Squares, block, random, codes),
            Q8::Unsigned => self.encode_as(simd, Q8::Unsigned, block, random, codes),
        }
    }

    #[inline(always)]
    fn encode_as<S: Simd>(
        &self,
        simd: S,
        format: Q8,
        block: &[f32; BLOCK],
        random: &[u16; BLOCK],
        codes: &mut [u8; BLOCK],
    ) {
        let (inverse, least) =
            (Vector::splat(simd, self.inverse), Vector::splat(simd, format.least()));
        let zero = Vector::splat(simd, 0.0);
        // `least` is added to each number. The bits of the sum above the shift are the code plus `moved_by`, which is a
        // multiple of the number of codes: so their lowest bits are the code.
        let moved_by = format.least().to_bits() >> format.shift();
        let floor = Words::splat(simd, moved_by + format.least_code());
        let nothing = Words::splat(simd, 0);
        // No iterators: with one codegen unit `zip` is not inlined, and then the chunks' length is unknown.
        let mut start = 0;
        while start < BLOCK {
            let lanes = start..start + Words::<S>::LANES;
            start = lanes.end;
            let values = Vector::read(simd, &block[lanes.clone()]);
            let random = Words::widen(simd, &random[lanes.clone()]);
            let share = random << (format.shift() - RANDOM_BITS);
            let bits = Words::of(values);
            let size = match format {
                Q8::Signed => (bits & 0x7fff_ffff).floats(),
                Q8::Squares | Q8::Unsigned => values,
            };
            let moved = Words::of(size.mul_add(inverse, least));
            let code = (moved + share) >> format.shift();
            let code = match format {
                Q8::Signed => (code & 0x7f) | (bits >> 24 & 0x80),
                Q8::Squares | Q8::Unsigned => {
                    code.max(Words::select(zero.less_than(values), floor, nothing))
                }
            };
            code.store_bytes(&mut codes[lanes]);
        }
    }
}

pub(super) struct Encode<'a> {
    pub format: Q8,
    pub values: &'a [f32],
    pub codes: &'a mut [u8],
    pub scales: &'a mut [f32],
}

impl WithSimd for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { format, values, codes, scales } = self;
        let (mut block, nearest) = ([0.0; BLOCK], [1 << (RANDOM_BITS - 1); BLOCK]);
        for ((values, codes), scale) in
            values.chunks(BLOCK).zip(codes.chunks_mut(BLOCK)).zip(scales)
        {
            block[..values.len()].copy_from_slice(values);
            let encoder = format.encoder(format.largest_of(simd, values));
            *scale = encoder.scale;
            let mut whole = [0; BLOCK];
            encoder.encode(simd, &mut block, &nearest, &mut whole);
            codes.copy_from_slice(&whole[..codes.len()]);
        }
    }
}
