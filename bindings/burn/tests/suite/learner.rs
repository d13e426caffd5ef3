//! burn's `Learner` trains, saves and resumes with our optimizer.

use std::{path::Path, sync::Arc};

use adamant_burn::{Adam, ParamOptimizer, Storage};
use burn::{
    Tensor,
    data::{
        dataloader::{DataLoader, DataLoaderBuilder, batcher::Batcher},
        dataset::InMemDataset,
    },
    lr_scheduler::constant::ConstantLr,
    module::{Module, Param},
    nn::Linear,
    optim::{GradientsParams, ModuleOptimizer},
    tensor::{Device, TensorData},
    train::{
        InferenceStep, Learner, RegressionOutput, SupervisedTraining, TrainOutput, TrainStep,
        checkpoint::KeepLastNCheckpoints, logger::InMemoryMetricLogger, metric::LossMetric,
    },
};

use crate::numbers;

const LR: f64 = 1e-2;
const INPUTS: usize = 3;
const ITEMS: usize = 8;
const BATCH: usize = 4;

/// A linear model of one output.
#[derive(Module, Debug)]
struct Model {
    linear: Linear,
}

impl Model {
    /// The same numbers in every run.
    fn new(device: &Device) -> Self {
        let weight = TensorData::new(numbers(1, INPUTS), [INPUTS, 1]);
        let bias = TensorData::new(numbers(2, 1), [1]);
        Self {
            linear: Linear {
                weight: Param::from_tensor(Tensor::from_data(weight, device)),
                bias: Some(Param::from_tensor(Tensor::from_data(bias, device))),
            },
        }
    }

    fn forward(&self, batch: Batch) -> RegressionOutput {
        let output = self.linear.forward(batch.inputs);
        let loss = (output.clone() - batch.targets.clone()).square().mean();
        RegressionOutput::new(loss, output, batch.targets)
    }

    fn values(&self) -> [TensorData; 2] {
        let bias = self.linear.bias.as_ref().expect("a bias");
        [self.linear.weight.val().into_data(), bias.val().into_data()]
    }
}

#[derive(Clone, Debug)]
struct Batch {
    inputs: Tensor<2>,
    targets: Tensor<2>,
}

struct Batches;

impl Batcher<u64, Batch> for Batches {
    fn batch(&self, items: Vec<u64>, device: &Device) -> Batch {
        let inputs: Vec<f32> = items.iter().flat_map(|&item| numbers(item, INPUTS)).collect();
        let targets: Vec<f32> = inputs.chunks(INPUTS).map(|input| input[0] - input[1]).collect();
        Batch {
            inputs: Tensor::from_data(TensorData::new(inputs, [items.len(), INPUTS]), device),
            targets: Tensor::from_data(TensorData::new(targets, [items.len(), 1]), device),
        }
    }
}

impl TrainStep for Model {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> TrainOutput<RegressionOutput> {
        let output = self.forward(batch);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

impl InferenceStep for Model {
    type Input = Batch;
    type Output = RegressionOutput;

    fn step(&self, batch: Batch) -> RegressionOutput {
        self.forward(batch)
    }
}

/// The items in their order, since nothing is shuffled.
fn batches() -> Arc<dyn DataLoader<Batch>> {
    let items = (10..10 + ITEMS as u64).collect();
    DataLoaderBuilder::new(Batches).batch_size(BATCH).build(InMemDataset::new(items))
}

/// Moments of 8 bits, so that a resumed run needs the step counts and the random bits, too.
fn optimizer() -> ModuleOptimizer {
    ParamOptimizer::new(Adam::adamw()).expect("settings").with_moments(Storage::Q8).into()
}

/// Trains up to an epoch with a `Learner`, from the start or from the checkpoint of an epoch.
fn train(folder: &Path, epochs: usize, from: Option<usize>) -> [TensorData; 2] {
    let mut training = SupervisedTraining::new(folder, batches(), batches())
        .num_epochs(epochs)
        .with_default_checkpointers()
        .with_checkpointing_strategy(KeepLastNCheckpoints::new(epochs))
        .with_metric_logger(InMemoryMetricLogger::new())
        .metric_train_numeric(LossMetric::new())
        .metric_valid_numeric(LossMetric::new())
        .with_application_logger(None);
    if let Some(epoch) = from {
        training = training.checkpoint(epoch);
    }
    let model = Model::new(&Device::default().autodiff());
    let learner = Learner::new(model, optimizer(), ConstantLr::new(LR));
    training.launch(learner).model.values()
}

/// The same epochs in a plain loop.
fn train_in_a_loop(epochs: usize) -> [TensorData; 2] {
    let device = Device::default().autodiff();
    let (mut model, mut optimizer) = (Model::new(&device), optimizer());
    for _ in 0..epochs {
        for first in (10..10 + ITEMS as u64).step_by(BATCH) {
            let batch = Batches.batch((first..first + BATCH as u64).collect(), &device);
            let grads = GradientsParams::from_grads(model.forward(batch).loss.backward(), &model);
            model = optimizer.step(LR, model, grads);
        }
    }
    model.values()
}

#[test]
fn a_learner_takes_the_steps_of_a_plain_loop() {
    let folder = tempfile::tempdir().expect("a folder");
    let learned = train(folder.path(), 2, None);
    assert!(learned == train_in_a_loop(2), "the same bits");
    assert!(learned != train_in_a_loop(1), "each epoch changes the model");
}

#[test]
fn a_learner_that_resumes_from_a_checkpoint_has_the_bits_of_one_that_was_not_interrupted() {
    let folder = tempfile::tempdir().expect("a folder");
    train(folder.path(), 2, None);
    let resumed = train(folder.path(), 4, Some(2));
    let whole = tempfile::tempdir().expect("a folder");
    assert!(resumed == train(whole.path(), 4, None), "the same bits");
}
