//! A training run in one of the ways.

use std::time::{Duration, Instant};

use adamant::Adam;
use anyhow::Result;
use rand::SeedableRng;

use crate::{
    Random,
    data::Ratings,
    model::{Gradient, Model},
    way::Way,
};

/// What all runs have in common.
pub struct Plan {
    /// Of the table of users and of that of items.
    pub rows: [usize; 2],
    pub width: usize,
    /// Ratings per step.
    pub batch: usize,
    pub adam: Adam,
    /// Fixes the initial values.
    pub seed: u64,
    pub train: Ratings,
    pub held_out: Ratings,
}

/// What came out.
pub struct Run {
    pub way: Way,
    pub model: Model,
    /// The root mean squared error of the ratings that were held out.
    pub error: f64,
    /// Of a step of both tables, catching up included: the median.
    pub step: Duration,
    /// Of catching up before the forward pass: the median.
    pub catch_up: Duration,
    /// Of catching up with all rows after the last step.
    pub catch_up_all: Duration,
}

impl Run {
    /// Trains on each batch once.
    pub fn new(way: Way, plan: &Plan, mut on_step: impl FnMut()) -> Result<Self> {
        let Plan { rows, width, adam, .. } = *plan;
        let mut model = Model::new(&mut Random::seed_from_u64(plan.seed), rows, width);
        let [mut users, mut items] = rows.map(|rows| way.stepper(adam, rows, width));
        let mut gradient = Gradient::new(width);

        let (mut steps, mut catch_ups) = (Vec::new(), Vec::new());
        for batch in plan.train.batches(plan.batch) {
            let start = Instant::now();
            users.before_reading(&mut model.users, batch.users)?;
            items.before_reading(&mut model.items, batch.items)?;
            let catch_up = start.elapsed();

            model.gradient(batch, &mut gradient);

            let start = Instant::now();
            users.step(&mut model.users, gradient.users(batch))?;
            items.step(&mut model.items, gradient.items(batch))?;
            steps.push(catch_up + start.elapsed());
            catch_ups.push(catch_up);
            on_step();
        }
        let start = Instant::now();
        users.before_reading_all(&mut model.users)?;
        items.before_reading_all(&mut model.items)?;
        let catch_up_all = start.elapsed();

        let error = model.error(&plan.held_out);
        let (step, catch_up) = (median(steps), median(catch_ups));
        Ok(Self { way, model, error, step, catch_up, catch_up_all })
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
