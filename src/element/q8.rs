//! Moments of 8 bits, in blocks of 256 with a scale.

use pulp::{Simd, WithSimd};

use crate::{
    Error, Isa,
    lanes::{Lanes, Vector},
    words::Words,
};

/// Elements that share a scale.
pub(crate) const BLOCK: usize = 256;

/// The format of a moment of 8 bits, [`Moment::Q8`](crate::Moment::Q8): blocks of 256 elements, the
/// last one possibly shorter, each with a scale in `f32`, and a code of 8 bits for each element.
///
/// ```text
/// code   e = bits of exponent, f = the 3 bits below them
/// signed    1 bit of sign, e of 4 bits:   value = +-scale * (2^(e-15) * (1 + f/8) - 2^-15)
/// squares   e of 5 bits:                  value = scale * (2^(e-31) * (1 + f/8) - 2^-31)
/// ```
///
/// A floating-point format, moved so that code 0 is 0: neighbours are 1/16 to 1/8 apart, down to 2^-18
/// of the largest element of the block in a signed code, 2^-34 among squares. The scale makes the
/// largest code the largest element, to a rounding or two. A block with an element that is not finite has a scale of NaN, and
/// so it is all NaN. One whose largest element is below 1e-37 is 0.
///
/// Averages of squares have the range and the resolution of their roots with a bit less of exponent and
/// a bit more of fraction, and need no root. A rule says which of its moments those are by
/// [`Rule::holds_squares`](crate::Rule::holds_squares).
///
/// In a step an element is rounded to one of its two neighbours at random, so that it is right on
/// average.
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
pub enum Q8 {
    /// Numbers of either sign.
    Signed,
    /// Numbers that are not negative: averages of squares.
    Squares,
}

/// The least scale; blocks of less are taken for 0, since its inverse could not be told from infinity.
const SMALLEST: f32 = 1e-37;
/// Bits of `f32` below those of a code.
const SHIFT: u32 = 20;

impl Q8 {
    /// The format of a moment; `squares` says whether it is an average or sum of squares.
    pub(crate) fn of(squares: bool) -> Self {
        if squares { Self::Squares } else { Self::Signed }
    }

    /// The number of scales for `len` elements.
    pub fn scales(len: usize) -> usize {
        len.div_ceil(BLOCK)
    }

    /// Turns values into codes and scales, each rounded to nearest. A negative number is NaN to
    /// [`Squares`](Self::Squares).
    ///
    /// # Errors
    ///
    /// [`Error::LengthMismatch`] if there are not as many codes as values, and
    /// [`scales`](Self::scales).
    pub fn encode(self, values: &[f32], codes: &mut [u8], scales: &mut [f32]) -> Result<(), Error> {
        check(values.len(), codes.len(), scales.len())?;
        Isa::detect().cpu()?.run(Encode { format: self, values, codes, scales });
        Ok(())
    }

    /// Turns codes and scales into values.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn decode(self, codes: &[u8], scales: &[f32], values: &mut [f32]) -> Result<(), Error> {
        check(values.len(), codes.len(), scales.len())?;
        Isa::detect().cpu()?.run(Decode { format: self, codes, scales, values });
        Ok(())
    }

    /// What every number is moved by, so that code 0 is 0: the smallest float of the format.
    const fn least(self) -> f32 {
        match self {
            Self::Signed => 1.0 / 32_768.0,
            Self::Squares => 1.0 / 2_147_483_648.0,
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
        let least = codes.all(self.least().to_bits());
        let number = |code: Words<S>| scale * (((code << SHIFT) + least).floats() - least.floats());
        match self {
            Self::Signed => (Words::of(number(codes & 0x7f)) ^ (codes & 0x80) << 24).floats(),
            Self::Squares => number(codes),
        }
    }

    /// The largest element of registers and those before, as bits: those of numbers that are not
    /// negative are in the order of the numbers, those of NaN and of negative numbers behind them.
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn largest<S: Simd, const N: usize>(
        self,
        mut largest: Words<S>,
        values: [Vector<S, f32>; N],
    ) -> Words<S> {
        for value in values {
            largest = largest.max(match self {
                Self::Signed => Words::of(value.abs()),
                // -0 becomes 0.
                Self::Squares => Words::of(value + Vector::splat(value.simd(), 0.0)),
            });
        }
        largest
    }

    /// The largest element of all.
    #[inline(always)]
    pub(crate) fn largest_of<S: Simd>(self, simd: S, values: &[f32]) -> Words<S> {
        let mut largest = Words::splat(simd, 0);
        for values in values.chunks(Words::<S>::LANES) {
            largest = self.largest(largest, [Vector::read(simd, values)]);
        }
        largest
    }

    /// What makes codes of a block, of which the largest element is known.
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn encoder<S: Simd>(self, largest: Words<S>, half: Half) -> Encoder {
        let largest = f32::from_bits(largest.fold(u32::max));
        let top = 1.875 - self.least();
        let scale = largest * (1.0 / top);
        let (scale, inverse) = match scale {
            _ if !(0.0..f32::INFINITY).contains(&largest) => (f32::NAN, 0.0),
            scale if scale < SMALLEST => (0.0, 0.0),
            // Less by some roundings, so that no code is beyond the largest one.
            scale => (scale, (top - 4.0 * f32::EPSILON) / largest),
        };
        Encoder { format: self, half, scale, inverse }
    }
}

/// What makes codes of a block.
#[derive(Clone, Copy)]
pub(crate) struct Encoder {
    format: Q8,
    half: Half,
    pub(crate) scale: f32,
    inverse: f32,
}

impl Encoder {
    /// The codes, each rounded to either neighbour at random.
    #[cfg_attr(debug_assertions, inline)]
    #[cfg_attr(not(debug_assertions), inline(always))]
    pub(crate) fn narrow<S: Simd>(
        &self,
        simd: S,
        codes: &mut [u8; BLOCK],
        block: &[f32; BLOCK],
        random: &[u32; BLOCK],
        words: &mut [u32; BLOCK],
    ) {
        if self.scale.is_nan() {
            return codes.fill(0);
        }
        let inverse = Vector::splat(simd, self.inverse);
        let least = Vector::splat(simd, self.format.least());
        // No iterators: with one codegen unit `zip` is not inlined, and then the chunks' length is unknown.
        let mut start = 0;
        while start < BLOCK {
            let lanes = start..start + Words::<S>::LANES;
            start = lanes.end;
            let values = Vector::read(simd, &block[lanes.clone()]);
            let random = Words::load(simd, &random[lanes.clone()]);
            let share = match self.half {
                Half::Lower => random & ((1 << SHIFT) - 1),
                Half::Upper => random >> (32 - SHIFT),
            };
            // What is moved has the bits of the code above the shift: modulo the codes, since those
            // that it is moved by are a multiple of their number.
            let code = |values: Vector<S, f32>| {
                (Words::of(values.mul_add(inverse, least)) + share) >> SHIFT
            };
            match self.format {
                Q8::Signed => {
                    let sign = (Words::of(values) >> 24) & 0x80;
                    (code(values.abs()) & 0x7f) | sign
                }
                Q8::Squares => code(values),
            }
            .store(&mut words[lanes]);
        }
        for i in 0..BLOCK {
            codes[i] = words[i] as u8;
        }
    }
}

/// Which end of 32 random bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Lower,
    Upper,
}

struct Encode<'a> {
    format: Q8,
    values: &'a [f32],
    codes: &'a mut [u8],
    scales: &'a mut [f32],
}

impl WithSimd for Encode<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { format, values, codes, scales } = self;
        let mut block = [0.0; BLOCK];
        let (nearest, mut words) = ([1 << (SHIFT - 1); BLOCK], [0; BLOCK]);
        for ((values, codes), scale) in
            values.chunks(BLOCK).zip(codes.chunks_mut(BLOCK)).zip(scales)
        {
            block[..values.len()].copy_from_slice(values);
            let encoder = format.encoder(format.largest_of(simd, values), Half::Lower);
            *scale = encoder.scale;
            let mut whole = [0; BLOCK];
            encoder.narrow(simd, &mut whole, &block, &nearest, &mut words);
            codes.copy_from_slice(&whole[..codes.len()]);
        }
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
