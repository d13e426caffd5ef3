//! Hyper-parameters of any bits.

use std::ops::{Bound, RangeBounds};

use adamant::{Error, rule::BuiltIn, settings::SettingKind};

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
        self.number(0.0..=f64::MAX)
    }

    /// At least 0 and at most 1.
    pub fn share(&mut self) -> f64 {
        self.number(0.0..=1.0)
    }

    pub fn finite(&mut self) -> f64 {
        self.number(f64::MIN..=f64::MAX)
    }

    /// An optimizer, each setting as it is declared.
    ///
    /// Fails if the optimizer's own check accepts a number that is out of its declared range, or names a range
    /// that all numbers are in. Conditions between settings are known to the check alone.
    pub fn rule<R: BuiltIn>(&mut self) -> R {
        let before = std::mem::replace(&mut self.in_range, true);
        let mut rule = R::default();
        for setting in R::SETTINGS {
            let set = match setting.kind {
                SettingKind::Number(range) => rule.set(setting.name, self.number(range)),
                SettingKind::Count => rule.set(setting.name, self.count()),
                SettingKind::Flag => rule.set(setting.name, (self.bits)() & 1 != 0),
                SettingKind::Choice(names) => {
                    rule.set(setting.name, names[(self.bits)() as usize % names.len()])
                }
                other => panic!("settings of the kind {other:?} cannot be drawn"),
            };
            set.expect("a value of its kind");
        }
        match rule.check() {
            Ok(()) => assert!(self.in_range, "out of its range, but not refused: {rule:?}"),
            Err(Error::HyperParameter { name, allowed, .. }) => {
                let is_declared = R::SETTINGS.iter().any(|setting| {
                    setting.name == name
                        && matches!(setting.kind, SettingKind::Number(range) if range.words == allowed)
                });
                assert_eq!(is_declared, !self.in_range, "{name} must be {allowed}: {rule:?}");
                self.in_range = false;
            }
            Err(error) => panic!("{error}: {rule:?}"),
        }
        self.in_range &= before;
        rule
    }

    /// 0, or of any magnitude.
    fn count(&mut self) -> u64 {
        let bits = (self.bits)();
        if bits & 1 == 0 { 0 } else { bits >> (bits >> 1 & 63) }
    }

    /// A number, mostly in the range: a usual one, or one of the 512 nearest to an end of the range, or near 0
    /// if there is no end.
    fn number(&mut self, range: impl RangeBounds<f64>) -> f64 {
        const OUTSIDE: [f64; 5] = [-f64::MIN_POSITIVE, 1.0, f64::INFINITY, f64::NAN, -1.0];
        const USUAL: [f64; 11] = [
            0.0,
            -0.0,
            5e-324,
            1e-8,
            0.9,
            0.999,
            1.0 - f64::EPSILON / 2.0,
            1.0,
            1.0 + f64::EPSILON,
            f64::MAX,
            f64::MIN,
        ];
        let bits = (self.bits)();
        let choose = |numbers: &[f64]| numbers[(bits >> 8) as usize % numbers.len()];
        let number = match bits & 63 {
            0 => f64::from_bits(bits),
            1 => choose(&OUTSIDE),
            2..32 => {
                let usual: Vec<f64> = USUAL.into_iter().filter(|x| range.contains(x)).collect();
                choose(&usual)
            }
            _ => {
                // 2^-32 to 1.
                let mantissa = 0.5 + (bits >> 32) as f64 / (1u64 << 33) as f64;
                let part = mantissa * f64::powi(0.5, (bits >> 8 & 31) as i32);
                let (start, end) = (end_of(range.start_bound()), end_of(range.end_bound()));
                if start == f64::MIN {
                    2.0 * part - 1.0
                } else if end - start > 512.0 {
                    start + 512.0 * part
                } else if bits >> 6 & 1 == 0 {
                    end - (end - start) * part
                } else {
                    start + (end - start) * part
                }
            }
        };
        self.in_range &= range.contains(&number);
        number
    }
}

fn end_of(bound: Bound<&f64>) -> f64 {
    match bound {
        Bound::Included(&end) | Bound::Excluded(&end) => end,
        Bound::Unbounded => panic!("a range of settings has ends"),
    }
}
