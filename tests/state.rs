//! Moments that adamant owns: their first values, their place in memory, how they are saved and restored; and steps
//! with them have the bits of steps with the caller's arrays.

mod support;

use adamant::{
    AdaGrad, Adam, AmsGrad, Error, Grad, Group, Lion, Moment, MomentRef, NAdam, Optimizer, Outcome,
    Param, Report, RmsProp, Sgd, State, StepOptions, Storage, Tensor,
    rule::{BuiltIn, MOMENTS, Rule},
    table::{CatchUp, DenseEquivalent, RowGrads, RowOptimizer, RowWiseAdam},
};
use half::bf16;
use support::{ForEachRule, for_each_rule, serial};

/// The storages of moments.
const STORAGES: [Storage; 4] = [Storage::F32, Storage::F64, Storage::Bf16, Storage::Q8];
/// The storages of moments whose parameters are `f32`.
const SINGLE: [Storage; 3] = [Storage::F32, Storage::Bf16, Storage::Q8];

fn options() -> StepOptions<'static> {
    StepOptions { exec: serial(), ..StepOptions::default() }
}

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.37).sin()).collect()
}

#[track_caller]
fn taken(report: Result<Report, Error>) {
    assert_eq!(report.expect("a valid step").outcome, Outcome::Taken);
}

/// A moment that the test owns.
#[derive(Clone, Debug, PartialEq)]
enum Own {
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bf16(Vec<bf16>),
    Q8(Vec<u8>, Vec<f32>),
}

impl Own {
    fn copy(moment: MomentRef<'_>) -> Self {
        match moment {
            MomentRef::F32(moment) => Self::F32(moment.to_vec()),
            MomentRef::F64(moment) => Self::F64(moment.to_vec()),
            MomentRef::Bf16(moment) => Self::Bf16(moment.to_vec()),
            MomentRef::Q8(codes, scales) => Self::Q8(codes.to_vec(), scales.to_vec()),
            other => panic!("{other:?}"),
        }
    }

    fn borrow(&mut self) -> Moment<'_> {
        match self {
            Self::F32(moment) => Moment::from(moment),
            Self::F64(moment) => Moment::from(moment),
            Self::Bf16(moment) => Moment::from(moment),
            Self::Q8(codes, scales) => Moment::q8(codes, scales),
        }
    }

    fn read(&self) -> MomentRef<'_> {
        match self {
            Self::F32(moment) => MomentRef::F32(moment),
            Self::F64(moment) => MomentRef::F64(moment),
            Self::Bf16(moment) => MomentRef::Bf16(moment),
            Self::Q8(codes, scales) => MomentRef::Q8(codes, scales),
        }
    }
}

fn saved(state: &State) -> Vec<(&'static str, Own)> {
    state.moments().map(|(name, moment)| (name, Own::copy(moment))).collect()
}

/// All moments of a rule, in its order. A moment that its settings do not use is empty.
fn own<R: Rule>(state: &State) -> Vec<Own> {
    let moment = |name| state.moment(name).map_or(Own::F32(vec![]), Own::copy);
    R::MOMENT_NAMES.into_iter().map(moment).collect()
}

fn has_the_bits_of_own_arrays<R: Rule>(rule: &R, storages: &[Storage], len: usize) {
    let mut state = rule.state_of(storages, len);
    let first = 1 << 33;
    state.set_first(first);
    let (mut moments, mut own_steps) = (own::<R>(&state), 0);
    let (mut params, mut own_params) = (numbers(len), numbers(len));
    for t in 1..=5 {
        let options = StepOptions { grad_factor: 0.5, seed: 7, ..options() };
        let grads: Vec<_> = params.iter().map(|&param| bf16::from_f32(param)).collect();
        let (param, grad) = (Param::from(&mut params), Grad::from(&grads));
        taken(rule.step_with(param, grad, &mut state, &options));
        let tensor = Tensor::new(&mut own_params, &grads, &mut own_steps)
            .with_moments(moments.iter_mut().map(Own::borrow))
            .with_first(first);
        taken(rule.step_tensors(&mut [tensor], &options));
        assert_eq!((state.steps(), own_steps), (t, t));
        assert_eq!((&params, own::<R>(&state)), (&own_params, moments.clone()));
    }
}

#[test]
fn steps_have_the_bits_of_steps_with_own_arrays() {
    for (place, storage) in SINGLE.into_iter().enumerate() {
        let (next, last) = (SINGLE[(place + 1) % 3], SINGLE[(place + 2) % 3]);
        for len in [0, 1, 300, 5000] {
            has_the_bits_of_own_arrays(&Adam::adamw(), &[storage, next], len);
            has_the_bits_of_own_arrays(&AmsGrad(Adam::default()), &[storage, next, last], len);
            has_the_bits_of_own_arrays(&RmsProp::default(), &[storage; 3], len);
            has_the_bits_of_own_arrays(&Sgd { lr: 0.1, ..Sgd::default() }, &[storage], len);
            let adagrad = AdaGrad { initial_accumulator_value: 0.3, ..AdaGrad::default() };
            has_the_bits_of_own_arrays(&adagrad, &[storage], len);
            // Moments that are not in the list are f32.
            has_the_bits_of_own_arrays(&Adam::adamw(), &[storage], len);
        }
    }
}

#[test]
fn a_plain_step_has_the_bits_of_one_with_options_in_every_type() {
    fn check<F: adamant::Element + PartialEq>(values: Vec<F>, storage: Storage) {
        let adam = Adam::adamw();
        let [mut plain, mut other] = [(); 2].map(|()| adam.state_in(storage, values.len()));
        let (mut param, mut other_param) = (values.clone(), values.clone());
        for _ in 0..3 {
            adam.step(&mut param, &values, &mut plain).expect("a valid step");
            let (param, grad) = (F::param(&mut other_param), F::grad(&values));
            taken(adam.step_with(param, grad, &mut other, &StepOptions::default()));
        }
        assert_eq!((plain.steps(), other.steps()), (3, 3));
        assert!(param == other_param && param != values);
        assert_eq!(saved(&plain), saved(&other));
    }
    check(numbers(700), Storage::F32);
    check(numbers(700).into_iter().map(f64::from).collect(), Storage::F64);
    check(numbers(700).into_iter().map(bf16::from_f32).collect(), Storage::Q8);
    check(numbers(700).into_iter().map(half::f16::from_f32).collect(), Storage::Bf16);
}

#[test]
fn moments_begin_with_what_the_rule_says() {
    for len in [0, 1, 255, 257, 1000, 1024, 5000, 600_000] {
        for storage in STORAGES {
            let zeros = Adam::default().state_in(storage, len);
            let adagrad = AdaGrad { initial_accumulator_value: 0.3, ..AdaGrad::default() };
            let filled = adagrad.state_in(storage, len);
            for (state, names, start) in
                [(&zeros, &["exp_avg", "exp_avg_sq"][..], 0.0_f32), (&filled, &["sum"], 0.3)]
            {
                assert_eq!((state.len(), state.is_empty(), state.steps()), (len, len == 0, 0));
                let found: Vec<_> = state.moments().map(|(name, _)| name).collect();
                assert_eq!(found, if len == 0 { &[] } else { names });
                for &name in names {
                    let moment = state.moment(name).expect("a moment");
                    assert!(moment.len() == len && (len == 0 || moment.storage() == storage));
                    if let MomentRef::F32(values) = moment {
                        assert!(values.iter().all(|&value| value == start));
                    }
                    if let MomentRef::F64(values) = moment {
                        assert!(values.iter().all(|&value| (value as f32) == start));
                    }
                    let values = state.moment_to_f32(name).expect("a moment");
                    assert_eq!(values.len(), len);
                    // Half a rounding of bf16.
                    assert!(values.iter().all(|value| (value - start).abs() <= start / 256.0));
                }
            }
        }
    }
    // Rounded to the type itself, not to f32 on the way.
    let adagrad = AdaGrad { initial_accumulator_value: 0.3, ..AdaGrad::default() };
    let state = adagrad.state_in(Storage::F64, 2);
    assert_eq!(state.moment("sum"), Some(MomentRef::F64(&[0.3, 0.3])));
}

#[test]
fn moments_begin_on_cache_lines_and_large_ones_at_different_offsets_of_a_page() {
    let address = |moment: MomentRef<'_>| match moment {
        MomentRef::F32(moment) => moment.as_ptr().addr(),
        MomentRef::F64(moment) => moment.as_ptr().addr(),
        MomentRef::Bf16(moment) => moment.as_ptr().addr(),
        MomentRef::Q8(codes, _) => codes.as_ptr().addr(),
        other => panic!("{other:?}"),
    };
    let rule = RmsProp { momentum: 0.9, centered: true, ..RmsProp::default() };
    for len in [1, 17, 1024, 4096, 4097, 10_000, 600_000, 1 << 20, 3_000_000] {
        for storage in STORAGES {
            let state = rule.state_in(storage, len);
            let addresses: Vec<_> = state.moments().map(|(_, moment)| address(moment)).collect();
            assert!(addresses.iter().all(|address| address % 64 == 0), "{len}");
            // From a page on: 1,024 elements of 4 bytes, 4,096 of 1.
            if len == 1024 && storage == Storage::F32 || len >= 4096 {
                for state in [&state, &state.clone()] {
                    let addresses = state.moments().map(|(_, moment)| address(moment));
                    let offsets: Vec<_> = addresses.map(|address| address % 4096).collect();
                    assert_eq!(offsets, [1024, 2048, 3072], "{len}, {storage}");
                }
            }
        }
    }
}

#[test]
fn a_moment_that_the_settings_do_not_use_takes_no_memory() {
    let rmsprop = RmsProp::default();
    let centered = RmsProp { centered: true, ..rmsprop };
    for storage in STORAGES {
        let plain = rmsprop.state_in(storage, 1000);
        let lens: Vec<_> = plain.moments().map(|(name, moment)| (name, moment.len())).collect();
        assert_eq!(lens, [("square_avg", 1000)]);
        let square_avg = plain.moment("square_avg").expect("kept");
        if let MomentRef::Q8(codes, scales) = square_avg {
            assert_eq!((codes.len(), scales.len()), (1000, 4));
        }
        let centered = centered.state_in(storage, 1000);
        let lens: Vec<_> = centered.moments().map(|(name, moment)| (name, moment.len())).collect();
        assert_eq!(lens, [("square_avg", 1000), ("grad_avg", 1000)]);
        for state in [&plain, &centered] {
            assert_eq!(state.moment("momentum_buffer"), None);
            assert_eq!(state.moment_to_f32("momentum_buffer"), None);
        }
    }
}

#[test]
fn a_step_that_is_left_out_is_not_counted_and_writes_no_parameter_and_no_moment() {
    let adam = Adam::default();
    for keep_grads in [false, true] {
        let mut params = [1.0_f32; 3];
        let mut state = adam.state_in(Storage::Bf16, 3);
        state.set_steps(4);
        for (grad_norm, outcome, steps) in [
            (f64::INFINITY, Outcome::LeftOut, 4),
            (f64::NAN, Outcome::LeftOut, 4),
            (1.0, Outcome::Taken, 5),
        ] {
            let before = (params, saved(&state));
            let mut grads = [1.0, f32::INFINITY, 2.0];
            let options =
                StepOptions { grad_norm: Some(grad_norm), keep_grads, ..StepOptions::default() };
            let (param, grad) = (Param::from(&mut params), Grad::zeroed(&mut grads));
            let report = adam.step_with(param, grad, &mut state, &options).expect("a valid call");
            assert_eq!((report.outcome, state.steps()), (outcome, steps));
            assert_eq!((params, saved(&state)) == before, outcome == Outcome::LeftOut);
            let keeps = keep_grads && outcome == Outcome::LeftOut;
            assert_eq!(grads, if keeps { [1.0, f32::INFINITY, 2.0] } else { [0.0; 3] });
        }
    }
}

#[test]
fn a_state_that_does_not_fit_is_refused_and_nothing_is_written() {
    let momentum = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() };
    let mut state = momentum.state_in(Storage::Q8, 300);
    let mut refused = |sgd: Sgd, len: usize, steps, grad_factor, expected: Error| {
        state.set_steps(steps);
        let before = saved(&state);
        let (mut params, mut grads) = (vec![1.0_f32; len], vec![1.0_f32; len]);
        let (param, grad) = (Param::from(&mut params), Grad::zeroed(&mut grads));
        let options = StepOptions { grad_factor, ..options() };
        assert_eq!(sgd.step_with(param, grad, &mut state, &options), Err(expected));
        assert!(params.iter().chain(&grads).all(|&value| value == 1.0));
        assert_eq!((state.steps(), saved(&state)), (steps, before));
    };
    let (tensor, moment) = (0, "momentum_buffer");
    let length = Error::LengthMismatch { tensor, argument: moment, len: 300, expected: 301 };
    refused(momentum, 301, 0, 1.0, length);
    let plain = Sgd { momentum: 0.0, ..momentum };
    refused(plain, 300, 0, 1.0, Error::UnusedMoment { tensor, moment, len: 300 });
    refused(momentum, 300, u64::MAX, 1.0, Error::StepOverflow);
    let (name, value) = ("grad_factor", f64::INFINITY);
    let factor = Error::Option { name, value, allowed: "a normal number over 0" };
    refused(momentum, 300, 0, value, factor);
    let mut without = plain.state_in(Storage::Bf16, 300);
    let (mut params, grads) = ([1.0_f32; 300], [1.0_f32; 300]);
    let (param, grad) = (Param::from(&mut params), Grad::from(&grads));
    let found = momentum.step_with(param, grad, &mut without, &options());
    let length = Error::LengthMismatch { tensor, argument: moment, len: 0, expected: 300 };
    assert_eq!((found, params), (Err(length), [1.0; 300]));
}

#[test]
fn a_state_of_another_optimizer_is_refused_unless_its_moments_have_the_same_names() {
    fn found<A: Rule, B: Rule>(made_by: &A, used_by: &B) -> Option<Error> {
        let mut state = made_by.state(5);
        let (mut params, grads) = ([1.0_f32; 5], [1.0_f32; 5]);
        let before = saved(&state);
        let error = used_by.step(&mut params, &grads, &mut state).err();
        if error.is_some() {
            assert_eq!((params, state.steps(), saved(&state)), ([1.0; 5], 0, before));
        }
        error
    }
    let mismatch = |found, expected| Some(Error::StateMismatch { tensor: 0, found, expected });
    let (adam, lion, rmsprop) = (Adam::default(), Lion::default(), RmsProp::default());
    assert_eq!(found(&adam, &adam), None);
    assert_eq!(found(&adam, &NAdam::default()), None);
    assert_eq!(found(&rmsprop, &adam), mismatch("square_avg", "exp_avg"));
    assert_eq!(found(&adam, &rmsprop), mismatch("exp_avg", "square_avg"));
    // One optimizer has moments that the other does not have.
    assert_eq!(found(&lion, &adam), mismatch("", "exp_avg_sq"));
    assert_eq!(found(&adam, &lion), mismatch("exp_avg_sq", ""));
    assert_eq!(found(&AmsGrad(adam), &adam), mismatch("max_exp_avg_sq", ""));
    assert_eq!(found(&adam, &AmsGrad(adam)), mismatch("", "max_exp_avg_sq"));
    for (found, expected, text) in [
        ("square_avg", "exp_avg", "it has square_avg, not exp_avg"),
        ("", "exp_avg_sq", "it has no exp_avg_sq"),
        ("exp_avg_sq", "", "it has exp_avg_sq, which this one does not use"),
    ] {
        let message = format!("the state of tensor 0 is another optimizer's: {text}");
        assert_eq!(mismatch(found, expected).map(|error| error.to_string()), Some(message));
    }
}

#[test]
fn a_state_of_another_optimizer_is_refused_for_a_table_too() {
    let (adam, lion) = (Adam::default(), Lion::default());
    let grads = RowGrads::new(&[1_u32], &[0.5, 0.5], 2);
    let mismatch = |found, expected| Err(Error::StateMismatch { tensor: 0, found, expected });
    let mut param = [1.0_f32; 8];

    let mut state = adam.row_state(4, 2);
    let found = lion.step_rows_lazy(&mut param, grads, &mut state);
    assert_eq!((found, state.steps()), (mismatch("exp_avg_sq", ""), 0));
    let mut state = lion.row_state(4, 2);
    let found = adam.step_rows_lazy(&mut param, grads, &mut state);
    assert_eq!((found, state.steps()), (mismatch("", "exp_avg_sq"), 0));
    let mut waiting = DenseEquivalent::<f32>::new(4, CatchUp::Replay);
    let found = waiting.catch_up_all(state.table(&mut param, 2));
    assert_eq!(found, mismatch("", "exp_avg_sq"));

    // Moments of another type, or for a table of another size.
    let (argument, found, expected) = ("exp_avg", Storage::F64, Storage::F32);
    let mut state = adam.row_state_in(found, 4, 2);
    let type_mismatch = Error::TypeMismatch { tensor: 0, argument, found, expected };
    assert_eq!(adam.step_rows_lazy(&mut param, grads, &mut state), Err(type_mismatch));
    let mut state = RowWiseAdam(adam).row_state(4, 2);
    let (moment, len, rows, width, expected) = ("exp_avg_sq", 4, 4, 2, 8);
    let length = Error::MomentMismatch { moment, len, rows, width, expected };
    assert_eq!(adam.step_rows_lazy(&mut param, grads, &mut state), Err(length));
    assert_eq!((param, state.steps()), ([1.0; 8], 0));
}

/// Steps on rows of every optimizer in every setting, with moments in a state.
struct EveryTable;

impl ForEachRule for EveryTable {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        fn check<R: Rule, F: adamant::rule::Float>(rule: &R) {
            let one = F::from_f64(1.0);
            let (mut param, values) = ([one; 8], [one; 4]);
            let mut state = rule.row_state_in(F::STORAGE, 4, 2);
            let grads = RowGrads::new(&[1_u32, 3], &values, 2);
            assert_eq!(rule.step_rows_lazy(&mut param, grads, &mut state), Ok(()));
            assert_eq!((state.steps(), state.len()), (1, 8));
            assert!(param[0] == one && param[5] == one);
        }
        check::<R, f32>(&rule);
        check::<R, f64>(&rule);
    }
}

#[test]
fn tables_of_every_optimizer_are_stepped_with_a_state_in_both_types() {
    for_each_rule(&mut EveryTable);
}

/// Some steps of a run: parameters in bf16, rounded at random.
fn run(adam: &Adam, params: &mut [bf16], state: &mut State, steps: usize) {
    for _ in 0..steps {
        let grads = params.to_vec();
        let options = StepOptions { seed: 3, ..StepOptions::default() };
        let (param, grad) = (Param::stochastic(params), Grad::from(&grads));
        taken(adam.step_with(param, grad, state, &options));
    }
}

#[test]
fn a_run_that_is_restored_goes_on_with_the_same_bits() {
    let adam = Adam { lr: 0.01, ..Adam::adamw() };
    for storage in SINGLE {
        let mut params: Vec<_> = numbers(1000).into_iter().map(bf16::from_f32).collect();
        let mut state = adam.state_in(storage, params.len());
        state.set_first(77);
        run(&adam, &mut params, &mut state, 10);
        let checkpoint = (params.clone(), state.steps(), state.first(), saved(&state));
        run(&adam, &mut params, &mut state, 10);

        let (mut restored_params, steps, first, moments) = checkpoint;
        let mut restored = adam.state_in(storage, 1000);
        restored.set_steps(steps);
        restored.set_first(first);
        for (name, saved) in &moments {
            let mut moment = restored.moment_mut(name).expect("the same moments");
            assert_eq!(moment.copy_from(saved.read()), Ok(()));
        }
        run(&adam, &mut restored_params, &mut restored, 10);
        assert_eq!((&restored_params, restored.steps()), (&params, 20));
        assert_eq!(saved(&restored), saved(&state));
        assert_eq!(format!("{restored:?}"), format!("{state:?}"));
    }
}

#[test]
fn moments_are_restored_from_f32_into_any_storage() {
    let adam = Adam::default();
    let values: Vec<f32> = numbers(600).iter().map(|value| value.abs() + 0.01).collect();
    for storage in STORAGES {
        let mut state = adam.state_in(storage, 600);
        for name in ["exp_avg", "exp_avg_sq"] {
            assert_eq!(state.set_moment_from_f32(name, &values), Ok(()));
            let found = state.moment_to_f32(name).expect("a moment");
            for (&found, &value) in found.iter().zip(&values) {
                match storage {
                    Storage::Bf16 => assert_eq!(found, bf16::from_f32(value).to_f32()),
                    // Half the distance of neighbours.
                    Storage::Q8 => {
                        assert!((found - value).abs() <= value / 16.0, "{found} {value}")
                    }
                    _ => assert_eq!(found, value),
                }
            }
            // Numbers that were rounded once are kept exactly.
            let before = saved(&state);
            assert_eq!(state.set_moment_from_f32(name, &found), Ok(()));
            if storage != Storage::Q8 {
                assert_eq!(saved(&state), before);
            }
        }
    }
}

#[test]
fn moments_of_an_empty_tensor_are_restored_from_and_into_arrays_of_any_type() {
    let mut state = Adam::default().state_in(Storage::Bf16, 0);
    let (mut half, mut single): (Vec<bf16>, Vec<f32>) = (vec![], vec![]);
    for mut moment in [Moment::from(&mut half), Moment::from(&mut single), Moment::none()] {
        let mut kept = state.moment_mut("exp_avg").expect("a moment");
        assert_eq!(kept.copy_from(moment.read()), Ok(()));
        assert_eq!(moment.copy_from(kept.read()), Ok(()));
        let error = moment.copy_from(MomentRef::F64(&[1.0])).expect_err("an element");
        assert!(matches!(error, Error::TypeMismatch { .. }), "{error}");
    }
}

#[test]
fn arrays_that_do_not_fit_a_moment_are_not_restored() {
    let adam = Adam::default();
    for storage in STORAGES {
        let mut state = adam.state_in(storage, 300);
        let before = saved(&state);
        let unknown =
            state.set_moment_from_f32("momentum", &[0.0; 300]).expect_err("no such moment");
        let known = vec!["exp_avg", "exp_avg_sq"];
        assert_eq!(unknown, Error::UnknownMoment { name: "momentum".into(), known });
        let message = "the state has no moment \"momentum\"; known: exp_avg, exp_avg_sq";
        assert_eq!(unknown.to_string(), message);
        assert!(state.moment("momentum").is_none() && state.moment_mut("momentum").is_none());

        let (tensor, argument, expected) = (0, "saved moment", 300);
        let length = |len| Err(Error::LengthMismatch { tensor, argument, len, expected });
        for len in [0, 299, 301] {
            assert_eq!(state.set_moment_from_f32("exp_avg", &vec![0.5; len]), length(len));
        }
        let mut moment = state.moment_mut("exp_avg").expect("a moment");
        for other in STORAGES {
            let saved = adam.state_in(other, 299);
            let found = moment.copy_from(saved.moment("exp_avg").expect("a moment"));
            let expected = storage;
            let other_type = Error::TypeMismatch { tensor, argument, found: other, expected };
            assert_eq!(found, if other == storage { length(299) } else { Err(other_type) });
        }
        if storage == Storage::Q8 {
            let found = moment.copy_from(MomentRef::Q8(&[1; 300], &[1.0]));
            let (moment, len, expected) = ("saved moment", 1, 2);
            assert_eq!(found, Err(Error::ScalesMismatch { tensor, moment, len, expected }));
        }
        assert_eq!(saved(&state), before);
    }
}

#[test]
fn a_clone_does_not_share_memory_with_its_original() {
    let adam = Adam::default();
    for storage in SINGLE {
        let mut params = vec![bf16::ONE; 2000];
        let mut state = adam.state_in(storage, params.len());
        state.set_first(9);
        run(&adam, &mut params, &mut state, 1);
        let (mut other, mut other_params) = (state.clone(), params.clone());
        assert_eq!((other.steps(), other.len(), saved(&other)), (1, 2000, saved(&state)));
        run(&adam, &mut params, &mut state, 1);
        assert_ne!(saved(&other), saved(&state));
        run(&adam, &mut other_params, &mut other, 1);
        assert_eq!((other_params, saved(&other)), (params, saved(&state)));
    }
}

#[test]
fn tensors_of_a_model_have_the_bits_of_one_that_is_all_of_it() {
    let adam = Adam::default();
    let (mut whole, grads) = (numbers(1000), numbers(1000));
    let mut parts = whole.clone();
    let mut state = adam.state_in(Storage::Bf16, 1000);
    let [mut weight, mut bias] = [700, 300].map(|len| adam.state_in(Storage::Bf16, len));
    bias.set_first(700);
    assert_eq!((bias.first(), bias.len(), bias.is_empty()), (Some(700), 300, false));
    for t in 1..=4 {
        let (param, grad) = (Param::from(&mut whole), Grad::from(&grads));
        taken(adam.step_with(param, grad, &mut state, &StepOptions::default()));
        // The caller numbers the elements in any order, or the order of tensors does.
        bias.set_first((t < 3).then_some(700_u64));
        let (weights, biases) = parts.split_at_mut(700);
        let weight = weight.tensor(weights, &grads[..700]);
        let bias = bias.tensor(biases, &grads[700..]);
        match t {
            1 => taken(adam.step_tensors(&mut [weight, bias], &options())),
            2 => taken(adam.step_tensors(&mut [bias, weight.with_first(0)], &options())),
            3 => taken(adam.step_tensors(&mut [weight, bias], &options())),
            _ => {
                let (weight, bias) = (&mut [weight], &mut [bias]);
                let groups = &mut [
                    Group::new(&adam, weight),
                    Group::new(&adam, &mut []),
                    Group::new(&adam, bias),
                ];
                taken(adamant::step(groups, &options()));
            }
        }
    }
    assert_eq!((&parts, weight.steps(), bias.steps()), (&whole, 4, 4));
    for name in ["exp_avg", "exp_avg_sq"] {
        let values = |state: &State| state.moment_to_f32(name).expect("a moment");
        assert_eq!([values(&weight), values(&bias)].concat(), values(&state));
    }
}

/// Two tensors with equal values, whose elements the caller has not numbered.
#[test]
fn tensors_of_a_call_are_rounded_by_bits_of_their_own() {
    let adam = Adam::default();
    let grads = numbers(1000);
    let [mut one, mut other] = [(); 2].map(|()| adam.state_in(Storage::Bf16, 1000));
    let [mut params, mut other_params] = [(); 2].map(|()| numbers(1000));
    let tensors = &mut [one.tensor(&mut params, &grads), other.tensor(&mut other_params, &grads)];
    taken(adam.step_tensors(tensors, &options()));
    let values = |state: &State| state.moment_to_f32("exp_avg").expect("a moment");
    let (one, other) = (values(&one), values(&other));
    let differ = one.iter().zip(&other).filter(|(one, other)| one != other).count();
    // Half of the elements, if one of two neighbours is as likely as the other; about a third in all.
    assert!((200..500).contains(&differ), "{differ}");
}

#[test]
fn more_moments_than_an_optimizer_has_are_refused_though_they_are_empty() {
    let (mut param, grad, mut steps) = ([1.0_f32; 3], [1.0_f32; 3], 0);
    let [mut m, mut v] = [[0.0_f32; 3]; 2];
    let adam = Adam::default();
    for passed in [3, MOMENTS, MOMENTS + 1] {
        let given = [Moment::from(&mut m), Moment::from(&mut v)];
        let more = (2..passed).map(|_| Moment::none());
        let tensor =
            Tensor::new(&mut param, &grad, &mut steps).with_moments(given.into_iter().chain(more));
        let found = adam.step_tensors(&mut [tensor], &options());
        let error = Error::TooManyMoments { tensor: 0, passed, optimizer: 2 };
        let message = format!("tensor 0 has {passed} moments, but the optimizer has 2");
        assert_eq!(error.to_string(), message);
        assert_eq!((found, param, m, v, steps), (Err(error), [1.0; 3], [0.0; 3], [0.0; 3], 0));
    }
}
