//! Networks of dense layers. Their parameters are tensors with names, each in a vector of its own.

use anyhow::Result;
use ndarray::linalg::general_mat_mul;
use ndarray::{Array2, ArrayView1, ArrayView2, ArrayViewMut1, ArrayViewMut2, Axis, Zip};
use rand::RngExt;

use crate::data::Samples;

/// Rows that [`Network::score`] takes at once, to bound its memory.
const CHUNK: usize = 1024;

/// Dense layers with ReLU between them and a softmax at the end.
///
/// Without a hidden layer this is softmax regression.
pub struct Network {
    pub name: &'static str,
    layers: Vec<Layer>,
}

/// A layer's tensors are its weights and its bias, in this order.
struct Layer {
    /// Inputs and outputs.
    shape: (usize, usize),
    /// The position of the weights among all tensors.
    weights: usize,
}

/// A tensor of a network.
pub struct TensorInfo {
    pub name: String,
    pub len: usize,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Weights,
    Bias,
}

/// How well a network does on some samples.
pub struct Score {
    /// Share of the samples that it names right.
    pub accuracy: f64,
    /// Mean cross entropy in nats; infinite after training has diverged.
    pub loss: f64,
}

impl Network {
    /// A network of `widths[0]` inputs, any hidden layers, and one output per class.
    pub fn new(name: &'static str, widths: &[usize]) -> Self {
        let layers = widths
            .windows(2)
            .enumerate()
            .map(|(index, pair)| Layer { shape: (pair[0], pair[1]), weights: 2 * index });
        Self { name, layers: layers.collect() }
    }

    /// The tensors, in the order in which all functions take them.
    pub fn tensors(&self) -> Vec<TensorInfo> {
        let tensors = self.layers.iter().enumerate().flat_map(|(index, layer)| {
            let (inputs, outputs) = layer.shape;
            let tensor = |part: &str, len, kind| {
                let name = format!("layer{index}.{part}");
                TensorInfo { name, len, kind }
            };
            [tensor("weight", inputs * outputs, Kind::Weights), tensor("bias", outputs, Kind::Bias)]
        });
        tensors.collect()
    }

    /// A zero for each parameter.
    pub fn zeros(&self) -> Vec<Vec<f32>> {
        self.tensors().iter().map(|tensor| vec![0.0; tensor.len]).collect()
    }

    /// Random weights after He et al., 2015, uniform; biases of zero.
    pub fn init(&self, random: &mut impl RngExt) -> Vec<Vec<f32>> {
        let mut params = self.zeros();
        for layer in &self.layers {
            let bound = (6.0 / layer.shape.0 as f32).sqrt();
            params[layer.weights].fill_with(|| random.random_range(-bound..bound));
        }
        params
    }

    /// Writes the gradient of the mean cross entropy over a batch into `grads`.
    pub fn gradient(
        &self,
        params: &[Vec<f32>],
        images: Array2<f32>,
        labels: &[u8],
        grads: &mut [Vec<f32>],
    ) -> Result<()> {
        let (inputs, logits) = self.forward(params, images)?;
        let mut delta = logit_gradient(logits, labels);
        for (index, (layer, input)) in self.layers.iter().zip(&inputs).enumerate().rev() {
            general_mat_mul(1.0, &input.t(), &delta, 0.0, &mut layer.weights_mut(grads)?);
            layer.bias_mut(grads).assign(&delta.sum_axis(Axis(0)));
            if index > 0 {
                delta = delta.dot(&layer.weights(params)?.t());
                Zip::from(&mut delta).and(input).for_each(|d, &x| *d *= f32::from(x > 0.0));
            }
        }
        Ok(())
    }

    /// Accuracy and mean cross entropy over all samples.
    pub fn score(&self, params: &[Vec<f32>], samples: &Samples) -> Result<Score> {
        let (mut right, mut loss) = (0_usize, 0.0);
        let images = samples.images.axis_chunks_iter(Axis(0), CHUNK);
        for (images, labels) in images.zip(samples.labels.chunks(CHUNK)) {
            let (_, logits) = self.forward(params, images.to_owned())?;
            for (row, &label) in logits.rows().into_iter().zip(labels) {
                right += usize::from(largest(row) == usize::from(label));
                loss += f64::from(log_sum_exp(row) - row[usize::from(label)]);
            }
        }
        let count = samples.len() as f64;
        let loss = loss / count;
        let loss = if loss.is_finite() { loss } else { f64::INFINITY };
        Ok(Score { accuracy: right as f64 / count, loss })
    }

    /// Returns the input of every layer, and the output of the last one.
    fn forward(
        &self,
        params: &[Vec<f32>],
        images: Array2<f32>,
    ) -> Result<(Vec<Array2<f32>>, Array2<f32>)> {
        let mut inputs = Vec::with_capacity(self.layers.len());
        let mut values = images;
        for layer in &self.layers {
            if !inputs.is_empty() {
                values.mapv_inplace(|x| x.max(0.0));
            }
            let output = values.dot(&layer.weights(params)?) + layer.bias(params);
            inputs.push(std::mem::replace(&mut values, output));
        }
        Ok((inputs, values))
    }
}

impl Layer {
    fn weights<'a>(&self, tensors: &'a [Vec<f32>]) -> Result<ArrayView2<'a, f32>> {
        Ok(ArrayView2::from_shape(self.shape, &tensors[self.weights])?)
    }

    fn weights_mut<'a>(&self, tensors: &'a mut [Vec<f32>]) -> Result<ArrayViewMut2<'a, f32>> {
        Ok(ArrayViewMut2::from_shape(self.shape, &mut tensors[self.weights])?)
    }

    fn bias<'a>(&self, tensors: &'a [Vec<f32>]) -> ArrayView1<'a, f32> {
        ArrayView1::from(&tensors[self.weights + 1])
    }

    fn bias_mut<'a>(&self, tensors: &'a mut [Vec<f32>]) -> ArrayViewMut1<'a, f32> {
        ArrayViewMut1::from(&mut tensors[self.weights + 1])
    }
}

/// The gradient of the mean cross entropy: `(softmax(logits) - one_hot(label)) / batch`.
fn logit_gradient(mut logits: Array2<f32>, labels: &[u8]) -> Array2<f32> {
    for (mut row, &label) in logits.rows_mut().into_iter().zip(labels) {
        let total = log_sum_exp(row.view());
        row.mapv_inplace(|logit| (logit - total).exp());
        row[usize::from(label)] -= 1.0;
    }
    logits / labels.len() as f32
}

/// `ln(sum(exp(row)))`, without overflow.
fn log_sum_exp(row: ArrayView1<f32>) -> f32 {
    let top = row.fold(f32::NEG_INFINITY, |top, &x| top.max(x));
    top + row.fold(0.0, |sum, &x| sum + (x - top).exp()).ln()
}

/// The position of the largest value.
fn largest(row: ArrayView1<f32>) -> usize {
    (1..row.len()).fold(0, |best, index| if row[index] > row[best] { index } else { best })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::Random;
    use crate::data::digits;

    #[test]
    fn network_that_knows_nothing_loses_ln_of_ten() {
        let network = Network::new("softmax", &[64, 10]);
        let score = network.score(&network.zeros(), &digits().unwrap().train).unwrap();
        assert!((score.loss - 10_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn huge_logits_overflow_nothing() {
        assert_eq!(log_sum_exp(ArrayView1::from(&[1e4, 0.0])), 1e4);
    }

    /// The tolerance covers the rounding of f32 and the bends of ReLU; gradients reach 0.8.
    #[test]
    fn gradient_matches_differences_of_the_loss() {
        let samples = digits().unwrap().validation;
        let network = Network::new("deep", &[64, 8, 6, 10]);
        let mut params = network.init(&mut Random::seed_from_u64(1));
        // Biases of zero would put the units that nothing reaches on the bend of ReLU.
        params.iter_mut().flatten().for_each(|param| *param += 0.02);
        let mut grads = network.zeros();
        network.gradient(&params, samples.images.clone(), &samples.labels, &mut grads).unwrap();

        for (tensor, grads) in grads.iter().enumerate() {
            let loss_at = |index: usize, shift: f32| {
                let mut params = params.clone();
                params[tensor][index] += shift;
                network.score(&params, &samples).unwrap().loss
            };
            for (index, &grad) in grads.iter().enumerate().step_by(7) {
                let slope = (loss_at(index, 5e-4) - loss_at(index, -5e-4)) / 1e-3;
                let error = (slope - f64::from(grad)).abs();
                assert!(error < 5e-3, "tensor {tensor}, {index}: {slope} and {grad}");
            }
        }
    }
}
