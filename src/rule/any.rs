//! An optimizer that is chosen when the program runs.

use core::str::FromStr;

use crate::{
    DynOptimizer, Error,
    array::Q8,
    dispatch::Rows,
    isa::Cpu,
    kernel::Pass,
    optimizer::{Constants, Known, MomentLayout},
    rule::BuiltIn,
    settings::{Setting, SettingValue},
    tensor::Run,
};

/// A function that is generic over the type of an optimizer, for [`AnyOptimizer::with`].
pub trait WithOptimizer {
    /// The type of the result.
    type Output;

    /// Calls the function.
    fn run<R: BuiltIn>(self, rule: R) -> Self::Output;
}

/// Makes the enum of all optimizers in the list, and the functions that match on it.
macro_rules! optimizers {
    ($($rule:ident, $origin:literal, { $($name:literal: $settings:expr),+ }, $roots:literal, $quotients:literal;)+) => {
        use crate::{$($rule),+};

        $(impl BuiltIn for $rule {
            const NAMES: &'static [&'static str] = &[$($name),+];
            const ROOTS: u32 = $roots;
            const QUOTIENTS: u32 = $quotients;
        }

        impl From<$rule> for AnyOptimizer {
            fn from(rule: $rule) -> Self {
                Self::$rule(rule)
            }
        })+

        $crate::rule::any::any_optimizer! { $($rule, $origin, { $($name: $settings),+ };)+ }
    };
}

/// The enum itself, for [`optimizers!`].
macro_rules! any_optimizer {
    ($($rule:ident, $origin:literal, { $($name:literal: $settings:expr),+ };)+) => {
        /// Any optimizer of the crate, chosen when the program runs.
        ///
        /// | names | optimizer | from |
        /// |---|---|---|
        $(#[doc = concat!("|", $(" `", $name, "`",)+ " | [`", stringify!($rule), "`] | ", $origin, " |")])+
        ///
        /// # Examples
        ///
        /// ```
        /// use adamant::{Adam, AnyOptimizer};
        ///
        /// let mut optimizer = AnyOptimizer::new("adamw")?;
        /// optimizer.set("lr", 1e-4)?;
        /// assert_eq!(optimizer, Adam { lr: 1e-4, ..Adam::adamw() }.into());
        ///
        /// use adamant::Optimizer;
        /// let mut state = optimizer.state(2);
        /// optimizer.step(&mut [1.0_f32, 2.0], &[0.5, -0.5], &mut state)?;
        /// # Ok::<(), adamant::Error>(())
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum AnyOptimizer {
            $(
                #[doc = concat!("[`", stringify!($rule), "`](crate::", stringify!($rule), ")")]
                $rule($rule),
            )+
        }

        impl AnyOptimizer {
            /// The names that [`new`](Self::new) takes.
            pub const NAMES: &'static [&'static str] = &[$($($name),+),+];

            pub(super) fn by_name(name: &str) -> Option<Self> {
                match name {
                    $($($name => Some(Self::$rule($settings)),)+)+
                    _ => None,
                }
            }

            /// Calls a generic function with the optimizer, as its own type.
            pub fn with<W: $crate::rule::WithOptimizer>(self, with: W) -> W::Output {
                match self {
                    $(Self::$rule(rule) => with.run(rule),)+
                }
            }

            /// The optimizer as its own type, behind a pointer.
            pub(super) fn inner(&self) -> &dyn $crate::DynOptimizer {
                match self {
                    $(Self::$rule(rule) => rule,)+
                }
            }

            pub(super) fn with_mut<W: $crate::rule::any::WithMut>(&mut self, with: W) -> W::Output {
                match self {
                    $(Self::$rule(rule) => with.run(rule),)+
                }
            }
        }
    };
}

pub(super) use {any_optimizer, optimizers};

/// As [`WithOptimizer`], with a reference through which the function changes the optimizer.
pub(super) trait WithMut {
    type Output;

    fn run<R: BuiltIn>(self, rule: &mut R) -> Self::Output;
}

use super::list::AnyOptimizer;

impl AnyOptimizer {
    /// The optimizer of a name, with its default settings.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownOptimizer`] if no optimizer has the name; the message lists the
    /// [`NAMES`](Self::NAMES).
    pub fn new(name: &str) -> Result<Self, Error> {
        let unknown = || Error::UnknownOptimizer { name: name.into(), known: Self::NAMES.to_vec() };
        Self::by_name(name).ok_or_else(unknown)
    }

    /// The name of the optimizer. AdamW, which is [`Adam`](crate::Adam) with other settings, has the name
    /// `"adam"`.
    pub fn name(&self) -> &'static str {
        struct Name;
        impl WithOptimizer for Name {
            type Output = &'static str;

            fn run<R: BuiltIn>(self, _: R) -> &'static str {
                R::NAMES[0]
            }
        }
        self.with(Name)
    }

    /// The settings of the optimizer.
    pub fn settings(&self) -> &'static [Setting] {
        struct All;
        impl WithOptimizer for All {
            type Output = &'static [Setting];

            fn run<R: BuiltIn>(self, _: R) -> &'static [Setting] {
                R::SETTINGS
            }
        }
        self.with(All)
    }

    /// The value of a setting.
    ///
    /// # Errors
    ///
    /// As [`Settings::get`](crate::settings::Settings::get).
    pub fn get(&self, name: &str) -> Result<SettingValue<'static>, Error> {
        struct Get<'a>(&'a str);
        impl WithOptimizer for Get<'_> {
            type Output = Result<SettingValue<'static>, Error>;

            fn run<R: BuiltIn>(self, rule: R) -> Self::Output {
                rule.get(self.0)
            }
        }
        self.with(Get(name))
    }

    /// Sets the value of a setting.
    ///
    /// # Errors
    ///
    /// As [`Settings::set`](crate::settings::Settings::set).
    pub fn set<'a>(&mut self, name: &str, value: impl Into<SettingValue<'a>>) -> Result<(), Error> {
        struct Set<'a>(&'a str, SettingValue<'a>);
        impl WithMut for Set<'_> {
            type Output = Result<(), Error>;

            fn run<R: BuiltIn>(self, rule: &mut R) -> Self::Output {
                rule.set(self.0, self.1)
            }
        }
        self.with_mut(Set(name, value.into()))
    }

    /// Checks the settings, as every call does.
    ///
    /// # Errors
    ///
    /// [`Error::HyperParameter`] for the first one out of its range.
    pub fn check(&self) -> Result<(), Error> {
        self.check_settings()
    }
}

impl DynOptimizer for AnyOptimizer {
    fn moment_count(&self) -> usize {
        self.inner().moment_count()
    }

    fn moment_name(&self, moment: usize) -> &'static str {
        self.inner().moment_name(moment)
    }

    fn moment_start(&self, moment: usize) -> Option<f64> {
        self.inner().moment_start(moment)
    }

    fn moment_format(&self, moment: usize) -> Q8 {
        self.inner().moment_format(moment)
    }

    fn moment_layout(&self) -> MomentLayout {
        self.inner().moment_layout()
    }

    fn check_settings(&self) -> Result<(), Error> {
        self.inner().check_settings()
    }

    fn step_constants(&self, t: u64, constants: &mut Constants) -> usize {
        self.inner().step_constants(t, constants)
    }

    fn run(&self, cpu: Cpu, pass: &Pass, known: Known<'_>, run: Run<'_, '_>) {
        self.inner().run(cpu, pass, known, run);
    }

    fn run_small(&self, cpu: Cpu, t: u64, tensor: Rows<'_>) -> Result<(), Error> {
        self.inner().run_small(cpu, t, tensor)
    }

    fn as_dyn(&self) -> &dyn DynOptimizer {
        self.inner()
    }
}

impl FromStr for AnyOptimizer {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::new(name)
    }
}

#[cfg(feature = "serde")]
mod serial;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Adam, AmsGrad};

    #[test]
    fn every_name_makes_an_optimizer_that_knows_its_first_name() {
        for name in AnyOptimizer::NAMES {
            let optimizer: AnyOptimizer = name.parse().expect("a name");
            assert_eq!(optimizer.check(), Ok(()));
            assert!(*name == optimizer.name() || *name == "adamw");
        }
        assert_eq!(AnyOptimizer::new("adamw"), Ok(Adam::adamw().into()));
        assert_eq!(AnyOptimizer::new("amsgrad"), Ok(AmsGrad::default().into()));
    }

    #[test]
    fn every_setting_is_written_and_read_back() {
        for name in AnyOptimizer::NAMES {
            let mut optimizer = AnyOptimizer::new(name).expect("a name");
            for setting in optimizer.settings() {
                let value = match setting.default {
                    SettingValue::Number(number) => SettingValue::Number(number + 0.25),
                    SettingValue::Count(count) => SettingValue::Count(count + 5),
                    SettingValue::Flag(flag) => SettingValue::Flag(!flag),
                    SettingValue::Choice(_) => SettingValue::Choice("hat"),
                };
                assert_eq!(optimizer.set(setting.name, value), Ok(()));
                assert_eq!(optimizer.get(setting.name), Ok(value), "{name}: {}", setting.name);
            }
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_those_that_are_known() {
        let error = AnyOptimizer::new("Adam").expect_err("another case");
        let known = AnyOptimizer::NAMES.join(", ");
        assert_eq!(error.to_string(), format!("\"Adam\" is no optimizer; known: {known}"));
    }
}
