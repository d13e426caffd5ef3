//! Progress on standard error: a bar on a terminal, plain lines elsewhere.

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// Counts epochs over all trials.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    pub fn new(trials: usize, epochs: usize) -> Self {
        let bar = ProgressBar::new((trials * epochs) as u64);
        bar.set_style(style().unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar }
    }

    pub fn start(&self, trial: &str) {
        self.bar.set_message(trial.to_owned());
    }

    pub fn epoch_done(&self) {
        self.bar.inc(1);
    }

    /// Leaves a line where there is no bar.
    pub fn finish(&self, trial: &str, accuracy: f64) {
        if self.bar.is_hidden() {
            eprintln!("{trial}: validation accuracy {accuracy:.3}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn style() -> Result<ProgressStyle> {
    Ok(ProgressStyle::with_template("{bar:40} {pos}/{len} epochs, {eta} left, {msg}")?)
}
