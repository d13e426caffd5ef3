//! Groups, learning rates of groups, clipping, steps that are left out, parameters without a gradient.

use adamant_burn::{Adam, Lion, OneCallOptimizer, Outcome};
use burn::{
    Tensor,
    lr_scheduler::{constant::ConstantLr, module_lr_scheduler::ModuleLrScheduler},
    module::{Param, ParamGroup},
    nn::Linear,
    optim::GradientsParams,
    tensor::Device,
};

/// Ones everywhere.
fn layer() -> Linear {
    let device = Device::default().autodiff();
    Linear {
        weight: Param::from_tensor(Tensor::ones([2, 3], &device)),
        bias: Some(Param::from_tensor(Tensor::ones([3], &device))),
    }
}

fn bias(layer: &Linear) -> &Param<Tensor<1>> {
    layer.bias.as_ref().expect("a bias")
}

fn grads(layer: &Linear, weight: f32, of_bias: f32) -> GradientsParams {
    let device = Device::default();
    let mut grads = GradientsParams::new();
    grads.register(layer.weight.id, Tensor::<2>::full([2, 3], weight, &device));
    grads.register(bias(layer).id, Tensor::<1>::full([3], of_bias, &device));
    grads
}

/// The first element of the weight and of the bias.
fn firsts(layer: &Linear) -> [f32; 2] {
    let first = |data: burn::tensor::TensorData| data.as_slice::<f32>().expect("f32")[0];
    [first(layer.weight.val().into_data()), first(bias(layer).val().into_data())]
}

#[track_caller]
fn near(found: [f32; 2], expected: [f32; 2]) {
    let near = found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6);
    assert!(near, "{found:?}, not {expected:?}");
}

#[test]
fn a_group_has_an_optimizer_of_its_own() {
    let adamw = Adam { weight_decay: 0.5, ..Adam::adamw() };
    let mut optimizer = OneCallOptimizer::new(adamw)
        .and_then(|all| all.with_group(ParamGroup::from_predicate("bias"), Lion::default()))
        .expect("settings");
    let mut layer = layer();
    let step = grads(&layer, 1.0, -1.0);
    let _ = optimizer.step(0.25, &mut layer, step).expect("a step");
    // Adam: 1 - 0.25 * 0.5 - 0.25. Lion: 1 + 0.25.
    near(firsts(&layer), [0.625, 1.25]);
}

#[test]
fn a_scheduler_of_burns_gives_groups_rates_of_their_own() {
    let mut scheduler = ModuleLrScheduler::new(ConstantLr::new(0.25))
        .with_group(ParamGroup::from_predicate("bias"), ConstantLr::new(0.125));
    let adam = Adam::default();
    let mut optimizer = OneCallOptimizer::new(adam).expect("settings");
    let mut layer = layer();
    let step = grads(&layer, 1.0, 1.0);
    let _ = optimizer.step(scheduler.step(), &mut layer, step).expect("a step");
    near(firsts(&layer), [0.75, 0.875]);
}

#[test]
fn clipping_takes_the_norm_of_all_parameters_and_a_nan_leaves_everything_as_it_is() {
    let mut optimizer = OneCallOptimizer::new(Adam::default()).expect("settings");
    optimizer.options.max_norm = Some(1.0);
    let mut layer = layer();
    let step = grads(&layer, 1.0, 2.0);
    let report = optimizer.step(0.25, &mut layer, step).expect("a step");
    assert_eq!((report.outcome, report.grad_norm), (Outcome::Taken, Some(18_f64.sqrt())));
    let state = optimizer.state(bias(&layer).id).and_then(|kept| kept.state()).expect("a state");
    let exp_avg = state.moment_to_f32("exp_avg").expect("a moment")[0];
    assert!((exp_avg - 0.2 / 18_f32.sqrt()).abs() < 1e-6, "clipped: {exp_avg}");

    let before = firsts(&layer);
    let step = grads(&layer, 1.0, f32::NAN);
    let report = optimizer.step(0.25, &mut layer, step).expect("a report");
    assert_eq!((report.outcome, firsts(&layer)), (Outcome::LeftOut, before));
    assert_eq!(optimizer.state(layer.weight.id).map(|state| state.steps()), Some(1));
}

#[test]
fn a_parameter_without_a_gradient_stays_and_its_steps_are_its_own() {
    let mut optimizer = OneCallOptimizer::new(Adam::default()).expect("settings");
    let mut layer = layer();
    for step in 0..3 {
        let mut all = grads(&layer, 1.0, 1.0);
        if step < 2 {
            let _ = all.remove::<1>(bias(&layer).id);
        }
        let _ = optimizer.step(0.25, &mut layer, all).expect("a step");
    }
    let steps = [layer.weight.id, bias(&layer).id].map(|id| optimizer.state(id).map(|s| s.steps()));
    assert_eq!(steps, [Some(3), Some(1)]);
    near(firsts(&layer), [0.25, 0.75]);
}
