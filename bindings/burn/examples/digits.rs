//! A perceptron learns handwritten digits: a training loop for burn, two lines of which are ours.
//!
//!     cargo run --example digits

use adamant_burn::{Adam, Error, OneCallOptimizer};
use burn::{
    Tensor,
    module::Module,
    nn::{Linear, LinearConfig, loss::CrossEntropyLossConfig},
    optim::GradientsParams,
    tensor::{Device, Int, TensorData, activation},
};

#[derive(Module, Debug)]
struct Perceptron {
    hidden: Linear,
    classes: Linear,
}

impl Perceptron {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.classes.forward(activation::relu(self.hidden.forward(x)))
    }
}

/// 1,797 digits of 8x8 pixels: pixels and labels.
fn digits(device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
    let numbers: Vec<Vec<f32>> = include_str!("../../../examples/data/digits.csv")
        .lines()
        .skip(1)
        .map(|line| line.split(',').filter_map(|value| value.parse().ok()).collect())
        .collect();
    let labels: Vec<i64> = numbers.iter().map(|line| line[0] as i64).collect();
    let pixels: Vec<f32> = numbers.iter().flat_map(|line| &line[1..]).map(|x| x / 16.0).collect();
    let count = labels.len();
    (
        Tensor::from_data(TensorData::new(pixels, [count, 64]), device),
        Tensor::from_data(TensorData::new(labels, [count]), device),
    )
}

fn main() -> Result<(), Error> {
    let device = Device::default().autodiff();
    let (pixels, labels) = digits(&device);
    let mut model = Perceptron {
        hidden: LinearConfig::new(64, 64).init(&device),
        classes: LinearConfig::new(64, 10).init(&device),
    };
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);

    let mut optimizer = OneCallOptimizer::new(Adam::adamw())?;

    let (count, batch) = (1500, 100);
    for epoch in 1..=10 {
        for start in (0..count).step_by(batch) {
            let x = pixels.clone().narrow(0, start, batch);
            let y = labels.clone().narrow(0, start, batch);
            let loss = cross_entropy.forward(model.forward(x), y);
            let grads = GradientsParams::from_grads(loss.backward(), &model);
            let _ = optimizer.step(3e-3, &mut model, grads)?;
        }
        let rest = labels.dims()[0] - count;
        let found = model.forward(pixels.clone().narrow(0, count, rest)).argmax(1).reshape([rest]);
        let right = found.equal(labels.clone().narrow(0, count, rest)).int().sum();
        let right = right.into_scalar::<i64>() as f64 / rest as f64;
        println!("epoch {epoch}: {:.1} % of {rest} others right", 100.0 * right);
    }
    Ok(())
}
