//! The results as text.

use std::io::Write;

use anyhow::Result;

use crate::race::{LASTING, RATES};
use crate::scene::Scene;

/// Explains the columns.
pub fn print_key(out: &mut impl Write) -> Result<()> {
    writeln!(out, "visit: steps until the goal was reached, at the chosen learning rate (*)")?;
    writeln!(out, "stay:  steps until it was reached for good, {LASTING} steps at least")?;
    writeln!(out, "right: the same at every learning rate; x if a step was too long to count")?;
    Ok(writeln!(out, "-:     never\n")?)
}

/// Prints a table of the runs.
pub fn print(out: &mut impl Write, scene: &Scene) -> Result<()> {
    writeln!(out, "{}", scene.title)?;
    for line in &scene.caption {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "Goal: {}.\n", scene.arrival.replace('\n', " "))?;

    write!(out, "{:<9} {:>5} {:>5} |", "optimizer", "visit", "stay")?;
    for lr in RATES {
        write!(out, " {lr:>5}")?;
    }
    writeln!(out)?;
    for entry in scene.entries {
        let best = entry.best();
        let (visit, arrival) = (count(best.visit), count(best.arrival));
        write!(out, "{:<9} {visit:>5} {arrival:>5} |", entry.method.name())?;
        for (index, run) in entry.runs.iter().enumerate() {
            let mark = if index == entry.chosen { "*" } else { "" };
            let text = if run.allowed { count(run.arrival) } else { "x".to_owned() };
            write!(out, " {:>5}", format!("{mark}{text}"))?;
        }
        writeln!(out)?;
    }
    Ok(writeln!(out)?)
}

/// A number of steps; a dash for never.
pub fn count(steps: Option<usize>) -> String {
    steps.map_or_else(|| "-".to_owned(), |steps| steps.to_string())
}
