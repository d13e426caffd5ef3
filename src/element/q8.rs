//! Moments of 8 bits, in blocks of 256 with a scale.

use crate::Error;

/// Elements that share a scale.
pub(crate) const BLOCK: usize = 256;

/// The format of a moment of 8 bits, [`Moment::Q8`](crate::Moment::Q8): blocks of 256 elements, the
/// last one possibly shorter, each with a scale in `f32`, and a code of 8 bits for each element.
///
/// ```text
/// code   e = 4 bits of exponent, f = the bits below it
/// signed    1 bit of sign, e, 3 bits of f:   value = +-scale * (2^(e-15) * (1 + f/8)  - 2^-15)
/// squares   e, 4 bits of f:                  value = (scale * (2^(e-15) * (1 + f/16) - 2^-15))^2
/// ```
///
/// A floating-point format, moved so that code 0 is 0: neighbours are 1/16 to 1/8 apart in a signed
/// code (1/32 to 1/16 in the root of a square), down to 2^-18 of the largest element of the block (2^-19
/// of the largest root). The scale makes the largest code the largest element. A block with an element
/// that is not finite has a scale of NaN, and so it is all NaN. One whose largest element or root is
/// below 1e-37 is 0.
///
/// Averages of squares are kept as roots, which halves the range that the exponent has to cover. A rule
/// says which of its moments those are by [`Rule::holds_squares`](crate::Rule::holds_squares).
///
/// In a step an element is rounded to one of its two neighbours at random, so that it is right on
/// average (the square is, not the root).
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

/// What every value is moved by, so that code 0 is 0; the bits of the smallest float of the format.
const LEAST: f32 = 1.0 / 32768.0;
/// Scales below are taken for 0: their inverse could not be told from infinity.
const SMALLEST: f32 = 1e-37;

impl Q8 {
    /// The number of scales for `len` elements.
    pub fn scales(len: usize) -> usize {
        len.div_ceil(BLOCK)
    }

    /// Turns values into codes and scales, each rounded to nearest in the value that is kept: the
    /// number, or its root. A negative number is NaN to [`Squares`](Self::Squares).
    ///
    /// # Errors
    ///
    /// [`Error::LengthMismatch`] if there are not as many codes as values, and
    /// [`scales`](Self::scales).
    pub fn encode(self, values: &[f32], codes: &mut [u8], scales: &mut [f32]) -> Result<(), Error> {
        check(values.len(), codes.len(), scales.len())?;
        let random = [0x8000; BLOCK];
        let blocks = values.chunks(BLOCK).zip(codes.chunks_mut(BLOCK)).zip(scales);
        for ((values, codes), scale) in blocks {
            self.narrow_nearest(codes, scale, values, &random);
        }
        Ok(())
    }

    /// Turns codes and scales into values.
    ///
    /// # Errors
    ///
    /// As [`encode`](Self::encode).
    pub fn decode(self, codes: &[u8], scales: &[f32], values: &mut [f32]) -> Result<(), Error> {
        check(values.len(), codes.len(), scales.len())?;
        self.widen(values, codes, scales);
        Ok(())
    }

    /// Bits of `f32` below those of a code.
    const fn shift(self) -> u32 {
        match self {
            Self::Signed => 20,
            Self::Squares => 19,
        }
    }

    /// The largest code, less its sign.
    const fn top(self) -> u32 {
        match self {
            Self::Signed => 127,
            Self::Squares => 255,
        }
    }

    /// A code as a number, less scale, sign and square.
    #[inline(always)]
    fn number(self, code: u32) -> f32 {
        f32::from_bits((code << self.shift()) + LEAST.to_bits()) - LEAST
    }

    /// Some blocks as numbers.
    #[inline(always)]
    pub(crate) fn widen(self, wide: &mut [f32], codes: &[u8], scales: &[f32]) {
        let blocks = wide.chunks_mut(BLOCK).zip(codes.chunks(BLOCK)).zip(scales);
        for ((wide, codes), &scale) in blocks {
            for (wide, &code) in wide.iter_mut().zip(codes) {
                let code = u32::from(code);
                *wide = match self {
                    Self::Signed => {
                        let number = scale * self.number(code & 0x7f);
                        f32::from_bits(number.to_bits() | (code & 0x80) << 24)
                    }
                    Self::Squares => {
                        let root = scale * self.number(code);
                        root * root
                    }
                };
            }
        }
    }

    /// The scale of a block, and its inverse.
    #[inline(always)]
    fn scale(self, wide: &[f32]) -> (f32, f32) {
        // The bits of numbers without their sign are in the order of the numbers, NaN last.
        let mut largest = 0;
        let mut any_sign = 0;
        for wide in wide {
            let bits = wide.to_bits();
            any_sign |= if bits == 0x8000_0000 { 0 } else { bits };
            largest = largest.max(bits & 0x7fff_ffff);
        }
        let largest = f32::from_bits(largest);
        let is_negative = self == Self::Squares && any_sign >> 31 != 0;
        if !largest.is_finite() || is_negative {
            return (f32::NAN, 0.0);
        }
        let largest = if self == Self::Squares { largest.sqrt() } else { largest };
        let scale = largest / self.number(self.top());
        if scale < SMALLEST { (0.0, 0.0) } else { (scale, 1.0 / scale) }
    }

    /// A block as codes, each rounded to either neighbour at random, by 16 bits for each element: the
    /// upper or the lower half of 32.
    #[inline(always)]
    pub(crate) fn narrow(
        self,
        codes: &mut [u8],
        scale: &mut f32,
        wide: &[f32],
        random: &[u32],
        half: u32,
    ) {
        let (found, inverse) = self.scale(wide);
        *scale = found;
        if found.is_nan() {
            return codes.fill(0);
        }
        let least = LEAST.to_bits();
        for ((code, &wide), random) in codes.iter_mut().zip(wide).zip(random) {
            let random = random >> half & 0xffff;
            *code = match self {
                Self::Signed => {
                    let number = wide.abs() * inverse + LEAST;
                    let bits = number.to_bits().wrapping_sub(least).wrapping_add(random << 4);
                    (bits >> 20).min(127) as u8 | (wide.to_bits() >> 24 & 0x80) as u8
                }
                Self::Squares => {
                    let root = wide.sqrt() * inverse;
                    let lower = ((root + LEAST).to_bits().wrapping_sub(least) >> 19).min(255);
                    let upper = (lower + 1).min(255);
                    let (below, above) = (self.number(lower), self.number(upper));
                    let (below, above) = (below * below, above * above);
                    // A point between the neighbours' squares, any of them as likely.
                    let point = below + (above - below) * (random as f32 * (1.0 / 65536.0));
                    (if root * root > point { upper } else { lower }) as u8
                }
            };
        }
    }

    /// The same, to the nearest neighbour.
    fn narrow_nearest(self, codes: &mut [u8], scale: &mut f32, wide: &[f32], half: &[u32; BLOCK]) {
        match self {
            Self::Signed => self.narrow(codes, scale, wide, half, 0),
            Self::Squares => {
                let (found, inverse) = self.scale(wide);
                *scale = found;
                if found.is_nan() {
                    return codes.fill(0);
                }
                for (code, &wide) in codes.iter_mut().zip(wide) {
                    let number = wide.sqrt() * inverse + LEAST;
                    let bits = number.to_bits().wrapping_sub(LEAST.to_bits()) + (1 << 18);
                    *code = (bits >> 19).min(255) as u8;
                }
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
