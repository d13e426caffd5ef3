//! A model in training: parameter groups, clipping, a schedule, and what a checkpoint keeps of them.

use std::f64::consts::PI;

use adamant::{Adam, DynOptimizer, Group, Outcome, Sgd, StepOptions};
use anyhow::Result;

use crate::checkpoint::Checkpoint;
use crate::model::{Kind, Network};
use crate::precision::Trained;
use crate::train::Plan;

/// Gradients of all tensors together are clipped to this norm.
const MAX_NORM: f64 = 1.0;

/// The share of the steps in which the learning rate rises.
const WARM_UP: f64 = 0.05;

/// How a step follows from a gradient.
#[derive(Clone, Copy)]
pub enum Method {
    /// Gradient descent on mini-batches, without momentum.
    Sgd,
    /// AdamW.
    Adam,
}

/// The tensors of a network, their optimizers, and how far they are trained.
pub struct Trainer {
    method: Method,
    /// The highest learning rate.
    lr: f64,
    /// Steps of the whole training.
    steps: usize,
    /// Random bits depend on it.
    seed: u64,
    tensors: Vec<Trained>,
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

    /// Of a kind of tensors: weights decay, biases do not.
    fn optimizer(self, kind: Kind, lr: f64) -> Box<dyn DynOptimizer> {
        let decay = |weight_decay| if kind == Kind::Weights { weight_decay } else { 0.0 };
        match self {
            Self::Sgd => Box::new(Sgd { lr, weight_decay: decay(1e-4), ..Sgd::default() }),
            Self::Adam => Box::new(Adam { lr, weight_decay: decay(1e-2), ..Adam::adamw() }),
        }
    }
}

impl Trainer {
    /// Starts from parameters in f32, and rounds them to those that the model reads.
    pub fn new(
        network: &Network,
        method: Method,
        lr: f64,
        steps: usize,
        plan: &Plan,
        params: &mut [Vec<f32>],
    ) -> Result<Self> {
        let (mut tensors, mut first) = (Vec::new(), 0);
        for (info, params) in network.tensors().into_iter().zip(params) {
            let (len, optimizer) = (info.len, method.optimizer(info.kind, lr));
            let trained = Trained::new(info, &*optimizer, plan.precision, first, params)?;
            trained.params.read(params);
            tensors.push(trained);
            first += len;
        }
        Ok(Self { method, lr, steps, seed: plan.seed, tensors })
    }

    /// Takes one step on all tensors, and writes the parameters that the model reads.
    pub fn step(&mut self, params: &mut [Vec<f32>], grads: &[Vec<f32>]) -> Result<Outcome> {
        let lr = self.lr * self.schedule();
        let (mut weights, mut biases) = (Vec::new(), Vec::new());
        for (trained, grads) in self.tensors.iter_mut().zip(grads) {
            let group = match trained.kind {
                Kind::Weights => &mut weights,
                Kind::Bias => &mut biases,
            };
            group.push(trained.tensor(grads));
        }
        let decay = self.method.optimizer(Kind::Weights, lr);
        let no_decay = self.method.optimizer(Kind::Bias, lr);
        let groups = &mut [Group::new(&*decay, &mut weights), Group::new(&*no_decay, &mut biases)];
        let options =
            StepOptions { max_norm: Some(MAX_NORM), seed: self.seed, ..StepOptions::default() };
        let report = adamant::step(groups, &options)?;

        for (trained, params) in self.tensors.iter().zip(params) {
            trained.params.read(params);
        }
        Ok(report.outcome)
    }

    /// The learning rate of the next step as a share of the highest: it rises in a line, and then falls
    /// to zero along a cosine.
    fn schedule(&self) -> f64 {
        let steps = self.tensors.first().map_or(0, |tensor| tensor.state.steps());
        let done = (steps as f64 + 0.5) / self.steps as f64;
        let falling = (done - WARM_UP) / (1.0 - WARM_UP);
        if done < WARM_UP { done / WARM_UP } else { 0.5 * (1.0 + (PI * falling).cos()) }
    }

    /// Writes all that the next steps depend on.
    pub fn save(&self, checkpoint: &mut Checkpoint) -> Result<()> {
        for Trained { name, params, state, .. } in &self.tensors {
            checkpoint.put_params(&format!("{name}.param"), params);
            checkpoint.put_steps(&format!("{name}.steps"), state.steps());
            for (moment, values) in state.moments() {
                checkpoint.put_moment(&format!("{name}.{moment}"), values)?;
            }
        }
        Ok(())
    }

    /// Goes on from where a checkpoint was saved, and writes the parameters that the model reads.
    pub fn load(&mut self, checkpoint: &Checkpoint, params: &mut [Vec<f32>]) -> Result<()> {
        for (trained, wide) in self.tensors.iter_mut().zip(params) {
            let Trained { name, params, state, .. } = trained;
            checkpoint.get_params(&format!("{name}.param"), params)?;
            params.read(wide);
            state.set_steps(checkpoint.get_steps(&format!("{name}.steps"))?);
            let moments: Vec<_> = state.moments().map(|(moment, _)| moment).collect();
            for moment in moments {
                if let Some(values) = state.moment_mut(moment) {
                    checkpoint.get_moment(&format!("{name}.{moment}"), values)?;
                }
            }
        }
        Ok(())
    }
}
