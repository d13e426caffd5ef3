//! Runs of every optimizer at every learning rate, and the choice among them.

use std::cmp::Ordering;

use anyhow::{Context, Result};

use crate::method::Method;
use crate::surface::Point;

/// The learning rates to choose from.
pub const RATES: [f64; 11] = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];

/// [`RATES`] in words.
pub const GRID: &str = "0.001, 0.003, ... 100";

/// A path has arrived if it stays at its goal for this many steps.
pub const LASTING: usize = 10;

/// Something to make smaller, and what counts as done.
pub trait Problem {
    /// The parameters before the first step.
    fn start(&self) -> Vec<f64>;

    /// Steps of every run.
    fn steps(&self) -> usize;

    /// The slope at these parameters.
    fn gradient(&self, params: &[f64], grads: &mut [f64]);

    /// Where to draw these parameters.
    fn point(&self, step: usize, params: &[f64]) -> Point;

    /// How far there is to go from this point; from 0 down, it has arrived.
    fn remaining(&self, point: Point) -> f64;

    /// Whether a path may be chosen.
    fn is_allowed(&self, _path: &[Point]) -> bool {
        true
    }
}

/// One optimizer at one learning rate.
pub struct Run {
    pub lr: f64,
    /// The start, and where each step led.
    pub path: Vec<Point>,
    /// After how many steps it had arrived for the first time.
    pub visit: Option<usize>,
    /// After how many steps it had arrived to stay.
    pub arrival: Option<usize>,
    /// Whether it may be chosen.
    pub allowed: bool,
    /// How far there was to go after the last step.
    remaining: f64,
}

/// One optimizer at every learning rate.
pub struct Entry {
    pub method: Method,
    pub runs: Vec<Run>,
    /// The position of the run to draw.
    pub chosen: usize,
}

/// Runs everything.
pub fn race(problem: &impl Problem) -> Result<Vec<Entry>> {
    Method::ALL.iter().map(|&method| Entry::new(problem, method)).collect()
}

impl Run {
    fn new(problem: &impl Problem, method: Method, lr: f64) -> Result<Self> {
        let mut params = problem.start();
        let mut grads = vec![0.0; params.len()];
        let mut stepper = method.stepper(lr, params.len());
        let mut path = vec![problem.point(0, &params)];
        for step in 1..=problem.steps() {
            problem.gradient(&params, &mut grads);
            stepper(&mut params, &grads)?;
            path.push(problem.point(step, &params));
        }
        let remaining: Vec<f64> = path.iter().map(|&point| problem.remaining(point)).collect();
        Ok(Self {
            lr,
            visit: visit(&remaining),
            arrival: arrival(&remaining),
            allowed: problem.is_allowed(&path),
            remaining: remaining.last().copied().unwrap_or(f64::NAN),
            path,
        })
    }

    /// Compares by arrival, then by what remains; NaN is worst.
    fn compare(&self, other: &Self) -> Ordering {
        let arrival = |run: &Self| run.arrival.unwrap_or(usize::MAX);
        let remaining = |run: &Self| run.remaining.min(f64::INFINITY);
        let by_arrival = arrival(self).cmp(&arrival(other));
        by_arrival.then(remaining(self).total_cmp(&remaining(other)))
    }
}

impl Entry {
    fn new(problem: &impl Problem, method: Method) -> Result<Self> {
        let run = |&lr: &f64| Run::new(problem, method, lr);
        let runs: Vec<Run> = RATES.iter().map(run).collect::<Result<_>>()?;
        let chosen = choose(&runs)
            .with_context(|| format!("no learning rate is small enough for {}", method.name()))?;
        Ok(Self { method, runs, chosen })
    }

    pub fn best(&self) -> &Run {
        &self.runs[self.chosen]
    }
}

/// The position of the allowed run that arrived first, or came nearest if none did; of equal ones,
/// the lowest rate.
fn choose(runs: &[Run]) -> Option<usize> {
    let allowed = runs.iter().enumerate().filter(|(_, run)| run.allowed);
    allowed.min_by(|(_, a), (_, b)| a.compare(b)).map(|(index, _)| index)
}

/// The first step after which nothing remained.
fn visit(remaining: &[f64]) -> Option<usize> {
    remaining.iter().position(|&remaining| remaining <= 0.0)
}

/// The first step from which on nothing remained, if that lasted.
fn arrival(remaining: &[f64]) -> Option<usize> {
    let there = remaining.iter().rev().take_while(|&&remaining| remaining <= 0.0).count();
    (there > LASTING).then(|| remaining.len() - there)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::surface;

    #[test]
    fn arrival_counts_only_what_lasts() {
        let both = |remaining: &[f64]| (visit(remaining), arrival(remaining));
        let (far, there) = ([1.0; 3], [-1.0; LASTING]);
        assert_eq!(both(&[&far[..], &there, &[0.0]].concat()), (Some(3), Some(3)));
        assert_eq!(both(&[&far[..], &there].concat()), (Some(3), None));
        assert_eq!(both(&[&there[..], &far, &there, &there].concat()), (Some(0), Some(13)));
        assert_eq!(both(&[&there[..], &there, &far].concat()), (Some(0), None));
        assert_eq!(both(&[&there[..], &there].concat()), (Some(0), Some(0)));
        assert_eq!(both(&[1.0, f64::NAN]), (None, None));
    }

    fn run(arrival: Option<usize>, remaining: f64, allowed: bool) -> Run {
        Run { lr: 0.1, path: Vec::new(), visit: arrival, arrival, allowed, remaining }
    }

    #[test]
    fn choice_prefers_arrival_then_nearness_then_the_lowest_rate() {
        let late = || run(Some(9), -1.0, true);
        let early = || run(Some(5), -0.5, true);
        assert_eq!(choose(&[late(), early(), early()]), Some(1));
        assert_eq!(choose(&[run(None, f64::NAN, true), run(None, 0.5, true)]), Some(1));
        assert_eq!(choose(&[run(Some(1), -1.0, false), late()]), Some(1));
        assert_eq!(choose(&[run(Some(1), -1.0, false)]), None);
    }

    #[test]
    fn runs_repeat_to_the_bit() {
        for method in Method::ALL {
            // Some of these paths end in NaN, which equals nothing.
            let bits = || {
                let run = Run::new(&surface::beale(), method, 0.01).unwrap();
                run.path.into_iter().map(|point| point.map(f64::to_bits)).collect::<Vec<_>>()
            };
            assert_eq!(bits(), bits(), "{}", method.name());
        }
    }

    #[test]
    fn adam_leaves_the_saddle_before_sgd() {
        let entries = race(&surface::saddle_point()).unwrap();
        let arrival = |method| {
            let entry = entries.iter().find(|entry| entry.method == method).unwrap();
            entry.best().arrival.unwrap_or(usize::MAX)
        };
        assert!(arrival(Method::Adam) * 3 < arrival(Method::Sgd));
    }
}
