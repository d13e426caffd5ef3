//! Every optimizer of the crate in the choices that change its formula, made from the settings that
//! it declares.

use std::ops::Bound;

use adamant::{
    AnyOptimizer,
    rule::{BuiltIn, WithOptimizer},
    settings::{Setting, SettingKind, SettingValue},
};

/// Code that runs with every optimizer.
pub trait ForEachRule {
    fn visit<R: BuiltIn>(&mut self, rule: R);
}

/// Code that runs with an optimizer of the crate, and needs only its type.
pub trait WithRule {
    fn run<R: BuiltIn>(self);
}

/// Runs with the optimizer that a number chooses. Any number is allowed.
pub fn with_rule<W: WithRule>(row: u8, with: W) {
    struct Run<W>(W);
    impl<W: WithRule> WithOptimizer for Run<W> {
        type Output = ();

        fn run<R: BuiltIn>(self, _: R) {
            self.0.run::<R>();
        }
    }
    let name = AnyOptimizer::NAMES[usize::from(row) % AnyOptimizer::NAMES.len()];
    by_name(name).with(Run(with));
}

/// Visits every optimizer of the crate: with its defaults, with each choice made the other way, with all decays 0, and
/// with every number 0 that may be 0.
pub fn for_each_rule(each: &mut impl ForEachRule) {
    for name in AnyOptimizer::NAMES {
        let default = by_name(name);
        default.with(Visit(each));
        let settings = default.settings();
        let mut visit = |optimizer: Option<AnyOptimizer>| {
            if let Some(optimizer) = optimizer.filter(|optimizer| optimizer.check().is_ok()) {
                optimizer.with(Visit(each));
            }
        };
        for setting in settings {
            visit(toggled(default, setting));
        }
        visit(zeroed(default, 0.0, is_decay));
        visit(zeroed(default, 0.0, |_| true));
    }
}

/// Visits every optimizer with each number that may be 0 at -0, and with all of them at -0.
pub fn for_each_negative_zero(each: &mut impl ForEachRule) {
    for name in AnyOptimizer::NAMES {
        let default = by_name(name);
        let alone = default
            .settings()
            .iter()
            .map(|setting| zeroed(default, -0.0, move |other| other.name == setting.name));
        let optimizers = alone.chain([zeroed(default, -0.0, |_| true)]).flatten();
        for optimizer in optimizers.filter(|optimizer| optimizer.check().is_ok()) {
            optimizer.with(Visit(each));
        }
    }
}

/// Visits every optimizer with each pair of choices made the other way, if the two are allowed together.
pub fn for_each_pair(each: &mut impl ForEachRule) {
    for name in AnyOptimizer::NAMES {
        let default = by_name(name);
        let settings = default.settings();
        for (number, first) in settings.iter().enumerate() {
            for second in &settings[number + 1..] {
                let both = toggled(default, first).and_then(|one| toggled(one, second));
                if let Some(optimizer) = both.filter(|optimizer| optimizer.check().is_ok()) {
                    optimizer.with(Visit(each));
                }
            }
        }
    }
}

struct Visit<'a, E>(&'a mut E);

impl<E: ForEachRule> WithOptimizer for Visit<'_, E> {
    type Output = ();

    fn run<R: BuiltIn>(self, rule: R) {
        self.0.visit(rule);
    }
}

/// With a setting that makes a choice the other way: a flag, one of some names, or a number whose
/// default, 0, means off.
pub fn toggled(mut optimizer: AnyOptimizer, setting: &Setting) -> Option<AnyOptimizer> {
    let now = optimizer.get(setting.name).expect("a setting of the optimizer");
    let other: SettingValue<'_> = match (setting.kind, setting.default, now) {
        (SettingKind::Flag, _, SettingValue::Flag(flag)) => (!flag).into(),
        (SettingKind::Choice(names), _, SettingValue::Choice(now)) => {
            (*names.iter().find(|&&name| name != now).expect("another choice")).into()
        }
        (SettingKind::Number(_), SettingValue::Number(0.0), SettingValue::Number(now)) => {
            if now == 0.0 { 0.1 } else { 0.0 }.into()
        }
        (SettingKind::Count, SettingValue::Count(0), SettingValue::Count(0)) => 100_u64.into(),
        _ => return None,
    };
    optimizer.set(setting.name, other).expect("a value of its kind");
    Some(optimizer)
}

/// With `zero` in all numbers of some settings that may be 0; `None` if there are none.
fn zeroed(
    mut optimizer: AnyOptimizer,
    zero: f64,
    which: impl Fn(&Setting) -> bool,
) -> Option<AnyOptimizer> {
    let mut found = false;
    for setting in optimizer.settings() {
        if let SettingKind::Number(range) = setting.kind
            && std::ops::RangeBounds::contains(&range, &0.0)
            && which(setting)
        {
            optimizer.set(setting.name, zero).expect("a number");
            found = true;
        }
    }
    found.then_some(optimizer)
}

/// Whether a setting is the decay of an average.
fn is_decay(setting: &Setting) -> bool {
    let SettingKind::Number(range) = setting.kind else { return false };
    range.start == Bound::Included(0.0) && range.end == Bound::Excluded(1.0)
}

fn by_name(name: &str) -> AnyOptimizer {
    AnyOptimizer::new(name).expect("a name of the list")
}
