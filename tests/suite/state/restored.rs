//! Moments that are saved, restored and copied.

use std::borrow::Cow;

use adamant::{
    Adam, Error, Grad, Moment, MomentRef, Optimizer, Param, Q8, State, StepOptions, Storage,
};
use half::{bf16, f16};

use super::{SINGLE, STORAGES, numbers, saved, taken};

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
fn moments_are_restored_from_their_bytes_or_refused() {
    for storage in STORAGES {
        let adam = Adam::default();
        let (mut state, mut other) = (adam.state_in(storage, 300), adam.state_in(storage, 300));
        state.set_moment_from_f32("exp_avg", &numbers(300)).expect("as many");
        let before = saved(&other);
        let moment = state.moment("exp_avg").expect("a moment of Adam");
        let bytes = moment.to_le_bytes();
        let scales = match moment {
            MomentRef::Q8(_, scales) => MomentRef::F32(scales).to_le_bytes(),
            _ => Cow::Borrowed(&[][..]),
        };
        assert_eq!(bytes.len(), 300 * storage.bytes(), "{storage}");
        let longer = [&*scales, &[0]].concat();
        for (bytes, scales, argument, len, expected) in [
            (&bytes[1..], &*scales, "saved bytes", bytes.len() - 1, bytes.len()),
            (&*bytes, &longer, "saved bytes of scales", longer.len(), scales.len()),
        ] {
            let mut moment = other.moment_mut("exp_avg").expect("a moment of Adam");
            let refused = moment.copy_from_le_bytes(bytes, scales);
            let error = Error::LengthMismatch { tensor: 0, argument, len, expected };
            assert_eq!((refused, saved(&other)), (Err(error), before.clone()), "{storage}");
        }
        let mut restored = other.moment_mut("exp_avg").expect("a moment of Adam");
        restored.copy_from_le_bytes(&bytes, &scales).expect("the same storage and length");
        assert_eq!(saved(&other), saved(&state), "{storage}");
    }
}

#[test]
fn a_moment_is_filled_with_the_nearest_number_and_a_denominator_not_with_0() {
    for (value, format, half) in [
        (0.3, Q8::Signed, f16::from_f32(0.3)),
        (1e-30, Q8::Signed, f16::ZERO),
        (1e-30, Q8::Squares, f16::MIN_POSITIVE_SUBNORMAL),
        (1e-30, Q8::Unsigned, f16::MIN_POSITIVE_SUBNORMAL),
        (1e6, Q8::Signed, f16::MAX),
        (1e6, Q8::Squares, f16::INFINITY),
    ] {
        let (mut single, mut double) = ([7.0_f32; 3], [7.0_f64; 3]);
        let (mut brain, mut halves) = ([bf16::ONE; 3], [f16::ONE; 3]);
        let (mut codes, mut scales, mut decoded) = ([7; 300], [7.0; 2], [0.0; 300]);
        Moment::from(&mut single).fill(value, format);
        Moment::from(&mut double).fill(value, format);
        Moment::from(&mut brain).fill(value, format);
        Moment::from(&mut halves).fill(value, format);
        Moment::q8(&mut codes, &mut scales).fill(value, format);
        assert_eq!((single, double), ([value as f32; 3], [value; 3]));
        assert_eq!((brain, halves), ([bf16::from_f64(value); 3], [half; 3]), "{format:?}");
        format.decode(&codes, &scales, &mut decoded).expect("lengths that fit");
        // The scale is rounded, the code of a block's largest element is exact.
        let is_near = |&found: &f32| (f64::from(found) / value - 1.0).abs() < 1e-6;
        assert!(decoded.iter().all(is_near), "{value} {format:?}: {:?}", decoded[0]);
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
