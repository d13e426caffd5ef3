//! Mixed precision with a dynamic loss scale: the model computes with f16, the optimizer keeps `f32`
//! parameters and moments of 8 bits.
//!
//! ```text
//! cargo run --release --example mixed_precision
//! ```

use adamant::{Adam, Error, Grad, LossScaler, Optimizer, Outcome, Param, StepOptions, Storage};
use half::f16;

const STEPS: u64 = 300;
const WIDTH: usize = 8;

fn main() -> Result<(), Error> {
    let adam = Adam { lr: 0.02, ..Adam::default() };
    let mut params = vec![0.0_f32; WIDTH];
    let mut copy = vec![f16::ZERO; WIDTH];
    let mut grads = vec![f16::ZERO; WIDTH];
    let mut state = adam.state_in(Storage::Q8, WIDTH);
    let mut scaler = LossScaler { growth_interval: 100, ..LossScaler::default() };
    let mut left_out = 0;

    for batch in 0..STEPS {
        add_gradients(&copy, batch, scaler.scale, &mut grads);
        let options = StepOptions {
            grad_factor: scaler.grad_factor(),
            skip_nonfinite: true,
            ..StepOptions::default()
        };
        // The step writes the copy, and leaves gradients of zero for the next batch.
        let (param, grad) = (Param::with_copy(&mut params, &mut copy), Grad::zeroed(&mut grads));
        let report = adam.step_with(param, grad, &mut state, &options)?;
        scaler.update(report.outcome)?;
        left_out += u64::from(report.outcome == Outcome::LeftOut);
    }

    println!("left out {left_out} of {STEPS} steps, loss scale {}", scaler.scale);
    println!("parameters {params:.2?}");
    assert_eq!(state.steps(), STEPS - left_out);
    assert!(left_out > 0 && params.iter().all(|param| (param - 1.0).abs() < 0.02));
    Ok(())
}

/// Adds the gradients of the scaled loss: half the squared error of a forecast whose truth is the sum
/// of all inputs.
fn add_gradients(params: &[f16], batch: u64, scale: f64, grads: &mut [f16]) {
    for sample in 8 * batch..8 * (batch + 1) {
        let x: [f32; WIDTH] =
            std::array::from_fn(|i| ((sample as f32 + 1.0) * (i as f32 + 0.7)).sin());
        let error: f32 = params.iter().zip(x).map(|(param, x)| (param.to_f32() - 1.0) * x).sum();
        for (grad, x) in grads.iter_mut().zip(x) {
            *grad += f16::from_f32(scale as f32 * error * x / 8.0);
        }
    }
}
