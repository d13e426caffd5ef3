//! The tests that candle has for its optimizers (`candle-nn/tests/optim.rs`), with ours. Their expected
//! numbers were computed by PyTorch.

use adamant_candle::{Adam, Sgd, VarOptimizer};
use candle_core::{DType, Device, Result, Tensor, Var, test_utils};
use candle_nn::{Init, Linear, Module, Optimizer, VarMap};

const DEVICE: Device = Device::Cpu;

#[test]
fn sgd_walks_to_the_minimum() -> Result<()> {
    let x = Var::new(0_f32, &DEVICE)?;
    let mut sgd = VarOptimizer::new(vec![x.clone()], Sgd { lr: 0.1, ..Sgd::default() })?;
    for _ in 0..100 {
        let loss = ((x.as_tensor() - 4.2)? * (x.as_tensor() - 4.2)?)?;
        sgd.backward_step(&loss)?;
    }
    assert_eq!(x.to_scalar::<f32>()?, 4.199999);
    Ok(())
}

/// Inputs, and y = 3 x1 + x2 - 2.
fn samples() -> Result<(Tensor, Tensor)> {
    let truth =
        Linear::new(Tensor::new(&[[3_f32, 1.0]], &DEVICE)?, Some(Tensor::new(-2_f32, &DEVICE)?));
    let x = Tensor::new(&[[2_f32, 1.0], [7.0, 4.0], [-4.0, 12.0], [5.0, 8.0]], &DEVICE)?;
    let y = truth.forward(&x)?;
    Ok((x, y))
}

fn regress(optimizer: &mut VarOptimizer, model: &Linear, steps: usize) -> Result<()> {
    let (x, y) = samples()?;
    for _ in 0..steps {
        let loss = model.forward(&x)?.sub(&y)?.sqr()?.sum_all()?;
        optimizer.backward_step(&loss)?;
    }
    Ok(())
}

#[test]
fn sgd_regresses() -> Result<()> {
    let (w, b) = (Var::new(&[[0_f32, 0.0]], &DEVICE)?, Var::new(0_f32, &DEVICE)?);
    let sgd = Sgd { lr: 0.004, ..Sgd::default() };
    let mut optimizer = VarOptimizer::new(vec![w.clone(), b.clone()], sgd)?;
    let model = Linear::new(w.as_tensor().clone(), Some(b.as_tensor().clone()));
    regress(&mut optimizer, &model, 1000)?;
    // candle compares with all digits: 2.9983196, 0.99790204 and -1.9796902. Its product is rounded before
    // it is subtracted, ours is not.
    assert_eq!(test_utils::to_vec2_round(&w, 4)?, &[[2.9983, 0.9979]]);
    assert_eq!(test_utils::to_vec0_round(&b, 4)?, -1.9797);
    Ok(())
}

#[test]
fn adamw_regresses() -> Result<()> {
    let (w, b) = (Var::new(&[[0_f32, 0.0]], &DEVICE)?, Var::new(0_f32, &DEVICE)?);
    let adamw = Adam { lr: 0.1, ..Adam::adamw() };
    let mut optimizer = VarOptimizer::new(vec![w.clone(), b.clone()], adamw)?;
    let model = Linear::new(w.as_tensor().clone(), Some(b.as_tensor().clone()));
    regress(&mut optimizer, &model, 100)?;
    assert_eq!(test_utils::to_vec2_round(&w, 4)?, &[[2.7257, 0.7097]]);
    assert_eq!(test_utils::to_vec0_round(&b, 4)?, 0.7873);
    Ok(())
}

#[test]
fn adamw_regresses_with_a_var_map_whose_values_are_set_afterwards() -> Result<()> {
    let mut map = VarMap::new();
    let w = map.get((1, 2), "w", Init::Const(0.0), DType::F32, &DEVICE)?;
    let b = map.get((), "b", Init::Const(0.0), DType::F32, &DEVICE)?;
    let model = Linear::new(w, Some(b.clone()));
    let adamw = Adam { lr: 0.1, ..Adam::adamw() };
    regress(&mut VarOptimizer::new(map.all_vars(), adamw)?, &model, 100)?;
    assert_eq!(test_utils::to_vec2_round(model.weight(), 4)?, &[[2.7257, 0.7097]]);
    assert_eq!(test_utils::to_vec0_round(&b, 4)?, 0.7873);

    map.set([("w", Tensor::zeros((1, 2), DType::F32, &DEVICE)?)].into_iter())?;
    map.set([("b", Tensor::ones((), DType::F32, &DEVICE)?)].into_iter())?;
    assert_eq!(test_utils::to_vec2_round(model.weight(), 4)?, &[[0.0, 0.0]]);
    assert_eq!(test_utils::to_vec0_round(&b, 4)?, 1.0);
    Ok(())
}

/// Code that is generic over candle's trait takes ours.
#[test]
fn code_that_is_generic_over_candles_trait_trains_with_it() -> Result<()> {
    fn train<O: Optimizer>(config: O::Config, vars: &[&Var]) -> Result<O> {
        let mut optimizer = O::from_slice(vars, config)?;
        for step in 0..10 {
            optimizer.set_learning_rate(0.1 / f64::from(step + 1));
            optimizer.backward_step(&vars[0].sqr()?.sum_all()?)?;
        }
        Ok(optimizer)
    }
    let x = Var::new(&[3_f32, -2.0], &DEVICE)?;
    let optimizer: VarOptimizer = train("adamw".parse().expect("a name"), &[&x])?;
    assert_eq!(optimizer.learning_rate(), 0.01);
    assert!(x.to_vec1::<f32>()?[0] < 2.8);
    let mut empty = <VarOptimizer as Optimizer>::empty(Adam::adamw().into())?;
    empty.backward_step(&x.sqr()?.sum_all()?)
}

#[test]
fn every_optimizer_has_a_learning_rate() -> Result<()> {
    for name in adamant_candle::AnyOptimizer::NAMES {
        let mut optimizer =
            VarOptimizer::new(vec![], name.parse::<adamant_candle::AnyOptimizer>().expect(name))?;
        optimizer.set_learning_rate(0.125);
        assert_eq!(optimizer.learning_rate(), 0.125, "{name}");
    }
    Ok(())
}
