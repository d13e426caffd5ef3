//! Calls that are refused: the message names the parameter, and nothing has changed.

use adamant_burn::{Adam, Error, Lion, OneCallOptimizer, ParamOptimizer, Storage};
use burn::{
    Tensor,
    module::{Module, Param},
    nn::Linear,
    optim::{AdamWConfig, GradientsParams, ModuleOptimizer, Optimizer},
    tensor::{DType, Device, TensorData},
};

#[derive(Module, Debug)]
struct Model {
    layers: Vec<Linear>,
}

fn model(dtype: DType) -> Model {
    let device = Device::default().autodiff();
    let layer = || Linear {
        weight: Param::from_tensor(Tensor::ones([2, 3], (&device, dtype))),
        bias: Some(Param::from_tensor(Tensor::ones([3], (&device, dtype)))),
    };
    Model { layers: vec![layer(), layer()] }
}

/// Gradients of all weights, and one of the last bias.
fn grads<const D: usize>(model: &Model, last: Tensor<D>) -> GradientsParams {
    let mut grads = GradientsParams::new();
    for layer in &model.layers {
        let weight = layer.weight.val().inner();
        grads.register(layer.weight.id, Tensor::ones_like(&weight));
    }
    let id = model.layers[1].bias.as_ref().expect("a bias").id;
    grads.register(id, last);
    grads
}

fn ones(dtype: DType) -> Tensor<1> {
    Tensor::ones([3], (&Device::default(), dtype))
}

fn data(model: &Model) -> Vec<TensorData> {
    let tensors = model.layers.iter().flat_map(|layer| {
        let bias = layer.bias.as_ref().expect("a bias").val();
        [layer.weight.val().into_data(), bias.into_data()]
    });
    tensors.collect()
}

/// One step that is refused.
#[track_caller]
fn refused(
    optimizer: &mut OneCallOptimizer,
    model: &mut Model,
    grads: GradientsParams,
    message: &str,
) {
    let before = data(model);
    let error = optimizer.step(0.1, model, grads).expect_err("refused");
    assert_eq!(error.to_string(), message);
    assert!(data(model) == before);
    assert!(model.layers.iter().all(|layer| layer.weight.val().is_require_grad()));
}

#[test]
fn a_gradient_that_a_step_cannot_take_is_refused_by_name() {
    let mut model = model(DType::F32);
    let mut optimizer = OneCallOptimizer::new(Adam::adamw()).expect("settings");
    let step = grads(&model, Tensor::<1>::ones([4], &Device::default()));
    let message = "the gradient of layers.1.bias has shape [4], but the parameter has [3]";
    refused(&mut optimizer, &mut model, step, message);
    let step = grads(&model, ones(DType::F64));
    let message = "layers.1.bias: grad of tensor 2 is f64, which does not go with f32";
    refused(&mut optimizer, &mut model, step, message);
    let steps = optimizer.state(model.layers[0].weight.id).map_or(0, |state| state.steps());
    assert_eq!(steps, 0);
    // The next step is taken as if nothing had happened.
    let step = grads(&model, ones(DType::F32));
    let _ = optimizer.step(0.1, &mut model, step).expect("a step");
    assert_eq!(optimizer.state(model.layers[0].weight.id).map(|state| state.steps()), Some(1));
}

#[test]
fn a_parameter_in_two_places_is_refused_with_both() {
    let mut model = model(DType::F32);
    model.layers[1].weight = model.layers[0].weight.clone();
    let mut optimizer = OneCallOptimizer::new(Adam::adamw()).expect("settings");
    let step = grads(&model, ones(DType::F32));
    let message =
        "layers.0.weight and layers.1.weight are one parameter, of which burn keeps two values";
    refused(&mut optimizer, &mut model, step, message);
}

#[test]
fn settings_options_and_rates_are_refused_with_their_numbers() {
    let adam = Adam { beta1: 1.0, ..Adam::adamw() };
    let message = "beta1 is 1, but must be at least 0 and less than 1";
    assert_eq!(OneCallOptimizer::new(adam).expect_err("refused").to_string(), message);
    assert_eq!(ParamOptimizer::new(adam).expect_err("refused").to_string(), message);
    let mut optimizer = OneCallOptimizer::new(Adam::adamw()).expect("settings");
    let mut model = model(DType::F32);
    let (step, before) = (grads(&model, ones(DType::F32)), data(&model));
    let error = optimizer.step(f64::NAN, &mut model, step).expect_err("refused");
    assert_eq!(error.to_string(), "lr is NaN, but must be finite and at least 0");
    assert!(data(&model) == before);
    optimizer.options.grad_factor = -1.0;
    let step = grads(&model, ones(DType::F32));
    let message = "grad_factor is -1, but must be a normal number over 0";
    refused(&mut optimizer, &mut model, step, message);
}

#[test]
fn moments_that_do_not_go_with_a_parameter_are_refused_by_name() {
    let mut wide = model(DType::F64);
    let mut optimizer =
        OneCallOptimizer::new(Adam::adamw()).expect("settings").with_moments(Storage::Q8);
    let step = grads(&wide, ones(DType::F64));
    let message = "layers.0.weight is F64, and so its moments cannot be q8";
    refused(&mut optimizer, &mut wide, step, message);
}

#[test]
fn moments_of_another_optimizer_are_refused_by_name_and_moment() {
    let mut model = model(DType::F32);
    let mut adam = OneCallOptimizer::new(Adam::adamw()).expect("settings");
    let step = grads(&model, ones(DType::F32));
    let _ = adam.step(0.1, &mut model, step).expect("a step");
    let record = || adam.to_record().expect("a record");

    let mut lion = OneCallOptimizer::new(Lion::default()).expect("settings");
    lion.load_record(record()).expect("a record");
    let step = grads(&model, ones(DType::F32));
    let message = "exp_avg_sq of layers.0.weight is F32 of 6 elements in the record, but not kept by lion here";
    refused(&mut lion, &mut model, step, message);
    let mut q8 = OneCallOptimizer::new(Adam::adamw()).expect("settings").with_moments(Storage::Q8);
    q8.load_record(record()).expect("a record");
    let step = grads(&model, ones(DType::F32));
    let message =
        "exp_avg of layers.0.weight is F32 of 6 elements in the record, but U8 of 6 elements here";
    refused(&mut q8, &mut model, step, message);

    let mut burns: ModuleOptimizer = AdamWConfig::new().init();
    let step = grads(&model, ones(DType::F32));
    let model = burns.step(0.1, model, step);
    let error = adam.load_record(burns.to_record()).expect_err("burn's own moments");
    assert!(matches!(error, Error::Record(_)), "{error}");
    assert!(error.to_string().contains("has no moments of adamant's"), "{error}");
    assert_eq!(adam.state(model.layers[0].weight.id).map(|state| state.steps()), Some(1));
}

#[test]
#[should_panic(expected = "lr is -1, but must be finite and at least 0")]
fn burns_interface_panics_with_the_same_sentences() {
    let optimizer = ParamOptimizer::new(Adam::adamw()).expect("settings");
    let _ = optimizer.step(-1.0, ones(DType::F32), ones(DType::F32), None);
}
