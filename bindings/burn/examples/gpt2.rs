//! How long a step over the 148 tensors of GPT-2 takes: burn's AdamW, ours one parameter at a time and in one
//! call, and adamant's without burn around it.
//!
//!     cargo run --release --example gpt2 [-- LAYERS]
//!
//! GPT-2 has 12 layers and 124 million parameters; this takes 6 GB of memory, and fewer layers take less.

use std::{
    error::Error,
    time::{Duration, Instant},
};

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
/// The rounds of measuring; the fastest one counts, since other work can only slow a step down.
const ROUNDS: usize = 15;
/// burn's own takes seconds.
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

    /// Gradients are what a backward pass leaves: clones of them cost nothing.
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

fn time<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
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
    println!("{}, {threads} threads, the fastest of {ROUNDS} steps", Isa::selected()?);
    println!("\n| ns a parameter | 1 thread | {threads} threads |\n|---|---|---|");
    let per_parameter = |time: Duration| time.as_secs_f64() * 1e9 / parameters as f64;

    let mut burns: ModuleOptimizer = AdamWConfig::new().init();
    let mut fastest = Duration::MAX;
    for _ in 0..ROUNDS_OF_BURN {
        let step_grads = grads.of(&model);
        let (took, stepped) = time(|| burns.step(LR, model, step_grads));
        (fastest, model) = (fastest.min(took), stepped);
    }
    println!("| burn's AdamW (burn-flex without threads) | {:.2} | |", per_parameter(fastest));
    drop(burns);

    // Ours and the core take turns, so that other work slows all of them down.
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
    let mut times = [[Duration::MAX; 2]; 3];
    for (threads, options) in options.iter().enumerate() {
        one_call.options = *options;
        one_at_a_time.options = *options;
        let mut burns = ModuleOptimizer::from(one_at_a_time.clone());
        for _ in 0..ROUNDS {
            let step_grads = grads.of(&model);
            let (took, report) = time(|| one_call.step(LR, &mut model, step_grads));
            let _ = report?;
            times[0][threads] = times[0][threads].min(took);

            let step_grads = grads.of(&model);
            let (took, stepped) = time(|| burns.step(LR, model, step_grads));
            model = stepped;
            times[1][threads] = times[1][threads].min(took);

            let (took, report) = time(|| {
                let mut tensors: Vec<_> = (states.iter_mut().zip(&mut params).zip(&param_grads))
                    .map(|((state, param), grad)| state.tensor(param, grad))
                    .collect();
                Adam::adamw().step_tensors(&mut tensors, options)
            });
            let _ = report?;
            times[2][threads] = times[2][threads].min(took);
        }
    }
    let names = ["adamant_burn::OneCallOptimizer", "adamant_burn::ParamOptimizer", "adamant::step"];
    for (name, times) in names.iter().zip(times) {
        let [one, all] = times.map(per_parameter);
        println!("| {name} | {one:.2} | {all:.2} |");
    }
    let over = |threads: usize| {
        100.0 * (times[0][threads].as_secs_f64() / times[2][threads].as_secs_f64() - 1.0)
    };
    println!(
        "\nIn one call through burn a step takes {:+.1} % (1 thread), {:+.1} % (all).",
        over(0),
        over(1)
    );
    Ok(())
}
