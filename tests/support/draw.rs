//! Hyper-parameters of any bits.

use std::ops::RangeBounds;

use adamant::Epsilon;

use super::Drawn;

/// Makes hyper-parameters of any bits: ordinary ones, those at the ends of their range, and, one
/// time in thirty, any number at all.
pub struct Draw<'a> {
    bits: &'a mut dyn FnMut() -> u64,
    /// Whether everything drawn so far is in its range.
    pub in_range: bool,
}

impl<'a> Draw<'a> {
    pub fn new(bits: &'a mut dyn FnMut() -> u64) -> Self {
        Self { bits, in_range: true }
    }

    /// Finite and at least 0.
    pub fn size(&mut self) -> f64 {
        let usual = [0.0, -0.0, 5e-324, 1e-8, 1.0, f64::MAX];
        self.number(&usual, 0.0..=f64::MAX, |x| 512.0 * x)
    }

    /// At least 0 and less than 1.
    pub fn decay(&mut self) -> f64 {
        self.number(&[0.0, 0.9, 0.999, 1.0 - f64::EPSILON / 2.0], 0.0..1.0, |x| 1.0 - x)
    }

    /// At least 0 and at most 1.
    pub fn share(&mut self) -> f64 {
        self.number(&[0.0, 0.9, 1.0], 0.0..=1.0, |x| x)
    }

    pub fn finite(&mut self) -> f64 {
        self.number(&[0.0, 0.9, 1.0, f64::MIN, f64::MAX], f64::MIN..=f64::MAX, |x| 2.0 * x - 1.0)
    }

    /// 0, or of any magnitude.
    pub fn count(&mut self) -> u64 {
        let bits = (self.bits)();
        if bits & 1 == 0 { 0 } else { bits >> (bits >> 1 & 63) }
    }

    pub fn flag(&mut self) -> bool {
        (self.bits)() & 1 != 0
    }

    pub fn epsilon(&mut self) -> Epsilon {
        if self.flag() { Epsilon::Hat } else { Epsilon::Standard }
    }

    pub fn rule<R: Drawn>(&mut self) -> R {
        R::draw(self)
    }

    /// `ordinary` gets a number of 2^-32 to 1.
    fn number(
        &mut self,
        usual: &[f64],
        range: impl RangeBounds<f64>,
        ordinary: impl Fn(f64) -> f64,
    ) -> f64 {
        const OUTSIDE: [f64; 5] = [-f64::MIN_POSITIVE, 1.0, f64::INFINITY, f64::NAN, -1.0];
        let bits = (self.bits)();
        let choose = |numbers: &[f64]| numbers[(bits >> 8) as usize % numbers.len()];
        let number = match bits & 63 {
            0 => f64::from_bits(bits),
            1 => choose(&OUTSIDE),
            2..32 => choose(usual),
            _ => {
                let mantissa = 0.5 + (bits >> 32) as f64 / (1u64 << 33) as f64;
                ordinary(mantissa * f64::powi(0.5, (bits >> 8 & 31) as i32))
            }
        };
        self.in_range &= range.contains(&number);
        number
    }
}
