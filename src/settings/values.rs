//! A setting: its name, kind, range and value.

use core::{
    fmt,
    ops::{Bound, RangeBounds},
};

use crate::Error;

/// A setting: its name, the values that it may have, and its default.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Setting {
    /// The name of the field.
    pub name: &'static str,
    /// The values that the setting may have.
    pub kind: SettingKind,
    /// Its value in the `Default` of the optimizer.
    pub default: SettingValue<'static>,
}

impl Setting {
    pub(crate) const fn number(name: &'static str, range: NumberRange, default: f64) -> Self {
        Self { name, kind: SettingKind::Number(range), default: SettingValue::Number(default) }
    }

    pub(crate) const fn count(name: &'static str, default: u64) -> Self {
        Self { name, kind: SettingKind::Count, default: SettingValue::Count(default) }
    }

    pub(crate) const fn flag(name: &'static str, default: bool) -> Self {
        Self { name, kind: SettingKind::Flag, default: SettingValue::Flag(default) }
    }

    pub(crate) const fn choice(
        name: &'static str,
        choices: &'static [&'static str],
        default: &'static str,
    ) -> Self {
        Self { name, kind: SettingKind::Choice(choices), default: SettingValue::Choice(default) }
    }
}

/// The values that a setting may have.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum SettingKind {
    /// A number in a range.
    Number(NumberRange),
    /// A whole number that is not negative.
    Count,
    /// True or false.
    Flag,
    /// One of some names.
    Choice(&'static [&'static str]),
}

impl fmt::Display for SettingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(range) => write!(f, "a number, {}", range.words),
            Self::Count => f.write_str("a whole number of at least 0"),
            Self::Flag => f.write_str("true or false"),
            Self::Choice(names) => f.write_str(&names.join(" or ")),
        }
    }
}

/// A range of numbers, and its description in errors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NumberRange {
    /// The lower end.
    pub start: Bound<f64>,
    /// The upper end.
    pub end: Bound<f64>,
    /// The range in words: `"finite and at least 0"`.
    pub words: &'static str,
}

impl RangeBounds<f64> for NumberRange {
    fn start_bound(&self) -> Bound<&f64> {
        self.start.as_ref()
    }

    fn end_bound(&self) -> Bound<&f64> {
        self.end.as_ref()
    }
}

pub(crate) const NOT_NEGATIVE: NumberRange = NumberRange {
    start: Bound::Included(0.0),
    end: Bound::Included(f64::MAX),
    words: "finite and at least 0",
};

pub(crate) const DECAY: NumberRange = NumberRange {
    start: Bound::Included(0.0),
    end: Bound::Excluded(1.0),
    words: "at least 0 and less than 1",
};

pub(crate) const SHARE: NumberRange = NumberRange {
    start: Bound::Included(0.0),
    end: Bound::Included(1.0),
    words: "at least 0 and at most 1",
};

pub(crate) const FINITE: NumberRange = NumberRange {
    start: Bound::Included(f64::MIN),
    end: Bound::Included(f64::MAX),
    words: "finite",
};

/// Checks that a hyper-parameter is in a range. `allowed` describes the range in the error.
///
/// # Errors
///
/// [`Error::HyperParameter`] if the value is outside, or NaN.
pub fn check(
    name: &'static str,
    value: f64,
    range: impl RangeBounds<f64>,
    allowed: &'static str,
) -> Result<(), Error> {
    if range.contains(&value) {
        Ok(())
    } else {
        Err(Error::HyperParameter { name, value, allowed })
    }
}

/// The value of a setting.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum SettingValue<'a> {
    /// A number.
    Number(f64),
    /// A whole number that is not negative.
    Count(u64),
    /// True or false.
    Flag(bool),
    /// A name.
    Choice(&'a str),
}

impl fmt::Display for SettingValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Count(count) => count.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
            Self::Choice(name) => fmt::Debug::fmt(name, f),
        }
    }
}

impl From<f64> for SettingValue<'_> {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<i32> for SettingValue<'_> {
    fn from(number: i32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for SettingValue<'_> {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<bool> for SettingValue<'_> {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl<'a> From<&'a str> for SettingValue<'a> {
    fn from(name: &'a str) -> Self {
        Self::Choice(name)
    }
}
