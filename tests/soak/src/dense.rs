//! Runs on models of dense tensors.

use std::{path::Path, rc::Rc};

use adamant::{
    AnyOptimizer, Group, Outcome, StepOptions,
    rule::{BuiltIn, WithOptimizer},
    settings::SettingValue,
};
use rand::{RngExt, rngs::ChaCha8Rng, seq::IndexedRandom};

use crate::{
    Counts,
    support::{
        AnyRule,
        mixed::{GradType, MomentType, ParamType, Types, needs_norm},
        model::{AnyTensor, Model},
        number, ordinary, toggled,
    },
    threads::Place,
    trained::{Trained, begin, save_and_load},
};

/// An optimizer in any choices.
pub fn any_optimizer(rng: &mut ChaCha8Rng) -> AnyOptimizer {
    let name = AnyOptimizer::NAMES.choose(rng).expect("a name");
    let mut optimizer = AnyOptimizer::new(name).expect("a name of the list");
    for setting in optimizer.settings() {
        let other = if rng.random_ratio(1, 4) { toggled(optimizer, setting) } else { None };
        optimizer = other.filter(|other| other.check().is_ok()).unwrap_or(optimizer);
    }
    schedule(rng, optimizer)
}

/// With another learning rate.
fn schedule(rng: &mut ChaCha8Rng, mut optimizer: AnyOptimizer) -> AnyOptimizer {
    let Ok(SettingValue::Number(lr)) = optimizer.get("lr") else { return optimizer };
    optimizer.set("lr", lr * rng.random_range(0.1..2.0)).expect("a learning rate");
    optimizer
}

fn any_rule(optimizer: AnyOptimizer) -> Rc<dyn AnyRule> {
    struct Boxed;
    impl WithOptimizer for Boxed {
        type Output = Rc<dyn AnyRule>;

        fn run<R: BuiltIn>(self, rule: R) -> Self::Output {
            Rc::new(rule)
        }
    }
    optimizer.with(Boxed)
}

/// `None` for `f64`.
fn any_types(rng: &mut ChaCha8Rng) -> Option<Types> {
    let single = rng.random_ratio(1, 4);
    let mut moment =
        || if single { MomentType::F32 } else { *MomentType::ALL.choose(rng).expect("a type") };
    let moments = [moment(), moment(), moment(), moment()];
    let param = if single { ParamType::F32 } else { *ParamType::ALL.choose(rng).expect("a type") };
    let grad = if single { GradType::F32 } else { *GradType::ALL.choose(rng).expect("a type") };
    let types = Types { param, grad, to_zero: rng.random(), moments };
    rng.random_ratio(4, 5).then_some(types)
}

/// Mostly few.
fn any_len(rng: &mut ChaCha8Rng) -> usize {
    match rng.random_range(0..128) {
        0 => rng.random_range(0..300_000),
        1..8 => rng.random_range(0..20_000),
        _ => rng.random_range(0..700),
    }
}

/// What gradients are like, and so how far steps go.
#[derive(Clone, Copy)]
enum Gradients {
    /// As in training: of one magnitude in a tensor.
    Even(f32),
    /// Of every magnitude.
    Wide,
    /// With zeros, subnormals, infinities and NaN.
    Special,
}

impl Gradients {
    fn any(rng: &mut ChaCha8Rng) -> Self {
        match rng.random_range(0..8) {
            0 => Self::Special,
            1 | 2 => Self::Wide,
            _ => Self::Even(10_f32.powi(rng.random_range(-4..2))),
        }
    }

    fn draw(self, rng: &mut ChaCha8Rng) -> f32 {
        match self {
            Self::Even(scale) => rng.random_range(-1.0..1.0) * scale,
            Self::Wide => ordinary(1, rng.random()),
            Self::Special => number(rng.random()),
        }
    }

    fn fill(self, rng: &mut ChaCha8Rng, tensor: &mut AnyTensor) {
        match tensor {
            AnyTensor::Mixed(columns) => {
                let values: Vec<_> = (0..columns.len()).map(|_| self.draw(rng)).collect();
                columns.set_grad(&values);
            }
            AnyTensor::Double { columns, .. } => {
                columns.grad.iter_mut().for_each(|grad| *grad = self.draw(rng).into());
            }
        }
    }
}

fn any_options(rng: &mut ChaCha8Rng, place: &Place) -> StepOptions<'static> {
    let mut some = |numerator, denominator, least: f64, most: f64| {
        let drawn = rng.random_range(least..most);
        rng.random_ratio(numerator, denominator).then_some(drawn.exp2())
    };
    StepOptions {
        exec: place.exec,
        grad_factor: some(1, 2, -20.0, 10.0).unwrap_or(1.0),
        max_norm: some(1, 3, -10.0, 20.0),
        grad_norm: some(1, 8, -10.0, 20.0),
        skip_nonfinite: rng.random_ratio(1, 3),
        keep_grads: rng.random(),
        flush_subnormals: rng.random_ratio(1, 4),
        seed: rng.random(),
    }
}

/// The most elements that a run steps, so that it takes a second or so.
const MOST: usize = 2_000_000;

pub fn run(rng: &mut ChaCha8Rng, folder: &Path, counts: &mut Counts) {
    let mut optimizers: Vec<_> = (0..rng.random_range(1..=3)).map(|_| any_optimizer(rng)).collect();
    let mut expected = Model(vec![]);
    for &optimizer in &optimizers {
        let rule = any_rule(optimizer);
        let tensors = (0..rng.random_range(1..=4)).map(|_| {
            let (seed, len, types) = (rng.random_range(0..1 << 40), any_len(rng), any_types(rng));
            let mut tensor = rule.tensor(seed, len, 0, types);
            if rng.random_ratio(3, 4) {
                begin(&mut tensor, rule.optimizer());
            }
            tensor
        });
        let tensors = tensors.collect();
        expected.0.push((rule, tensors));
    }
    let mut found: Vec<Vec<Trained>> = (expected.0.iter())
        .map(|(_, tensors)| {
            tensors.iter().map(|tensor| Trained::Parts(vec![tensor.clone()])).collect()
        })
        .collect();

    let elements: usize = expected.tensors().map(len).sum();
    let most = (MOST / elements.max(1)).clamp(1, 50);
    let gradients = Gradients::any(rng);
    for _ in 0..rng.random_range(1..=most) {
        if rng.random_ratio(1, 4) {
            for (optimizer, (rule, _)) in optimizers.iter_mut().zip(&mut expected.0) {
                *optimizer = schedule(rng, *optimizer);
                *rule = any_rule(*optimizer);
            }
        }
        change_places(rng, folder, &expected, &mut found, counts);
        for ((_, tensors), found) in expected.0.iter_mut().zip(&mut found) {
            for (tensor, found) in tensors.iter_mut().zip(found) {
                gradients.fill(rng, tensor);
                found.take_grad(tensor, rng.random_range(0..32));
            }
        }
        step(rng, &mut expected, &mut found, counts);
        counts.elements += elements as u64;
    }

    for (group, ((rule, tensors), found)) in expected.0.iter().zip(&found).enumerate() {
        for (number, (tensor, found)) in tensors.iter().zip(found).enumerate() {
            let found = found.whole(rule.optimizer());
            found.assert_same_bits(tensor, &|| {
                format!("tensor {number} of group {group}, {rule:?}")
            });
        }
    }
}

fn len(tensor: &AnyTensor) -> usize {
    match tensor {
        AnyTensor::Mixed(columns) => columns.len(),
        AnyTensor::Double { columns, .. } => columns.len(),
    }
}

/// Cuts some tensors, puts others into states, and now and then all into a file.
fn change_places(
    rng: &mut ChaCha8Rng,
    folder: &Path,
    expected: &Model,
    found: &mut [Vec<Trained>],
    counts: &mut Counts,
) {
    let tensors = (expected.0.iter().zip(found))
        .flat_map(|((rule, _), found)| found.iter_mut().map(|trained| (rule.optimizer(), trained)));
    if rng.random_ratio(1, 16) {
        counts.files += save_and_load(folder, tensors);
        return;
    }
    for (optimizer, trained) in tensors {
        match rng.random_range(0..8) {
            0 => {
                trained.cut(rng, optimizer);
                counts.cuts += 1;
            }
            1 => {
                trained.own(optimizer);
                counts.states += 1;
            }
            _ => {}
        }
    }
}

/// Takes a step of all groups in one call, or of each in its own where they need no common norm.
fn step(
    rng: &mut ChaCha8Rng,
    expected: &mut Model,
    found: &mut [Vec<Trained>],
    counts: &mut Counts,
) {
    let place = Place::any(rng);
    let options = any_options(rng, &place);
    let mut tensors: Vec<_> = (expected.0.iter().zip(found))
        .map(|((rule, _), found)| {
            (rule.optimizer(), found.iter_mut().flat_map(Trained::tensors).collect::<Vec<_>>())
        })
        .collect();
    let groups = tensors.iter_mut().map(|(optimizer, tensors)| Group::new(*optimizer, tensors));
    let mut groups: Vec<_> = groups.collect();
    let in_a_call = if needs_norm(&options) || rng.random() { groups.len() } else { 1 };
    let reports: Vec<_> = place.run(|| {
        groups.chunks_mut(in_a_call).map(|groups| adamant::step(groups, &options)).collect()
    });
    drop(groups);
    drop(tensors);
    // `follow` judges what all groups have done; a factor may be one that f64 holds and f32 does not.
    let refused = reports.iter().filter(|report| report.is_err()).count();
    assert!(refused == 0 || refused == reports.len() || in_a_call == 1, "{reports:?}");
    let report = reports.into_iter().next().expect("a call");
    counts.steps += 1;
    match expected.follow(&report, &options) {
        Some(Outcome::Taken) => {}
        Some(Outcome::LeftOut) => counts.left_out += 1,
        None => counts.refused += 1,
    }
}
