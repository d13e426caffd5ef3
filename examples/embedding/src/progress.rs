//! Progress on standard error, where that is a terminal.

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// Counts steps over all runs.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub fn new(steps: usize) -> Self {
        let bar = ProgressBar::new(steps as u64);
        bar.set_style(style().unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar }
    }

    pub fn start(&self, run: &'static str) {
        self.bar.set_message(run);
    }

    pub fn step_done(&self) {
        self.bar.inc(1);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style() -> Result<ProgressStyle> {
    Ok(ProgressStyle::with_template("{bar:40} {pos}/{len} steps, {eta} left, {msg}")?)
}
