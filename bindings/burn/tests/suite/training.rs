//! The same models trained by burn's AdamW and by ours, from the same start.

use adamant_burn::{Adam, AnyOptimizer, OneCallOptimizer, ParamOptimizer, Storage};
use burn::{
    optim::{AdamWConfig, GradientsParams, ModuleOptimizer},
    tensor::{DType, Device},
};

use crate::models::{Convolutional, Perceptron, Task, Transformer};

const STEPS: usize = 200;
const LR: f64 = 2e-3;

/// burn's defaults, which are not PyTorch's. burn rounds its settings to `f32`.
fn settings() -> AnyOptimizer {
    let rounded = |value: f32| f64::from(value);
    Adam {
        beta1: rounded(0.9),
        beta2: rounded(0.999),
        eps: rounded(1e-5),
        weight_decay: rounded(1e-4),
        ..Adam::adamw()
    }
    .into()
}

fn burns() -> ModuleOptimizer {
    AdamWConfig::new().init()
}

/// The losses of a training with burn's interface.
fn losses<T: Task>(dtype: DType, mut optimizer: ModuleOptimizer) -> Vec<f64> {
    let (mut model, data) = T::new(dtype, &Device::default().autodiff());
    let mut losses = vec![];
    for _ in 0..STEPS {
        let loss = model.loss(&data);
        losses.push(loss.clone().into_scalar::<f64>());
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(LR, model, grads);
    }
    losses
}

/// The losses of a training whose steps are one call each.
fn losses_in_one_call<T: Task>(dtype: DType, mut optimizer: OneCallOptimizer) -> Vec<f64> {
    let (mut model, data) = T::new(dtype, &Device::default().autodiff());
    let mut losses = vec![];
    for _ in 0..STEPS {
        let loss = model.loss(&data);
        losses.push(loss.clone().into_scalar::<f64>());
        let grads = GradientsParams::from_grads(loss.backward(), &model);
        let _ = optimizer.step(LR, &mut model, grads).expect("a step");
    }
    losses
}

/// The largest difference of two losses, as a part of the second one.
fn difference(losses: &[f64], expected: &[f64]) -> f64 {
    let differences = losses.iter().zip(expected).map(|(a, b)| ((a - b) / b).abs());
    differences.fold(0.0, f64::max)
}

/// In F64, the losses are those of burn's AdamW but for what its `f32` constants are off. In F32 they are as
/// near to them as its own.
fn agree<T: Task>(name: &str) {
    let exact = losses::<T>(DType::F64, burns());
    assert!(exact[STEPS - 1] < 0.7 * exact[0], "{name} does not learn: {exact:?}");
    let one_call = || OneCallOptimizer::new(settings()).expect("settings");
    let exact_difference = difference(&losses_in_one_call::<T>(DType::F64, one_call()), &exact);
    let burns_difference = difference(&losses::<T>(DType::F32, burns()), &exact);
    let ours = losses_in_one_call::<T>(DType::F32, one_call());
    let our_difference = difference(&ours, &exact);
    println!(
        "{name}: loss {:.4} to {:.4}; F64 differs by {exact_difference:.1e}, F32 by {our_difference:.1e}, \
         burn's by {burns_difference:.1e}",
        exact[0],
        exact[STEPS - 1],
    );
    assert!(exact_difference < EXACT, "{name}: {exact_difference:e}");
    assert!(our_difference < 4.0 * burns_difference.max(EXACT), "{name}: {our_difference:e}");
    let one_at_a_time = ParamOptimizer::new(settings()).expect("settings").into();
    assert_eq!(losses::<T>(DType::F32, one_at_a_time), ours, "{name}: the same bits");
}

/// burn computes beta^t in `f32`, also for parameters in F64: 1 - 0.999^2 is off by up to 1.5e-5 of itself, and
/// its root and the losses of 200 steps with it.
const EXACT: f64 = 1e-4;

#[test]
fn a_perceptron_learns_as_with_burns_adamw() {
    agree::<Perceptron>("perceptron");
}

#[test]
fn a_convolutional_net_learns_as_with_burns_adamw() {
    agree::<Convolutional>("convolutional net");
}

#[test]
fn a_transformer_learns_as_with_burns_adamw() {
    agree::<Transformer>("transformer");
}

#[test]
fn moments_of_8_bits_learn_about_as_well() {
    let optimizer = || OneCallOptimizer::new(settings()).expect("settings");
    let exact = losses_in_one_call::<Transformer>(DType::F32, optimizer());
    let rounded =
        losses_in_one_call::<Transformer>(DType::F32, optimizer().with_moments(Storage::Q8));
    let (exact, rounded) = (exact[STEPS - 1], rounded[STEPS - 1]);
    assert!(rounded < 1.1 * exact && rounded != exact, "{rounded} and {exact}");
}
