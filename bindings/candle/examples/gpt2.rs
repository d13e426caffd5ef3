//! The time of a step over the 148 tensors of GPT-2, through candle and in adamant alone.
//!
//!     cargo run --release --example gpt2 [-- LAYERS]
//!
//! GPT-2 has 12 layers and 124 million parameters, for which this needs 6 GB of memory. Fewer layers need less.

use std::{error::Error, time::Instant};

use adamant::{Exec, Isa, Optimizer as _, State, StepOptions, Threads};
use adamant_candle::{Adam, VarOptimizer};
use candle_core::{Device, Tensor, Var, backprop::GradStore};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

const WIDTH: usize = 768;
/// In each round, every optimizer takes a step with 1 thread and one with all threads.
const ROUNDS: usize = 15;
/// A step of candle's own AdamW takes seconds.
const ROUNDS_OF_CANDLE: usize = 2;

/// The shapes of the tensors of GPT-2, small.
fn shapes(layers: usize) -> Vec<Vec<usize>> {
    let mut shapes = vec![vec![50_257, WIDTH], vec![1024, WIDTH]];
    for _ in 0..layers {
        shapes.extend([
            vec![WIDTH],
            vec![WIDTH],
            vec![WIDTH, 3 * WIDTH],
            vec![3 * WIDTH],
            vec![WIDTH, WIDTH],
            vec![WIDTH],
            vec![WIDTH],
            vec![WIDTH],
            vec![WIDTH, 4 * WIDTH],
            vec![4 * WIDTH],
            vec![4 * WIDTH, WIDTH],
            vec![WIDTH],
        ]);
    }
    shapes.extend([vec![WIDTH], vec![WIDTH]]);
    shapes
}

/// The seconds that a step takes.
fn seconds<E>(step: impl FnOnce() -> Result<(), E>) -> Result<f64, E> {
    let start = Instant::now();
    step()?;
    Ok(start.elapsed().as_secs_f64())
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn fastest(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

fn main() -> Result<(), Box<dyn Error>> {
    let layers = std::env::args().nth(1).map_or(Ok(12), |layers| layers.parse())?;
    let shapes = shapes(layers);
    let lens: Vec<usize> = shapes.iter().map(|shape| shape.iter().product()).collect();
    let parameters: usize = lens.iter().sum();
    let device = Device::Cpu;
    let vars: Vec<Var> = (shapes.iter())
        .map(|shape| Var::from_tensor(&Tensor::randn(0_f32, 0.02, shape.as_slice(), &device)?))
        .collect::<candle_core::Result<_>>()?;
    let mut grads = GradStore::default();
    for (var, shape) in vars.iter().zip(&shapes) {
        grads.insert(var, Tensor::randn(0_f32, 0.1, shape.as_slice(), &device)?);
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{} tensors, {parameters} parameters, f32, AdamW", shapes.len());
    println!("{}, {threads} threads, {ROUNDS} rounds", Isa::selected()?);
    println!(
        "\n| ns a parameter | 1 thread: median | fastest | {threads} threads: median | fastest |"
    );
    println!("|---|---|---|---|---|");
    let per_parameter = |seconds: f64| seconds * 1e9 / parameters as f64;

    let mut candles = AdamW::new(vars.clone(), ParamsAdamW::default())?;
    let mut times = vec![];
    for _ in 0..ROUNDS_OF_CANDLE {
        times.push(per_parameter(seconds(|| candles.step(&grads))?));
    }
    println!(
        "| candle's AdamW (its operations have one thread) | {:.2} | {:.2} | | |",
        median(&times),
        fastest(&times)
    );
    drop(candles);

    // Both take turns, so that other work on the machine slows both down.
    let options = [Threads::Serial, Threads::Rayon]
        .map(|threads| StepOptions { exec: Exec { threads, isa: None }, ..StepOptions::default() });
    let mut ours = VarOptimizer::new(vars.clone(), Adam::adamw())?;
    let mut params: Vec<Vec<f32>> = vec![];
    let mut param_grads: Vec<Vec<f32>> = vec![];
    for var in &vars {
        params.push(var.flatten_all()?.to_vec1()?);
        let grad = grads.get(var).ok_or("a gradient was inserted")?;
        param_grads.push(grad.flatten_all()?.to_vec1()?);
    }
    let mut states: Vec<State> = lens.iter().map(|&len| Adam::adamw().state(len)).collect();
    let mut times: [[Vec<f64>; 2]; 2] = Default::default();
    for _ in 0..ROUNDS {
        for (threads, options) in options.iter().enumerate() {
            let time = seconds(|| ours.step_with(&grads, options).map(|_| ()))?;
            times[0][threads].push(per_parameter(time));
            let time = seconds(|| {
                let mut tensors: Vec<_> = (states.iter_mut().zip(&mut params).zip(&param_grads))
                    .map(|((state, param), grad)| state.tensor(param, grad))
                    .collect();
                Adam::adamw().step_tensors(&mut tensors, options).map(|_| ())
            })?;
            times[1][threads].push(per_parameter(time));
        }
    }
    for (name, [one, all]) in ["adamant_candle::VarOptimizer", "adamant alone"].iter().zip(&times) {
        println!(
            "| {name} | {:.2} | {:.2} | {:.2} | {:.2} |",
            median(one),
            fastest(one),
            median(all),
            fastest(all)
        );
    }

    println!("\nTime through candle, divided by the time of adamant alone in the same round:");
    for (threads, name) in ["1 thread".into(), format!("{threads} threads")].iter().enumerate() {
        let [ours, core] = times.each_ref().map(|times| &times[threads]);
        let ratios: Vec<_> = ours.iter().zip(core).map(|(ours, core)| ours / core).collect();
        println!(
            "{name}: median {:.3}; fastest step by fastest step {:.3}",
            median(&ratios),
            fastest(ours) / fastest(core)
        );
    }
    Ok(())
}
