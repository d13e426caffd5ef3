//! Models to and from files: whole, to the same bits, or not at all.

use std::{fs, io, path::PathBuf};

use adamant::{
    Adam, Moment, MomentRef, Optimizer, Sgd, State, StepOptions, Storage,
    checkpoint::{Checkpoint, CheckpointError, replace_file, save},
};

const STORAGES: [Storage; 4] = [Storage::F32, Storage::Bf16, Storage::F16, Storage::Q8];

fn file() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("model.safetensors");
    (folder, file)
}

/// Some steps of a model in `f32` whose moments are rounded at random.
fn train(params: &mut [f32], state: &mut State, steps: u64) {
    for _ in 0..steps {
        let grads: Vec<f32> = params.iter().map(|param| param.sin()).collect();
        let options = StepOptions { seed: 7, ..StepOptions::default() };
        let (param, grad) = ((&mut *params).into(), (&grads).into());
        let report = Adam::adamw().step_with(param, grad, state, &options);
        assert!(report.is_ok(), "{report:?}");
    }
}

#[test]
fn a_run_that_is_saved_and_resumed_has_the_bits_of_one_that_is_not() {
    for storage in &STORAGES {
        let start: Vec<f32> = (0..700).map(|i| i as f32 * 0.01 - 3.0).collect();
        let (mut params, mut state) =
            (start.clone(), Adam::adamw().state_in(*storage, start.len()));
        train(&mut params, &mut state, 5);
        let (_folder, file) = file();
        save(&file, [("w", MomentRef::F32(&params), &state)]).expect("a file");
        train(&mut params, &mut state, 5);

        let (mut resumed, mut resumed_state) =
            (vec![0.0; start.len()], Adam::adamw().state_in(*storage, start.len()));
        let saved = Checkpoint::load(&file).expect("the file");
        saved.restore("w", (&mut resumed).into(), &mut resumed_state).expect("the same arrays");
        assert_eq!(resumed_state.steps(), 5);
        train(&mut resumed, &mut resumed_state, 5);
        assert_eq!(resumed, params);
        assert!(resumed_state.moments().eq(state.moments()), "{storage}");
    }
}

#[test]
fn the_number_of_the_first_element_is_saved_with_a_tensor() {
    let start: Vec<f32> = (0..700).map(|i| i as f32 * 0.01 - 3.0).collect();
    let new_state = || Adam::adamw().state_in(Storage::Bf16, start.len());
    let (mut params, mut state) = (start.clone(), new_state());
    state.set_first(1 << 40);
    train(&mut params, &mut state, 5);
    let (_folder, file) = file();
    save(&file, [("w", MomentRef::F32(&params), &state)]).expect("a file");
    train(&mut params, &mut state, 5);

    let (mut resumed, mut resumed_state) = (vec![0.0; start.len()], new_state());
    let saved = Checkpoint::load(&file).expect("the file");
    saved.restore("w", (&mut resumed).into(), &mut resumed_state).expect("the same arrays");
    assert_eq!(resumed_state.first(), Some(1 << 40));
    train(&mut resumed, &mut resumed_state, 5);
    assert_eq!(resumed, params);
}

#[test]
fn a_model_is_restored_as_a_whole_or_not_at_all() {
    let new_state = |len| Adam::adamw().state(len);
    let (params, mut state) = ([1.0_f32, 2.0], new_state(2));
    state.set_steps(3);
    let (_folder, file) = file();
    let both = ["a", "b"].map(|name| (name, MomentRef::F32(&params), &state));
    save(&file, both).expect("a file");
    let saved = Checkpoint::load(&file).expect("the file");

    let (mut a, mut b) = ([0.0_f32; 2], [0.0_f32; 2]);
    let (mut state_a, mut state_b) = (new_state(2), new_state(2));
    let missing = saved
        .restore_all([("a", (&mut a).into(), &mut state_a), ("c", (&mut b).into(), &mut state_b)]);
    assert!(matches!(missing, Err(CheckpointError::Missing { .. })), "{missing:?}");
    assert_eq!((a, state_a.steps()), ([0.0; 2], 0));
    let whole = saved
        .restore_all([("a", (&mut a).into(), &mut state_a), ("b", (&mut b).into(), &mut state_b)]);
    assert!(whole.is_ok(), "{whole:?}");
    assert_eq!((a, b, state_a.steps(), state_b.steps()), (params, params, 3, 3));
}

#[test]
fn parameters_in_8_bits_keep_their_scales() {
    let (_folder, file) = file();
    let state = Sgd::default().state(2);
    save(&file, [("w", MomentRef::Q8(&[5, 7], &[3.0]), &state)]).expect("a file");
    let saved = Checkpoint::load(&file).expect("the file");
    let (mut codes, mut scales, mut restored) = ([0; 2], [0.0], Sgd::default().state(2));
    let param = Moment::q8(&mut codes, &mut scales);
    saved.restore("w", param, &mut restored).expect("the same arrays");
    assert_eq!((codes, scales), ([5, 7], [3.0]));
    let param = Moment::q8(&mut codes, &mut []);
    let refused = saved.restore("w", param, &mut restored);
    assert!(matches!(refused, Err(CheckpointError::Mismatch { .. })), "{refused:?}");
}

#[test]
fn a_model_without_tensors_is_saved_and_loaded() {
    let (_folder, file) = file();
    save(&file, []).expect("a file");
    assert_eq!(Checkpoint::load(&file).expect("the file").names().len(), 0);
}

#[test]
fn an_array_that_does_not_fit_is_refused_with_file_name_and_shapes() {
    let (_folder, file) = file();
    let state = Adam::default().state(3);
    save(&file, [("w", MomentRef::F32(&[1.0; 3]), &state)]).expect("a file");
    let saved = Checkpoint::load(&file).expect("the file");
    let says = |error: CheckpointError, expected: &str| {
        assert_eq!(error.to_string(), format!("{}: {expected}", file.display()));
    };

    let mut params = [2.0_f32; 3];
    for (storage, len, expected) in [
        (Storage::F32, 4, "F32 of shape [4]"),
        (Storage::Bf16, 3, "BF16 of shape [3]"),
        (Storage::Q8, 3, "U8 of shape [3]"),
    ] {
        let mut state = Adam::default().state_in(storage, len);
        let error = saved.restore("w", (&mut params).into(), &mut state).expect_err("refused");
        says(error, &format!("w.exp_avg is F32 of shape [3] in the file, but {expected} here"));
        assert_eq!((params, state.steps()), ([2.0; 3], 0));
    }
    let mut momentum = Sgd { momentum: 0.9, ..Sgd::default() }.state(3);
    let error = saved.restore("w", (&mut params).into(), &mut momentum).expect_err("refused");
    says(error, "w.momentum_buffer is missing");
    let mut state = Adam::default().state(3);
    let error = saved.restore("v", (&mut params).into(), &mut state).expect_err("refused");
    says(error, "v.steps is missing");
    let mut wide = [2.0_f64; 3];
    let error = saved.restore("w", (&mut wide).into(), &mut state).expect_err("refused");
    says(error, "w is F32 of shape [3] in the file, but F64 of shape [3] here");
    assert_eq!((params, wide), ([2.0; 3], [2.0; 3]));
}

#[test]
fn a_step_count_that_is_no_number_is_refused() {
    let (_folder, file) = file();
    let state = Adam::default().state(3);
    save(&file, [("w", MomentRef::F32(&[1.0; 3]), &state)]).expect("a file");
    let mut bytes = fs::read(&file).expect("the file");
    let steps = br#""w.steps":"0""#;
    let at = bytes.windows(steps.len()).position(|bytes| bytes == steps).expect("the count");
    bytes[at + steps.len() - 2] = b'x';
    fs::write(&file, bytes).expect("the file");

    let saved = Checkpoint::load(&file).expect("a whole file");
    let (mut params, mut state) = ([2.0_f32; 3], Adam::default().state(3));
    let error = saved.restore("w", (&mut params).into(), &mut state).expect_err("refused");
    let expected = format!(r#"{}: w.steps is "x": invalid digit"#, file.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
    assert_eq!((params, state.steps()), ([2.0; 3], 0));
}

#[test]
fn a_damaged_file_is_refused_and_a_failed_save_leaves_the_old_one() {
    let (folder, file) = file();
    let state = Adam::default().state(3);
    save(&file, [("w", MomentRef::F32(&[1.0; 3]), &state)]).expect("a file");
    let whole = fs::read(&file).expect("the file");

    // Two arrays of one name.
    let twice = [("w", MomentRef::F32(&[2.0; 3]), &state); 2];
    let refused = save(&file, twice);
    assert!(matches!(refused, Err(CheckpointError::DuplicateName { .. })), "{refused:?}");
    assert_eq!(fs::read(&file).expect("the file"), whole);
    // A file that cannot be finished.
    let refused = replace_file(&file, |unfinished| {
        fs::write(unfinished, "half of")?;
        assert_eq!(unfinished.parent(), Some(folder.path()), "no other disk");
        Err(io::Error::other("the disk is full"))
    });
    assert_eq!(refused.expect_err("refused").to_string(), "the disk is full");
    assert_eq!(fs::read(&file).expect("the file"), whole);
    // No folder to write to.
    let nowhere = folder.path().join("none").join("model.safetensors");
    let refused = save(&nowhere, [("w", MomentRef::F32(&[1.0; 3]), &state)]);
    assert!(matches!(refused, Err(CheckpointError::File { .. })), "{refused:?}");
    assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 1, "nothing beside it");

    for len in 0..whole.len() {
        fs::write(&file, &whole[..len]).expect("a shorter file");
        assert!(Checkpoint::load(&file).is_err(), "{len} of {} bytes", whole.len());
    }
    fs::write(&file, b"a file of another kind").expect("another file");
    let error = Checkpoint::load(&file).expect_err("refused");
    assert!(error.to_string().contains("not a whole safetensors file"), "{error}");
    assert!(Checkpoint::load(&nowhere).is_err());
}
