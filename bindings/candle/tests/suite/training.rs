//! The same models trained by candle's AdamW and by ours, from the same start.

use adamant_candle::{Adam, Storage, VarOptimizer};
use candle_core::{DType, Result};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

use crate::models::{Task, convolutional, perceptron, transformer};

const STEPS: usize = 200;
const LR: f64 = 2e-3;

fn candles(task: &Task) -> Result<AdamW> {
    AdamW::new(task.variables.all_vars(), ParamsAdamW { lr: LR, ..ParamsAdamW::default() })
}

fn ours(task: &Task) -> Result<VarOptimizer> {
    Ok(VarOptimizer::from_var_map(&task.variables, Adam { lr: LR, ..Adam::adamw() })?)
}

/// The losses of a training.
fn losses<O: Optimizer>(task: Task, optimizer: fn(&Task) -> Result<O>) -> Result<Vec<f64>> {
    let mut optimizer = optimizer(&task)?;
    let mut losses = vec![];
    for _ in 0..STEPS {
        let loss = task.loss()?;
        losses.push(loss.to_dtype(DType::F64)?.to_scalar()?);
        optimizer.backward_step(&loss)?;
    }
    Ok(losses)
}

/// The largest difference of two losses, as a part of the second one.
fn difference(losses: &[f64], expected: &[f64]) -> f64 {
    let differences = losses.iter().zip(expected).map(|(a, b)| ((a - b) / b).abs());
    differences.fold(0.0, f64::max)
}

/// In F64, where roundings do not count, the losses are the same. In F32 they are as near to those as the
/// losses of candle's AdamW.
fn agree(task: fn(DType) -> Result<Task>, name: &str) -> Result<()> {
    let exact = losses(task(DType::F64)?, candles)?;
    assert!(exact[STEPS - 1] < 0.7 * exact[0], "{name} does not learn: {exact:?}");
    let exact_difference = difference(&losses(task(DType::F64)?, ours)?, &exact);
    let candles_difference = difference(&losses(task(DType::F32)?, candles)?, &exact);
    let our_difference = difference(&losses(task(DType::F32)?, ours)?, &exact);
    println!(
        "{name}: loss {:.4} to {:.4}; F64 differs by {exact_difference:.1e}, F32 by {our_difference:.1e}, \
         candle's by {candles_difference:.1e}",
        exact[0],
        exact[STEPS - 1],
    );
    // 200 steps of roundings of 1e-16 each, which training makes larger, but not by more than 1e4.
    assert!(exact_difference < 1e-10, "{name}: {exact_difference:e}");
    // Roundings differ, so that one is sometimes nearer by chance: four times allows for that.
    assert!(our_difference < 4.0 * candles_difference, "{name}: {our_difference:e}");
    Ok(())
}

#[test]
fn a_perceptron_learns_as_with_candles_adamw() -> Result<()> {
    agree(perceptron, "perceptron")
}

#[test]
fn a_convolutional_net_learns_as_with_candles_adamw() -> Result<()> {
    agree(convolutional, "convolutional net")
}

#[test]
fn a_transformer_learns_as_with_candles_adamw() -> Result<()> {
    agree(transformer, "transformer")
}

#[test]
fn moments_of_8_bits_learn_about_as_well() -> Result<()> {
    let eight_bits = |task: &Task| Ok(ours(task)?.with_moments(Storage::Q8)?);
    let (exact, rounded) =
        (losses(transformer(DType::F32)?, ours)?, losses(transformer(DType::F32)?, eight_bits)?);
    let (exact, rounded) = (exact[STEPS - 1], rounded[STEPS - 1]);
    assert!(rounded < 1.1 * exact && rounded != exact, "{rounded} and {exact}");
    Ok(())
}
