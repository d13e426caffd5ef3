//! Bad calls: each gets the error that says what to mend, and nothing is written.

mod support;

use adamant::{
    AdEmaMix, Adam, AnyOptimizer, BuiltIn, Error, Exec, Isa, Optimizer, Rule, Sgd, Tensor,
    WithOptimizer,
};
use support::columns;

const EXEC: Exec = Exec { isa: Isa::Scalar, parallel: false };

/// Fails unless the call gives the error and its message, and leaves both tensors as they were.
#[track_caller]
fn refuses(adam: Adam, exec: Exec, t: u64, expected: Error, message: &str) {
    let mut first = columns::<Adam, f32>(&Adam::default(), 1, 40, false);
    let mut second = columns::<Adam, f32>(&Adam::default(), 2, 40, false);
    let before = (first.clone(), second.clone());
    let found = adam.step_many_on(exec, t, &mut [first.tensor(), second.tensor()]);
    assert_eq!(found, Err(expected.clone()));
    assert_eq!(expected.to_string(), message);
    assert_eq!((first, second), before);
}

#[test]
fn a_hyper_parameter_out_of_range_is_refused_by_name() {
    let ok = Adam::default();
    const SIZE: &str = "finite and at least 0";
    const DECAY: &str = "at least 0 and less than 1";
    for value in [-1e-9, f64::INFINITY, f64::NAN] {
        for (name, adam) in [
            ("lr", Adam { lr: value, ..ok }),
            ("eps", Adam { eps: value, ..ok }),
            ("weight_decay", Adam { weight_decay: value, ..ok }),
        ] {
            let found = adam.step_many_on::<f32>(EXEC, 1, &mut []).expect_err("refused");
            assert_eq!(found.to_string(), format!("{name} is {value}, but must be {SIZE}"));
        }
    }
    for value in [-0.1, 1.0, f64::INFINITY, f64::NAN] {
        for (name, adam) in
            [("beta1", Adam { beta1: value, ..ok }), ("beta2", Adam { beta2: value, ..ok })]
        {
            let found = adam.step_many_on::<f32>(EXEC, 1, &mut []).expect_err("refused");
            assert_eq!(found.to_string(), format!("{name} is {value}, but must be {DECAY}"));
        }
    }
    let error = Error::HyperParameter { name: "beta2", value: 1.0, allowed: DECAY };
    let message = "beta2 is 1, but must be at least 0 and less than 1";
    refuses(Adam { beta2: 1.0, ..ok }, EXEC, 1, error, message);
}

#[test]
fn a_constant_that_the_type_cannot_hold_is_refused() {
    let adam = Adam { lr: 1e300, weight_decay: 0.0, ..Adam::default() };
    let step_size = 1e300 * (1.0 - 0.999_f64).sqrt() / (1.0 - 0.9);
    let error = Error::ConstantOverflow { value: step_size, float: "f32" };
    let message = error.to_string();
    assert!(
        message.starts_with("the hyper-parameters make 3.16")
            && message.ends_with("f32 cannot hold")
    );
    refuses(adam, EXEC, 1, error, &message);
    assert_eq!(adam.step_many_on::<f64>(EXEC, 1, &mut []), Ok(()));
}

#[test]
fn step_zero_is_refused() {
    let message = "the step count is 0, but steps are counted from 1";
    refuses(Adam::default(), EXEC, 0, Error::ZeroStep, message);
}

#[test]
fn an_instruction_set_that_this_cpu_lacks_is_refused() {
    let available = Isa::available();
    let lacking = Isa::ALL.into_iter().find(|isa| !available.contains(isa));
    let isa = lacking.expect("no CPU has both AVX2 and NEON");
    let names: Vec<String> = available.iter().map(Isa::to_string).collect();
    let message =
        format!("the instruction set {isa} is not available here; available: {}", names.join(", "));
    let error = Error::IsaUnavailable { isa, available };
    refuses(Adam::default(), Exec { isa, parallel: true }, 1, error, &message);
}

#[test]
fn an_array_of_another_length_is_refused_by_name_and_tensor() {
    for (argument, lens) in
        [("grad", [9, 10, 10]), ("exp_avg", [10, 11, 10]), ("exp_avg_sq", [10, 10, 0])]
    {
        let mut first = columns::<Adam, f32>(&Adam::default(), 1, 40, false);
        let before = first.clone();
        let mut param = vec![1.0; 10];
        let [grad, mut m, mut v] = lens.map(|len| vec![0.5; len]);
        let second =
            Tensor::<Adam, f32> { param: &mut param, grad: &grad, moments: [&mut m, &mut v] };
        let len = lens.into_iter().find(|&len| len != 10).expect("one differs");

        let found = Adam::default().step_many(1, &mut [first.tensor(), second]);
        assert_eq!(found, Err(Error::LengthMismatch { tensor: 1, argument, len, expected: 10 }));
        assert_eq!(
            found.expect_err("refused").to_string(),
            format!("{argument} of tensor 1 has {len} elements, but its param has 10")
        );
        assert_eq!(first, before);
        assert_eq!(param, [1.0; 10]);
    }
}

#[test]
fn a_moment_that_the_hyper_parameters_do_without_must_be_empty() {
    let sgd = Sgd::default();
    let (mut param, grad, mut buffer) = ([1.0_f32; 4], [0.5; 4], [0.0; 4]);
    let tensor = Tensor::<Sgd, f32> { param: &mut param, grad: &grad, moments: [&mut buffer] };
    let found = sgd.step_many(1, &mut [tensor]).expect_err("refused");
    assert_eq!(found, Error::UnusedMoment { tensor: 0, moment: "momentum_buffer", len: 4 });
    assert_eq!(
        found.to_string(),
        "momentum_buffer of tensor 0 has 4 elements, but these hyper-parameters do without"
    );
    assert_eq!(param, [1.0; 4]);

    let momentum = Sgd { momentum: 0.9, ..sgd };
    let mut state = sgd.state(4);
    assert_eq!(state.moments(), [&[]]);
    let found = momentum.step(&mut param, &grad, &mut state);
    let mismatch =
        Error::LengthMismatch { tensor: 0, argument: "momentum_buffer", len: 0, expected: 4 };
    assert_eq!(found, Err(mismatch));
    assert_eq!(sgd.step(&mut param, &grad, &mut state), Ok(()));
}

#[test]
fn hyper_parameters_that_do_not_go_together_are_refused() {
    let nesterov = Sgd { momentum: 0.9, nesterov: true, ..Sgd::default() };
    let warming = AdEmaMix { beta3_warmup: 10, ..AdEmaMix::default() };
    assert_eq!(nesterov.check(), Ok(()));
    assert_eq!(Sgd { momentum: 5e-324, ..nesterov }.check(), Ok(()), "the smallest is over 0");
    assert_eq!(warming.check(), Ok(()));
    for (found, message) in [
        (
            Sgd { momentum: 0.0, ..nesterov }.check(),
            "momentum is 0, but must be over 0 with nesterov",
        ),
        (
            Sgd { dampening: 0.5, ..nesterov }.check(),
            "dampening is 0.5, but must be 0 with nesterov",
        ),
        (
            AdEmaMix { beta1: 0.0, ..warming }.check(),
            "beta1 is 0, but must be over 0 with beta3_warmup",
        ),
        (
            AdEmaMix { beta3: 0.5, ..warming }.check(),
            "beta3 is 0.5, but must be at least beta1 with beta3_warmup",
        ),
    ] {
        assert_eq!(found.expect_err("refused").to_string(), message);
    }
}

/// Every number of every optimizer, for one that no range contains.
#[test]
fn every_optimizer_refuses_nan_in_every_number() {
    struct Step;
    impl WithOptimizer for Step {
        type Output = Result<(), Error>;

        fn run<R: BuiltIn>(self, rule: R) -> Self::Output {
            rule.step_many::<f32>(1, &mut [])
        }
    }
    let mut refused = 0;
    for name in AnyOptimizer::NAMES {
        let default = AnyOptimizer::new(name).expect("a name");
        for setting in default.settings() {
            let mut optimizer = default;
            if optimizer.set(setting.name, f64::NAN).is_ok() {
                let found = optimizer.with(Step).expect_err(setting.name);
                let is_like = |name| name == setting.name;
                assert!(
                    matches!(found, Error::HyperParameter { name, .. } if is_like(name)),
                    "{name}: {found}"
                );
                refused += 1;
            }
        }
    }
    assert!(refused > 60, "{refused} numbers");
}

#[test]
fn a_refused_step_is_not_counted_and_a_state_refuses_to_overflow() {
    let adam = Adam::default();
    let mut state = adam.state::<f32>(3);
    let mut param = [1.0; 3];
    let short = adam.step(&mut param, &[0.1; 2], &mut state);
    assert_eq!(
        short,
        Err(Error::LengthMismatch { tensor: 0, argument: "grad", len: 2, expected: 3 })
    );
    assert_eq!((param, state.step()), ([1.0; 3], 0));
    let wrong_state = adam.step(&mut [1.0; 4], &[0.1; 4], &mut state);
    assert_eq!(
        wrong_state,
        Err(Error::LengthMismatch { tensor: 0, argument: "exp_avg", len: 3, expected: 4 })
    );

    state.set_step(u64::MAX - 1);
    assert_eq!(adam.step(&mut param, &[0.1; 3], &mut state), Ok(()));
    assert_eq!(state.step(), u64::MAX);
    let before = param;
    assert_eq!(adam.step(&mut param, &[0.1; 3], &mut state), Err(Error::StepOverflow));
    assert_eq!((param, state.step()), (before, u64::MAX));
}

#[test]
fn an_instruction_set_is_known_by_name_only() {
    for isa in Isa::ALL {
        assert_eq!(isa.name().parse(), Ok(isa));
    }
    for name in ["AVX2", "sse", " avx2", "avx-512", ""] {
        let error = name.parse::<Isa>().expect_err("no instruction set");
        assert_eq!(error, Error::UnknownIsa { name: name.into() });
        let names = "scalar, avx2, avx512 or neon";
        assert_eq!(error.to_string(), format!("{name:?} is no instruction set; known: {names}"));
    }
}

/// Says what every value of the variable must lead to; `.ci/run` sets some.
#[test]
fn the_environment_chooses_the_instruction_set() {
    let expected = match std::env::var("ADAMANT_ISA") {
        Err(_) => Ok(Isa::detect()),
        Ok(name) => name.parse::<Isa>().and_then(|isa| match isa.is_available() {
            true => Ok(isa),
            false => Err(Error::IsaUnavailable { isa, available: Isa::available() }),
        }),
    };
    assert_eq!(Isa::selected(), expected);
    let step = Adam::default().step_many::<f32>(1, &mut []);
    assert_eq!(step, expected.map(|_| ()));
}
