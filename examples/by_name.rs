//! An optimizer chosen when the program runs, by its name, with settings by name.
//!
//! ```text
//! cargo run --release --example by_name -- adamw lr=0.02 weight_decay=0.001
//! cargo run --release --example by_name -- sgd lr=0.1 momentum=0.9 nesterov=true
//! ```

use std::{env, error::Error};

use adamant::{AnyOptimizer, Optimizer, settings::SettingValue};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "adam".into());
    // An unknown name is an error that lists the known ones.
    let mut optimizer = AnyOptimizer::new(&name)?;
    for argument in arguments {
        let (setting, value) = argument.split_once('=').ok_or("settings are name=value")?;
        optimizer.set(setting, parse(value))?;
    }

    let (mut params, mut state) = (vec![0.0_f32; 4], optimizer.state(4));
    for _ in 0..200 {
        // Of half the squared distance from 1.
        let grads: Vec<f32> = params.iter().map(|param| param - 1.0).collect();
        optimizer.step(&mut params, &grads, &mut state)?;
    }
    let moments: Vec<_> = state.moments().map(|(name, _)| name).collect();
    println!("{name} with {moments:?} went from 0 to {:.3} in {} steps", params[0], state.steps());
    Ok(())
}

fn parse(value: &str) -> SettingValue<'_> {
    match (value.parse(), value.parse()) {
        (Ok(number), _) => SettingValue::Number(number),
        (_, Ok(flag)) => SettingValue::Flag(flag),
        _ => SettingValue::Choice(value),
    }
}
