//! Small models: a perceptron and a convolutional net on handwritten digits, a transformer of two layers on
//! rows of tokens.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::{
    Conv2d, Conv2dConfig, Embedding, Linear, Module, VarBuilder, VarMap, conv2d, embedding, linear,
    loss, ops,
};

use crate::numbers;

/// A model and its data: the loss is a function of its variables alone.
pub(crate) struct Task {
    pub variables: VarMap,
    loss: Box<dyn Fn() -> Result<Tensor>>,
}

impl Task {
    pub(crate) fn loss(&self) -> Result<Tensor> {
        (self.loss)()
    }

    /// Gives all variables numbers that are the same in every run and every type.
    fn initialised(self) -> Result<Self> {
        let variables = self.variables.data().lock().expect("no panic");
        let mut names: Vec<_> = variables.keys().collect();
        names.sort();
        for (number, name) in names.into_iter().enumerate() {
            let variable = &variables[name];
            // Uniform, with the deviation that keeps the size of activations, but norms around 1.
            let (scale, centre) = match variable.dims() {
                [_] if name.contains("norm.weight") => (0.1, 1.0),
                [_] => (0.1, 0.0),
                dims => ((3.0 / dims[1..].iter().product::<usize>() as f64).sqrt(), 0.0),
            };
            let start = numbers(number as u64 + 1, variable.elem_count());
            let start = Tensor::from_vec(start, variable.shape(), variable.device())?;
            variable.set(&(start.to_dtype(variable.dtype())? * scale)?.affine(1.0, centre)?)?;
        }
        drop(variables);
        Ok(self)
    }
}

/// The first `count` digits, 64 pixels each, and their labels.
fn digits(count: usize, dtype: DType) -> Result<(Tensor, Tensor)> {
    let lines = include_str!("../../../../examples/data/digits.csv").lines().skip(1).take(count);
    let (mut pixels, mut labels) = (vec![], vec![]);
    for line in lines {
        let mut values = line.split(',').map(|value| value.parse::<u32>().expect("a number"));
        labels.push(values.next().expect("a label"));
        pixels.extend(values.map(|pixel| pixel as f32 / 16.0));
    }
    let pixels = Tensor::from_vec(pixels, (labels.len(), 64), &Device::Cpu)?.to_dtype(dtype)?;
    Ok((pixels, Tensor::new(labels, &Device::Cpu)?))
}

/// 64 pixels, 32 hidden units, 10 classes.
pub(crate) fn perceptron(dtype: DType) -> Result<Task> {
    let variables = VarMap::new();
    let weights = VarBuilder::from_varmap(&variables, dtype, &Device::Cpu);
    let hidden = linear(64, 32, weights.pp("hidden"))?;
    let classes = linear(32, 10, weights.pp("classes"))?;
    let (x, y) = digits(200, dtype)?;
    let loss = move || loss::cross_entropy(&classes.forward(&hidden.forward(&x)?.relu()?)?, &y);
    Task { variables, loss: Box::new(loss) }.initialised()
}

/// Two convolutions of 3x3 with 4 and 8 channels, the second one after pooling, and 10 classes.
pub(crate) fn convolutional(dtype: DType) -> Result<Task> {
    let variables = VarMap::new();
    let weights = VarBuilder::from_varmap(&variables, dtype, &Device::Cpu);
    let padded = Conv2dConfig { padding: 1, ..Conv2dConfig::default() };
    let first: Conv2d = conv2d(1, 4, 3, padded, weights.pp("first"))?;
    let second: Conv2d = conv2d(4, 8, 3, padded, weights.pp("second"))?;
    let classes = linear(8 * 4 * 4, 10, weights.pp("classes"))?;
    let (x, y) = digits(64, dtype)?;
    let x = x.reshape((64, 1, 8, 8))?;
    let loss = move || {
        let x = first.forward(&x)?.gelu()?.avg_pool2d(2)?;
        let x = second.forward(&x)?.gelu()?.flatten_from(1)?;
        loss::cross_entropy(&classes.forward(&x)?, &y)
    };
    Task { variables, loss: Box::new(loss) }.initialised()
}

const WIDTH: usize = 16;
const HEADS: usize = 2;
const LENGTH: usize = 8;
const TOKENS: usize = 11;

/// Attention and two linear layers, each behind a norm and beside a residual.
struct Layer {
    norms: [(Tensor, Tensor); 2],
    qkv: Linear,
    out: Linear,
    up: Linear,
    down: Linear,
}

impl Layer {
    fn new(weights: VarBuilder<'_>) -> Result<Self> {
        let norm = |name: &str| -> Result<_> {
            let weights = weights.pp(name);
            Ok((weights.get(WIDTH, "norm.weight")?, weights.get(WIDTH, "norm.bias")?))
        };
        Ok(Self {
            norms: [norm("attention")?, norm("mlp")?],
            qkv: linear(WIDTH, 3 * WIDTH, weights.pp("qkv"))?,
            out: linear(WIDTH, WIDTH, weights.pp("out"))?,
            up: linear(WIDTH, 4 * WIDTH, weights.pp("up"))?,
            down: linear(4 * WIDTH, WIDTH, weights.pp("down"))?,
        })
    }

    fn norm(&self, number: usize, x: &Tensor) -> Result<Tensor> {
        let (weight, bias) = &self.norms[number];
        // The fast one has no gradient.
        ops::layer_norm_slow(x, weight, bias, 1e-5)
    }

    fn forward(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let rows = x.dim(0)?;
        let qkv = self.qkv.forward(&self.norm(0, x)?)?;
        let qkv = qkv.reshape((rows, LENGTH, 3, HEADS, WIDTH / HEADS))?;
        let part = |part: usize| qkv.narrow(2, part, 1)?.squeeze(2)?.transpose(1, 2)?.contiguous();
        let (q, k, v) = (part(0)?, part(1)?, part(2)?);
        let scores = (q.matmul(&k.t()?.contiguous()?)? / ((WIDTH / HEADS) as f64).sqrt())?;
        let attention = ops::softmax(&scores.broadcast_add(mask)?, D::Minus1)?;
        let mixed = attention.matmul(&v)?.transpose(1, 2)?.reshape((rows, LENGTH, WIDTH))?;
        let x = (x + self.out.forward(&mixed)?)?;
        let hidden = self.up.forward(&self.norm(1, &x)?)?.gelu()?;
        x + self.down.forward(&hidden)?
    }
}

/// Rows of tokens whose next one is the sum of the last two, modulo 11.
pub(crate) fn transformer(dtype: DType) -> Result<Task> {
    let variables = VarMap::new();
    let weights = VarBuilder::from_varmap(&variables, dtype, &Device::Cpu);
    let tokens: Embedding = embedding(TOKENS, WIDTH, weights.pp("tokens"))?;
    let positions = weights.get((LENGTH, WIDTH), "positions.weight")?;
    let layers = [Layer::new(weights.pp("layer0"))?, Layer::new(weights.pp("layer1"))?];
    let classes = linear(WIDTH, TOKENS, weights.pp("classes"))?;

    let rows = 16_u32;
    let (mut x, mut y) = (vec![], vec![]);
    for row in 0..rows {
        let (mut last, mut next) = (row % 11, (row * 7 + 3) % 11);
        for _ in 0..LENGTH {
            (last, next) = (next, (last + next) % 11);
            x.push(last);
            y.push(next);
        }
    }
    let x = Tensor::from_vec(x, (rows as usize, LENGTH), &Device::Cpu)?;
    let y = Tensor::from_vec(y, rows as usize * LENGTH, &Device::Cpu)?;
    let mask: Vec<f32> = (0..LENGTH * LENGTH)
        .map(|i| if i % LENGTH > i / LENGTH { f32::NEG_INFINITY } else { 0.0 })
        .collect();
    let mask = Tensor::from_vec(mask, (LENGTH, LENGTH), &Device::Cpu)?.to_dtype(dtype)?;
    let loss = move || {
        let mut x = tokens.forward(&x)?.broadcast_add(&positions)?;
        for layer in &layers {
            x = layer.forward(&x, &mask)?;
        }
        loss::cross_entropy(&classes.forward(&x.flatten_to(1)?)?, &y)
    };
    Task { variables, loss: Box::new(loss) }.initialised()
}
