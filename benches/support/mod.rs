//! What the benches share: the optimizers and what a step of each costs.

use adamant::{
    AnyOptimizer,
    rule::{BuiltIn, WithOptimizer},
    settings::SettingValue,
};

/// What the divider has to do for each element: so many square roots, and a quotient or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Division {
    pub roots: u32,
    pub quotients: u32,
}

/// Something to do with every optimizer.
pub trait ForEachOptimizer {
    fn visit<R: BuiltIn>(&mut self, name: &'static str, rule: R, division: Division);
}

/// Settings that change what a step costs.
type Variant = (&'static str, &'static str, &'static [(&'static str, SettingValue<'static>)]);

const VARIANTS: [Variant; 3] = [
    ("adamw-cautious", "adamw", &[("cautious", SettingValue::Flag(true))]),
    (
        "rmsprop-all",
        "rmsprop",
        &[("momentum", SettingValue::Number(0.9)), ("centered", SettingValue::Flag(true))],
    ),
    ("sgd-momentum", "sgd", &[("momentum", SettingValue::Number(0.9))]),
];

/// Visits Adam, under the name `dense`, and then the others; all with steps so small that the
/// parameters stay what they are.
pub fn for_each_optimizer(each: &mut impl ForEachOptimizer) {
    visit(each, "dense", "adam", &[]);
    for name in AnyOptimizer::NAMES.iter().filter(|&&name| name != "adam") {
        visit(each, name, name, &[]);
    }
    for (name, optimizer, settings) in VARIANTS {
        visit(each, name, optimizer, settings);
    }
}

fn visit<E: ForEachOptimizer>(
    each: &mut E,
    name: &'static str,
    optimizer: &str,
    settings: &[(&str, SettingValue<'static>)],
) {
    struct Visit<'a, E>(&'a mut E, &'static str);
    impl<E: ForEachOptimizer> WithOptimizer for Visit<'_, E> {
        type Output = ();

        fn run<R: BuiltIn>(self, rule: R) {
            let division = Division { roots: R::ROOTS, quotients: R::QUOTIENTS };
            self.0.visit(self.1, rule, division);
        }
    }
    let mut optimizer = AnyOptimizer::new(optimizer).expect("a name of the list");
    for &(setting, value) in [("lr", SettingValue::Number(1e-6))].iter().chain(settings) {
        optimizer.set(setting, value).expect("a setting of the optimizer");
    }
    optimizer.with(Visit(each, name));
}
