//! The results as text.

use std::io::Write;
use std::time::Duration;

use anyhow::Result;

use crate::check::Differences;
use crate::data::NOISE;
use crate::traffic::Listed;
use crate::train::{Plan, Run};

/// Prints everything; `runs` are of [`Way::ALL`](crate::way::Way::ALL).
pub fn print(
    out: &mut impl Write,
    plan: &Plan,
    runs: &[Run; 4],
    differences: &Differences,
) -> Result<()> {
    let listed = Listed::count(&plan.train, plan.batch);
    print_plan(out, plan, listed)?;
    print_table(out, plan, listed, runs, differences)?;

    let [_, series, replay, _] = runs;
    writeln!(
        out,
        "\nAfter the last step all rows caught up within {:.1} ms by the series, {:.1} ms by replay.",
        1e3 * series.catch_up_all.as_secs_f64(),
        1e3 * replay.catch_up_all.as_secs_f64()
    )?;
    writeln!(
        out,
        "Given the same gradients, the two differ by {:.1e} at most; rounding may come to {:.1e}.",
        differences.series_alone, differences.rounding
    )?;
    Ok(())
}

fn print_plan(out: &mut impl Write, plan: &Plan, [users, items]: [Listed; 2]) -> Result<()> {
    writeln!(
        out,
        "{} users and {} items in rows of {}; {} steps of {} ratings, learning rate {}",
        plan.rows[0],
        plan.rows[1],
        plan.width,
        plan.steps(),
        plan.batch,
        plan.adam.lr
    )?;
    writeln!(
        out,
        "A batch lists {:.0} users and {:.0} items, some of them several times.",
        users.distinct, items.distinct
    )?;
    writeln!(
        out,
        "Held-out ratings have an RMSE of {:.4} by their mean, and of {NOISE} by noise alone.\n",
        plan.held_out.standard_deviation()
    )?;
    Ok(())
}

fn print_table(
    out: &mut impl Write,
    plan: &Plan,
    listed: [Listed; 2],
    runs: &[Run; 4],
    differences: &Differences,
) -> Result<()> {
    let heads = ["", "held-out", "RMSE", "us", "of it", "MB", "largest", "times"];
    print_row(out, heads)?;
    let heads = ["", "RMSE", "/ noise", "a step", "catch-up", "a step", "difference", "faster"];
    print_row(out, heads)?;
    let [.., dense] = runs;
    let Differences { lazy, series, replay, .. } = *differences;
    for (run, difference) in runs.iter().zip([lazy, series, replay, 0.0]) {
        let tables = listed.iter().zip(plan.rows);
        let bytes: f64 = tables.map(|(listed, rows)| listed.bytes(run.way, rows, plan.width)).sum();
        let cells = [
            run.way.name(),
            &format!("{:.4}", run.error),
            &format!("{:.3}", run.error / NOISE),
            &format!("{:.0}", micros(run.step)),
            &format!("{:.0}", micros(run.catch_up)),
            &format!("{:.2}", bytes / 1e6),
            &format!("{difference:.1e}"),
            &format!("{:.1}", micros(dense.step) / micros(run.step)),
        ];
        print_row(out, cells)?;
    }
    Ok(())
}

fn print_row(out: &mut impl Write, [way, cells @ ..]: [&str; 8]) -> Result<()> {
    write!(out, "{way:<24}")?;
    for cell in cells {
        write!(out, " {cell:>10}")?;
    }
    Ok(writeln!(out)?)
}

fn micros(time: Duration) -> f64 {
    1e6 * time.as_secs_f64()
}
