//! Runs that burn saves and restores have the same bits.

use adamant_burn::{Adam, OneCallOptimizer, ParamOptimizer, Storage};
use burn::{
    module::Module,
    optim::{GradientsParams, ModuleOptimizer},
    tensor::{DType, Device, TensorData},
};

use crate::models::{Perceptron, Task};

const LR: f64 = 3e-3;

struct Run {
    model: Perceptron,
    data: <Perceptron as Task>::Data,
}

impl Run {
    fn new(dtype: DType) -> Self {
        let (model, data) = Perceptron::new(dtype, &Device::default().autodiff());
        Self { model, data }
    }

    fn grads(&self) -> GradientsParams {
        GradientsParams::from_grads(self.model.loss(&self.data).backward(), &self.model)
    }

    fn train(&mut self, optimizer: &mut OneCallOptimizer, steps: usize) {
        for _ in 0..steps {
            let grads = self.grads();
            let _ = optimizer.step(LR, &mut self.model, grads).expect("a step");
        }
    }

    fn train_with_burns(mut self, optimizer: &mut ModuleOptimizer, steps: usize) -> Self {
        for _ in 0..steps {
            let grads = self.grads();
            self.model = optimizer.step(LR, self.model, grads);
        }
        self
    }

    fn values(&self) -> [TensorData; 2] {
        [self.model.hidden.weight.val().into_data(), self.model.classes.weight.val().into_data()]
    }
}

fn one_call(storage: Storage) -> OneCallOptimizer {
    let mut optimizer =
        OneCallOptimizer::new(Adam::adamw()).expect("settings").with_moments(storage);
    optimizer.options.seed = 42;
    optimizer.stochastic = true;
    optimizer
}

fn burns(storage: Storage) -> ModuleOptimizer {
    let mut optimizer = ParamOptimizer::new(Adam::adamw()).expect("settings").with_moments(storage);
    optimizer.options.seed = 42;
    optimizer.stochastic = true;
    optimizer.into()
}

#[test]
fn a_run_that_is_saved_and_resumed_has_the_bits_of_one_that_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model_file, file) = (folder.path().join("model.bpk"), folder.path().join("optimizer.bpk"));
    for storage in [Storage::F32, Storage::Bf16, Storage::F16, Storage::Q8] {
        for dtype in [DType::F32, DType::BF16] {
            let (mut run, mut optimizer) = (Run::new(dtype), one_call(storage));
            run.train(&mut optimizer, 3);
            run.model.clone().into_record().save(&model_file).expect("a file");
            optimizer.save(&file).expect("a file");
            run.train(&mut optimizer, 3);

            let (mut resumed, mut restored) = (Run::new(dtype), one_call(storage));
            let record = burn::store::ModuleRecord::load(&model_file).expect("a file");
            resumed.model = resumed.model.load_record(record);
            restored.load(&file).expect("a file");
            let id = resumed.model.hidden.weight.id;
            assert_eq!(restored.state(id).map(|state| state.steps()), Some(3));
            // A record that was loaded can be saved before it is stepped.
            restored.save(&file).expect("a file");
            restored.load(&file).expect("a file");
            resumed.train(&mut restored, 3);
            assert!(resumed.values() == run.values(), "{storage}, {dtype:?}");
        }
    }
}

#[test]
fn records_go_from_burns_optimizer_to_ours_and_back() {
    for storage in [Storage::F32, Storage::Q8] {
        let mut whole = Run::new(DType::F32);
        whole.train(&mut one_call(storage), 6);

        let (mut run, mut optimizer) = (Run::new(DType::F32), one_call(storage));
        run.train(&mut optimizer, 2);
        let mut with_burns = burns(storage).load_record(optimizer.to_record().expect("a record"));
        run = run.train_with_burns(&mut with_burns, 2);
        let mut again = one_call(storage);
        again.load_record(with_burns.to_record()).expect("a record");
        run.train(&mut again, 2);
        assert!(run.values() == whole.values(), "{storage}");
    }
}

/// The gradients of the first layer alone.
fn of_hidden(run: &Run) -> GradientsParams {
    let mut grads = run.grads();
    grads.remove::<2>(run.model.classes.weight.id);
    if let Some(bias) = &run.model.classes.bias {
        grads.remove::<1>(bias.id);
    }
    grads
}

/// Two parameters get the same random bits if their elements have the same numbers among those of the model. So the
/// numbers continue after those of the record, as in a run that was not interrupted.
#[test]
fn a_parameter_that_joins_after_a_load_has_random_bits_of_its_own() {
    let mut whole = Run::new(DType::BF16);
    let mut optimizer = one_call(Storage::Q8);
    let grads = of_hidden(&whole);
    let _ = optimizer.step(LR, &mut whole.model, grads).expect("a step");
    let record = optimizer.to_record().expect("a record");
    let model = whole.model.clone();
    whole.train(&mut optimizer, 2);

    let mut restored = one_call(Storage::Q8);
    restored.load_record(record).expect("a record");
    let mut resumed = Run { model, data: whole.data.clone() };
    resumed.train(&mut restored, 2);
    let first = |optimizer: &OneCallOptimizer, run: &Run| {
        let state = optimizer.state(run.model.classes.weight.id).and_then(|state| state.state());
        state.and_then(adamant_burn::adamant::State::first)
    };
    assert_eq!(first(&restored, &resumed), first(&optimizer, &whole));
    assert!(first(&restored, &resumed) >= Some(64 * 32 + 32), "after those of the first layer");
    assert!(resumed.values() == whole.values());
}

#[test]
fn a_parameter_that_joins_after_burn_loads_has_random_bits_of_its_own() {
    let mut whole = Run::new(DType::BF16);
    let mut optimizer = burns(Storage::Q8);
    let grads = of_hidden(&whole);
    whole.model = optimizer.step(LR, whole.model, grads);
    let (record, model) = (optimizer.to_record(), whole.model.clone());
    let data = whole.data.clone();
    whole = whole.train_with_burns(&mut optimizer, 2);

    let mut restored = burns(Storage::Q8).load_record(record);
    let resumed = Run { model, data }.train_with_burns(&mut restored, 2);
    assert!(resumed.values() == whole.values());
}

#[test]
fn a_missing_or_damaged_file_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("optimizer.bpk");
    let (mut run, mut optimizer) = (Run::new(DType::F32), one_call(Storage::F32));
    let refused = |optimizer: &mut OneCallOptimizer, context: &str| {
        let error = optimizer.load(&file).expect_err(context).to_string();
        assert!(error.starts_with(&file.display().to_string()), "{context}: {error}");
    };
    refused(&mut optimizer, "no file");
    run.train(&mut optimizer, 1);
    optimizer.save(&file).expect("a file");
    let whole = std::fs::read(&file).expect("the file");
    for len in [0, 5, 100, whole.len() / 2] {
        std::fs::write(&file, &whole[..len]).expect("a shorter file");
        refused(&mut optimizer, &format!("{len} of {} bytes", whole.len()));
    }
    let id = run.model.hidden.weight.id;
    assert_eq!(optimizer.state(id).map(|state| state.steps()), Some(1), "nothing has changed");
}
