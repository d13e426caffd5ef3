//! States that do not fit a step.

use adamant::{
    Adam, AmsGrad, Error, Grad, Lion, Moment, NAdam, Optimizer, Param, RmsProp, Sgd, StepOptions,
    Storage, Tensor,
    rule::{Float, MOMENTS, Rule},
    table::{CatchUp, DenseEquivalent, RowGrads, RowOptimizer, RowWiseAdam},
};

use super::{options, saved};

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
fn a_plain_step_finds_the_mistakes_of_one_with_options() {
    fn check<F: Float>(
        (used_by, made_by): (&Sgd, &Sgd),
        storage: Storage,
        [params, grads, moments]: [usize; 3],
        steps: u64,
        expected: Error,
    ) {
        let one = F::from_f64(1.0);
        let mut state = made_by.state_in(storage, moments);
        state.set_steps(steps);
        let before = saved(&state);
        let (mut param, grad) = (vec![one; params], vec![one; grads]);
        let found = used_by.step(&mut param, &grad, &mut state);
        let tensor = state.tensor(F::param(&mut param), F::grad(&grad));
        let with_options = used_by.step_tensors(&mut [tensor], &options());
        assert_eq!((found, with_options), (Err(expected.clone()), Err(expected)));
        assert!(param == vec![one; params]);
        assert_eq!((state.steps(), saved(&state)), (steps, before));
    }
    let momentum = Sgd { lr: 0.1, momentum: 0.9, ..Sgd::default() };
    let plain = Sgd { momentum: 0.0, ..momentum };
    let (tensor, moment) = (0, "momentum_buffer");
    let (own, other) = ((&momentum, &momentum), (&plain, &momentum));
    let of_grad = Error::LengthMismatch { tensor, argument: "grad", len: 4, expected: 5 };
    check::<f32>(own, Storage::F32, [5, 4, 5], 0, of_grad);
    let of_moment = Error::LengthMismatch { tensor, argument: moment, len: 4, expected: 5 };
    check::<f32>(own, Storage::F32, [5, 5, 4], 0, of_moment);
    // A moment that is no longer used, in the type of the step and in another one.
    for storage in [Storage::F32, Storage::Bf16, Storage::Q8] {
        check::<f32>(other, storage, [5; 3], 0, Error::UnusedMoment { tensor, moment, len: 5 });
    }
    let none = Error::LengthMismatch { tensor, argument: moment, len: 0, expected: 5 };
    check::<f32>((&momentum, &plain), Storage::F32, [5; 3], 0, none);
    let (found, expected) = (Storage::F32, Storage::F64);
    let types = Error::TypeMismatch { tensor, argument: moment, found, expected };
    check::<f64>(own, found, [5; 3], 0, types);
    check::<f32>(own, Storage::F32, [5; 3], u64::MAX, Error::StepOverflow);
    let negative = Sgd { lr: -1.0, ..momentum };
    let allowed = "finite and at least 0";
    let setting = Error::HyperParameter { name: "lr", value: -1.0, allowed };
    check::<f32>((&negative, &momentum), Storage::F32, [5; 3], 0, setting);
    let large = Sgd { lr: 1e39, ..momentum };
    let overflow = Error::ConstantOverflow { value: 1e39, float: "f32" };
    check::<f32>((&large, &momentum), Storage::F32, [5; 3], 0, overflow);
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
