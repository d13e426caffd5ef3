//! The settings of an optimizer by name: their list, their values and ranges, reading and writing them.
//!
//! Every optimizer of the crate has [`Settings`]. An optimizer that is chosen when the program runs,
//! [`AnyOptimizer`](crate::AnyOptimizer), has `get` and `set` too, `settings` for the list, and `check` for the ranges.
//!
//! # Examples
//!
//! A list of settings, for example for the help of a program:
//!
//! ```
//! use adamant::AnyOptimizer;
//!
//! let optimizer = AnyOptimizer::new("lion")?;
//! let lines: Vec<_> = (optimizer.settings().iter())
//!     .map(|setting| format!("{}: {} ({})", setting.name, setting.kind, setting.default))
//!     .collect();
//! assert_eq!(lines[0], "lr: a number, finite and at least 0 (0.001)");
//! # Ok::<(), adamant::Error>(())
//! ```

pub(crate) mod values;

use core::fmt;

use crate::Error;

use values::check;
pub(crate) use values::{DECAY, FINITE, NOT_NEGATIVE, SHARE};
pub use values::{NumberRange, Setting, SettingKind, SettingValue};

/// An optimizer whose settings can be listed, read and written by name; every optimizer of the crate
/// is one. Sealed.
///
/// # Examples
///
/// ```
/// use adamant::{
///     Adam,
///     settings::{SettingValue, Settings},
/// };
///
/// let mut adam = Adam::default();
/// adam.set("lr", 0.5)?;
/// adam.set("epsilon", "hat")?;
/// assert_eq!(adam.lr, 0.5);
/// assert_eq!(adam.get("maximize"), Ok(SettingValue::Flag(false)));
/// let error = adam.set("beta3", 0.9).expect_err("no setting of Adam");
/// assert!(error.to_string().starts_with("Adam has no setting \"beta3\"; known: lr, beta1, beta2"));
/// # Ok::<(), adamant::Error>(())
/// ```
pub trait Settings: sealed::Sealed + Copy + Default + fmt::Debug + PartialEq {
    /// The settings, in the order of the fields.
    const SETTINGS: &'static [Setting];

    /// The value of a setting.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSetting`] if the optimizer has no setting of that name.
    fn get(&self, name: &str) -> Result<SettingValue<'static>, Error>;

    /// Sets the value of a setting. As with a field that is assigned, the range of a number is not checked
    /// here but in the next call that uses it.
    ///
    /// A whole number can be given for a count, and a count that `f64` can hold for a number.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownSetting`] if the optimizer has no setting of that name, [`Error::WrongSetting`] if
    /// the value is of another kind.
    fn set<'a>(&mut self, name: &str, value: impl Into<SettingValue<'a>>) -> Result<(), Error> {
        self.set_value(name, value.into())
    }

    /// As [`set`](Self::set). Not generic, so each optimizer has it once in a program.
    ///
    /// # Errors
    ///
    /// As [`set`](Self::set).
    fn set_value(&mut self, name: &str, value: SettingValue<'_>) -> Result<(), Error>;

    /// Checks that every number is in the range of its setting.
    ///
    /// # Errors
    ///
    /// [`Error::HyperParameter`] for the first one that is not.
    fn check_ranges(&self) -> Result<(), Error>;
}

pub(crate) mod sealed {
    pub trait Sealed {}
}

/// The type of a field that is a setting.
pub(crate) trait Field: Copy {
    fn value(self) -> SettingValue<'static>;

    /// The inverse of [`value`](Self::value); `None` for a value of another kind.
    fn read(value: SettingValue<'_>) -> Option<Self>;

    /// Checks the range.
    #[inline(always)]
    fn check(self, _setting: &Setting) -> Result<(), Error> {
        Ok(())
    }
}

impl Field for f64 {
    fn value(self) -> SettingValue<'static> {
        SettingValue::Number(self)
    }

    fn read(value: SettingValue<'_>) -> Option<Self> {
        match value {
            SettingValue::Number(number) => Some(number),
            // u64::MAX becomes 2^64, and that is u64::MAX again when cast back, although they differ.
            SettingValue::Count(count) => {
                (count as f64 as u64 == count && count != u64::MAX).then_some(count as f64)
            }
            _ => None,
        }
    }

    #[inline(always)]
    fn check(self, setting: &Setting) -> Result<(), Error> {
        match setting.kind {
            SettingKind::Number(range) => check(setting.name, self, range, range.words),
            _ => Ok(()),
        }
    }
}

impl Field for u64 {
    fn value(self) -> SettingValue<'static> {
        SettingValue::Count(self)
    }

    fn read(value: SettingValue<'_>) -> Option<Self> {
        const END: f64 = 18_446_744_073_709_551_616.0;
        match value {
            SettingValue::Count(count) => Some(count),
            SettingValue::Number(number) => {
                (number.fract() == 0.0 && (0.0..END).contains(&number)).then_some(number as u64)
            }
            _ => None,
        }
    }
}

impl Field for bool {
    fn value(self) -> SettingValue<'static> {
        SettingValue::Flag(self)
    }

    fn read(value: SettingValue<'_>) -> Option<Self> {
        match value {
            SettingValue::Flag(flag) => Some(flag),
            _ => None,
        }
    }
}

/// Reads a field from a value. The error says which kind of value the setting needs.
pub(crate) fn read<T: Field>(setting: &Setting, value: SettingValue<'_>) -> Result<T, Error> {
    T::read(value).ok_or_else(|| Error::WrongSetting {
        name: setting.name,
        value: value.to_string(),
        allowed: setting.kind.to_string(),
    })
}

pub(crate) fn unknown<S: Settings>(optimizer: &'static str, name: &str) -> Error {
    let known = S::SETTINGS.iter().map(|setting| setting.name).collect();
    Error::UnknownSetting { optimizer, name: name.into(), known }
}

/// Declares the settings of an optimizer, each with its kind, range and default. Implements [`Settings`] and
/// `Default`.
macro_rules! settings {
    ($rule:ident { $($kind:ident $field:ident $(: $values:tt)? = $default:expr;)+ }) => {
        impl Default for $rule {
            fn default() -> Self {
                Self { $($field: $default),+ }
            }
        }

        impl $crate::settings::sealed::Sealed for $rule {}

        impl $crate::settings::Settings for $rule {
            const SETTINGS: &'static [$crate::settings::Setting] = {
                #[allow(unused_imports, reason = "each optimizer has some of them")]
                use $crate::settings::{DECAY, FINITE, NOT_NEGATIVE, SHARE};
                &[$($crate::settings::setting!($kind $field $(: $values)? = $default)),+]
            };

            fn get(&self, name: &str) -> Result<$crate::settings::SettingValue<'static>, $crate::Error> {
                use $crate::settings::{Field, unknown};
                match name {
                    $(stringify!($field) => Ok(Field::value(self.$field)),)+
                    _ => Err(unknown::<Self>(stringify!($rule), name)),
                }
            }

            fn set_value(
                &mut self,
                name: &str,
                value: $crate::settings::SettingValue<'_>,
            ) -> Result<(), $crate::Error> {
                use $crate::settings::{read, unknown};
                let Some(setting) = Self::SETTINGS.iter().find(|setting| setting.name == name) else {
                    return Err(unknown::<Self>(stringify!($rule), name));
                };
                match name {
                    $(stringify!($field) => self.$field = read(setting, value)?,)+
                    _ => {}
                }
                Ok(())
            }

            #[inline]
            fn check_ranges(&self) -> Result<(), $crate::Error> {
                use $crate::settings::Field;
                if let [$($field),+] = Self::SETTINGS {
                    $(Field::check(self.$field, $field)?;)+
                }
                Ok(())
            }
        }
    };
}

/// One setting of [`settings!`].
macro_rules! setting {
    (number $field:ident: $range:ident = $default:expr) => {
        $crate::settings::Setting::number(stringify!($field), $range, $default)
    };
    (count $field:ident = $default:expr) => {
        $crate::settings::Setting::count(stringify!($field), $default)
    };
    (flag $field:ident = $default:expr) => {
        $crate::settings::Setting::flag(stringify!($field), $default)
    };
    (choice $field:ident: $choices:ident = $default:expr) => {
        $crate::settings::Setting::choice(stringify!($field), $choices::NAMES, $default.name())
    };
}

pub(crate) use {setting, settings};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AdEmaMix, Adam, AmsGrad, Epsilon};

    #[test]
    fn settings_are_read_and_written_by_name() {
        let mut adam = AmsGrad::default();
        for setting in AmsGrad::SETTINGS {
            assert_eq!(adam.get(setting.name), Ok(setting.default));
        }
        adam.set("epsilon", "hat").expect("a choice");
        adam.set("weight_decay", 1).expect("a whole number");
        adam.set("maximize", true).expect("a flag");
        let expected =
            Adam { epsilon: Epsilon::Hat, weight_decay: 1.0, maximize: true, ..Adam::default() };
        assert_eq!(adam, AmsGrad(expected));
        assert_eq!(adam.get("epsilon"), Ok(SettingValue::Choice("hat")));
    }

    #[test]
    fn whole_numbers_and_counts_stand_for_each_other() {
        let mut mix = AdEmaMix::default();
        mix.set("alpha_warmup", 5e9).expect("a whole number");
        mix.set("alpha", 3_u64).expect("a number");
        assert_eq!((mix.alpha_warmup, mix.alpha), (5_000_000_000, 3.0));
        for wrong in [-1.0, 0.5, f64::NAN, f64::INFINITY, 18_446_744_073_709_551_616.0] {
            assert!(mix.set("alpha_warmup", wrong).is_err(), "{wrong}");
        }
        for wrong in [u64::MAX, (1 << 53) + 1] {
            assert!(mix.set("alpha", wrong).is_err(), "{wrong}");
        }
        assert_eq!((mix.alpha_warmup, mix.alpha), (5_000_000_000, 3.0));
    }

    #[test]
    fn a_wrong_value_is_refused_with_what_the_setting_needs() {
        let mut mix = AdEmaMix::default();
        let mut adam = Adam::default();
        for (found, message) in [
            (adam.set("lr", "fast"), "lr is \"fast\", but must be a number, finite and at least 0"),
            (adam.set("maximize", 1), "maximize is 1, but must be true or false"),
            (adam.set("epsilon", "Hat"), "epsilon is \"Hat\", but must be standard or hat"),
            (
                mix.set("beta3_warmup", -2),
                "beta3_warmup is -2, but must be a whole number of at least 0",
            ),
        ] {
            assert_eq!(found.expect_err("refused").to_string(), message);
        }
        assert_eq!((mix, adam), (AdEmaMix::default(), Adam::default()));
    }
}
