//! Trains two classifiers of handwritten digits, each with plain gradient descent and with AdamW.
//!
//! Softmax regression and a network with one hidden layer learn from the 1,797 digits in
//! `examples/data`, or from MNIST. Every optimizer gets the same initial weights, the same batches
//! and the same number of epochs, and is judged at the best of a small grid of learning rates,
//! chosen on a validation split. The test split serves the final table alone.
//!
//! ```text
//! cargo run --release --example digits
//! cargo run --release --example digits -- --plot digits.svg
//! cargo run --release --example digits -- --mnist DIR
//! cargo run --release --example digits -- --precision bf16
//! cargo run --release --example digits -- --checkpoints DIR
//! ```
//!
//! The part to copy into a program of your own is [`trainer::Trainer`]: weights decay and biases do not,
//! gradients are clipped by their common norm, the learning rate follows a schedule, and a checkpoint
//! keeps all that the next steps depend on. With `--checkpoints DIR` a run that was interrupted goes on
//! from its last epoch, to the same bits. [`precision::Trained`] shows mixed precision.
//!
//! A seed fixes the initial weights and the batches. The matrix products round differently on
//! different CPUs, so the last digits of the results may differ from one machine to another.

mod checkpoint;
mod data;
mod idx;
mod model;
mod plot;
mod precision;
mod progress;
mod report;
mod train;
mod trainer;

use std::fs;
use std::io;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Parser;

use data::DataSet;
use model::Network;
use precision::Precision;
use progress::Progress;
use train::{Contest, Plan, Trial};
use trainer::Method;

/// Seeded, it gives the same numbers on every machine.
type Random = rand::rngs::ChaCha8Rng;

/// Trains digit classifiers with plain gradient descent and with AdamW, and compares them.
#[derive(Parser)]
struct Options {
    /// Passes over the training samples in each run
    #[arg(long, value_name = "N", default_value = "20")]
    epochs: NonZeroU16,

    /// Fixes the initial weights and the order of the batches
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// The types of parameters, gradients and moments
    #[arg(long, value_enum, default_value_t = Precision::F32)]
    precision: Precision,

    /// Train on MNIST: the folder of its four IDX files, plain or gzipped (takes minutes)
    #[arg(long, value_name = "DIR")]
    mnist: Option<PathBuf>,

    /// Save every run into this folder after each epoch, and go on from what is there
    #[arg(long, value_name = "DIR")]
    checkpoints: Option<PathBuf>,

    /// Draw the training losses into this SVG file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let data = match &options.mnist {
        Some(folder) => idx::mnist(folder)?,
        None => data::digits()?,
    };
    let plan = Plan {
        epochs: options.epochs.get().into(),
        batch: 32,
        seed: options.seed,
        precision: options.precision,
    };
    if let Some(folder) = &options.checkpoints {
        fs::create_dir_all(folder)?;
    }

    let contests = compare(&data, &plan, options.checkpoints.as_deref())?;
    report::print(&mut io::stdout().lock(), &data, &plan, &contests)?;
    if let Some(file) = &options.plot {
        plot::losses(file, &contests)?;
    }
    Ok(())
}

/// Holds a contest for every network and every method.
fn compare(data: &DataSet, plan: &Plan, checkpoints: Option<&Path>) -> Result<Vec<Contest>> {
    let networks = [
        Network::new("softmax", &[data.pixels(), data::CLASSES]),
        Network::new("mlp", &[data.pixels(), data.hidden, data::CLASSES]),
    ];
    let rates: usize = Method::ALL.iter().map(|method| method.grid().len()).sum();
    let progress = Progress::new(networks.len() * rates, plan.epochs);

    let mut contests = Vec::new();
    for network in &networks {
        for method in Method::ALL {
            let trials = search(network, method, data, plan, checkpoints, &progress)?;
            contests.push(Contest::new(network, method, trials, &data.test)?);
        }
    }
    Ok(contests)
}

/// Trains a network at every learning rate of the method's grid.
fn search(
    network: &Network,
    method: Method,
    data: &DataSet,
    plan: &Plan,
    checkpoints: Option<&Path>,
    progress: &Progress,
) -> Result<Vec<Trial>> {
    let trial = |&lr: &f64| {
        let label = format!("{} {} lr {lr}", network.name, method.name());
        progress.start(&label);
        let file = checkpoints.map(|folder| folder.join(plan.file(network, method, lr, data)));
        let file = file.as_deref();
        let trial = Trial::run(network, method, lr, data, plan, file, || progress.epoch_done())?;
        progress.finish(&label, trial.validation.accuracy);
        Ok(trial)
    };
    method.grid().iter().map(trial).collect()
}
