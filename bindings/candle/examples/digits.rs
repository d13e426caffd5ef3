//! A perceptron learns handwritten digits: a training script for candle, one line of which is ours.
//!
//!     cargo run --example digits

use adamant_candle::{Adam, VarOptimizer};
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Module, Optimizer, VarBuilder, VarMap, linear, loss};

/// 1,797 digits of 8x8 pixels: pixels and labels.
fn digits() -> Result<(Tensor, Tensor)> {
    let (mut pixels, mut labels) = (vec![], vec![]);
    for line in include_str!("../../../examples/data/digits.csv").lines().skip(1) {
        for (column, value) in line.split(',').enumerate() {
            let value: u32 = value.parse().map_err(candle_core::Error::wrap)?;
            match column {
                0 => labels.push(value),
                _ => pixels.push(value as f32 / 16.0),
            }
        }
    }
    let count = labels.len();
    let pixels = Tensor::from_vec(pixels, (count, 64), &Device::Cpu)?;
    Ok((pixels, Tensor::new(labels, &Device::Cpu)?))
}

fn main() -> Result<()> {
    let (pixels, labels) = digits()?;
    let map = VarMap::new();
    let weights = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
    let hidden = linear(64, 64, weights.pp("hidden"))?;
    let classes = linear(64, 10, weights.pp("classes"))?;
    let forward = |x: &Tensor| classes.forward(&hidden.forward(x)?.relu()?);

    let mut optimizer = VarOptimizer::from_var_map(&map, Adam { lr: 3e-3, ..Adam::adamw() })?;

    let (count, batch) = (1500, 100);
    for epoch in 1..=10 {
        for start in (0..count).step_by(batch) {
            let x = pixels.narrow(0, start, batch)?;
            let y = labels.narrow(0, start, batch)?;
            optimizer.backward_step(&loss::cross_entropy(&forward(&x)?, &y)?)?;
        }
        let rest = labels.dim(0)? - count;
        let found = forward(&pixels.narrow(0, count, rest)?)?.argmax(1)?;
        let right = found.eq(&labels.narrow(0, count, rest)?)?.to_dtype(DType::F32)?;
        println!(
            "epoch {epoch}: {:.1} % of {rest} others right",
            100.0 * right.mean_all()?.to_scalar::<f32>()?
        );
    }
    Ok(())
}
