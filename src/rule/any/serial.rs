//! Serialisation: a map of the name and the settings.

use core::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap,
};

use super::AnyOptimizer;
use crate::settings::SettingValue;

/// The key of the optimizer's name; no setting has it.
const NAME: &str = "name";

/// As a map: `name`, and every setting.
impl Serialize for AnyOptimizer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let settings = self.settings();
        let mut map = serializer.serialize_map(Some(1 + settings.len()))?;
        map.serialize_entry(NAME, self.name())?;
        for setting in settings {
            match self.get(setting.name).map_err(serde::ser::Error::custom)? {
                SettingValue::Number(number) => map.serialize_entry(setting.name, &number)?,
                SettingValue::Count(count) => map.serialize_entry(setting.name, &count)?,
                SettingValue::Flag(flag) => map.serialize_entry(setting.name, &flag)?,
                SettingValue::Choice(choice) => map.serialize_entry(setting.name, choice)?,
            }
        }
        map.end()
    }
}

/// From a map: `name`, which is any of [`AnyOptimizer::NAMES`], and any settings; the others have
/// the defaults of the name. A setting that the optimizer does not have is an error.
impl<'de> Deserialize<'de> for AnyOptimizer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = AnyOptimizer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map with the name of an optimizer and its settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<AnyOptimizer, A::Error> {
        let (mut name, mut settings) = (None, vec![]);
        while let Some(key) = map.next_key::<String>()? {
            if key == NAME {
                if name.replace(map.next_value::<String>()?).is_some() {
                    return Err(de::Error::duplicate_field(NAME));
                }
            } else {
                settings.push((key, map.next_value::<Owned>()?));
            }
        }
        let name = name.ok_or_else(|| de::Error::missing_field(NAME))?;
        let mut optimizer = AnyOptimizer::new(&name).map_err(de::Error::custom)?;
        for (key, value) in &settings {
            optimizer.set(key, value.borrow()).map_err(de::Error::custom)?;
        }
        Ok(optimizer)
    }
}

/// A [`SettingValue`] of its own.
enum Owned {
    Number(f64),
    Count(u64),
    Flag(bool),
    Choice(String),
}

impl Owned {
    fn borrow(&self) -> SettingValue<'_> {
        match self {
            Self::Number(number) => SettingValue::Number(*number),
            Self::Count(count) => SettingValue::Count(*count),
            Self::Flag(flag) => SettingValue::Flag(*flag),
            Self::Choice(name) => SettingValue::Choice(name),
        }
    }
}

impl<'de> Deserialize<'de> for Owned {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Owned;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, a flag or a name")
            }

            fn visit_f64<E>(self, number: f64) -> Result<Owned, E> {
                Ok(Owned::Number(number))
            }

            fn visit_u64<E>(self, count: u64) -> Result<Owned, E> {
                Ok(Owned::Count(count))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Owned, E> {
                Ok(Owned::Number(number as f64))
            }

            fn visit_bool<E>(self, flag: bool) -> Result<Owned, E> {
                Ok(Owned::Flag(flag))
            }

            fn visit_str<E>(self, name: &str) -> Result<Owned, E> {
                Ok(Owned::Choice(name.into()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Adam;

    #[test]
    fn every_optimizer_comes_back_as_it_was() {
        for name in AnyOptimizer::NAMES {
            let mut optimizer = AnyOptimizer::new(name).expect("a name");
            for lr in [0.1, 1e-300] {
                optimizer.set("lr", lr).expect("every optimizer has one");
                let text = serde_json::to_string(&optimizer).expect("no error");
                assert_eq!(serde_json::from_str::<AnyOptimizer>(&text).expect(&text), optimizer);
            }
        }
    }

    #[test]
    fn settings_that_are_left_out_have_the_defaults_of_the_name() {
        let text = r#"{"lr": 1, "name": "adamw", "epsilon": "hat", "cautious": true}"#;
        let epsilon = crate::Epsilon::Hat;
        let expected = Adam { lr: 1.0, epsilon, cautious: true, ..Adam::adamw() };
        assert_eq!(serde_json::from_str::<AnyOptimizer>(text).expect("valid"), expected.into());
    }

    #[test]
    fn unknown_names_are_refused() {
        for (text, message) in [
            (r#"{"name": "sgdm"}"#, "\"sgdm\" is no optimizer; known: sgd, "),
            (r#"{"name": "lion", "eps": 1}"#, "Lion has no setting \"eps\"; known: lr, "),
            (r#"{"name": "lion", "lr": null}"#, "invalid type: null, expected a number"),
            (r#"{"name": "lion", "lr": true}"#, "lr is true, but must be a number"),
            (r#"{"lr": 1}"#, "missing field `name`"),
        ] {
            let error = serde_json::from_str::<AnyOptimizer>(text).expect_err(text);
            assert!(error.to_string().starts_with(message), "{error}");
        }
    }
}
