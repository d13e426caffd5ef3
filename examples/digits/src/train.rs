//! One training run, and the choice among the runs of a grid.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ndarray::Axis;
use rand::SeedableRng;
use rand::seq::SliceRandom;

use crate::Random;
use crate::checkpoint::Checkpoint;
use crate::data::{DataSet, Samples};
use crate::model::{Network, Score};
use crate::precision::Precision;
use crate::trainer::{Method, Trainer};

/// The settings that all runs share.
pub struct Plan {
    pub epochs: usize,
    /// Samples per step; the last batch of an epoch may be smaller.
    pub batch: usize,
    pub seed: u64,
    pub precision: Precision,
}

/// A run at one learning rate.
pub struct Trial {
    pub lr: f64,
    /// The loss over the training split before the first epoch and after each one.
    pub losses: Vec<f64>,
    /// After the last epoch.
    pub validation: Score,
    /// Spent on gradients and steps.
    pub time: Duration,
    /// The parameters after each of [`Plan::milestones`].
    snapshots: Vec<Vec<Vec<f32>>>,
}

/// A network and a method, with the learning rate that suits them best.
pub struct Contest {
    pub network: &'static str,
    pub method: Method,
    pub trials: Vec<Trial>,
    /// The position of the chosen trial.
    pub chosen: usize,
    /// The chosen trial's accuracy on the test split at each of [`Plan::milestones`].
    pub accuracies: Vec<f64>,
}

impl Plan {
    /// The epochs after which the table shows an accuracy: the first, the third and the last.
    pub fn milestones(&self) -> Vec<usize> {
        let mut epochs = vec![1, 3.min(self.epochs), self.epochs];
        epochs.dedup();
        epochs
    }

    /// The name of a run's file: whatever the run depends on.
    pub fn file(&self, network: &Network, method: Method, lr: f64, data: &DataSet) -> String {
        let Self { epochs, batch, seed, precision } = self;
        let (data, network, method) = (data.name, network.name, method.name());
        let precision = precision.name();
        format!("{data}-{network}-{method}-{lr}-{epochs}x{batch}-{seed}-{precision}.json")
    }

    /// Random numbers for the initial weights, by the number 0, or for the batches of an epoch.
    fn random(&self, number: u64) -> Random {
        let mut random = Random::seed_from_u64(self.seed);
        random.set_stream(number);
        random
    }
}

impl Trial {
    /// Trains `network` from the plan's seed, which fixes its initial weights and all batches.
    ///
    /// With a file it is saved after every epoch, and goes on from there when it is run again.
    pub fn run(
        network: &Network,
        method: Method,
        lr: f64,
        data: &DataSet,
        plan: &Plan,
        file: Option<&Path>,
        mut on_epoch: impl FnMut(),
    ) -> Result<Self> {
        let steps = plan.epochs * data.train.len().div_ceil(plan.batch);
        let mut params = network.init(&mut plan.random(0));
        let mut trainer = Trainer::new(network, method, lr, steps, plan, &mut params)?;
        let score = network.score(&params, &data.validation)?;
        let losses = vec![network.score(&params, &data.train)?.loss];
        let (time, snapshots) = (Duration::ZERO, Vec::new());
        let mut trial = Self { lr, losses, validation: score, time, snapshots };

        let saved = file.map(Checkpoint::read).transpose()?.flatten();
        if let Some(saved) = saved {
            trainer.load(&saved, &mut params)?;
            trial.load(&saved, network, plan)?;
            (0..trial.epochs()).for_each(|_| on_epoch());
        }
        for epoch in trial.epochs() + 1..=plan.epochs {
            let start = Instant::now();
            let mut order: Vec<usize> = (0..data.train.len()).collect();
            order.shuffle(&mut plan.random(epoch as u64));
            train_epoch(network, &data.train, order.chunks(plan.batch), &mut params, &mut trainer)?;
            trial.time += start.elapsed();

            trial.losses.push(network.score(&params, &data.train)?.loss);
            if plan.milestones().contains(&epoch) {
                trial.snapshots.push(params.clone());
            }
            if let Some(file) = file {
                let mut checkpoint = Checkpoint::default();
                trainer.save(&mut checkpoint)?;
                trial.save(&mut checkpoint);
                checkpoint.write(file)?;
            }
            on_epoch();
        }
        trial.validation = network.score(&params, &data.validation)?;
        Ok(trial)
    }

    /// The number of epochs that are done.
    fn epochs(&self) -> usize {
        self.losses.len() - 1
    }

    fn save(&self, checkpoint: &mut Checkpoint) {
        checkpoint.put_f64("losses", &self.losses);
        checkpoint.put_f64("seconds", &[self.time.as_secs_f64()]);
        for (milestone, snapshot) in self.snapshots.iter().enumerate() {
            for (tensor, values) in snapshot.iter().enumerate() {
                checkpoint.put_f32(&format!("milestone{milestone}.{tensor}"), values);
            }
        }
    }

    fn load(&mut self, checkpoint: &Checkpoint, network: &Network, plan: &Plan) -> Result<()> {
        self.losses = checkpoint.get_f64("losses")?;
        let seconds = checkpoint.get_f64("seconds")?;
        self.time = Duration::try_from_secs_f64(seconds.iter().sum())?;
        let reached = plan.milestones().into_iter().filter(|&epoch| epoch <= self.epochs()).count();
        for milestone in 0..reached {
            let mut snapshot = network.zeros();
            for (tensor, values) in snapshot.iter_mut().enumerate() {
                checkpoint.get_f32(&format!("milestone{milestone}.{tensor}"), values)?;
            }
            self.snapshots.push(snapshot);
        }
        Ok(())
    }
}

impl Contest {
    /// Chooses among the trials, and only then looks at the test split.
    pub fn new(
        network: &Network,
        method: Method,
        trials: Vec<Trial>,
        test: &Samples,
    ) -> Result<Self> {
        let chosen = best(trials.iter().map(|trial| &trial.validation)).context("no trials")?;
        let accuracies = trials[chosen]
            .snapshots
            .iter()
            .map(|params| Ok(network.score(params, test)?.accuracy))
            .collect::<Result<_>>()?;
        Ok(Self { network: network.name, method, trials, chosen, accuracies })
    }

    pub fn winner(&self) -> &Trial {
        &self.trials[self.chosen]
    }
}

/// One pass over the training samples.
fn train_epoch<'a>(
    network: &Network,
    train: &Samples,
    batches: impl Iterator<Item = &'a [usize]>,
    params: &mut [Vec<f32>],
    trainer: &mut Trainer,
) -> Result<()> {
    let mut grads = network.zeros();
    for batch in batches {
        let images = train.images.select(Axis(0), batch);
        let labels: Vec<u8> = batch.iter().map(|&index| train.labels[index]).collect();
        network.gradient(params, images, &labels, &mut grads)?;
        // Steps are left out where training has diverged; the loss shows that.
        let _ = trainer.step(params, &grads)?;
    }
    Ok(())
}

/// The position of the highest accuracy; of equal ones, that with the lowest loss.
fn best<'a>(scores: impl Iterator<Item = &'a Score>) -> Option<usize> {
    let ranked = scores
        .enumerate()
        .max_by(|(_, a), (_, b)| a.accuracy.total_cmp(&b.accuracy).then(b.loss.total_cmp(&a.loss)));
    ranked.map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::data;

    const PLAN: Plan = Plan { epochs: 20, batch: 32, seed: 1, precision: Precision::F32 };

    #[test]
    fn milestones_never_repeat_or_pass_the_end() {
        let milestones = |epochs| Plan { epochs, ..PLAN }.milestones();
        assert_eq!(milestones(1), [1]);
        assert_eq!(milestones(2), [1, 2]);
        assert_eq!(milestones(3), [1, 3]);
        assert_eq!(milestones(20), [1, 3, 20]);
    }

    #[test]
    fn best_prefers_accuracy_then_loss() {
        let scores = [(0.9, 0.1), (0.95, 0.3), (0.95, 0.2), (0.1, f64::INFINITY)];
        let scores = scores.map(|(accuracy, loss)| Score { accuracy, loss });
        assert_eq!(best(scores.iter()), Some(2));
    }

    #[test]
    fn trials_repeat_to_the_bit() {
        let data = data::digits().unwrap();
        let network = Network::new("mlp", &[data.pixels(), 16, data::CLASSES]);
        for &precision in Precision::value_variants() {
            let plan = Plan { epochs: 2, seed: 5, precision, ..PLAN };
            for method in Method::ALL {
                let run = || Trial::run(&network, method, 0.01, &data, &plan, None, || ()).unwrap();
                assert_eq!(run().snapshots, run().snapshots);
            }
        }
    }

    #[test]
    fn interrupted_trials_have_the_bits_of_others() {
        let data = data::digits().unwrap();
        let network = Network::new("mlp", &[data.pixels(), 16, data::CLASSES]);
        let folder = tempfile::tempdir().unwrap();
        for &precision in Precision::value_variants() {
            let plan = Plan { epochs: 4, seed: 5, precision, ..PLAN };
            for method in Method::ALL {
                let run = |file: Option<&Path>, on_epoch: &mut dyn FnMut()| {
                    Trial::run(&network, method, 0.01, &data, &plan, file, on_epoch).unwrap()
                };
                let whole = run(None, &mut || ());

                let file = folder.path().join(format!("{}-{}", method.name(), precision.name()));
                let copy = folder.path().join("after-two-epochs");
                let mut epochs = 0;
                run(Some(&file), &mut || {
                    epochs += 1;
                    if epochs == 2 {
                        std::fs::copy(&file, &copy).unwrap();
                    }
                });
                let resumed = run(Some(&copy), &mut || ());
                assert_eq!(resumed.losses, whole.losses);
                assert_eq!(resumed.snapshots, whole.snapshots);
            }
        }
    }

    #[test]
    fn mlp_with_adam_reaches_95_percent_in_every_precision() {
        let data = data::digits().unwrap();
        let network = Network::new("mlp", &[data.pixels(), data.hidden, data::CLASSES]);
        for &precision in Precision::value_variants() {
            let plan = Plan { precision, ..PLAN };
            let run = Trial::run(&network, Method::Adam, 0.003, &data, &plan, None, || ());
            let trials = vec![run.unwrap()];
            let contest = Contest::new(&network, Method::Adam, trials, &data.test).unwrap();
            assert!(contest.accuracies[2] >= 0.95, "{precision:?}: {:?}", contest.accuracies);
        }
    }
}
