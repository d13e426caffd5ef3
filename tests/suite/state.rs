//! Moments that adamant owns: their first values, their place in memory, how they are saved and restored; and steps
//! with them have the bits of steps with the caller's arrays.

mod refused;
mod restored;

#[cfg(target_arch = "x86_64")]
use crate::modes::{ODD_MODES, in_modes};
use crate::support::{ForEachRule, for_each_rule, serial};
use adamant::{
    AdaGrad, Adam, AmsGrad, DynOptimizer, Error, Grad, Group, Moment, MomentRef, Optimizer,
    Outcome, Param, Report, RmsProp, Sgd, State, StepOptions, Storage, Tensor,
    rule::{BuiltIn, Float, Rule},
    table::{RowGrads, RowOptimizer},
};
use half::bf16;

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

/// Plain steps of every optimizer in every setting, which have a short way through the crate if they are small and all
/// arrays are of one type.
struct EveryPlainStep;

impl ForEachRule for EveryPlainStep {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        // Not compiled for each optimizer.
        fn check<F: Float>(rule: &dyn DynOptimizer, numbers: Vec<F>, storage: Storage) {
            let [mut plain, mut other] = [(); 2].map(|()| rule.state_in(storage, numbers.len()));
            let [mut param, mut other_param] = [(); 2].map(|()| numbers.clone());
            for t in 1..=3 {
                assert_eq!(rule.step(&mut param, &numbers, &mut plain), Ok(()));
                let tensor = other.tensor(F::param(&mut other_param), F::grad(&numbers));
                taken(rule.step_tensors(&mut [tensor], &options()));
                assert_eq!((plain.steps(), other.steps()), (t, t));
            }
            // With their texts, since an epsilon of 0 makes NaN.
            assert_eq!(format!("{param:?}"), format!("{other_param:?}"));
            assert_eq!(format!("{:?}", saved(&plain)), format!("{:?}", saved(&other)));
        }
        for len in [0, 1, 70] {
            let numbers = numbers(len);
            check(&rule, numbers.clone(), Storage::F32);
            check(&rule, numbers.clone(), Storage::Bf16);
            check(&rule, numbers.iter().map(|&number| f64::from(number)).collect(), Storage::F64);
        }
    }
}

#[test]
fn a_plain_step_of_every_optimizer_has_the_bits_of_one_with_options() {
    for_each_rule(&mut EveryPlainStep);
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

/// Values that are between two of the narrower type, and some that are subnormal in it.
#[cfg(target_arch = "x86_64")]
#[test]
fn the_floating_point_modes_of_the_caller_do_not_change_moments() {
    let values = [0.7, 0.1, 1e-40, 3e-42, 1e-6, 0.3];
    let single = values.map(|value| f32::from_bits((value as f32).to_bits() | 1));
    let moments = || {
        let mut all = vec![];
        for storage in [Storage::F32, Storage::F64, Storage::Bf16, Storage::F16, Storage::Q8] {
            for start in values {
                let rule = AdaGrad { initial_accumulator_value: start, ..AdaGrad::default() };
                let name = AdaGrad::MOMENT_NAMES[0];
                let mut state = rule.state_in(storage, values.len());
                all.push(state.moment_to_f32(name));
                state.set_moment_from_f32(name, &single).expect("as many values");
                all.push(state.moment_to_f32(name));
            }
        }
        all
    };
    let usual = moments();
    for modes in ODD_MODES {
        assert_eq!(in_modes(modes, moments), (usual.clone(), modes));
    }
}
