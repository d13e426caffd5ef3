//! Numbers near the ends of their types: finite input must not give NaN, and results must be right.

use std::fmt::Debug;

use adamant::{
    AdEmaMix, AdaGrad, AdaMax, Adadelta, Adam, AmsGrad, AnyOptimizer, Error, Exec, Isa, NAdam,
    Optimizer, Outcome, RAdam, StepOptions, Storage, Threads,
    reference::Reference,
    rule::{Float, Rule},
};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

fn options() -> StepOptions<'static> {
    let exec = Exec { isa: Some(Isa::detect()), threads: Threads::Serial };
    StepOptions { exec, ..StepOptions::default() }
}

/// The parameter after each of some gradients, which start from `param`; the same on every instruction
/// set and by the reference.
fn path(optimizer: &impl Optimizer, param: f32, grads: &[f32]) -> Vec<f32> {
    let mut paths = Isa::available().into_iter().map(|isa| {
        let mut param = [param; 33];
        let mut state = optimizer.state(33);
        let exec = Exec { isa: Some(isa), threads: Threads::Serial };
        let options = StepOptions { exec, ..StepOptions::default() };
        let mut path = vec![];
        for &grad in grads {
            let (param, grad) = (&mut param, &[grad; 33]);
            let report = optimizer.step_with(param.into(), grad.into(), &mut state, &options);
            assert_eq!(report.expect("a valid step").outcome, Outcome::Taken);
            assert!(param.iter().all(|other| other.to_bits() == param[0].to_bits()));
            path.push(param[0]);
        }
        path
    });
    let path = paths.next().expect("scalar is always there");
    let bits = |path: &[f32]| path.iter().map(|param| param.to_bits()).collect::<Vec<_>>();
    for other in paths {
        assert_eq!(bits(&other), bits(&path));
    }
    path
}

#[track_caller]
fn assert_near(found: &[f32], expected: &[f64]) {
    for (found, expected) in found.iter().zip(expected) {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= 1e-6 * expected.abs(), "{found}, expected {expected}");
    }
}

#[test]
fn a_gradient_whose_square_overflows_is_taken_where_the_average_fits() {
    let found = path(&Adam::default(), 1.0, &[1.85e19, 1.0]);
    assert_near(&found, &[0.999000013, 0.998329937]);
    let found = path(&Adam::default(), 1.0, &[5e20, -5e20, 1.0]);
    // m is 5e19, -5e18, -4.5e18; v is 2.5e38 / 1e3 (1, 1.999, 1.997).
    assert!(found.iter().all(|param| (param - 1.0).abs() < 2e-3), "{found:?}");
}

#[test]
fn a_parameter_whose_average_overflows_is_left_alone() {
    let found = path(&Adam::default(), 1.0, &[1e21, 1.0, -3.0, 0.0]);
    assert_eq!(found, [1.0; 4]);
    let f64s = {
        let (mut param, mut state) = ([1.0_f64], Adam::default().state_in(Storage::F64, 1));
        for grad in [1.4e154, 1.0, 1e200, 1.0] {
            Adam::default().step(&mut param, &[grad], &mut state).expect("a valid step");
        }
        param[0]
    };
    assert!((0.99..1.0).contains(&f64s), "{f64s}");
}

#[test]
fn an_epsilon_that_is_not_0_never_becomes_0() {
    for eps in [1e-44, 1e-60, 1e-300, 5e-324] {
        assert_eq!(path(&Adam { eps, ..Adam::default() }, 1.0, &[0.0]), [1.0]);
        assert_eq!(path(&NAdam { eps, ..NAdam::default() }, 1.0, &[0.0]), [1.0]);
        let near_1 = 1.0 - 1e-12;
        assert_eq!(path(&Adam { eps, beta2: near_1, ..Adam::default() }, 1.0, &[0.0]), [1.0]);
        assert_eq!(path(&AdaGrad { eps, ..AdaGrad::default() }, 1.0, &[0.0]), [1.0]);
    }
    for name in AnyOptimizer::NAMES {
        let mut optimizer = AnyOptimizer::new(name).expect("an optimizer of the list");
        if optimizer.set("eps", 5e-324).is_err() {
            continue;
        }
        let (mut state, mut param) = (optimizer.state_in(Storage::F64, 1), [1.0_f64]);
        for _ in 0..3 {
            optimizer.step(&mut param, &[0.0], &mut state).expect("a valid step");
        }
        let decay = 1.0 - param[0];
        assert!((0.0..1e-3).contains(&decay), "{name} in f64: {param:?}");
    }
    assert!(f32::constant(1e-60) == f32::from_bits(1) && f32::constant(-1e-60) < 0.0);
    assert!(f32::constant(0.0) == 0.0 && f64::constant(1e-320) == 1e-320);
}

/// Tensors of both types that take the same step. The epsilon is 0 in f32, unless it becomes the smallest number there.
#[test]
fn constants_are_fitted_to_the_type_of_each_tensor() {
    let adam = Adam { eps: 1e-60, ..Adam::default() };
    for f64_first in [true, false] {
        let (mut small, mut large) = ([1.0_f32; 20], [1.0_f64; 20]);
        let mut states = [Storage::F32, Storage::F64].map(|storage| adam.state_in(storage, 20));
        let [of_small, of_large] = &mut states;
        let mut tensors = [
            of_small.tensor(&mut small, &[0.0_f32; 20]),
            of_large.tensor(&mut large, &[1e-50; 20]),
        ];
        if f64_first {
            tensors.reverse();
        }
        let report = adam.step_tensors(&mut tensors, &options()).expect("a valid step");
        assert_eq!((report.outcome, small), (Outcome::Taken, [1.0; 20]));
        // With an epsilon of 1e-45, it would hardly move.
        assert!(large.iter().all(|param| (param - 0.999).abs() < 1e-12), "{large:?}");
    }
    // Without options, by the way of small tensors.
    let (mut param, mut state) = ([1.0_f32; 20], adam.state(20));
    adam.step(&mut param, &[0.0; 20], &mut state).expect("a valid step");
    assert_eq!(param, [1.0; 20]);
}

#[test]
fn adadelta_keeps_a_quotient_below_the_smallest_number() {
    let adadelta = Adadelta { eps: 1e-10, ..Adadelta::default() };
    assert_near(&path(&adadelta, 0.0, &[1e18; 3])[2..], &[three_steps_of_adadelta()]);
}

/// The same by the paper, in f64.
fn three_steps_of_adadelta() -> f64 {
    let (mut square, mut acc, mut param) = (0.0_f64, 0.0_f64, 0.0_f64);
    for _ in 0..3 {
        let grad = f64::from(1e18_f32);
        square = 0.9 * square + 0.1 * grad * grad;
        let delta = (acc + 1e-10).sqrt() / (square + 1e-10).sqrt() * grad;
        acc = 0.9 * acc + 0.1 * delta * delta;
        param -= delta;
    }
    assert!((param / -9.708e-5 - 1.0).abs() < 1e-3, "{param}");
    param
}

#[test]
fn adamax_takes_a_step_that_fits_though_its_quotient_does_not() {
    let adamax = AdaMax { lr: 1e-4, beta2: 0.0, eps: 0.0, ..AdaMax::default() };
    let found = path(&adamax, 1.0, &[100.0, 1e-38]);
    assert!((found[1] / -4.7e35 - 1.0).abs() < 0.01, "{found:?}");
}

#[test]
fn adamax_keeps_a_nan() {
    let (mut param, grad) = ([1.0_f32; 2], [1.0_f32, f32::NAN]);
    let (mut m, mut u) = ([0.0; 2], [f32::NAN, 1.0]);
    AdaMax::default().reference(1, &mut param, &grad, [&mut m, &mut u]);
    assert!(u[0].is_nan() && param.iter().all(|param| param.is_nan()));
}

#[test]
fn amsgrad_keeps_a_nan_of_either_second_moment() {
    let amsgrad = AmsGrad::default();
    let (v, w) = ([f32::NAN, 1.0, 1.0], [1.0, f32::NAN, 1.0]);
    let check = |param: &[f32], largest: &[f32], way: &dyn Debug| {
        let [param, largest] =
            [param, largest].map(|of| [0, 1, 2].map(|at: usize| of[at].is_nan()));
        assert_eq!((param, largest), ([true, true, false], [true, true, false]), "{way:?}");
    };
    let (mut param, mut m, mut next_v, mut next_w) = ([1.0; 3], [0.0; 3], v, w);
    amsgrad.reference(1, &mut param, &[1.0; 3], [&mut m, &mut next_v, &mut next_w]);
    check(&param, &next_w, &"reference");
    for isa in Isa::available() {
        let mut param = [1.0_f32; 3];
        let mut state = amsgrad.state(3);
        state.set_moment_from_f32("exp_avg_sq", &v).expect("three values");
        state.set_moment_from_f32("max_exp_avg_sq", &w).expect("three values");
        let exec = Exec { isa: Some(isa), threads: Threads::Serial };
        let options = StepOptions { exec, ..StepOptions::default() };
        let (param_of_step, grad) = ((&mut param).into(), (&[1.0_f32; 3]).into());
        let report = amsgrad.step_with(param_of_step, grad, &mut state, &options);
        assert_eq!(report.expect("a valid step").outcome, Outcome::Taken);
        let largest = state.moment_to_f32("max_exp_avg_sq").expect("its name");
        check(&param, &largest, &isa);
    }
}

#[test]
fn radam_is_right_near_a_beta2_of_1() {
    let radam = |beta2| RAdam { beta2, ..RAdam::default() };
    // p - lr * rectified m / sqrt(v), after a step 7 of m = 0.2, v = 0.05, g = 0.3.
    let (mut param, mut m, mut v) = ([0.0_f64], [0.2], [0.05]);
    radam(1.0 - 1e-12).reference(7, &mut param, &[0.3], [&mut m, &mut v]);
    let step_size = 5.249254230416939e-15;
    let (m, v) = (0.2 + 0.1 * (0.3 - 0.2), 0.05_f64);
    let expected = -step_size * m / (v.sqrt() + 1e-8);
    assert!((param[0] / expected - 1.0).abs() < 1e-10, "{}, expected {expected}", param[0]);
    for (t, is_rectified) in [(4, 0.0), (5, 0.0), (6, 1.0)] {
        assert_eq!(radam(1.0 - f64::EPSILON / 2.0).constants(t)[4], is_rectified, "step {t}");
    }
}

/// A number of any size that a type has, but none whose differences overflow.
fn any_size(rng: &mut ChaCha8Rng, exponents: std::ops::Range<i32>) -> f64 {
    let sign = if rng.random_range(0..2) == 0 { 1.0 } else { -1.0 };
    let size = rng.random_range(f64::from(exponents.start)..f64::from(exponents.end));
    if rng.random_range(0..10) == 0 { 0.0 } else { sign * size.exp2() }
}

fn check_no_nan(optimizer: &(impl Optimizer + Debug + ?Sized), storage: Storage, seed: u64) {
    const LEN: usize = 300;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut state, mut param) = (optimizer.state_in(storage, LEN), vec![1.0_f32; LEN]);
    for t in 1..=30 {
        let grads: Vec<f32> = (0..LEN).map(|_| any_size(&mut rng, -149..127) as f32).collect();
        let (values, grad) = (&mut param, &grads);
        let report = optimizer.step_with(values.into(), grad.into(), &mut state, &options());
        assert_eq!(report.expect("a valid step").outcome, Outcome::Taken);
        let has_nan = param.iter().position(|param| param.is_nan());
        assert_eq!(has_nan, None, "{optimizer:?}, {storage:?}, step {t}");
    }
}

#[test]
fn no_finite_gradient_gives_nan() {
    for name in AnyOptimizer::NAMES {
        let optimizer = AnyOptimizer::new(name).expect("an optimizer of the list");
        for storage in [Storage::F32, Storage::Bf16, Storage::F16, Storage::Q8] {
            for seed in 0..4 {
                check_no_nan(&optimizer, storage, seed);
            }
        }
        let (mut state, mut param) = (optimizer.state_in(Storage::F64, 64), [1.0_f64; 64]);
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        for t in 1..=30 {
            let grads = [0; 64].map(|_| any_size(&mut rng, -1074..1023));
            optimizer.step(&mut param, &grads, &mut state).expect("a valid step");
            assert!(param.iter().all(|param| !param.is_nan()), "{name} in f64, step {t}");
        }
    }
}

/// Gradients just below half the largest number, whose differences overflow.
#[test]
fn the_largest_gradients_of_turning_signs_do_not_give_nan() {
    for name in AnyOptimizer::NAMES {
        for lr in [None, Some(1.0)] {
            let mut optimizer = AnyOptimizer::new(name).expect("an optimizer of the list");
            if lr.is_some_and(|lr: f64| optimizer.set("lr", lr).is_err()) {
                continue;
            }
            for storage in [Storage::F32, Storage::Bf16, Storage::F16, Storage::Q8] {
                let (mut state, mut param) = (optimizer.state_in(storage, 1), [1.0_f32]);
                for grad in [1.0, -1.0, 1.0, -1.0, 0.5, -0.5].map(|sign| sign * 0.499 * f32::MAX) {
                    optimizer.step(&mut param, &[grad], &mut state).expect("a valid step");
                    assert!(!param[0].is_nan(), "{optimizer:?}, {storage}");
                }
            }
            let (mut state, mut param) = (optimizer.state_in(Storage::F64, 1), [1.0_f64]);
            for grad in [1.0, -1.0, 1.0, -1.0].map(|sign| sign * 0.499 * f64::MAX) {
                optimizer.step(&mut param, &[grad], &mut state).expect("a valid step");
                assert!(!param[0].is_nan(), "{optimizer:?} in f64");
            }
        }
    }
}

/// The same of one sign, until the averages have come as near to them as they will, and then of the other.
#[test]
fn the_largest_gradients_for_a_long_time_do_not_give_nan() {
    let check = |optimizer: &AnyOptimizer, steps| {
        let (mut state, mut param) = (optimizer.state(1), [1.0_f32]);
        for t in 0..steps {
            let sign = if t < steps - 3 { 1.0 } else { -1.0 };
            let grad = [sign * 0.499 * f32::MAX];
            optimizer.step(&mut param, &grad, &mut state).expect("a valid step");
            assert!(!param[0].is_nan(), "{optimizer:?}, step {}", t + 1);
            if param[0].is_infinite() {
                break;
            }
        }
    };
    for name in AnyOptimizer::NAMES {
        for lr in [None, Some(1.0)] {
            let mut optimizer = AnyOptimizer::new(name).expect("an optimizer of the list");
            if lr.is_some_and(|lr: f64| optimizer.set("lr", lr).is_err()) {
                continue;
            }
            check(&optimizer, 8000);
        }
    }
    check(&AnyOptimizer::from(AdEmaMix { lr: 1.0, beta3: 0.0, ..AdEmaMix::default() }), 700);
    check(&AnyOptimizer::from(AdEmaMix { lr: 1.0, alpha: 1e30, ..AdEmaMix::default() }), 700);
}

#[test]
fn adam_with_the_cautious_mask_stays_also_where_a_product_of_moment_and_gradient_is_0() {
    let adam = Adam { lr: 1.0, eps: 1e-30, cautious: true, ..Adam::default() };
    for (m, grad) in [(1e-23_f32, -1e-24_f32), (-1e-37, 1e-37), (1e30, -1e-30), (1e-13, -1e-14)] {
        let (mut param, mut of_m, mut of_v) = ([1.0_f32], [m], [m * m]);
        adam.reference(100, &mut param, &[grad], [&mut of_m, &mut of_v]);
        assert_eq!(param, [1.0], "{m}, {grad}");
        for isa in Isa::available() {
            let (mut param, mut state) = ([1.0_f32], adam.state(1));
            state.set_steps(99);
            state.set_moment_from_f32("exp_avg", &[m]).expect("one value");
            state.set_moment_from_f32("exp_avg_sq", &[m * m]).expect("one value");
            let exec = Exec { isa: Some(isa), threads: Threads::Serial };
            let options = StepOptions { exec, ..StepOptions::default() };
            let grad = [grad];
            let report = adam.step_with((&mut param).into(), (&grad).into(), &mut state, &options);
            assert_eq!(report.expect("a valid step").outcome, Outcome::Taken);
            assert_eq!(param, [1.0], "{m}, {isa}");
        }
    }
}

#[test]
fn a_start_that_the_type_cannot_hold_is_refused() {
    let mut found = 0;
    for name in AnyOptimizer::NAMES {
        let mut optimizer = AnyOptimizer::new(name).expect("an optimizer of the list");
        if optimizer.set("initial_accumulator_value", 1e39).is_err() {
            continue;
        }
        found += 1;
        for storage in [Storage::F32, Storage::Q8] {
            let (mut param, mut state) = ([1.0_f32], optimizer.state_in(storage, 1));
            let result = optimizer.step(&mut param, &[1.0], &mut state);
            let error = Error::ConstantOverflow { value: 1e39, float: "f32" };
            assert_eq!(result, Err(error), "{name}");
            assert_eq!((param[0], state.steps()), (1.0, 0));
        }
        let (mut param, mut state) = ([1.0_f64], optimizer.state_in(Storage::F64, 1));
        assert_eq!(optimizer.step(&mut param, &[1.0], &mut state), Ok(()));
    }
    assert_eq!(found, 3, "AdaGrad, Yogi and FTRL start from a value that users choose");
}
