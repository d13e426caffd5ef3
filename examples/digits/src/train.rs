//! One training run, and the choice among the runs of a grid.

use std::time::{Duration, Instant};

use adamant::{Adam, Optimizer, Rule, Sgd};
use anyhow::{Context, Result};
use ndarray::Axis;
use rand::SeedableRng;
use rand::seq::SliceRandom;

use crate::Random;
use crate::data::{DataSet, Samples};
use crate::model::{Network, Score};
use crate::precision::{MixedModel, Precision};

/// What all runs have in common.
pub struct Plan {
    pub epochs: usize,
    /// Samples per step; the last batch of an epoch may be smaller.
    pub batch: usize,
    pub seed: u64,
    pub precision: Precision,
}

/// How a step follows from a gradient.
#[derive(Clone, Copy)]
pub enum Method {
    /// Plain gradient descent on mini-batches, without momentum.
    Sgd,
    Adam,
}

/// Updates the parameters that the network reads by one gradient.
type Stepper = Box<dyn FnMut(&mut [f32], &[f32]) -> Result<()>>;

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
    snapshots: Vec<Vec<f32>>,
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
}

impl Method {
    pub const ALL: [Self; 2] = [Self::Sgd, Self::Adam];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sgd => "sgd",
            Self::Adam => "adam",
        }
    }

    /// The learning rates to choose from: seven each, in steps of about a factor of three.
    pub fn grid(self) -> &'static [f64] {
        match self {
            Self::Sgd => &[0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
            Self::Adam => &[0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1],
        }
    }

    /// Prepares to train some parameters, which are rounded to what the network reads.
    fn stepper(self, lr: f64, plan: &Plan, params: &mut [f32]) -> Result<Stepper> {
        let adam = Adam { lr, ..Adam::default() };
        let sgd = Sgd { lr, ..Sgd::default() };
        Ok(match (self, plan.precision) {
            (Self::Sgd, Precision::F32) => Box::new(move |params, grads| {
                descend(params, grads, lr as f32);
                Ok(())
            }),
            (Self::Adam, Precision::F32) => {
                let mut state = adam.state::<f32>(params.len());
                Box::new(move |params, grads| Ok(adam.step(params, grads, &mut state)?))
            }
            (Self::Sgd, _) => mixed(sgd, plan, params)?,
            (Self::Adam, _) => mixed(adam, plan, params)?,
        })
    }
}

impl Trial {
    /// Trains `network` from the plan's seed, which fixes its initial weights and all batches.
    pub fn run(
        network: &Network,
        method: Method,
        lr: f64,
        data: &DataSet,
        plan: &Plan,
        mut on_epoch: impl FnMut(),
    ) -> Result<Self> {
        let mut random = Random::seed_from_u64(plan.seed);
        let mut params = network.init(&mut random);
        let mut stepper = method.stepper(lr, plan, &mut params)?;
        let mut order: Vec<usize> = (0..data.train.len()).collect();

        let mut losses = vec![network.score(&params, &data.train)?.loss];
        let (mut time, mut snapshots) = (Duration::ZERO, Vec::new());
        for epoch in 1..=plan.epochs {
            let start = Instant::now();
            order.shuffle(&mut random);
            train_epoch(network, &data.train, order.chunks(plan.batch), &mut params, &mut stepper)?;
            time += start.elapsed();

            losses.push(network.score(&params, &data.train)?.loss);
            if plan.milestones().contains(&epoch) {
                snapshots.push(params.clone());
            }
            on_epoch();
        }
        let validation = network.score(&params, &data.validation)?;
        Ok(Self { lr, losses, validation, time, snapshots })
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
    params: &mut [f32],
    stepper: &mut Stepper,
) -> Result<()> {
    let mut grads = vec![0.0; params.len()];
    for batch in batches {
        let images = train.images.select(Axis(0), batch);
        let labels: Vec<u8> = batch.iter().map(|&index| train.labels[index]).collect();
        network.gradient(params, images, &labels, &mut grads)?;
        stepper(params, &grads)?;
    }
    Ok(())
}

/// Steps in the plan's precision.
fn mixed<R: Rule>(rule: R, plan: &Plan, params: &mut [f32]) -> Result<Stepper> {
    let mut model = MixedModel::new(rule, plan.precision, plan.seed, params)?;
    Ok(Box::new(move |params, grads| model.step(params, grads)))
}

/// One step of gradient descent: `p = p - lr * g`.
fn descend(params: &mut [f32], grads: &[f32], lr: f32) {
    for (param, grad) in params.iter_mut().zip(grads) {
        *param -= lr * grad;
    }
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
                let run = || Trial::run(&network, method, 0.01, &data, &plan, || ()).unwrap();
                assert_eq!(run().snapshots, run().snapshots);
            }
        }
    }

    #[test]
    fn mlp_with_adam_reaches_95_percent_in_every_precision() {
        let data = data::digits().unwrap();
        let network = Network::new("mlp", &[data.pixels(), data.hidden, data::CLASSES]);
        for &precision in Precision::value_variants() {
            let plan = Plan { precision, ..PLAN };
            let trial = Trial::run(&network, Method::Adam, 0.003, &data, &plan, || ()).unwrap();
            let contest = Contest::new(&network, Method::Adam, vec![trial], &data.test).unwrap();
            assert!(contest.accuracies[2] >= 0.95, "{precision:?}: {:?}", contest.accuracies);
        }
    }
}
