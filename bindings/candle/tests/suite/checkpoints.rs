//! Runs that are saved, restored and resumed have the same bits.

use std::fs;

use adamant_candle::{Adam, AnyOptimizer, Error, Lion, Storage, VarOptimizer};
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Init, Optimizer, VarMap};

use crate::{
    models::{Task, transformer},
    numbers,
};

/// An optimizer with two groups, clipping, a seed and moments in some storage.
fn optimizer(task: &Task, storage: Storage) -> Result<VarOptimizer> {
    let adamw = Adam { lr: 3e-3, ..Adam::adamw() };
    let mut optimizer =
        VarOptimizer::from_var_map(&task.variables, adamw)?.with_moments(storage)?;
    optimizer.add_group(Adam { weight_decay: 0.0, ..adamw }, |_, var| var.rank() < 2)?;
    optimizer.options.max_norm = Some(0.5);
    optimizer.stochastic = true;
    Ok(optimizer)
}

fn train(task: &Task, optimizer: &mut VarOptimizer, steps: usize) -> Result<()> {
    for _ in 0..steps {
        // A schedule that goes on from the settings.
        optimizer.set_learning_rate(0.9 * optimizer.learning_rate());
        optimizer.backward_step(&task.loss()?)?;
    }
    Ok(())
}

/// The bytes of all variables, by name.
fn bytes(task: &Task) -> Vec<(String, Vec<u8>)> {
    let variables = task.variables.data().lock().expect("no panic");
    let mut all: Vec<_> = (variables.iter())
        .map(|(name, var)| (name.clone(), safetensors::View::data(var.as_tensor()).into_owned()))
        .collect();
    all.sort();
    all
}

#[test]
fn a_run_that_is_saved_and_resumed_has_the_bits_of_one_that_is_not() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("run.safetensors");
    for storage in [Storage::F32, Storage::Bf16, Storage::F16, Storage::Q8] {
        for dtype in [DType::F32, DType::BF16] {
            let task = transformer(dtype)?;
            let mut first = optimizer(&task, storage)?;
            first.options.seed = 42;
            train(&task, &mut first, 3)?;
            first.save(&file)?;
            train(&task, &mut first, 3)?;
            first.save(folder.path().join("end.safetensors"))?;

            let resumed_task = transformer(dtype)?;
            let mut resumed = optimizer(&resumed_task, storage)?;
            resumed.load(&file)?;
            assert_eq!(resumed.options.seed, 42);
            train(&resumed_task, &mut resumed, 3)?;
            assert!(bytes(&task) == bytes(&resumed_task), "{storage}, {dtype:?}");
            resumed.save(&file)?;
            let ends = [&folder.path().join("end.safetensors"), &file].map(fs::read);
            let [end, resumed_end] = ends.map(|end| end.expect("a file"));
            let arrays = |bytes| -> Vec<_> {
                let file = safetensors::SafeTensors::deserialize(bytes).expect("a whole file");
                let mut arrays: Vec<_> =
                    file.iter().map(|(name, array)| (name.to_string(), array.data())).collect();
                arrays.sort();
                arrays.into_iter().map(|(name, data)| (name, data.to_vec())).collect()
            };
            assert!(arrays(&end) == arrays(&resumed_end), "moments: {storage}, {dtype:?}");
        }
    }
    Ok(())
}

#[test]
fn a_variable_that_was_pushed_keeps_its_random_bits_in_a_run_that_is_resumed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("run.safetensors");
    let whole = map(&["a", "c"], 1.0)?;
    let adamw = Adam { lr: 0.1, ..Adam::adamw() };
    let mut optimizer = VarOptimizer::from_var_map(&whole, adamw)?.with_moments(Storage::Q8)?;
    whole.get(3, "b", Init::Const(1.0), DType::F32, &Device::Cpu)?;
    let pushed = whole.data().lock().expect("no panic")["b"].clone();
    optimizer.push("b", &pushed, 0)?;
    step(&whole, &mut optimizer)?;
    optimizer.save(&file)?;
    let resumed = map(&["a", "b", "c"], 2.0)?;
    let mut restored = VarOptimizer::from_var_map(&resumed, adamw)?.with_moments(Storage::Q8)?;
    restored.load(&file)?;
    for _ in 0..20 {
        step(&whole, &mut optimizer)?;
        step(&resumed, &mut restored)?;
    }
    let value = |map: &VarMap| map.data().lock().expect("no panic")["b"].to_vec1::<f32>();
    assert_eq!(value(&whole)?, value(&resumed)?);
    Ok(())
}

#[test]
fn a_variable_that_is_pushed_after_a_load_has_random_bits_of_its_own() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("run.safetensors");
    let saved = map(&["a", "b"], 1.0)?;
    let optimizer = VarOptimizer::from_var_map(&saved, Adam::adamw())?;
    optimizer.save(&file)?;
    // One of the variables is trained further, and another variable joins it.
    let resumed = map(&["b"], 1.0)?;
    let mut restored = VarOptimizer::from_var_map(&resumed, Adam::adamw())?;
    restored.load(&file)?;
    resumed.get(3, "c", Init::Const(1.0), DType::F32, &Device::Cpu)?;
    let pushed = resumed.data().lock().expect("no panic")["c"].clone();
    restored.push("c", &pushed, 0)?;
    step(&resumed, &mut restored)?;
    let first = |name| restored.state(name).and_then(adamant_candle::adamant::State::first);
    assert_eq!([first("b"), first("c")], [Some(3), Some(6)]);
    Ok(())
}

#[test]
fn candle_reads_the_variables_of_a_checkpoint() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("run.safetensors");
    let task = transformer(DType::F32)?;
    let mut saved = optimizer(&task, Storage::Q8)?;
    train(&task, &mut saved, 2)?;
    saved.save(&file)?;
    let mut other = transformer(DType::F32)?;
    assert!(bytes(&other) != bytes(&task));
    other.variables.load(&file)?;
    assert!(bytes(&other) == bytes(&task));
    Ok(())
}

fn map(names: &[&str], value: f64) -> Result<VarMap> {
    let map = VarMap::new();
    for name in names {
        map.get(3, name, Init::Const(value), DType::F32, &Device::Cpu)?;
    }
    Ok(map)
}

fn step(map: &VarMap, optimizer: &mut VarOptimizer) -> Result<()> {
    let target = Tensor::from_vec(numbers(1, 3), 3, &Device::Cpu)?;
    let mut losses = vec![];
    for var in map.all_vars() {
        losses.push((var.as_tensor() - &target)?.sqr()?.sum_all()?);
    }
    optimizer.backward_step(&Tensor::stack(&losses, 0)?.sum_all()?)
}

#[test]
fn a_file_that_does_not_fit_is_refused_by_name_and_nothing_changes() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("run.safetensors");
    let saved = map(&["a", "b"], 1.0)?;
    let mut optimizer = VarOptimizer::from_var_map(&saved, Adam::adamw())?;
    step(&saved, &mut optimizer)?;
    optimizer.save(&file)?;

    let cases: [(&[&str], AnyOptimizer, Option<Storage>, &str); 4] = [
        (&["a", "c"], Adam::adamw().into(), None, "c.group is missing"),
        (
            &["a", "b"],
            Lion::default().into(),
            None,
            "adamant.groups is adam in the file, but lion here",
        ),
        (
            &["a", "b"],
            Adam::default().into(),
            Some(Storage::Q8),
            "a.exp_avg is F32 of shape [3] in the file, but U8 of shape [3] here",
        ),
        (&["b"], Adam::adamw().into(), None, ""),
    ];
    for (names, kind, storage, message) in cases {
        let map = map(names, 2.0)?;
        let mut optimizer = VarOptimizer::from_var_map(&map, kind)?;
        if let Some(storage) = storage {
            optimizer = optimizer.with_moments(storage)?;
        }
        match optimizer.load(&file) {
            // The file may have more variables than the optimizer.
            Ok(()) => assert_eq!(message, ""),
            Err(error) => {
                assert_eq!(error.to_string(), format!("{}: {message}", file.display()));
                for var in map.all_vars() {
                    assert_eq!(var.to_vec1::<f32>()?, [2.0; 3]);
                }
                assert!(names.iter().all(|name| optimizer.state(name).is_none()));
            }
        }
    }

    let other = map(&["a", "b"], 2.0)?;
    let mut grouped = VarOptimizer::from_var_map(&other, Adam::adamw())?;
    grouped.add_group(Adam::default(), |name, _| name == "b")?;
    let error = grouped.load(&file).expect_err("another group");
    let message = "adamant.groups is adam in the file, but adam, adam here";
    assert_eq!(error.to_string(), format!("{}: {message}", file.display()));
    Ok(())
}

#[test]
fn a_damaged_file_is_refused_and_a_failed_save_leaves_the_old_one() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("run.safetensors");
    let map = map(&["a"], 1.0)?;
    let mut optimizer = VarOptimizer::from_var_map(&map, Adam::adamw())?;
    step(&map, &mut optimizer)?;
    optimizer.save(&file)?;
    let whole = fs::read(&file)?;
    for len in 0..whole.len() {
        fs::write(&file, &whole[..len])?;
        assert!(matches!(optimizer.load(&file), Err(Error::Format { .. })), "{len} bytes");
    }
    // `VarMap::save` writes no optimizer.
    map.save(&file)?;
    let error = optimizer.load(&file).expect_err("no optimizer");
    let message = format!("{}: adamant.groups is missing", file.display());
    assert_eq!(error.to_string(), message);

    let nowhere = folder.path().join("none").join("run.safetensors");
    assert!(matches!(optimizer.save(&nowhere), Err(Error::File { .. })));
    assert!(matches!(optimizer.load(&nowhere), Err(Error::File { .. })));
    assert_eq!(fs::read_dir(folder.path())?.count(), 1, "nothing beside the file");

    let mut unnamed = VarOptimizer::new(map.all_vars(), Adam::adamw())?;
    assert!(matches!(unnamed.save(&file), Err(Error::Unnamed)));
    assert!(matches!(unnamed.load(&file), Err(Error::Unnamed)));
    Ok(())
}

#[test]
fn a_variable_with_the_name_of_a_moment_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let map = map(&["a", "a.exp_avg"], 1.0)?;
    let mut optimizer = VarOptimizer::from_var_map(&map, Adam::adamw())?;
    step(&map, &mut optimizer)?;
    let error = optimizer.save(folder.path().join("run.safetensors")).expect_err("one name twice");
    assert_eq!(error.to_string(), "two variables have the name a.exp_avg");
    Ok(())
}
