//! Times several things in turn, so that all of them see the same moods of the machine.

use std::time::{Duration, Instant};

/// How long and how often to measure.
#[derive(Clone, Copy)]
pub struct Plan {
    pub rounds: usize,
    /// The least time of one measurement; what takes less is repeated.
    pub least: Duration,
}

/// The time of one repetition, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Time {
    pub median: f64,
    /// The middle half of all rounds lies within this share of the median: large on a busy machine.
    pub spread: f64,
}

impl Plan {
    /// The time of each of `N` contestants.
    ///
    /// `run(which, repetitions)` prepares, then repeats, and returns the time of the repetitions; or
    /// [`Duration::MAX`] for a contestant that does not take part.
    pub fn times<const N: usize>(self, run: impl FnMut(usize, usize) -> Duration) -> [Time; N] {
        let rounds = self.rounds(N, run);
        std::array::from_fn(|which| Time::of(&rounds[which]))
    }

    /// The two fastest of some contestants, by a few rounds.
    pub fn fastest(self, count: usize, run: impl FnMut(usize, usize) -> Duration) -> [usize; 2] {
        let short = Self { rounds: 3, least: self.least / 2 };
        let rounds = short.rounds(count, run);
        let mut order: Vec<usize> = (0..count).collect();
        let median = |&which: &usize| Time::of(&rounds[which]).median;
        order.sort_by(|a, b| median(a).total_cmp(&median(b)));
        [order[0], order[1 % count]]
    }

    fn rounds(self, count: usize, mut run: impl FnMut(usize, usize) -> Duration) -> Vec<Vec<f64>> {
        let mut repetitions = vec![1; count];
        for (which, repetitions) in repetitions.iter_mut().enumerate() {
            // The first run touches the memory; it is not counted.
            run(which, 1);
            while run(which, *repetitions) < self.least / 2 {
                *repetitions *= 2;
            }
        }
        let mut rounds = vec![Vec::new(); count];
        for _ in 0..self.rounds {
            for (which, times) in rounds.iter_mut().enumerate() {
                let time = run(which, repetitions[which]);
                times.push(time.as_nanos() as f64 / repetitions[which] as f64);
            }
        }
        rounds
    }
}

impl Time {
    fn of(times: &[f64]) -> Self {
        let mut times = times.to_vec();
        times.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (times.len() - 1) as f64;
            let (low, high) = (times[place.floor() as usize], times[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        let median = at(0.5);
        Self { median, spread: (at(0.75) - at(0.25)) / median }
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
