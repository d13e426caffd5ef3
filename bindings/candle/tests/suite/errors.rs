//! Calls that are refused: the message names the variable, and nothing has changed.

use adamant_candle::{Adam, AnyOptimizer, Error, Lion, StepOptions, Storage, VarOptimizer};
use candle_core::{CpuStorage, DType, Device, Storage as Memory, Tensor, Var, op::BackpropOp};

use crate::grads;

const DEVICE: Device = Device::Cpu;

fn x() -> Var {
    Var::new(&[1_f32, 2.0], &DEVICE).expect("a variable")
}

fn named<'a>(vars: impl IntoIterator<Item = (&'a str, Var)>) -> Result<VarOptimizer, Error> {
    let vars = vars.into_iter().map(|(name, var)| (String::from(name), var));
    VarOptimizer::from_named(vars, Adam::adamw())
}

#[track_caller]
fn refused<T>(result: Result<T, Error>, message: &str) {
    match result {
        Err(error) => assert_eq!(error.to_string(), message),
        Ok(_) => panic!("not refused: {message}"),
    }
}

/// A variable of six elements in a storage of another length.
fn view(storage: Vec<f32>) -> Var {
    let storage = Memory::Cpu(CpuStorage::F32(storage));
    let tensor = Tensor::from_storage(storage, (2, 3), BackpropOp::none(), true);
    Var::from_tensor(&tensor).expect("a variable")
}

#[test]
fn a_variable_that_a_step_cannot_take_is_refused_by_name() {
    let message = "variable w is a view: elements 0 to 6 of a storage that has 10";
    refused(named([("x", x()), ("w", view(vec![0.0; 10]))]), message);
    let message = "variable w is a view: elements 0 to 6 of a storage that has 4";
    refused(named([("w", view(vec![0.0; 4]))]), message);
    let w = Var::zeros(2, DType::F8E4M3, &DEVICE).expect("a variable");
    refused(named([("w", w)]), "variable w is F8E4M3, but must be F32, F64, BF16 or F16");
}

#[test]
fn variables_that_share_their_memory_or_name_are_refused_with_both_names() {
    let shared = x();
    let message = "variables embed and head share their memory; pass one of them";
    refused(named([("embed", shared.clone()), ("head", shared.clone())]), message);
    refused(named([("w", x()), ("w", x())]), "two variables have the name w");

    let mut optimizer = named([("embed", shared.clone())]).expect("one variable");
    refused(optimizer.push("head", &shared, 0), message);
    refused(optimizer.push("embed", &x(), 0), "two variables have the name embed");
    let message = "there is no group 1; groups are numbered from 0, and there are 1";
    refused(optimizer.push("head", &x(), 1), message);
    assert_eq!(optimizer.names().collect::<Vec<_>>(), ["embed"]);
}

#[test]
fn a_gradient_that_a_step_cannot_take_is_refused_by_name_and_nothing_changes()
-> candle_core::Result<()> {
    let (x, y) = (x(), x());
    let mut optimizer = named([("x", x.clone()), ("y", y.clone())])?;
    let options = StepOptions::default();
    let good = || x.ones_like().expect("ones");
    let mut step = |grad: Tensor, message: &str| {
        refused(optimizer.step_with(&grads([(&x, good()), (&y, grad)]), &options), message);
        assert_eq!(optimizer.state("x").map_or(0, |state| state.steps()), 0);
    };
    let message = "the gradient of y has shape [2, 1], but the variable has [2]";
    step(Tensor::ones((2, 1), DType::F32, &DEVICE)?, message);
    let message = "the gradient of y is U32, but must be F32, F64, BF16 or F16";
    step(Tensor::ones(2, DType::U32, &DEVICE)?, message);
    let message = "the gradient of y lies in the memory of variable x; pass a copy of it";
    step(x.as_tensor().clone(), message);
    let message = "the gradient of y lies in the memory of variable y; pass a copy of it";
    step(y.as_detached_tensor(), message);
    let message = "variable y: grad of tensor 1 is f64, which does not go with f32";
    step(Tensor::ones(2, DType::F64, &DEVICE)?, message);
    assert_eq!((x.to_vec1::<f32>()?, y.to_vec1::<f32>()?), (vec![1.0, 2.0], vec![1.0, 2.0]));
    Ok(())
}

#[test]
fn settings_and_options_are_refused_with_their_numbers() -> candle_core::Result<()> {
    let x = x();
    let adam = Adam { beta1: 1.0, ..Adam::adamw() };
    let message = "beta1 is 1, but must be at least 0 and less than 1";
    refused(VarOptimizer::new(vec![x.clone()], adam), message);
    let mut optimizer = named([("x", x.clone())])?;
    refused(optimizer.add_group(adam, |_, _| true), message);
    let message = "none of the 1 variables is in the new group";
    refused(optimizer.add_group(Adam::adamw(), |name, _| name == "bias"), message);
    assert_eq!(optimizer.groups().len(), 1);

    candle_nn::Optimizer::set_learning_rate(&mut optimizer, f64::NAN);
    let store = grads([(&x, x.ones_like()?)]);
    let message = "lr is NaN, but must be finite and at least 0";
    refused(optimizer.step_with(&store, &StepOptions::default()), message);
    candle_nn::Optimizer::set_learning_rate(&mut optimizer, 0.1);
    let options = StepOptions { max_norm: Some(0.0), ..StepOptions::default() };
    refused(optimizer.step_with(&store, &options), "max_norm is 0, but must be over 0");
    assert_eq!(x.to_vec1::<f32>()?, [1.0, 2.0]);
    Ok(())
}

#[test]
fn moments_that_do_not_go_with_a_variable_are_refused_by_name() -> candle_core::Result<()> {
    let wide = Var::new(&[1_f64], &DEVICE)?;
    let message = "variable w is F64, and so its moments cannot be q8";
    refused(named([("w", wide.clone())])?.with_moments(Storage::Q8), message);
    let message = "variable w is F32, and so its moments cannot be f64";
    refused(named([("w", x())])?.with_moments(Storage::F64), message);
    let mut optimizer = named([("w", x())])?.with_moments(Storage::Q8)?;
    let message = "variable wide is F64, and so its moments cannot be q8";
    refused(optimizer.push("wide", &wide, 0), message);

    let x = x();
    let mut optimizer = named([("x", x.clone())])?;
    let store = grads([(&x, x.ones_like()?)]);
    let nothing = StepOptions { max_norm: Some(0.0), ..StepOptions::default() };
    assert!(optimizer.step_with(&store, &nothing).is_err());
    let mut optimizer = optimizer.with_moments(Storage::F16)?; // no step was taken
    let _ = optimizer.step_with(&store, &StepOptions::default())?;
    let moment = optimizer.state("x").and_then(|state| state.moment("exp_avg"));
    assert_eq!(moment.map(|moment| moment.storage()), Some(Storage::F16));
    // Another kind of optimizer has other moments.
    optimizer.groups_mut()[0] = AnyOptimizer::from(Lion::default());
    let message = "variable x: the state of tensor 0 is another optimizer's: it has exp_avg_sq, \
                   which this one does not use";
    refused(optimizer.step_with(&store, &StepOptions::default()), message);
    let message = "variable x has taken 1 steps: its moments stay in the storage they have";
    refused(optimizer.with_moments(Storage::Q8), message);
    Ok(())
}

#[test]
fn candles_interface_returns_the_same_errors() {
    let wrong = VarOptimizer::new(vec![view(vec![0.0; 7])], Adam::adamw());
    let error = candle_core::Error::from(wrong.expect_err("a view"));
    let message = "variable 0 is a view: elements 0 to 6 of a storage that has 7";
    assert_eq!(error.to_string().lines().next(), Some(message));
}
