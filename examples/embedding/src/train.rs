//! A training run in one of the ways.

use std::time::{Duration, Instant};

use adamant::Adam;
use anyhow::{Result, ensure};
use rand::SeedableRng;

use crate::Random;
use crate::data::{Batch, Ratings};
use crate::model::{Gradient, Model};
use crate::way::{Stepper, Way};

/// The settings that all runs share.
pub struct Plan {
    /// Of the table of users, and of that of items.
    pub rows: [usize; 2],
    /// Of both tables.
    pub width: usize,
    /// Ratings per step.
    pub batch: usize,
    pub adam: Adam,
    /// Fixes the initial values.
    pub seed: u64,
    pub train: Ratings,
    pub held_out: Ratings,
}

/// A model, and what steps its two tables.
pub struct Trainee {
    pub model: Model,
    users: Box<dyn Stepper>,
    items: Box<dyn Stepper>,
}

/// A model after training, and what it took.
pub struct Run {
    pub way: Way,
    pub model: Model,
    /// The root mean squared error over the ratings that were held out.
    pub error: f64,
    /// For a step of both tables, all that the optimizer does for a batch: the median.
    pub step: Duration,
    /// For catching up before the forward pass, which is a part of the step: the median.
    pub catch_up: Duration,
    /// For catching up with all rows after the last step.
    pub catch_up_all: Duration,
}

impl Plan {
    /// Each rating once.
    pub fn batches(&self) -> impl ExactSizeIterator<Item = Batch<'_>> {
        self.train.batches(self.batch)
    }

    pub fn steps(&self) -> usize {
        self.batches().len()
    }
}

impl Trainee {
    pub fn new(way: Way, plan: &Plan) -> Self {
        let Plan { rows, width, adam, seed, .. } = *plan;
        let [users, items] = rows.map(|rows| way.stepper(adam, rows, width));
        Self { model: Model::new(&mut Random::seed_from_u64(seed), rows, width), users, items }
    }

    /// To be called before the forward pass.
    pub fn before_reading(&mut self, batch: Batch) -> Result<()> {
        self.users.before_reading(&mut self.model.users, batch.users)?;
        self.items.before_reading(&mut self.model.items, batch.items)
    }

    pub fn step(&mut self, batch: Batch, gradient: &Gradient) -> Result<()> {
        self.users.step(&mut self.model.users, gradient.users(batch))?;
        self.items.step(&mut self.model.items, gradient.items(batch))
    }

    /// To be called before the model is evaluated or saved.
    pub fn before_reading_all(&mut self) -> Result<()> {
        self.users.before_reading_all(&mut self.model.users)?;
        self.items.before_reading_all(&mut self.model.items)
    }
}

impl Run {
    pub fn new(way: Way, plan: &Plan, mut on_step: impl FnMut()) -> Result<Self> {
        let mut trainee = Trainee::new(way, plan);
        let mut gradient = Gradient::new(plan.width);
        let (mut steps, mut catch_ups) = (Vec::new(), Vec::new());
        for batch in plan.batches() {
            let catch_up = timed(|| trainee.before_reading(batch))?;
            trainee.model.gradient(batch, &mut gradient);
            let step = timed(|| trainee.step(batch, &gradient))?;
            steps.push(catch_up + step);
            catch_ups.push(catch_up);
            on_step();
        }
        let catch_up_all = timed(|| trainee.before_reading_all())?;

        let model = trainee.model;
        let error = model.error(&plan.held_out);
        ensure!(error.is_finite(), "training has diverged; a smaller --lr may help");
        let (step, catch_up) = (median(steps), median(catch_ups));
        Ok(Self { way, model, error, step, catch_up, catch_up_all })
    }
}

fn timed(work: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Rows that wait for up to hundreds of steps, within a second of tests.
#[cfg(test)]
pub fn small_plan() -> Plan {
    use crate::data::World;

    let mut random = Random::seed_from_u64(1);
    let world = World::new(&mut random, [300, 200], 1.0);
    let [train, held_out] = [300 * 16, 2000].map(|count| world.draw(&mut random, count));
    let adam = Adam { lr: 0.01, ..Adam::default() };
    Plan { rows: [300, 200], width: 8, batch: 16, adam, seed: 2, train, held_out }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn training_beats_the_mean_in_every_way() {
        let plan = small_plan();
        for way in Way::ALL {
            let run = Run::new(way, &plan, || ()).unwrap();
            let share = run.error / plan.held_out.standard_deviation();
            assert!(share < 0.9, "{}: {share}", way.name());
        }
    }
}
