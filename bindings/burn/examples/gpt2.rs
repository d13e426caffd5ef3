//! The time of a step over the 148 tensors of GPT-2: burn's AdamW, adamant through burn in one call and in one
//! call for each parameter, and adamant alone.
//!
//!     cargo run --release --example gpt2 [-- LAYERS]
//!
//! GPT-2 has 12 layers and 124 million parameters, for which this needs 6 GB of memory. Fewer layers need less.

use std::{error::Error, time::Instant};

use adamant::{Exec, Isa, Optimizer as _, State, StepOptions, Threads};
use adamant_burn::{Adam, OneCallOptimizer, ParamOptimizer};
use burn::{
    Tensor,
    module::{Module, Param},
    optim::{AdamWConfig, GradientsParams, ModuleOptimizer},
    tensor::{Device, Distribution},
};

const WIDTH: usize = 768;
const LR: f64 = 1e-3;
/// In each round, every optimizer takes a step.
const ROUNDS: usize = 15;
/// A step of burn's own AdamW takes seconds.
const ROUNDS_OF_BURN: usize = 2;

/// The tensors of GPT-2, small.
#[derive(Module, Debug)]
struct Gpt2 {
    matrices: Vec<Param<Tensor<2>>>,
    vectors: Vec<Param<Tensor<1>>>,
}

impl Gpt2 {
    fn new(layers: usize, device: &Device) -> Self {
        let matrix = |rows, columns| {
            let start = Distribution::Normal(0.0, 0.02);
            Param::from_tensor(Tensor::random([rows, columns], start, device))
        };
        let vector = |len| Param::from_tensor(Tensor::ones([len], device));
        let mut matrices = vec![matrix(50_257, WIDTH), matrix(1024, WIDTH)];
        let mut vectors = vec![vector(WIDTH), vector(WIDTH)];
        for _ in 0..layers {
            for (rows, columns) in [(1, 3), (1, 1), (1, 4), (4, 1)] {
                matrices.push(matrix(rows * WIDTH, columns * WIDTH));
                vectors.push(vector(columns * WIDTH));
            }
            // Two norms.
            vectors.extend([1; 4].map(|_| vector(WIDTH)));
        }
        Self { matrices, vectors }
    }

    /// Gradients as a backward pass leaves them. A clone of them costs nothing.
    fn grads(&self, device: &Device) -> Grads {
        let noise = Distribution::Normal(0.0, 0.1);
        let matrices =
            self.matrices.iter().map(|param| Tensor::random(param.val().dims(), noise, device));
        let vectors =
            self.vectors.iter().map(|param| Tensor::random(param.val().dims(), noise, device));
        Grads { matrices: matrices.collect(), vectors: vectors.collect() }
    }
}

struct Grads {
    matrices: Vec<Tensor<2>>,
    vectors: Vec<Tensor<1>>,
}

impl Grads {
    fn of(&self, model: &Gpt2) -> GradientsParams {
        let mut grads = GradientsParams::new();
        for (param, grad) in model.matrices.iter().zip(&self.matrices) {
            grads.register(param.id, grad.clone());
        }
        for (param, grad) in model.vectors.iter().zip(&self.vectors) {
            grads.register(param.id, grad.clone());
        }
        grads
    }
}

/// The seconds that a step takes, and its result.
fn timed<T>(step: impl FnOnce() -> T) -> (f64, T) {
    let start = Instant::now();
    let result = step();
    (start.elapsed().as_secs_f64(), result)
}

fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn fastest(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

fn floats<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, Box<dyn Error>> {
    let data = tensor.into_data();
    Ok(data.as_slice::<f32>().map_err(|error| format!("{error:?}"))?.to_vec())
}

fn main() -> Result<(), Box<dyn Error>> {
    let layers = std::env::args().nth(1).map_or(Ok(12), |layers| layers.parse())?;
    let (device, plain) = (Device::default().autodiff(), Device::default());
    let mut model = Gpt2::new(layers, &device);
    let grads = model.grads(&plain);
    let parameters = model.num_params();
    let tensors = model.matrices.len() + model.vectors.len();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{tensors} tensors, {parameters} parameters, f32, AdamW");
    println!("{}, {threads} threads, {ROUNDS} rounds", Isa::selected()?);
    println!(
        "\n| ns a parameter | 1 thread: median | fastest | {threads} threads: median | fastest |"
    );
    println!("|---|---|---|---|---|");
    let per_parameter = |seconds: f64| seconds * 1e9 / parameters as f64;

    let mut burns: ModuleOptimizer = AdamWConfig::new().init();
    let mut times = vec![];
    for _ in 0..ROUNDS_OF_BURN {
        let step_grads = grads.of(&model);
        let (time, stepped) = timed(|| burns.step(LR, model, step_grads));
        times.push(per_parameter(time));
        model = stepped;
    }
    println!(
        "| burn's AdamW (burn-flex without threads) | {:.2} | {:.2} | | |",
        median(&times),
        fastest(&times)
    );
    drop(burns);

    // All take turns, so that other work on the machine slows all of them down.
    let options = [Threads::Serial, Threads::Rayon]
        .map(|threads| StepOptions { exec: Exec { threads, isa: None }, ..StepOptions::default() });
    let mut one_call = OneCallOptimizer::new(Adam::adamw())?;
    let mut one_at_a_time = ParamOptimizer::new(Adam::adamw())?;
    let (mut params, mut param_grads) = (vec![], vec![]);
    for (param, grad) in model.matrices.iter().zip(&grads.matrices) {
        params.push(floats(param.val())?);
        param_grads.push(floats(grad.clone())?);
    }
    for (param, grad) in model.vectors.iter().zip(&grads.vectors) {
        params.push(floats(param.val())?);
        param_grads.push(floats(grad.clone())?);
    }
    let mut states: Vec<State> =
        params.iter().map(|param| Adam::adamw().state(param.len())).collect();
    let mut times: [[Vec<f64>; 2]; 3] = Default::default();
    for (threads, options) in options.iter().enumerate() {
        one_call.options = *options;
        one_at_a_time.options = *options;
        let mut module_optimizer = ModuleOptimizer::from(one_at_a_time.clone());
        for _ in 0..ROUNDS {
            let step_grads = grads.of(&model);
            let (time, report) = timed(|| one_call.step(LR, &mut model, step_grads));
            let _ = report?;
            times[0][threads].push(per_parameter(time));

            let step_grads = grads.of(&model);
            let (time, stepped) = timed(|| module_optimizer.step(LR, model, step_grads));
            model = stepped;
            times[1][threads].push(per_parameter(time));

            let (time, report) = timed(|| {
                let mut tensors: Vec<_> = (states.iter_mut().zip(&mut params).zip(&param_grads))
                    .map(|((state, param), grad)| state.tensor(param, grad))
                    .collect();
                Adam::adamw().step_tensors(&mut tensors, options)
            });
            let _ = report?;
            times[2][threads].push(per_parameter(time));
        }
    }
    let names = ["adamant_burn::OneCallOptimizer", "adamant_burn::ParamOptimizer", "adamant alone"];
    for (name, [one, all]) in names.iter().zip(&times) {
        println!(
            "| {name} | {:.2} | {:.2} | {:.2} | {:.2} |",
            median(one),
            fastest(one),
            median(all),
            fastest(all)
        );
    }

    println!(
        "\nTime through burn in one call, divided by the time of adamant alone in the same round:"
    );
    for (threads, name) in ["1 thread".into(), format!("{threads} threads")].iter().enumerate() {
        let [one_call, _, core] = times.each_ref().map(|times| &times[threads]);
        let ratios: Vec<_> = one_call.iter().zip(core).map(|(ours, core)| ours / core).collect();
        println!(
            "{name}: median {:.3}; fastest step by fastest step {:.3}",
            median(&ratios),
            fastest(one_call) / fastest(core)
        );
    }
    Ok(())
}
