//! A complete training loop: two parameter groups, clipping, a schedule, and a checkpoint from which
//! training goes on to the same bits.
//!
//! ```text
//! cargo run --release --example training
//! ```

use std::{error::Error, f64::consts::PI, ops::Range, path::Path};

use adamant::{
    Adam, Group, Moment, MomentRef, Optimizer, State, StepOptions,
    checkpoint::{self, Checkpoint},
};

const STEPS: u64 = 200;

/// A tensor of the model: parameters, gradients, and the state that the optimizer keeps.
struct Tensor {
    name: &'static str,
    param: Vec<f32>,
    grad: Vec<f32>,
    state: State,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut model = new_model();
    train(&mut model, 0..STEPS)?;
    println!("weights {:.3?}, bias {:.3?}", model[0].param, model[1].param);

    // The same training, interrupted half-way.
    let name = format!("adamant-training-{}.safetensors", std::process::id());
    let file = std::env::temp_dir().join(name);
    let mut interrupted = new_model();
    train(&mut interrupted, 0..STEPS / 2)?;
    save(&interrupted, &file)?;

    let mut resumed = new_model();
    load(&mut resumed, &file)?;
    std::fs::remove_file(file)?;
    let steps = resumed[0].state.steps();
    train(&mut resumed, steps..STEPS)?;
    for (tensor, expected) in resumed.iter().zip(&model) {
        assert_eq!(tensor.param, expected.param);
        assert!(tensor.state.moments().eq(expected.state.moments()));
    }
    println!("interrupted after {steps} steps and resumed: the same bits");
    Ok(())
}

fn train([weight, bias]: &mut [Tensor; 2], steps: Range<u64>) -> Result<(), adamant::Error> {
    for step in steps {
        gradients(step, weight, bias);

        let lr = 0.05 * (1.0 + (PI * step as f64 / STEPS as f64).cos());
        let decay = Adam { lr, ..Adam::adamw() };
        let no_decay = Adam { weight_decay: 0.0, ..decay };
        let options = StepOptions { max_norm: Some(1.0), ..StepOptions::default() };
        let report = adamant::step(
            &mut [
                Group::new(&decay, &mut [weight.state.tensor(&mut weight.param, &weight.grad)]),
                Group::new(&no_decay, &mut [bias.state.tensor(&mut bias.param, &bias.grad)]),
            ],
            &options,
        )?;
        if step.is_multiple_of(50) {
            let norm = report.grad_norm.unwrap_or_default();
            println!("step {step:3}: lr {lr:.3}, gradients of norm {norm:.3}");
        }
    }
    Ok(())
}

fn save(model: &[Tensor], file: &Path) -> Result<(), checkpoint::CheckpointError> {
    let tensors =
        model.iter().map(|tensor| (tensor.name, MomentRef::F32(&tensor.param), &tensor.state));
    checkpoint::save(file, tensors)
}

fn load(model: &mut [Tensor], file: &Path) -> Result<(), checkpoint::CheckpointError> {
    let tensors = model
        .iter_mut()
        .map(|Tensor { name, param, state, .. }| (*name, Moment::from(param), state));
    Checkpoint::load(file)?.restore_all(tensors)
}

fn new_model() -> [Tensor; 2] {
    let tensor = |name, len| Tensor {
        name,
        param: vec![0.0; len],
        grad: vec![0.0; len],
        state: Adam::adamw().state(len),
    };
    [tensor("weight", 4), tensor("bias", 1)]
}

/// Of the mean squared error of `weight * x + bias` over a batch, whose truth is `x[0] - x[1] + 2`.
fn gradients(step: u64, weight: &mut Tensor, bias: &mut Tensor) {
    const BATCH: u64 = 32;
    weight.grad.fill(0.0);
    bias.grad.fill(0.0);
    for sample in step * BATCH..(step + 1) * BATCH {
        let x = [0.7, 1.3, 2.9, 4.1].map(|frequency| (frequency * sample as f32).sin());
        let product: f32 = weight.param.iter().zip(x).map(|(weight, x)| weight * x).sum();
        let error = product + bias.param[0] - (x[0] - x[1] + 2.0);
        let slope = 2.0 * error / BATCH as f32;
        weight.grad.iter_mut().zip(x).for_each(|(grad, x)| *grad += slope * x);
        bias.grad[0] += slope;
    }
}
