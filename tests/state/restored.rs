//! Moments that are saved, restored and copied.

use adamant::{
    Adam, Error, Grad, Moment, MomentRef, Optimizer, Param, State, StepOptions, Storage,
};
use half::bf16;

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
