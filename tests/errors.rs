//! Bad calls: each gets the error that says what to mend, and nothing is written.

mod support;

use adamant::{
    AdEmaMix, Adam, AnyOptimizer, Element, Error, Exec, Grad, Isa, Moment, Optimizer, Outcome,
    Param, Report, Sgd, StepOptions, Storage, Tensor, Threads,
    rule::{BuiltIn, Rule, WithOptimizer},
    table::{RowGrads, RowOptimizer, RowScratch, Table},
};
use half::{bf16, f16};
use support::{columns, exec};

const EXEC: Exec<'static> = Exec { isa: Some(Isa::Scalar), threads: Threads::Serial };

fn options(exec: Exec<'_>) -> StepOptions<'_> {
    StepOptions { exec, ..StepOptions::default() }
}

/// A step without tensors.
fn step_of_none(rule: &impl Rule, exec: Exec<'_>) -> Result<(), Error> {
    rule.step_tensors(&mut [], &options(exec))
        .map(|report| assert_eq!(report.outcome, Outcome::Taken))
}

/// Fails unless the call gives the error and its message, and leaves both tensors and their counts as
/// they were.
#[track_caller]
fn refuses(adam: Adam, exec: Exec<'_>, steps: [u64; 2], expected: Error, message: &str) {
    let mut first = columns::<f32>(&Adam::default(), 1, 40, false);
    let mut second = columns::<f32>(&Adam::default(), 2, 40, false);
    let before = (first.clone(), second.clone());
    let mut counts = steps;
    let [first_steps, second_steps] = &mut counts;
    let tensors = &mut [first.tensor(first_steps), second.tensor(second_steps)];
    let found = adam.step_tensors(tensors, &options(exec));
    assert_eq!(found, Err(expected.clone()));
    assert_eq!(expected.to_string(), message);
    assert_eq!(((first, second), counts), (before, steps));
}

#[test]
fn a_hyper_parameter_out_of_range_is_refused_by_name() {
    let ok = Adam::default();
    const SIZE: &str = "finite and at least 0";
    const DECAY: &str = "at least 0 and less than 1";
    let values = [
        (-1.0, "-1"),
        (-0.25, "-0.25"),
        (-1e-40, "-1e-40"),
        (f64::INFINITY, "inf"),
        (f64::NAN, "NaN"),
    ];
    for (value, text) in values {
        for (name, adam) in [
            ("lr", Adam { lr: value, ..ok }),
            ("eps", Adam { eps: value, ..ok }),
            ("weight_decay", Adam { weight_decay: value, ..ok }),
        ] {
            let found = step_of_none(&adam, EXEC).expect_err("refused");
            assert_eq!(found.to_string(), format!("{name} is {text}, but must be {SIZE}"));
        }
    }
    for value in [-0.1, 1.0, f64::INFINITY, f64::NAN] {
        for (name, adam) in
            [("beta1", Adam { beta1: value, ..ok }), ("beta2", Adam { beta2: value, ..ok })]
        {
            let found = step_of_none(&adam, EXEC).expect_err("refused");
            assert_eq!(found.to_string(), format!("{name} is {value}, but must be {DECAY}"));
        }
    }
    let error = Error::HyperParameter { name: "beta2", value: 1.0, allowed: DECAY };
    let message = "beta2 is 1, but must be at least 0 and less than 1";
    refuses(Adam { beta2: 1.0, ..ok }, EXEC, [0, 7], error, message);
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
    refuses(adam, EXEC, [0, 0], error, &message);
    let mut double = columns::<f64>(&adam, 1, 40, false);
    let mut steps = 0;
    let report = adam.step_tensors(&mut [double.tensor(&mut steps)], &options(EXEC));
    assert_eq!((report.expect("a valid step").outcome, steps), (Outcome::Taken, 1));
}

/// The step size of the first step is a third of that of a late one.
#[test]
fn a_constant_that_the_step_of_one_tensor_cannot_hold_is_refused() {
    let adam = Adam { lr: 1e39, weight_decay: 0.0, ..Adam::default() };
    let error = Error::ConstantOverflow { value: 1e39, float: "f32" };
    let message = "the hyper-parameters make 1e39 a constant of the step, which f32 cannot hold";
    for steps in [[0, 400_000], [400_000, 0], [400_000, 400_000]] {
        refuses(adam, EXEC, steps, error.clone(), message);
    }
    let mut single = columns::<f32>(&adam, 1, 40, false);
    let mut steps = 0;
    let report = adam.step_tensors(&mut [single.tensor(&mut steps)], &options(EXEC));
    assert_eq!((report.expect("a valid step").outcome, steps), (Outcome::Taken, 1));
}

#[test]
fn a_tensor_at_the_largest_step_count_is_refused() {
    let message = "the state has taken 18446744073709551615 steps and cannot count another";
    for steps in [[u64::MAX, 0], [3, u64::MAX]] {
        refuses(Adam::default(), EXEC, steps, Error::StepOverflow, message);
    }
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
    assert_eq!(error.tensor(), None);
    refuses(Adam::default(), exec(isa, true), [0, 0], error, &message);
}

#[test]
fn an_array_of_another_length_is_refused_by_name_and_tensor() {
    for (argument, lens) in
        [("grad", [9, 10, 10]), ("exp_avg", [10, 11, 10]), ("exp_avg_sq", [10, 10, 0])]
    {
        let mut first = columns::<f32>(&Adam::default(), 1, 40, false);
        let before = first.clone();
        let mut param = vec![1.0_f32; 10];
        let [grad, mut m, mut v] = lens.map(|len| vec![0.5_f32; len]);
        let (mut first_steps, mut second_steps) = (3, 4);
        let second = Tensor::new(&mut param, &grad, &mut second_steps)
            .with_moments([Moment::from(&mut m), Moment::from(&mut v)]);
        let len = lens.into_iter().find(|&len| len != 10).expect("one differs");

        let tensors = &mut [first.tensor(&mut first_steps), second];
        let found = Adam::default().step_tensors(tensors, &StepOptions::default());
        assert_eq!(found, Err(Error::LengthMismatch { tensor: 1, argument, len, expected: 10 }));
        let error = found.expect_err("refused");
        assert_eq!(error.tensor(), Some(1));
        assert_eq!(
            error.to_string(),
            format!("{argument} of tensor 1 has {len} elements, but must have 10")
        );
        assert_eq!(first, before);
        assert_eq!((&param[..], first_steps, second_steps), (&[1.0; 10][..], 3, 4));
    }
}

/// Found by the fuzzer: these scales were not checked.
#[test]
fn a_moment_of_8_bits_that_is_not_used_must_have_no_scales() {
    let sgd = Sgd::default();
    let (mut param, grad, mut scales) = ([1.0_f32; 4], [0.5_f32; 4], [0.0_f32; 2]);
    let mut steps = 0;
    let expected =
        Err(Error::ScalesMismatch { tensor: 0, moment: "momentum_buffer", len: 2, expected: 0 });
    let moment = Moment::q8(&mut [], &mut scales);
    let tensor = Tensor::new(&mut param, &grad, &mut steps).with_moments([moment]);
    assert_eq!(sgd.step_tensors(&mut [tensor], &options(EXEC)), expected);

    let mut scratch = RowScratch::default();
    let rows = RowGrads { rows: &[0_u32], values: &grad, width: 4, stride: 4 };
    let rows = rows.sort(1, &mut scratch).expect("valid rows");
    let moment = Moment::q8(&mut [], &mut scales);
    let table = Table::new(&mut param, 4).with_moments([moment]);
    assert_eq!(sgd.step_rows_lazy_on(1, table, rows, &options(EXEC)), expected);
    assert_eq!((param, steps), ([1.0; 4], 0));
}

#[test]
fn a_moment_that_the_settings_do_not_use_must_be_empty() {
    let sgd = Sgd::default();
    let (mut param, grad, mut buffer) = ([1.0_f32; 4], [0.5; 4], [0.0_f32; 4]);
    let mut steps = 0;
    let tensor =
        Tensor::new(&mut param, &grad, &mut steps).with_moments([Moment::from(&mut buffer)]);
    let found = sgd.step_tensors(&mut [tensor], &options(EXEC)).expect_err("refused");
    assert_eq!(found, Error::UnusedMoment { tensor: 0, moment: "momentum_buffer", len: 4 });
    assert_eq!(
        found.to_string(),
        "momentum_buffer of tensor 0 has 4 elements, but these hyper-parameters do not use it"
    );
    assert_eq!(param, [1.0; 4]);

    let momentum = Sgd { momentum: 0.9, ..sgd };
    let mut state = sgd.state(4);
    assert_eq!(state.moments().count(), 0);
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

/// Every number of every optimizer, as NaN, which no range contains.
#[test]
fn every_optimizer_refuses_nan_in_every_number() {
    struct Step;
    impl WithOptimizer for Step {
        type Output = Result<(), Error>;

        fn run<R: BuiltIn>(self, rule: R) -> Self::Output {
            step_of_none(&rule, EXEC)
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

/// Every array in f64 with the others in f32, and the other way round.
#[test]
fn f64_goes_with_nothing_else() {
    let (adam, one) = (Adam::default(), bf16::ONE);
    let refused = |param: Storage, grad: Storage, moments: [Storage; 2]| -> Option<Error> {
        let (mut single, mut double, mut brain) = ([1.0_f32; 300], [1.0_f64; 300], [one; 300]);
        let mut half = [f16::ONE; 300];
        let param_array: Param<'_> = match param {
            Storage::F32 => (&mut single).into(),
            Storage::F64 => (&mut double).into(),
            Storage::Bf16 => (&mut brain).into(),
            _ => (&mut half).into(),
        };
        let (mut single_grad, mut double_grad) = ([1.0_f32; 300], [1.0_f64; 300]);
        let (mut brain_grad, mut half_grad) = ([one; 300], [f16::ONE; 300]);
        let grad_array = match grad {
            Storage::F32 => Grad::zeroed(&mut single_grad),
            Storage::F64 => Grad::zeroed(&mut double_grad),
            Storage::Bf16 => Grad::zeroed(&mut brain_grad),
            _ => Grad::zeroed(&mut half_grad),
        };
        let mut states = moments.map(|storage| adam.state_in(storage, 300));
        let mut arrays = states.iter_mut().map(|state| state.moment_mut("exp_avg").expect("kept"));
        let (first, second) = (arrays.next().expect("one"), arrays.next().expect("another"));
        let mut steps = 5;
        let tensor = Tensor::new(param_array, grad_array, &mut steps).with_moments([first, second]);
        let error = adam.step_tensors(&mut [tensor], &options(EXEC)).err();
        if error.is_some() {
            assert_eq!((single, double, brain), ([1.0; 300], [1.0; 300], [one; 300]));
            assert_eq!((half, steps), ([f16::ONE; 300], 5));
            assert_eq!((single_grad, double_grad), ([1.0; 300], [1.0; 300]));
            assert_eq!((brain_grad, half_grad), ([one; 300], [f16::ONE; 300]));
            for (state, storage) in states.iter().zip(moments) {
                let fresh = adam.state_in(storage, 300);
                assert_eq!(state.moment("exp_avg"), fresh.moment("exp_avg"));
            }
        }
        error
    };
    let mismatch = |argument, found, expected| {
        Some(Error::TypeMismatch { tensor: 0, argument, found, expected })
    };
    use Storage::{Bf16, F16, F32, F64, Q8};
    let is_f64 = |storage| storage == F64;
    for param in [F32, F64, Bf16, F16] {
        for grad in [F32, F64, Bf16, F16] {
            for first in [F32, F64, Bf16, Q8] {
                for second in [F32, F64, Bf16, Q8] {
                    let arrays = [("grad", grad), ("exp_avg", first), ("exp_avg_sq", second)];
                    let wrong =
                        arrays.into_iter().find(|&(_, array)| is_f64(array) != is_f64(param));
                    let expected = wrong.and_then(|(name, array)| mismatch(name, array, param));
                    assert_eq!(refused(param, grad, [first, second]), expected);
                }
            }
        }
    }
    assert_eq!(
        mismatch("grad", F64, Bf16).map(|error| error.to_string()).as_deref(),
        Some("grad of tensor 0 is f64, which does not go with bf16")
    );
}

/// What `what` makes of a step of a tensor in each of the types; on an error, fails if anything has
/// changed.
fn with_options(options: &StepOptions<'_>) -> [Result<Report, Error>; 4] {
    fn of<F: Element + PartialEq + std::fmt::Debug>(
        one: F,
        storage: Storage,
        options: &StepOptions<'_>,
    ) -> Result<Report, Error> {
        let adam = Adam::default();
        let (mut param, mut grad, mut state) = ([one; 5], [one; 5], adam.state_in(storage, 5));
        let tensor = state.tensor(F::param(&mut param), Grad::zeroed(&mut grad));
        let found = adam.step_tensors(&mut [tensor], options);
        if found.is_err() {
            let fresh = adam.state_in(storage, 5);
            assert_eq!((param, grad, state.steps()), ([one; 5], [one; 5], 0));
            assert!(state.moments().eq(fresh.moments()));
        }
        found
    }
    [
        of(1.0_f32, Storage::F32, options),
        of(1.0_f64, Storage::F64, options),
        of(bf16::ONE, Storage::Bf16, options),
        of(f16::ONE, Storage::Q8, options),
    ]
}

#[test]
fn a_factor_that_is_no_normal_number_over_0_is_refused_in_every_type() {
    let refused = |grad_factor: f64, allowed: &'static str| {
        // Whether or not a norm is passed, that would leave the step out.
        for grad_norm in [None, Some(1.0), Some(f64::NAN)] {
            for max_norm in [None, Some(1.0)] {
                let options = StepOptions { grad_factor, grad_norm, max_norm, ..options(EXEC) };
                for found in with_options(&options) {
                    let error = found.expect_err("a bad factor");
                    let expected =
                        Error::Option { name: "grad_factor", value: grad_factor, allowed };
                    assert_eq!(error.to_string(), expected.to_string());
                }
            }
        }
    };
    let positive = -f64::MIN_POSITIVE;
    for factor in [0.0, -0.0, -1.0, positive, 5e-324, f64::INFINITY, f64::NEG_INFINITY, f64::NAN] {
        refused(factor, "a normal number over 0");
    }
}

/// In f32 a factor of 1e-46 is 0, 1e-44 is 2 % off, and 1e39 is infinite.
#[test]
fn a_factor_that_f32_cannot_hold_is_refused_but_for_f64() {
    let smallest = f64::from(f32::MIN_POSITIVE);
    for grad_factor in [1e-46, 1e-44, 1e-39, smallest * (1.0 - 1e-6), 1e39, 1e300, f64::MAX] {
        let options = StepOptions { grad_factor, ..options(EXEC) };
        for (place, found) in with_options(&options).into_iter().enumerate() {
            match found {
                Ok(report) => assert_eq!((report.outcome, place), (Outcome::Taken, 1)),
                Err(error) => {
                    let is_like = matches!(error, Error::Option { name: "grad_factor", value, .. } if value == grad_factor);
                    assert!(is_like && place != 1, "{error}");
                }
            }
        }
    }
    for grad_factor in [smallest, 1.0, f64::from(f32::MAX)] {
        let options = StepOptions { grad_factor, ..options(EXEC) };
        for found in with_options(&options) {
            assert_eq!(found.expect("a valid factor").outcome, Outcome::Taken);
        }
    }
}

/// Clipping makes the factor smaller.
#[test]
fn a_clipped_factor_that_f32_cannot_hold_is_refused_but_for_f64() {
    let options = StepOptions { max_norm: Some(1e-40), grad_norm: Some(1.0), ..options(EXEC) };
    let found = with_options(&options).map(|found| found.is_ok());
    assert_eq!(found, [false, true, false, false]);
    let message = "grad_factor is 9.99999000001e-41, but must be a normal number over 0 in the type \
                   of the step, with clipping, too";
    let error = with_options(&options)[0].clone().expect_err("refused");
    assert_eq!(error.to_string().replace("9.999990000009999e-41", "9.99999000001e-41"), message);
}

#[test]
fn norms_that_no_vector_can_have_are_refused_in_every_type() {
    let max_norms =
        [(0.0, "0"), (-0.0, "-0"), (-1.5, "-1.5"), (f64::NEG_INFINITY, "-inf"), (f64::NAN, "NaN")];
    for (max_norm, text) in max_norms {
        for found in with_options(&StepOptions { max_norm: Some(max_norm), ..options(EXEC) }) {
            let error = found.expect_err("a bad norm").to_string();
            assert_eq!(error, format!("max_norm is {text}, but must be over 0"));
        }
    }
    for (grad_norm, text) in [(-1.0, "-1"), (-5e-324, "-5e-324"), (f64::NEG_INFINITY, "-inf")] {
        for found in with_options(&StepOptions { grad_norm: Some(grad_norm), ..options(EXEC) }) {
            let error = found.expect_err("a bad norm").to_string();
            let allowed = "at least 0, infinite or NaN";
            assert_eq!(error, format!("grad_norm is {text}, but must be {allowed}"));
        }
    }
    // No gradient is too long for it.
    let options = StepOptions { max_norm: Some(f64::INFINITY), ..options(EXEC) };
    for found in with_options(&options) {
        assert_eq!(found.expect("a valid norm").outcome, Outcome::Taken);
    }
}

#[test]
fn a_refused_step_is_not_counted_and_a_step_count_does_not_overflow() {
    let adam = Adam::default();
    let mut state = adam.state(3);
    let mut param = [1.0_f32; 3];
    let short = adam.step(&mut param, &[0.1; 2], &mut state);
    assert_eq!(
        short,
        Err(Error::LengthMismatch { tensor: 0, argument: "grad", len: 2, expected: 3 })
    );
    assert_eq!((param, state.steps()), ([1.0; 3], 0));
    let wrong_state = adam.step(&mut [1.0_f32; 4], &[0.1; 4], &mut state);
    assert_eq!(
        wrong_state,
        Err(Error::LengthMismatch { tensor: 0, argument: "exp_avg", len: 3, expected: 4 })
    );

    state.set_steps(u64::MAX - 1);
    assert_eq!(adam.step(&mut param, &[0.1; 3], &mut state), Ok(()));
    assert_eq!(state.steps(), u64::MAX);
    let before = param;
    assert_eq!(adam.step(&mut param, &[0.1; 3], &mut state), Err(Error::StepOverflow));
    assert_eq!((param, state.steps()), (before, u64::MAX));
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

/// Has the right outcome for every value of the variable; `.ci/run` sets some.
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
    assert_eq!(step_of_none(&Adam::default(), Exec::default()), expected.map(|_| ()));
}

/// Compiling the others without optimization would take minutes; `.ci/run` tests such a build.
#[test]
#[cfg(unoptimized)]
fn a_build_without_optimization_has_the_scalar_set_alone() {
    assert_eq!(Isa::available(), [Isa::Scalar]);
    let error = step_of_none(&Adam::default(), exec(Isa::Avx2, false)).unwrap_err();
    assert_eq!(error, Error::IsaUnavailable { isa: Isa::Avx2, available: vec![Isa::Scalar] });
}
