//! Trains large embedding tables with Adam: by lazy, dense-equivalent and dense steps.
//!
//! Users rate items. A row of numbers for each user and each item, learned by matrix factorisation,
//! foretells the ratings. A batch lists a thousand rows of tables of hundreds of thousands, popular
//! ones several times and most not at all. Every run sees the same ratings in the same order, from
//! the same initial values:
//!
//! - lazy: a step changes the listed rows alone;
//! - dense-equivalent: a step changes the listed rows alone, but first they catch up with the steps
//!   that they have missed, by a series or one by one, and so end up where dense steps take them;
//! - dense: a step changes all rows, with a gradient of zero for those that are not listed.
//!
//! ```text
//! cargo run --release --example embedding
//! cargo run --release --example embedding -- --optimizer adamw --lr 0.01
//! cargo run --release --example embedding -- --users 1000000 --steps 300
//! ```
//!
//! The parts to copy into a program of your own are [`way`], which shows what each way keeps besides
//! the table, and [`train::Trainee`], which shows what to call when.
//!
//! The ratings come from a hidden truth and noise, whose strength no forecast can beat. Lazy and
//! dense steps are different optimizers: in dense steps a row glides on after its last gradient, for
//! a rare one about ten times as far as lazily at the same learning rate. So neither loss speaks for
//! all learning rates: with the defaults dense steps do better, and with `--lr 0.02` lazy ones.
//!
//! A seed fixes the ratings, the initial values and all results but the times.

mod check;
mod data;
mod model;
mod progress;
mod report;
mod traffic;
mod train;
mod way;

use std::io;

use adamant::Adam;
use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use rand::SeedableRng;

use check::Differences;
use data::World;
use progress::Progress;
use train::{Plan, Run};
use way::Way;

/// Seeded, it gives the same numbers on every machine.
type Random = rand::rngs::ChaCha8Rng;

/// Ratings that no run trains on.
const HELD_OUT: usize = 100_000;

/// Trains embedding tables with lazy, dense-equivalent and dense steps, and compares them.
#[derive(Parser)]
struct Options {
    /// Rows of the table of users
    #[arg(long, value_name = "N", default_value_t = 200_000, value_parser = at_least(1))]
    users: u32,

    /// Rows of the table of items
    #[arg(long, value_name = "N", default_value_t = 50_000, value_parser = at_least(1))]
    items: u32,

    /// Numbers in a row: factors and a bias
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = at_least(2))]
    width: u32,

    /// The k-th most popular row is listed in proportion to 1 / k^SKEW; from 0 to 10
    #[arg(long, default_value_t = 1.0)]
    skew: f64,

    /// Ratings per step
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = at_least(1))]
    batch: u32,

    /// Steps of each run
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = at_least(1))]
    steps: u32,

    /// Adam, or AdamW with a weight decay of 0.01
    #[arg(long, value_name = "NAME", value_enum, default_value_t = Optimizer::Adam)]
    optimizer: Optimizer,

    /// Learning rate
    #[arg(long, default_value_t = 0.005)]
    lr: f64,

    /// Fixes the ratings and the initial values
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Optimizer {
    Adam,
    #[value(name = "adamw")]
    AdamW,
}

impl Optimizer {
    fn with_lr(self, lr: f64) -> Adam {
        match self {
            Self::Adam => Adam { lr, ..Adam::default() },
            Self::AdamW => Adam { lr, ..Adam::adamw() },
        }
    }
}

fn at_least(least: i64) -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(least..)
}

fn main() -> Result<()> {
    let plan = plan(&Options::parse())?;
    let (runs, differences) = compare(&plan)?;
    report::print(&mut io::stdout().lock(), &plan, &runs, &differences)?;
    differences.check()
}

/// Draws the ratings.
fn plan(options: &Options) -> Result<Plan> {
    ensure!((0.0..=10.0).contains(&options.skew), "a skew of {} is not in 0..=10", options.skew);
    let (batch, steps) = (options.batch as usize, options.steps as usize);
    let mut random = Random::seed_from_u64(options.seed);
    let world = World::new(&mut random, [options.users, options.items], options.skew);
    Ok(Plan {
        rows: [options.users as usize, options.items as usize],
        width: options.width as usize,
        batch,
        adam: options.optimizer.with_lr(options.lr),
        seed: options.seed,
        train: world.draw(&mut random, batch * steps),
        held_out: world.draw(&mut random, HELD_OUT),
    })
}

/// Trains in every way, and looks at how far apart the models end up.
fn compare(plan: &Plan) -> Result<([Run; 4], Differences)> {
    let progress = Progress::new((Way::ALL.len() + 1) * plan.steps());
    let run = |way: Way| {
        progress.start(way.name());
        Run::new(way, plan, || progress.step_done())
    };
    let [lazy, series, replay, dense] = Way::ALL;
    let runs = [run(lazy)?, run(series)?, run(replay)?, run(dense)?];
    progress.start("checking");
    let differences = Differences::new(plan, &runs, || progress.step_done())?;
    Ok((runs, differences))
}
