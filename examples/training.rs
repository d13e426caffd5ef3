//! A complete training loop: two parameter groups, clipping, a schedule, and a checkpoint from which
//! training goes on to the same bits.
//!
//! ```text
//! cargo run --release --example training
//! ```

use std::{collections::BTreeMap, error::Error, f64::consts::PI, fs, ops::Range};

use adamant::{Adam, Group, Optimizer, State, StepOptions};

const STEPS: u64 = 200;

/// A tensor of the model: parameters, gradients, and what the optimizer remembers.
struct Tensor {
    name: &'static str,
    param: Vec<f32>,
    grad: Vec<f32>,
    state: State,
}

/// Arrays by name, as a file keeps them.
type Checkpoint = BTreeMap<String, Vec<f32>>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut model = new_model();
    train(&mut model, 0..STEPS)?;
    println!("weights {:.3?}, bias {:.3?}", model[0].param, model[1].param);

    // The same training, interrupted half-way.
    let file = std::env::temp_dir().join(format!("adamant-training-{}.json", std::process::id()));
    let mut interrupted = new_model();
    train(&mut interrupted, 0..STEPS / 2)?;
    fs::write(&file, serde_json::to_string(&save(&interrupted))?)?;

    let mut resumed = new_model();
    load(&mut resumed, &serde_json::from_str(&fs::read_to_string(&file)?)?)?;
    fs::remove_file(file)?;
    let steps = resumed[0].state.steps();
    train(&mut resumed, steps..STEPS)?;
    assert!(save(&resumed) == save(&model));
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

fn save(model: &[Tensor; 2]) -> Checkpoint {
    let mut saved = Checkpoint::new();
    for Tensor { name, param, state, .. } in model {
        saved.insert(format!("{name}.param"), param.clone());
        // Exact up to 2^24 steps.
        saved.insert(format!("{name}.step"), vec![state.steps() as f32]);
        for (moment, _) in state.moments() {
            let values = state.moment_to_f32(moment).unwrap_or_default();
            saved.insert(format!("{name}.{moment}"), values);
        }
    }
    saved
}

fn load(model: &mut [Tensor; 2], saved: &Checkpoint) -> Result<(), Box<dyn Error>> {
    for Tensor { name, param, state, .. } in model {
        let find = |array: &str| saved.get(&format!("{name}.{array}")).ok_or("an array is missing");
        param.clone_from(find("param")?);
        state.set_steps(find("step")?[0] as u64);
        let moments: Vec<_> = state.moments().map(|(moment, _)| moment).collect();
        for moment in moments {
            state.set_moment_from_f32(moment, find(moment)?)?;
        }
    }
    Ok(())
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
