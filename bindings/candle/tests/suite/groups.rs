//! Groups, clipping, steps that are left out, variables without a gradient.

use adamant_candle::{Adam, Lion, Outcome, StepOptions, VarOptimizer};
use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{Init, Optimizer, VarMap};

use crate::{grads, numbers};

fn map() -> Result<VarMap> {
    let map = VarMap::new();
    for (name, shape) in [("a.weight", vec![3, 4]), ("a.bias", vec![4]), ("b.weight", vec![4, 2])] {
        map.get(shape, name, Init::Const(1.0), DType::F32, &Device::Cpu)?;
    }
    Ok(map)
}

fn var(map: &VarMap, name: &str) -> Var {
    map.data().lock().expect("no panic")[name].clone()
}

fn ones(var: &Var) -> Result<Tensor> {
    var.as_tensor().ones_like()
}

#[test]
fn groups_have_optimizers_of_their_own_and_variables_keep_the_order_of_names() -> Result<()> {
    let map = map()?;
    let adam = Adam { lr: 0.1, weight_decay: 0.5, ..Adam::adamw() };
    let mut optimizer = VarOptimizer::from_var_map(&map, adam)?;
    assert_eq!(optimizer.names().collect::<Vec<_>>(), ["a.bias", "a.weight", "b.weight"]);
    let no_decay = Adam { weight_decay: 0.0, ..adam };
    let biases = optimizer.add_group(no_decay, |_, var| var.rank() < 2)?;
    let lion = Lion { lr: 0.25, ..Lion::default() };
    let last = optimizer.add_group(lion, |name, _| name.starts_with("b."))?;
    assert_eq!(optimizer.names().collect::<Vec<_>>(), ["a.weight", "a.bias", "b.weight"]);
    assert_eq!((biases, last, optimizer.group_of("b.weight")), (1, 2, Some(2)));

    let vars = ["a.weight", "a.bias", "b.weight"].map(|name| var(&map, name));
    let store = grads(vars.iter().map(|var| (var, ones(var).expect("ones"))));
    optimizer.step(&store)?;
    let firsts =
        vars.each_ref().map(|var| var.flatten_all().expect("one axis").get(0).expect("one"));
    let firsts = firsts.map(|first| first.to_scalar::<f32>().expect("a number"));
    // 1 - 0.1 * 0.5 - 0.1; 1 - 0.1; 1 - 0.25.
    let expected = [0.85, 0.9, 0.75];
    for (first, expected) in firsts.iter().zip(expected) {
        assert!((first - expected).abs() < 1e-6, "{firsts:?}");
    }

    optimizer.groups_mut()[2].set("lr", 0.5).expect("a setting");
    optimizer.step(&store)?;
    let moved = var(&map, "b.weight").flatten_all()?.get(0)?.to_scalar::<f32>()?;
    assert!((moved - 0.25).abs() < 1e-6, "{moved}");
    Ok(())
}

#[test]
fn clipping_takes_the_norm_of_all_groups_and_a_nan_leaves_everything_as_it_is() -> Result<()> {
    let map = map()?;
    let mut optimizer = VarOptimizer::from_var_map(&map, Adam::adamw())?;
    optimizer.add_group(Adam::default(), |name, _| name.ends_with("bias"))?;
    optimizer.options.max_norm = Some(1.0);
    let vars = ["a.weight", "a.bias", "b.weight"].map(|name| var(&map, name));
    optimizer.step(&grads(vars.iter().map(|var| (var, ones(var).expect("ones")))))?;
    let report = optimizer.last_report().expect("a report");
    assert_eq!((report.outcome, report.grad_norm), (Outcome::Taken, Some(24_f64.sqrt())));
    let exp_avg = optimizer.state("a.bias").and_then(|state| state.moment_to_f32("exp_avg"));
    let exp_avg = exp_avg.expect("a moment")[0];
    assert!((exp_avg - 0.1 / 24_f32.sqrt()).abs() < 1e-6, "clipped: {exp_avg}");

    let before: Vec<_> = vars.iter().map(|var| var.to_dtype(DType::F64).expect("a copy")).collect();
    let nan = (ones(&vars[1])? * f64::NAN)?;
    optimizer.step(&grads([(&vars[0], ones(&vars[0])?), (&vars[1], nan)]))?;
    assert_eq!(optimizer.last_report().map(|report| report.outcome), Some(Outcome::LeftOut));
    for (var, before) in vars.iter().zip(&before) {
        let difference = (var.to_dtype(DType::F64)? - before)?.abs()?.sum_all()?;
        assert_eq!(difference.to_scalar::<f64>()?, 0.0);
    }
    assert_eq!(optimizer.state("a.bias").map(|state| state.steps()), Some(1));
    Ok(())
}

#[test]
fn a_variable_without_a_gradient_stays_and_its_steps_are_its_own() -> Result<()> {
    let map = map()?;
    let mut optimizer = VarOptimizer::from_var_map(&map, Adam::adamw())?;
    let (weight, bias) = (var(&map, "a.weight"), var(&map, "a.bias"));
    for step in 0..3 {
        let mut store = grads([(&weight, ones(&weight)?)]);
        if step == 2 {
            store.insert(&bias, ones(&bias)?);
        }
        optimizer.step(&store)?;
    }
    let steps = |name| optimizer.state(name).map(|state| state.steps());
    assert_eq!((steps("a.weight"), steps("a.bias"), steps("b.weight")), (Some(3), Some(1), None));
    // A first step moves by the learning rate.
    let moved = bias.to_vec1::<f32>()?[0];
    assert!((moved - (1.0 - 1e-3 * 0.01 - 1e-3)).abs() < 1e-6, "{moved}");
    assert_eq!(var(&map, "b.weight").sum_all()?.to_scalar::<f32>()?, 8.0);
    Ok(())
}

#[test]
fn variables_of_integers_are_left_out() -> Result<()> {
    let (counter, x) = (Var::new(&[1_u32, 2], &Device::Cpu)?, Var::new(&[1_f32], &Device::Cpu)?);
    let mut optimizer = VarOptimizer::new(vec![counter, x.clone()], Adam::adamw())?;
    assert_eq!(optimizer.names().collect::<Vec<_>>(), ["1"]);
    optimizer.backward_step(&x.sqr()?.sum_all()?)
}

#[test]
fn a_variable_that_is_pushed_later_starts_with_its_own_first_step() -> Result<()> {
    let map = map()?;
    let mut optimizer = VarOptimizer::from_var_map(&map, Adam::adamw())?;
    let weight = var(&map, "a.weight");
    optimizer.step(&grads([(&weight, ones(&weight)?)]))?;
    let late = Var::from_vec(numbers(1, 6), (2, 3), &Device::Cpu)?;
    optimizer.push("late", &late, 0)?;
    let (before, weight) = (late.to_vec2::<f32>()?[0][0], ones(&late)?);
    let report = optimizer.step_with(&grads([(&late, weight)]), &StepOptions::default())?;
    assert_eq!(report.outcome, Outcome::Taken);
    assert_eq!(optimizer.state("late").map(|state| state.steps()), Some(1));
    assert!(late.to_vec2::<f32>()?[0][0] < before);
    Ok(())
}
