//! Moments in mixed precision that adamant owns: what they begin with, where they lie, and that steps
//! with them are those of [`MixedOptimizer::step_mixed`].

use adamant::{
    AdaGrad, Adam, AmsGrad, Arity, Error, Exec, Grad, Isa, Many, MixedOptimizer, MixedState,
    MixedTensor, Moment, MomentRef, Outcome, Param, Pass, Q8, RmsProp, Rule, Sgd, Storage,
};
use half::bf16;

const STORAGES: [Storage; 3] = [Storage::F32, Storage::Bf16, Storage::Q8];
const SERIAL: Exec = Exec { isa: Isa::Scalar, parallel: false };

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 0.37).sin()).collect()
}

fn kept_in(moment: MomentRef<'_>) -> Storage {
    match moment {
        MomentRef::F32(_) => Storage::F32,
        MomentRef::Bf16(_) => Storage::Bf16,
        MomentRef::Q8(..) => Storage::Q8,
    }
}

/// A moment that the test owns.
#[derive(Debug, PartialEq)]
enum Own {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    Q8(Vec<u8>, Vec<f32>),
}

impl Own {
    fn copy(moment: MomentRef<'_>) -> Self {
        match moment {
            MomentRef::F32(moment) => Self::F32(moment.to_vec()),
            MomentRef::Bf16(moment) => Self::Bf16(moment.to_vec()),
            MomentRef::Q8(codes, scales) => Self::Q8(codes.to_vec(), scales.to_vec()),
        }
    }

    fn restore(&self, moment: Moment<'_>) {
        match (moment, self) {
            (Moment::F32(moment), Self::F32(saved)) => moment.copy_from_slice(saved),
            (Moment::Bf16(moment), Self::Bf16(saved)) => moment.copy_from_slice(saved),
            (Moment::Q8(codes, scales), Self::Q8(saved, saved_scales)) => {
                codes.copy_from_slice(saved);
                scales.copy_from_slice(saved_scales);
            }
            (moment, saved) => panic!("{moment:?} is no {saved:?}"),
        }
    }

    fn borrow(&mut self) -> Moment<'_> {
        match self {
            Self::F32(moment) => Moment::F32(moment),
            Self::Bf16(moment) => Moment::Bf16(moment),
            Self::Q8(codes, scales) => Moment::Q8(codes, scales),
        }
    }
}

fn saved<R: Rule>(state: &MixedState<R>) -> Vec<Own> {
    state.moments().into_iter().map(Own::copy).collect()
}

fn has_the_bits_of_own_arrays<R: Rule>(rule: &R, storage: Many<R::Moments, Storage>, len: usize) {
    let mut state = rule.mixed_state_of(len, storage);
    let first = 1 << 33;
    state.set_first(first);
    let mut own = saved(&state);
    let (mut params, mut own_params) = (numbers(len), numbers(len));
    for t in 1..=5 {
        let pass = Pass { grad_factor: 0.5, seed: 7, ..Pass::default() };
        let grads: Vec<_> = params.iter().map(|&param| bf16::from_f32(param)).collect();
        let (param, grad) = (Param::F32(&mut params), Grad::Bf16(&grads));
        let outcome = rule.step_with_on(SERIAL, param, grad, pass, &mut state);
        assert_eq!(outcome, Ok(Outcome::Taken));
        let mut moments = own.iter_mut();
        let tensor = MixedTensor::<R> {
            param: Param::F32(&mut own_params),
            grad: Grad::Bf16(&grads),
            moments: R::Moments::from_fn(|_| moments.next().expect("a moment").borrow()),
            first,
        };
        assert_eq!(rule.step_mixed(SERIAL, t, pass, &mut [tensor]), Ok(Outcome::Taken));
        assert_eq!(
            (state.step(), &params, saved(&state)),
            (t, &own_params, {
                let copies = own.iter_mut().map(|moment| match moment.borrow() {
                    Moment::F32(moment) => Own::F32(moment.to_vec()),
                    Moment::Bf16(moment) => Own::Bf16(moment.to_vec()),
                    Moment::Q8(codes, scales) => Own::Q8(codes.to_vec(), scales.to_vec()),
                });
                copies.collect()
            })
        );
    }
}

#[test]
fn steps_have_the_bits_of_steps_with_own_arrays() {
    for (place, storage) in STORAGES.into_iter().enumerate() {
        let (next, last) = (STORAGES[(place + 1) % 3], STORAGES[(place + 2) % 3]);
        for len in [0, 1, 300, 5000] {
            has_the_bits_of_own_arrays(&Adam::adamw(), [storage, next], len);
            has_the_bits_of_own_arrays(&AmsGrad(Adam::default()), [storage, next, last], len);
            has_the_bits_of_own_arrays(&RmsProp::default(), [storage; 3], len);
            has_the_bits_of_own_arrays(&Sgd { lr: 0.1, ..Sgd::default() }, [storage], len);
            let adagrad = AdaGrad { initial_accumulator_value: 0.3, ..AdaGrad::default() };
            has_the_bits_of_own_arrays(&adagrad, [storage], len);
        }
    }
}

#[test]
fn moments_begin_with_what_the_rule_says() {
    for len in [0, 1, 255, 257, 5000] {
        for storage in STORAGES {
            let zeros = Adam::default().mixed_state(len, storage);
            let adagrad = AdaGrad { initial_accumulator_value: 0.3, ..AdaGrad::default() };
            let filled = adagrad.mixed_state(len, storage);
            let moments = zeros.moments().into_iter().zip([0.0, 0.0]);
            for (moment, start) in moments.chain(filled.moments().into_iter().zip([0.3])) {
                assert_eq!(kept_in(moment), storage);
                let values = match moment {
                    MomentRef::F32(values) => values.to_vec(),
                    MomentRef::Bf16(values) => values.iter().map(|value| value.to_f32()).collect(),
                    MomentRef::Q8(codes, scales) => {
                        let mut values = vec![0.0; codes.len()];
                        Q8::Squares.decode(codes, scales, &mut values).expect("fitting scales");
                        values
                    }
                };
                assert_eq!(values.len(), len);
                // Half a rounding of bf16.
                assert!(values.iter().all(|value| (value - start).abs() <= start / 256.0));
            }
        }
    }
}

#[test]
fn moments_begin_on_cache_lines_and_large_ones_at_different_offsets_of_a_page() {
    let addresses = |moment: MomentRef<'_>| match moment {
        MomentRef::F32(moment) => moment.as_ptr().addr(),
        MomentRef::Bf16(moment) => moment.as_ptr().addr(),
        MomentRef::Q8(codes, _) => codes.as_ptr().addr(),
    };
    let rule = RmsProp { momentum: 0.9, centered: true, ..RmsProp::default() };
    for len in [1, 17, 3_000_000] {
        for storage in STORAGES {
            let addresses = rule.mixed_state(len, storage).moments().map(addresses);
            assert!(addresses.iter().all(|address| address % 64 == 0), "{len}");
            if len == 3_000_000 {
                let offsets = addresses.map(|address| address % 4096);
                assert_eq!(offsets, [1024, 2048, 3072], "{storage:?}");
            }
        }
    }
}

#[test]
fn a_moment_that_the_rule_does_without_takes_no_memory() {
    for storage in STORAGES {
        let lens =
            RmsProp::default().mixed_state(1000, storage).moments().map(|moment| match moment {
                MomentRef::F32(moment) => [moment.len(), 0],
                MomentRef::Bf16(moment) => [moment.len(), 0],
                MomentRef::Q8(codes, scales) => [codes.len(), scales.len()],
            });
        let scales = if storage == Storage::Q8 { 4 } else { 0 };
        assert_eq!(lens, [[1000, scales], [0, 0], [0, 0]]);
    }
}

#[test]
fn a_step_that_is_left_out_is_not_counted_and_writes_nothing() {
    let adam = Adam::default();
    let (mut params, mut grads) = ([1.0; 3], [1.0, f32::INFINITY, 2.0]);
    let mut state = adam.mixed_state(3, Storage::Bf16);
    state.set_step(4);
    for (grad_norm, outcome, step) in [
        (f64::INFINITY, Outcome::LeftOut, 4),
        (f64::NAN, Outcome::LeftOut, 4),
        (1.0, Outcome::Taken, 5),
    ] {
        let before = (params, saved(&state));
        let pass = Pass { grad_norm: Some(grad_norm), ..Pass::default() };
        let (param, grad) = (Param::F32(&mut params), Grad::F32ToZero(&mut grads));
        assert_eq!(adam.step_with(param, grad, pass, &mut state), Ok(outcome));
        assert_eq!(state.step(), step);
        let is_same = (params, saved(&state)) == before && grads[1] == f32::INFINITY;
        assert_eq!(is_same, outcome == Outcome::LeftOut);
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_is_written() {
    let momentum = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() };
    let mut state = momentum.mixed_state(300, Storage::Q8);
    let mut refused = |sgd: Sgd, len: usize, step, grad_factor, expected: Error| {
        state.set_step(step);
        let before = saved(&state);
        let (mut params, mut grads) = (vec![1.0; len], vec![1.0; len]);
        let (param, grad) = (Param::F32(&mut params), Grad::F32ToZero(&mut grads));
        let pass = Pass { grad_factor, ..Pass::default() };
        assert_eq!(sgd.step_with_on(SERIAL, param, grad, pass, &mut state), Err(expected));
        assert!(params.iter().chain(&grads).all(|&value| value == 1.0));
        assert_eq!((state.step(), saved(&state)), (step, before));
    };
    let (tensor, moment) = (0, "momentum_buffer");
    let length = Error::LengthMismatch { tensor, argument: moment, len: 300, expected: 301 };
    refused(momentum, 301, 0, 1.0, length);
    let plain = Sgd { momentum: 0.0, ..momentum };
    refused(plain, 300, 0, 1.0, Error::UnusedMoment { tensor, moment, len: 300 });
    refused(momentum, 300, u64::MAX, 1.0, Error::StepOverflow);
    let (name, value) = ("grad_factor", f64::INFINITY);
    let factor = Error::HyperParameter { name, value, allowed: "finite in f32" };
    refused(momentum, 300, 0, value, factor);
    let mut without = plain.mixed_state(300, Storage::Bf16);
    let (mut params, grads) = ([1.0; 300], [1.0; 300]);
    let found = momentum.step_with_on(
        SERIAL,
        Param::F32(&mut params),
        Grad::F32(&grads),
        Pass::default(),
        &mut without,
    );
    let length = Error::LengthMismatch { tensor, argument: moment, len: 0, expected: 300 };
    assert_eq!((found, params), (Err(length), [1.0; 300]));
}

/// Some steps of a run: parameters in bf16, rounded at random.
fn run(adam: &Adam, params: &mut [bf16], state: &mut MixedState<Adam>, steps: usize) {
    for _ in 0..steps {
        let grads = params.to_vec();
        let pass = Pass { seed: 3, ..Pass::default() };
        let (param, grad) = (Param::Bf16Stochastic(params), Grad::Bf16(&grads));
        assert_eq!(adam.step_with(param, grad, pass, state), Ok(Outcome::Taken));
    }
}

#[test]
fn a_run_that_is_restored_goes_on_with_the_same_bits() {
    let adam = Adam { lr: 0.01, ..Adam::adamw() };
    for storage in STORAGES {
        let mut params: Vec<_> = numbers(1000).into_iter().map(bf16::from_f32).collect();
        let mut state = adam.mixed_state(params.len(), storage);
        state.set_first(77);
        run(&adam, &mut params, &mut state, 10);
        let checkpoint = (params.clone(), state.step(), state.first(), saved(&state));
        run(&adam, &mut params, &mut state, 10);

        let (mut restored_params, step, first, moments) = checkpoint;
        let mut restored = adam.mixed_state(1000, storage);
        restored.set_step(step);
        restored.set_first(first);
        moments
            .iter()
            .zip(restored.moments_mut())
            .for_each(|(saved, moment)| saved.restore(moment));
        run(&adam, &mut restored_params, &mut restored, 10);
        assert_eq!((&restored_params, restored.step()), (&params, 20));
        assert_eq!(restored.moments(), state.moments());
        assert_eq!(format!("{restored:?}"), format!("{state:?}"));
    }
}

#[test]
fn a_clone_goes_on_by_itself() {
    let adam = Adam::default();
    let mut params = vec![bf16::ONE; 2000];
    let mut state = adam.mixed_state(params.len(), Storage::Q8);
    state.set_first(9);
    run(&adam, &mut params, &mut state, 1);
    let (mut other, mut other_params) = (state.clone(), params.clone());
    assert_eq!((other.step(), other.len(), other.moments()), (1, 2000, state.moments()));
    run(&adam, &mut params, &mut state, 1);
    assert_ne!(other.moments(), state.moments());
    run(&adam, &mut other_params, &mut other, 1);
    assert_eq!((other_params, other.moments()), (params, state.moments()));
}

#[test]
fn tensors_of_a_model_have_the_bits_of_one_that_is_all_of_it() {
    let adam = Adam::default();
    let (mut whole, grads) = (numbers(1000), numbers(1000));
    let mut parts = whole.clone();
    let mut state = adam.mixed_state(1000, Storage::Bf16);
    let [mut weight, mut bias] = [700, 300].map(|len| adam.mixed_state(len, Storage::Bf16));
    bias.set_first(700);
    assert_eq!((bias.first(), bias.len(), bias.is_empty()), (700, 300, false));
    for t in 1..=3 {
        let (param, grad) = (Param::F32(&mut whole), Grad::F32(&grads));
        let outcome = adam.step_with(param, grad, Pass::default(), &mut state);
        assert_eq!(outcome, Ok(Outcome::Taken));
        let (weights, biases) = parts.split_at_mut(700);
        let tensors = &mut [
            weight.tensor(Param::F32(weights), Grad::F32(&grads[..700])),
            bias.tensor(Param::F32(biases), Grad::F32(&grads[700..])),
        ];
        let outcome = adam.step_mixed(SERIAL, t, Pass::default(), tensors);
        assert_eq!(outcome, Ok(Outcome::Taken));
    }
    assert_eq!(parts, whole);
    let [MomentRef::Bf16(m), _] = state.moments() else { panic!("not in bf16") };
    let [MomentRef::Bf16(weight_m), _] = weight.moments() else { panic!("not in bf16") };
    let [MomentRef::Bf16(bias_m), _] = bias.moments() else { panic!("not in bf16") };
    assert_eq!([weight_m, bias_m].concat(), m);
}
