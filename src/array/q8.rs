//! Moments of 8 bits, in blocks of 256 with a scale.

mod encode;

use crate::{
    Error,
    float_modes::with_default_float_modes,
    isa::Cpu,
    simd::{Scalar, Simd, Vector, WithSimd, Words},
};
use encode::Encode;

/// Elements that share a scale.
pub(crate) const BLOCK: usize = 256;

/// The formats of a moment of 8 bits, [`Moment::q8`](crate::Moment::q8): blocks of 256 elements, the
/// last one possibly shorter. Each block has a scale in `f32`, and each element a code of 8 bits.
///
/// ```text
/// e = bits of exponent, f = the bits below them
/// signed    1 bit of sign, 4 of e, 3 of f:  value = +-scale * (2^(e-15) * (1 + f/8) - 2^-15)
/// squares   5 bits of e, 3 of f:            value = scale * (2^(e-31) * (1 + f/8) - 2^-31)
/// unsigned  4 bits of e, 4 of f:            value = scale * (2^(e-15) * (1 + f/16) - 2^-15)
/// ```
///
/// It is a floating-point format, shifted so that code 0 is 0. Neighbours are 1/16 to 1/8 apart (unsigned: 1/32
/// to 1/16), down to the least step: 2^-18, 2^-34 and 2^-19 of the scale. The scale makes the
/// largest code the largest element, to a rounding or two.
///
/// # Denominators
///
/// Formulas divide by squares and by unsigned numbers. So an element that is not 0 never becomes 0: its code is at
/// least 1 among squares, 2^-34 of the scale, and at least 2 among unsigned numbers, 2^-18. Beside a much larger
/// element it is rounded up to that, and its steps get shorter. Otherwise a first moment that was rounded up could be
/// divided by almost 0.
///
/// A rule says which of its moments are of which kind: [`Rule::holds_squares`](crate::rule::Rule::holds_squares)
/// and [`Rule::holds_magnitudes`](crate::rule::Rule::holds_magnitudes). The format follows from that:
/// [`DynOptimizer::moment_format`](crate::DynOptimizer::moment_format).
///
/// # Range
///
/// - A block whose largest element is below 2^-122 (1.9e-37), but not 0, is encoded as if it had an element of
///   2^-122.
/// - An element above 1.9921875 * 2^127 (3.39e38), infinity too, becomes that number.
/// - A NaN, or a negative number among squares and unsigned ones, makes the scale of its block NaN, and
///   so the whole block.
///
/// # Rounding
///
/// In a step, an element is rounded to one of its two neighbours at random, so that it is right on average. The
/// exception are elements of a denominator that are rounded up to the least code.
///
/// # Examples
///
/// ```
/// use adamant::Q8;
///
/// let values = [1.0_f32, -0.5, 0.0, 1e-3];
/// let (mut codes, mut scales) = ([0; 4], [0.0; 1]);
/// Q8::Signed.encode(&values, &mut codes, &mut scales)?;
/// let mut decoded = [0.0; 4];
/// Q8::Signed.decode(&codes, &scales, &mut decoded)?;
/// assert_eq!(decoded[0], 1.0);
/// assert!((decoded[1] + 0.5).abs() < 0.5 / 16.0 && decoded[2] == 0.0);
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Q8 {
    /// Numbers of either sign.
    Signed,
    /// Averages and sums of squares, which are never negative.
    Squares,
    /// Other numbers that are never negative, and that a formula divides by.
    Unsigned,
}

impl Q8 {
    /// The number of scales for `len` elements.
    pub fn scales(len: usize) -> usize {
        len.div_ceil(BLOCK)
    }

    /// Turns values into codes and scales, each rounded to nearest, or up to the least code of a
    /// denominator.
    ///
    /// # Errors
    ///
    /// [`Error::LengthMismatch`] if there are not as many codes as values, or not as many scales as
    /// [`scales`](Self::scales) says; the errors of [`Isa::selected`](crate::Isa::selected).
    pub fn encode(self, values: &[f32], codes: &mut [u8], scales: &mut [f32]) -> Result<(), Error> {
        self.encode_with(values, codes, scales, Cpu::selected()?)
    }

    pub(crate) fn encode_with(
        self,
        values: &[f32],
        codes: &mut [u8],
        scales: &mut [f32],
        cpu: Cpu,
    ) -> Result<(), Error> {
        check(values.len(), codes.len(), scales.len())?;
        with_default_float_modes(|| cpu.run(Encode { format: self, values, codes, scales }));
        Ok(())
    }

    /// Gives every element the same value, on any CPU.
    pub(crate) fn fill(self, value: f32, codes: &mut [u8], scales: &mut [f32]) {
        let (mut code, mut scale) = ([0], [0.0]);
        with_default_float_modes(|| {
            Encode { format: self, values: &[value], codes: &mut code, scales: &mut scale }
                .with_simd(Scalar::new());
        });
        codes.fill(code[0]);
        scales.fill(scale[0]);
    }

    /// Turns codes and scales into values.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn decode(self, codes: &[u8], scales: &[f32], values: &mut [f32]) -> Result<(), Error> {
        self.decode_with(codes, scales, values, Cpu::selected()?)
    }

    pub(crate) fn decode_with(
        self,
        codes: &[u8],
        scales: &[f32],
        values: &mut [f32],
        cpu: Cpu,
    ) -> Result<(), Error> {
        check(values.len(), codes.len(), scales.len())?;
        with_default_float_modes(|| cpu.run(Decode { format: self, codes, scales, values }));
        Ok(())
    }

    /// The smallest float of the format. It is subtracted from every number, so that code 0 is 0.
    const fn least(self) -> f32 {
        match self {
            Self::Signed | Self::Unsigned => 1.0 / 32_768.0,
            Self::Squares => 1.0 / 2_147_483_648.0,
        }
    }

    /// The number of bits of an `f32` below the bits of a code.
    const fn shift(self) -> u32 {
        match self {
            Self::Signed | Self::Squares => 20,
            Self::Unsigned => 19,
        }
    }

    /// The number of the largest code, at a scale of 1.
    const fn top(self) -> f32 {
        match self {
            Self::Signed | Self::Squares => 1.875 - self.least(),
            Self::Unsigned => 1.9375 - self.least(),
        }
    }

    /// The least code of a number that is not 0.
    const fn least_code(self) -> u32 {
        match self {
            Self::Signed => 0,
            Self::Squares => 1,
            Self::Unsigned => 2,
        }
    }

    /// A register of numbers out of a block, or fewer and zeros.
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn widen<S: Simd>(
        self,
        simd: S,
        codes: &[u8],
        scale: Vector<S, f32>,
    ) -> Vector<S, f32> {
        let codes = Words::widen(simd, codes);
        match self {
            Self::Signed => {
                let number = self.number(codes & 0x7f, scale);
                (Words::of(number) ^ (codes & 0x80) << 24).floats()
            }
            Self::Squares | Self::Unsigned => self.number(codes, scale),
        }
    }

    /// The numbers of codes without a sign.
    #[inline(always)]
    fn number<S: Simd>(self, codes: Words<S>, scale: Vector<S, f32>) -> Vector<S, f32> {
        let least = codes.all(self.least().to_bits());
        scale * (((codes << self.shift()) + least).floats() - least.floats())
    }
}

struct Decode<'a> {
    format: Q8,
    codes: &'a [u8],
    scales: &'a [f32],
    values: &'a mut [f32],
}

impl WithSimd for Decode<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { format, codes, scales, values } = self;
        for ((values, codes), &scale) in
            values.chunks_mut(BLOCK).zip(codes.chunks(BLOCK)).zip(scales)
        {
            let scale = Vector::splat(simd, scale);
            let lanes = Words::<S>::LANES;
            for (values, codes) in values.chunks_mut(lanes).zip(codes.chunks(lanes)) {
                format.widen(simd, codes, scale).write(values);
            }
        }
    }
}

fn check(expected: usize, codes: usize, scales: usize) -> Result<(), Error> {
    let same = |argument, len, expected| match len == expected {
        true => Ok(()),
        false => Err(Error::LengthMismatch { tensor: 0, argument, len, expected }),
    };
    same("codes", codes, expected)?;
    same("scales", scales, Q8::scales(expected))
}
