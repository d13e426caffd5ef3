//! Times several things in turn, so that all of them see the same moods of the machine.

use std::time::{Duration, Instant};

/// How long and how often to measure.
#[derive(Clone, Copy)]
pub struct Plan {
    pub rounds: usize,
    /// The least time of one measurement; what takes less is repeated.
    pub least: Duration,
}

impl Plan {
    /// The median time of one repetition, in nanoseconds, of each of `N` contestants.
    ///
    /// `run(which, repetitions)` prepares, then repeats, and returns the time of the repetitions.
    pub fn medians<const N: usize>(
        self,
        mut run: impl FnMut(usize, usize) -> Duration,
    ) -> [f64; N] {
        let mut repetitions = [1; N];
        for (which, repetitions) in repetitions.iter_mut().enumerate() {
            // The first run touches the memory; it is not counted.
            run(which, 1);
            while run(which, *repetitions) < self.least / 2 {
                *repetitions *= 2;
            }
        }
        let mut rounds: [Vec<f64>; N] = std::array::from_fn(|_| Vec::new());
        for _ in 0..self.rounds {
            for (which, times) in rounds.iter_mut().enumerate() {
                let time = run(which, repetitions[which]);
                times.push(time.as_nanos() as f64 / repetitions[which] as f64);
            }
        }
        rounds.map(median)
    }
}

/// The time of some repetitions.
pub fn time(repetitions: usize, mut repeat: impl FnMut()) -> Duration {
    let start = Instant::now();
    for _ in 0..repetitions {
        repeat();
    }
    start.elapsed()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    let middle = times.len() / 2;
    if times.len() % 2 == 1 { times[middle] } else { (times[middle - 1] + times[middle]) / 2.0 }
}
