//! How long a step over the 148 tensors of GPT-2 takes: candle's AdamW, ours, and adamant's without candle
//! around it.
//!
//!     cargo run --release --example gpt2 [-- LAYERS]
//!
//! GPT-2 has 12 layers and 124 million parameters; this takes 6 GB of memory, and fewer layers take less.

use std::{
    error::Error,
    time::{Duration, Instant},
};

use adamant::{Exec, Isa, Optimizer as _, State, StepOptions, Threads};
use adamant_candle::{Adam, VarOptimizer};
use candle_core::{Device, Tensor, Var, backprop::GradStore};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

const WIDTH: usize = 768;
/// The rounds of measuring; the fastest one counts, since other work can only slow a step down.
const ROUNDS: usize = 15;
/// candle's own takes seconds.
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

/// The shortest of some times.
fn fastest<E>(rounds: usize, mut step: impl FnMut() -> Result<(), E>) -> Result<Duration, E> {
    let mut fastest = Duration::MAX;
    for _ in 0..rounds {
        let start = Instant::now();
        step()?;
        fastest = fastest.min(start.elapsed());
    }
    Ok(fastest)
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
    println!("{}, {threads} threads, the fastest of {ROUNDS} steps", Isa::selected()?);
    println!("\n| ns a parameter | 1 thread | {threads} threads |\n|---|---|---|");
    let per_parameter = |time: Duration| time.as_secs_f64() * 1e9 / parameters as f64;

    let mut candles = AdamW::new(vars.clone(), ParamsAdamW::default())?;
    let time = per_parameter(fastest(ROUNDS_OF_CANDLE, || candles.step(&grads))?);
    println!("| candle's AdamW (its operations have one thread) | {time:.2} | |");
    drop(candles);

    // Ours and the core take turns, so that other work slows both down.
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
    let mut times = [[Duration::MAX; 2]; 2];
    for _ in 0..ROUNDS {
        for (threads, options) in options.iter().enumerate() {
            let step = || ours.step_with(&grads, options).map(|_| ());
            times[0][threads] = times[0][threads].min(fastest(1, step)?);
            let step = || {
                let mut tensors: Vec<_> = (states.iter_mut().zip(&mut params).zip(&param_grads))
                    .map(|((state, param), grad)| state.tensor(param, grad))
                    .collect();
                Adam::adamw().step_tensors(&mut tensors, options).map(|_| ())
            };
            times[1][threads] = times[1][threads].min(fastest(1, step)?);
        }
    }
    for (name, times) in ["adamant_candle::VarOptimizer", "adamant::step"].iter().zip(times) {
        let [one, all] = times.map(per_parameter);
        println!("| {name} | {one:.2} | {all:.2} |");
    }
    let over = |threads: usize| {
        100.0 * (times[0][threads].as_secs_f64() / times[1][threads].as_secs_f64() - 1.0)
    };
    println!(
        "\nThrough candle a step takes {:+.1} % (1 thread), {:+.1} % (all).",
        over(0),
        over(1)
    );
    Ok(())
}
