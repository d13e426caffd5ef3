//! Trains models at random for as long as it is told: optimizers, settings, types, threads, cuts, norms,
//! saves and loads, rows of tables. At the end of each run everything must have the bits of the reference.
//!
//! ```text
//! cargo run --release --example soak --features soak/run -- --seconds 60 --seed 1
//! ```

#[path = "../../support/mod.rs"]
mod support;

mod dense;
mod tables;
mod threads;
mod trained;

use std::{
    panic,
    path::Path,
    time::{Duration, Instant},
};

use clap::Parser;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

#[derive(Parser)]
#[command(
    about = "Trains at random, and compares with the reference by bits at the end of each run"
)]
struct Options {
    /// How long new runs are begun; the last one is finished
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The seed of the first run; each later one has the next number
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The most runs
    #[arg(long, default_value_t = u64::MAX)]
    runs: u64,
}

/// What the runs have done.
#[derive(Debug, Default)]
struct Counts {
    runs: u64,
    tables: u64,
    steps: u64,
    left_out: u64,
    refused: u64,
    /// Elements times steps.
    elements: u64,
    cuts: u64,
    states: u64,
    files: u64,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let folder = tempfile::tempdir()?;
    let (started, limit) = (Instant::now(), Duration::from_secs(options.seconds));
    let mut counts = Counts::default();
    while counts.runs < options.runs && started.elapsed() < limit {
        let seed = options.seed.wrapping_add(counts.runs);
        let done = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            run(seed, folder.path(), &mut counts);
        }));
        if let Err(panic) = done {
            eprintln!("the run of seed {seed} failed; to repeat it: --seed {seed} --runs 1");
            panic::resume_unwind(panic);
        }
        counts.runs += 1;
    }
    let Counts { runs, tables, steps, left_out, refused, elements, cuts, states, files } = counts;
    println!(
        "all of {runs} runs have the bits of the reference: seeds {} on, {:.0} s\n\
         {tables} of them on tables\n\
         {steps} steps, {left_out} of them left out, {refused} refused\n\
         {elements} elements stepped\n\
         {cuts} times a tensor was cut anew, {states} put into a state, {files} saved to a file and loaded",
        options.seed,
        started.elapsed().as_secs_f64(),
    );
    Ok(())
}

fn run(seed: u64, folder: &Path, counts: &mut Counts) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    if rng.random_ratio(1, 4) {
        tables::run(&mut rng, counts);
    } else {
        dense::run(&mut rng, folder, counts);
    }
}
