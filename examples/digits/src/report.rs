//! The results as text: the grids, the table, and a line per contest for scripts.

use std::io::Write;

use anyhow::Result;

use crate::data::DataSet;
use crate::precision::Precision;
use crate::train::{Contest, Plan};

/// Prints everything, ending with lines like `mlp adam 0.967`.
pub fn print(
    out: &mut impl Write,
    data: &DataSet,
    plan: &Plan,
    contests: &[Contest],
) -> Result<()> {
    write!(
        out,
        "{}: {} training, {} validation, {} test samples; {} epochs, batches of {}, seed {}",
        data.name,
        data.train.len(),
        data.validation.len(),
        data.test.len(),
        plan.epochs,
        plan.batch,
        plan.seed
    )?;
    if plan.precision != Precision::F32 {
        write!(out, ", precision {}", plan.precision.name())?;
    }
    writeln!(out)?;
    writeln!(out, "\nValidation accuracy by learning rate, * chosen:\n")?;
    for contest in contests {
        print_grid(out, contest)?;
    }
    writeln!(out, "\nTest accuracy after epochs, training time and loss:\n")?;
    print_table(out, plan, contests)?;
    writeln!(out)?;
    for contest in contests {
        let last = contest.accuracies.last().copied().unwrap_or_default();
        writeln!(out, "{} {} {last:.3}", contest.network, contest.method.name())?;
    }
    Ok(())
}

fn print_grid(out: &mut impl Write, contest: &Contest) -> Result<()> {
    write!(out, "{:<8} {:<9} {:<8}", contest.network, contest.method.name(), "lr")?;
    for trial in &contest.trials {
        write!(out, " {:>7}", trial.lr)?;
    }
    write!(out, "\n{:<18} {:<8}", "", "accuracy")?;
    for (index, trial) in contest.trials.iter().enumerate() {
        let mark = if index == contest.chosen { "*" } else { "" };
        write!(out, " {:>7}", format!("{mark}{:.3}", trial.validation.accuracy))?;
    }
    Ok(writeln!(out)?)
}

fn print_table(out: &mut impl Write, plan: &Plan, contests: &[Contest]) -> Result<()> {
    write!(out, "{:<8} {:<9} {:>7}", "model", "optimizer", "lr")?;
    for epoch in plan.milestones() {
        write!(out, " {:>9}", format!("epoch {epoch}"))?;
    }
    writeln!(out, " {:>8} {:>8}", "seconds", "loss")?;

    for contest in contests {
        let winner = contest.winner();
        let (network, method) = (contest.network, contest.method.name());
        write!(out, "{network:<8} {method:<9} {:>7}", winner.lr)?;
        for accuracy in &contest.accuracies {
            write!(out, " {accuracy:>9.3}")?;
        }
        let loss = winner.losses.last().copied().unwrap_or_default();
        writeln!(out, " {:>8.3} {loss:>8.4}", winner.time.as_secs_f64())?;
    }
    Ok(())
}
