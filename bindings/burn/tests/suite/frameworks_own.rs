//! The tests that burn has for its optimizers (`burn-optim/src/optim`), with ours, as far as they are about
//! optimizers that both have.

use adamant_burn::{
    AdaGrad, Adam, Adan, AmsGrad, AnyOptimizer, Lion, OneCallOptimizer, ParamOptimizer, RmsProp,
};
use burn::{
    Tensor,
    module::Param,
    nn::{Linear, LinearConfig},
    optim::{
        AdamConfig, AdamWConfig, GradientsParams, ModuleOptimizer, Optimizer,
        decay::WeightDecayConfig,
    },
    tensor::{Device, TensorData},
};

const LR: f64 = 0.01;

#[rustfmt::skip]
const WEIGHT: [[f32; 6]; 6] = [
    [-0.3206, 0.1374, 0.4043, 0.3200, 0.0859, 0.0671],
    [0.0777, -0.0185, -0.3667, 0.2550, 0.1955, -0.2922],
    [-0.0190, 0.0346, -0.2962, 0.2484, -0.2780, 0.3130],
    [-0.2980, -0.2214, -0.3715, -0.2981, -0.0761, 0.1626],
    [0.3300, -0.2182, 0.3717, -0.1729, 0.3796, -0.0304],
    [-0.0159, -0.0120, 0.1258, 0.1921, 0.0293, 0.3833],
];
const BIAS: [f32; 6] = [-0.3905, 0.0884, -0.0970, 0.1176, 0.1366, 0.0130];
const INPUTS: [[[f32; 6]; 2]; 2] = [
    [
        [0.6294, 0.0940, 0.8176, 0.8824, 0.5228, 0.4310],
        [0.7152, 0.9559, 0.7893, 0.5684, 0.5939, 0.8883],
    ],
    [
        [0.8491, 0.2108, 0.8939, 0.4433, 0.5527, 0.2528],
        [0.3270, 0.0412, 0.5538, 0.9605, 0.3195, 0.9085],
    ],
];

type Values = ([[f32; 6]; 6], [f32; 6]);

/// Two steps of a linear layer.
fn stepped(
    start: Values,
    inputs: &[[[f32; 6]; 2]],
    mut step: impl FnMut(&mut Linear, GradientsParams),
) -> Vec<f32> {
    let device = Device::default().autodiff();
    let mut layer = Linear {
        weight: Param::from_data(TensorData::from(start.0), &device),
        bias: Some(Param::from_data(TensorData::from(start.1), &device)),
    };
    for &input in inputs {
        let x = Tensor::<2>::from_floats(input, &device).require_grad();
        let grads = GradientsParams::from_grads(layer.forward(x).backward(), &layer);
        step(&mut layer, grads);
    }
    let bias = layer.bias.as_ref().expect("a bias").val();
    [layer.weight.val().reshape([36]), bias]
        .into_iter()
        .flat_map(|tensor| tensor.into_data().as_slice::<f32>().expect("f32").to_vec())
        .collect()
}

/// The steps with an optimizer behind burn's interface.
fn with_burns(start: Values, inputs: &[[[f32; 6]; 2]], mut optimizer: ModuleOptimizer) -> Vec<f32> {
    stepped(start, inputs, |layer, grads| *layer = optimizer.step(LR, layer.clone(), grads))
}

/// The steps with both optimizers of this crate, which have the same bits.
fn with_ours(
    start: Values,
    inputs: &[[[f32; 6]; 2]],
    optimizer: impl Into<AnyOptimizer>,
) -> Vec<f32> {
    let optimizer = optimizer.into();
    let mut one_call = OneCallOptimizer::new(optimizer).expect("settings");
    let in_one_call = stepped(start, inputs, |layer, grads| {
        let _ = one_call.step(LR, layer, grads).expect("a step");
    });
    let one_at_a_time = ParamOptimizer::new(optimizer).expect("settings").into();
    assert_eq!(with_burns(start, inputs, one_at_a_time), in_one_call);
    in_one_call
}

#[track_caller]
fn near(found: &[f32], expected: &[f32], bound: f32) {
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    let difference = differences.fold(0.0, f32::max);
    assert!(found.len() == expected.len() && difference < bound, "{difference:e}");
}

fn flat((weight, bias): Values) -> Vec<f32> {
    weight.as_flattened().iter().chain(&bias).copied().collect()
}

#[test]
fn adamw_has_burns_numbers() {
    #[rustfmt::skip]
    let weight = [
        [-0.337295, 0.117827, 0.380358, 0.296868, 0.065232, 0.046534],
        [0.057032, -0.036518, -0.382951, 0.232516, 0.173738, -0.309182],
        [-0.038703, 0.016052, -0.313155, 0.225982, -0.295039, 0.289981],
        [-0.31492, -0.237394, -0.387704, -0.315067, -0.095153, 0.141081],
        [0.306815, -0.234226, 0.348083, -0.191115, 0.356002, -0.049993],
        [-0.035634, -0.030083, 0.104636, 0.170244, 0.009196, 0.35958],
    ];
    let bias = [-0.406555, 0.067568, -0.115982, 0.096477, 0.115287, -0.00708];
    let optimizer = Adam { weight_decay: 0.5, ..Adam::adamw() };
    let ours = with_ours((WEIGHT, BIAS), &INPUTS, optimizer);
    // burn's own bound: the numbers are off in the third decimal.
    near(&ours, &flat((weight, bias)), 1e-2);
    let burns = AdamWConfig::new().with_weight_decay(0.5);
    near(&ours, &with_burns((WEIGHT, BIAS), &INPUTS, burns.with_epsilon(1e-8).init()), 1e-6);
}

#[test]
fn adam_has_burns_numbers() {
    #[rustfmt::skip]
    let weight = [
        [-0.340528, 0.118929, 0.384336, 0.30001, 0.066034, 0.047154],
        [0.057757, -0.03669, -0.386649, 0.23501, 0.175624, -0.312133],
        [-0.03894, 0.016306, -0.316151, 0.22841, -0.297819, 0.293047],
        [-0.317929, -0.2391, -0.391449, -0.318087, -0.095948, 0.142651],
        [0.31005, -0.235909, 0.351736, -0.192888, 0.35971, -0.050343],
        [-0.03584, -0.030203, 0.10584, 0.17211, 0.00944, 0.363346],
    ];
    let bias = [-0.410499, 0.068401, -0.116999, 0.097601, 0.116601, -0.006999];
    let optimizer = Adam { weight_decay: 0.5, ..Adam::default() };
    let ours = with_ours((WEIGHT, BIAS), &INPUTS, optimizer);
    // burn's own bound: the numbers are off in the third decimal.
    near(&ours, &flat((weight, bias)), 1e-2);
    let burns = AdamConfig::new().with_weight_decay(Some(WeightDecayConfig::new(0.5)));
    near(&ours, &with_burns((WEIGHT, BIAS), &INPUTS, burns.with_epsilon(1e-8).init()), 1e-6);
}

#[test]
fn adagrad_has_pytorchs_numbers() {
    #[rustfmt::skip]
    let weight = [
        [-0.334989, 0.123011, 0.389911, 0.305611, 0.071511, 0.052711],
        [0.066144, -0.030056, -0.378256, 0.243444, 0.183944, -0.303756],
        [-0.033462, 0.020138, -0.310662, 0.233938, -0.292462, 0.298538],
        [-0.312636, -0.236036, -0.386136, -0.312736, -0.090736, 0.147964],
        [0.315896, -0.232304, 0.357596, -0.187004, 0.365496, -0.044504],
        [-0.030305, -0.026405, 0.111395, 0.177695, 0.014895, 0.368895],
    ];
    let bias = [-0.405214, 0.073686, -0.111714, 0.102886, 0.121886, -0.001714];
    let optimizer = AdaGrad { lr_decay: 0.5, eps: 1e-8, ..AdaGrad::default() };
    near(&with_ours((WEIGHT, BIAS), &INPUTS, optimizer), &flat((weight, bias)), 1e-6);
}

#[test]
fn adan_has_the_numbers_of_its_authors() {
    #[rustfmt::skip]
    let weight = [
        [-0.34034607, 0.11747075, 0.38426402, 0.29999772, 0.06599136, 0.04719888],
        [0.0644293, -0.031732224, -0.37979296, 0.24165839, 0.18218218, -0.30532277],
        [-0.038910445, 0.01466812, -0.31599957, 0.2283826, -0.29780683, 0.2929568],
        [-0.3178632, -0.24129382, -0.39133376, -0.31796312, -0.09605193, 0.14255258],
        [0.31026322, -0.23771758, 0.3519465, -0.19243571, 0.35984334, -0.049992695],
        [-0.03577819, -0.031879753, 0.10586514, 0.17213862, 0.009403733, 0.36326218],
    ];
    let bias = [-0.4103378, 0.06837065, -0.116955206, 0.097558975, 0.11655137, -0.006999196];
    let optimizer = Adan { weight_decay: 0.02, ..Adan::default() };
    near(&with_ours((WEIGHT, BIAS), &INPUTS, optimizer), &flat((weight, bias)), 1e-6);
}

#[test]
fn amsgrad_has_pytorchs_numbers_after_50_steps() {
    #[rustfmt::skip]
    let weight = [
        [-0.912581, -0.4585527, -0.1915993, -0.2759991, -0.5099529, -0.5287043],
        [-0.5181326, -0.6139855, -0.9574727, -0.3410293, -0.4005142, -0.8847862],
        [-0.6144831, -0.5611032, -0.8887064, -0.3476297, -0.8708557, -0.2830045],
        [-0.89047, -0.8151528, -0.9621279, -0.8905677, -0.6712612, -0.4333855],
        [-0.2659906, -0.8119961, -0.2242454, -0.7672406, -0.216335, -0.6258267],
        [-0.6113979, -0.6075161, -0.4701342, -0.4039118, -0.5663846, -0.2126299],
    ];
    let bias = [-0.8817203, -0.4038999, -0.5889149, -0.3747572, -0.3557941, -0.4791479];
    let inputs: Vec<_> = (1..=50).map(|i| [[i as f32 * 0.1; 6]; 2]).collect();
    let amsgrad = AmsGrad(Adam { weight_decay: 0.5, ..Adam::default() });
    near(&with_ours((WEIGHT, BIAS), &inputs, amsgrad), &flat((weight, bias)), 1e-5);
}

#[test]
fn rmsprop_has_pytorchs_numbers() {
    let rows = [0.743937, 0.783809, 0.742881, 0.740366, 0.748005, 0.743710];
    let expected = (rows.map(|row| [row; 6]), [0.239199; 6]);
    let rmsprop = RmsProp { weight_decay: 0.05, momentum: 0.9, ..RmsProp::default() };
    near(&with_ours(([[1.0; 6]; 6], [0.5; 6]), &INPUTS, rmsprop), &flat(expected), 1e-6);
}

#[test]
fn lion_takes_two_steps_with_weight_decay() {
    let device = Device::default();
    let lion = Lion { beta1: 0.9, beta2: 0.99, weight_decay: 0.1, ..Lion::default() };
    let optimizer = ParamOptimizer::new(lion).expect("settings");
    let mut tensor = Tensor::<1>::from_floats([1.0, -2.0, 3.0], &device);
    let mut state = None;
    let steps = [
        ([0.5, -0.25, 0.0], [0.89, -1.88, 2.97], [0.005, -0.0025, 0.0]),
        ([-0.1, 0.5, -2.0], [0.9811, -1.9612, 3.0403], [0.00395, 0.002525, -0.02]),
    ];
    for (grad, expected, expected_momentum) in steps {
        let grad = Tensor::<1>::from_floats(grad, &device);
        (tensor, state) = optimizer.step(0.1, tensor, grad, state);
        let found = tensor.to_data();
        let momentum = state.as_ref().and_then(|state| state.state()?.moment_to_f32("exp_avg"));
        let near = |found: &[f32], expected: [f32; 3]| {
            found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6)
        };
        assert!(near(found.as_slice().expect("f32"), expected), "{found}");
        assert!(near(&momentum.expect("a moment"), expected_momentum));
    }
}

/// burn's `assert_optimizer_resume`: saved to bytes and loaded, the next step is the same. Ours to the bit.
#[test]
fn every_optimizer_resumes_from_burns_record_to_the_bit() {
    let device = Device::default().autodiff();
    let input = Tensor::<2>::ones([2, 6], &device);
    let grads = |model: &Linear, scale: f32| {
        let loss = model.forward(input.clone()).mul_scalar(scale);
        GradientsParams::from_grads(loss.backward(), model)
    };
    for name in AnyOptimizer::NAMES {
        let create = || -> ModuleOptimizer {
            let optimizer = name.parse::<AnyOptimizer>().expect("a name");
            ParamOptimizer::new(optimizer).expect("settings").into()
        };
        let mut model = LinearConfig::new(6, 6).init(&device);
        let mut original = create();
        for scale in [1.0, 0.01] {
            let step = grads(&model, scale);
            model = original.step(LR, model, step);
        }
        let bytes = original.into_bytes().expect("a record");
        let mut restored = create().from_bytes(bytes).expect("a record");
        let step = |optimizer: &mut ModuleOptimizer| {
            let stepped = optimizer.step(LR, model.clone(), grads(&model, -0.01));
            stepped.weight.val().into_data()
        };
        assert!(step(&mut original) == step(&mut restored), "{name}");
    }
}
