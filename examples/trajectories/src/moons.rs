//! Two noisy half moons, told apart by logistic regression.

use adamant::{Optimizer, Sgd, Storage};
use anyhow::Result;
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use crate::race::Problem;
use crate::surface::Point;

pub const SAMPLES: usize = 400;
/// The standard deviation of what each coordinate is off by; the moons' radius is 1.
const NOISE: f64 = 0.25;
const SEED: u64 = 1;

/// Steps of every run.
pub const STEPS: usize = 120;
/// How near to the least loss counts as arriving.
pub const DISTANCE: f64 = 0.001;

/// A point, and whether it is on the lower moon.
struct Sample {
    point: Point,
    lower: bool,
}

/// The weights of x and y, and the bias.
type Params = [f64; 3];

/// The samples, and the least loss that a straight line allows.
pub struct Moons {
    samples: Vec<Sample>,
    pub minimum: f64,
}

impl Moons {
    pub fn new() -> Result<Self> {
        let mut random = ChaCha8Rng::seed_from_u64(SEED);
        let samples = (0..SAMPLES).map(|index| sample(index, &mut random)).collect();
        let mut moons = Self { samples, minimum: 0.0 };
        moons.minimum = moons.loss(&moons.descend()?);
        Ok(moons)
    }

    /// Over all samples: the mean cross entropy, in nats.
    pub fn loss(&self, params: &[f64]) -> f64 {
        // ln(1 + e^-z), without overflow.
        let cost = |z: f64| (-z.abs()).exp().ln_1p() + (-z).max(0.0);
        let costs = self.samples.iter().map(|sample| cost(sample.sign() * score(params, sample)));
        costs.sum::<f64>() / self.samples.len() as f64
    }

    /// The loss above its least; rounding must not take it to 0, which has no logarithm.
    fn above_minimum(&self, params: &[f64]) -> f64 {
        (self.loss(params) - self.minimum).clamp(1e-15, f64::INFINITY)
    }

    fn slope(&self, params: &[f64], grads: &mut [f64]) {
        let weight = 1.0 / self.samples.len() as f64;
        grads.fill(0.0);
        for sample in &self.samples {
            let sign = sample.sign();
            let slope = -sign * weight / (1.0 + (sign * score(params, sample)).exp());
            let [x, y] = sample.point;
            for (grad, input) in grads.iter_mut().zip([x, y, 1.0]) {
                *grad += slope * input;
            }
        }
    }

    /// The loss is convex: enough steps end at its minimum.
    fn descend(&self) -> Result<Params> {
        let sgd = Sgd { lr: 0.5, momentum: 0.9, ..Sgd::default() };
        let (mut params, mut grads) = (Params::default(), Params::default());
        let mut state = sgd.state_in(Storage::F64, params.len());
        for _ in 0..2000 {
            self.slope(&params, &mut grads);
            sgd.step(&mut params, &grads, &mut state)?;
        }
        Ok(params)
    }
}

impl Problem for Moons {
    fn start(&self) -> Vec<f64> {
        Params::default().to_vec()
    }

    fn steps(&self) -> usize {
        STEPS
    }

    fn gradient(&self, params: &[f64], grads: &mut [f64]) {
        self.slope(params, grads);
    }

    /// The step, and the decimal logarithm of the loss above its least.
    fn point(&self, step: usize, params: &[f64]) -> Point {
        [step as f64, self.above_minimum(params).log10()]
    }

    fn remaining(&self, [_, loss]: Point) -> f64 {
        loss - DISTANCE.log10()
    }
}

impl Sample {
    fn sign(&self) -> f64 {
        if self.lower { 1.0 } else { -1.0 }
    }
}

fn score(params: &[f64], sample: &Sample) -> f64 {
    params[0] * sample.point[0] + params[1] * sample.point[1] + params[2]
}

/// Even ones are on the upper moon, odd ones on the lower.
fn sample(index: usize, random: &mut ChaCha8Rng) -> Sample {
    let lower = index % 2 == 1;
    let (sin, cos) = (std::f64::consts::PI * random.random::<f64>()).sin_cos();
    let [x, y] = if lower { [1.0 - cos, 0.5 - sin] } else { [cos, sin] };
    Sample { point: [x + noise(random), y + noise(random)], lower }
}

/// Nearly normal: the sum of twelve uniform numbers has variance 1.
fn noise(random: &mut ChaCha8Rng) -> f64 {
    NOISE * ((0..12).map(|_| random.random::<f64>()).sum::<f64>() - 6.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tolerance covers differences of second order over 1e-5.
    #[test]
    fn gradient_matches_central_differences() {
        let moons = Moons::new().unwrap();
        let params = [0.5, -1.0, 0.2];
        let mut grads = Params::default();
        moons.slope(&params, &mut grads);
        for (index, grad) in grads.into_iter().enumerate() {
            let loss_at = |shift: f64| {
                let mut params = params;
                params[index] += shift;
                moons.loss(&params)
            };
            let slope = (loss_at(1e-5) - loss_at(-1e-5)) / 2e-5;
            assert!((slope - grad).abs() < 1e-8, "parameter {index}: {slope} and {grad}");
        }
    }

    #[test]
    fn arrival_is_a_matter_of_numbers() {
        let moons = Moons::new().unwrap();
        let remaining = |params: &[f64]| moons.remaining(moons.point(1, params));
        assert!(remaining(&moons.descend().unwrap()) < 0.0);
        assert!(remaining(&[0.0; 3]) > 0.0);
        assert!(remaining(&[f64::NAN; 3]).is_nan());
    }

    #[test]
    fn minimum_is_flat() {
        let moons = Moons::new().unwrap();
        let mut grads = Params::default();
        moons.slope(&moons.descend().unwrap(), &mut grads);
        assert!(grads.iter().all(|grad| grad.abs() < 1e-12), "{grads:?}");
    }
}
