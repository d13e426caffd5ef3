//! The results as text.

use std::io::Write;

use anyhow::{Context, Result, ensure};

use crate::{
    data::NOISE,
    traffic::Listed,
    train::{Plan, Run},
    way::Way,
};

/// Prints everything, and checks that dense-equivalent steps end up where dense steps do.
pub fn print(out: &mut impl Write, plan: &Plan, runs: &[Run]) -> Result<()> {
    let [users, items] = plan.rows;
    let listed = Listed::count(&plan.train, plan.batch);
    writeln!(
        out,
        "{users} users and {items} items, rows of {}; {} steps, batches of {} ratings\n",
        plan.width,
        plan.train.len() / plan.batch,
        plan.batch
    )?;
    let run = |way| runs.iter().find(|run| run.way == way).context("a run is missing");
    let (lazy, equivalent, dense) = (run(Way::Lazy)?, run(Way::DenseEquivalent)?, run(Way::Dense)?);
    for run in runs {
        let bytes: f64 = listed
            .iter()
            .zip(plan.rows)
            .map(|(listed, rows)| listed.bytes(run.way, rows, plan.width))
            .sum();
        writeln!(
            out,
            "{:<16} {:>8.4} {:>8.3} {:>9.0} {:>9.0} {:>9.2} {:>8.1}",
            run.way.name(),
            run.error,
            run.error / NOISE,
            run.step.as_secs_f64() * 1e6,
            run.catch_up.as_secs_f64() * 1e6,
            bytes / 1e6,
            dense.step.as_secs_f64() / run.step.as_secs_f64()
        )?;
    }
    writeln!(
        out,
        "mean only {:.4}; distinct {:?}",
        plan.held_out.standard_deviation(),
        listed.map(Listed::distinct_a_batch)
    )?;
    writeln!(out, "catch up all {:?}", equivalent.catch_up_all)?;
    writeln!(
        out,
        "lazy-dense {:e}  equiv-dense {:e}",
        lazy.model.distance(&dense.model),
        equivalent.model.distance(&dense.model)
    )?;
    ensure!(equivalent.model.distance(&dense.model) < 1.0);
    Ok(())
}
