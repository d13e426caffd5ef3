//! Small models: a perceptron and a convolutional net on handwritten digits, a transformer of two layers on
//! rows of tokens.

use burn::{
    Tensor,
    module::{Module, ModuleMapper, Param},
    nn::{
        Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig,
        PaddingConfig2d,
        conv::{Conv2d, Conv2dConfig},
        loss::CrossEntropyLossConfig,
        pool::{AvgPool2d, AvgPool2dConfig},
    },
    tensor::{DType, Device, Int, TensorData, activation},
};

use crate::numbers;

/// A model with its data: the loss is a function of its parameters alone.
pub(crate) trait Task: Module {
    type Data: Clone;

    fn new(dtype: DType, device: &Device) -> (Self, Self::Data);
    fn loss(&self, data: &Self::Data) -> Tensor<1>;
}

/// Gives all parameters numbers that are the same in every run and every type.
struct Start {
    seed: u64,
    dtype: DType,
}

impl ModuleMapper for Start {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.seed += 1;
        let (seed, dtype) = (self.seed, self.dtype);
        param.map(|value| {
            let (dims, device) = (value.dims(), value.device());
            // Uniform, with the deviation that keeps the size of activations. A norm starts from 1.
            let scale = match dims[..] {
                [_] => 0.1,
                [first, ..] => (3.0 / first.min(dims[1..].iter().product()) as f64).sqrt(),
                [] => 1.0,
            };
            let centre =
                if D == 1 && value.into_data().iter::<f64>().all(|x| x == 1.0) { 1.0 } else { 0.0 };
            let start = TensorData::new(numbers(seed, dims.iter().product()), dims);
            let start = Tensor::<D>::from_data(start, (&device, dtype));
            (start * scale + centre).detach().require_grad()
        })
    }
}

fn started<M: Module>(model: M, dtype: DType) -> M {
    model.map(&mut Start { seed: 0, dtype })
}

fn cross_entropy(logits: Tensor<2>, classes: &Tensor<1, Int>) -> Tensor<1> {
    CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, classes.clone())
}

/// The first digits, 64 pixels each, and their labels.
fn digits(count: usize, dtype: DType, device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
    let lines = include_str!("../../../../examples/data/digits.csv").lines().skip(1).take(count);
    let (mut pixels, mut labels) = (vec![], vec![]);
    for line in lines {
        let mut values = line.split(',').map(|value| value.parse::<u8>().expect("a number"));
        labels.push(i64::from(values.next().expect("a label")));
        pixels.extend(values.map(|pixel| f32::from(pixel) / 16.0));
    }
    (
        Tensor::from_data(TensorData::new(pixels, [count, 64]), (device, dtype)),
        Tensor::from_data(TensorData::new(labels, [count]), device),
    )
}

/// 64 pixels, 32 hidden units, 10 classes.
#[derive(Module, Debug)]
pub(crate) struct Perceptron {
    pub hidden: Linear,
    pub classes: Linear,
}

impl Task for Perceptron {
    type Data = (Tensor<2>, Tensor<1, Int>);

    fn new(dtype: DType, device: &Device) -> (Self, Self::Data) {
        let hidden = LinearConfig::new(64, 32).init(device);
        let classes = LinearConfig::new(32, 10).init(device);
        (started(Self { hidden, classes }, dtype), digits(200, dtype, device))
    }

    fn loss(&self, (x, y): &Self::Data) -> Tensor<1> {
        let hidden = activation::relu(self.hidden.forward(x.clone()));
        cross_entropy(self.classes.forward(hidden), y)
    }
}

/// Two convolutions of 3x3 with 4 and 8 channels, the second one after pooling, and 10 classes.
#[derive(Module, Debug)]
pub(crate) struct Convolutional {
    first: Conv2d,
    pool: AvgPool2d,
    second: Conv2d,
    classes: Linear,
}

impl Task for Convolutional {
    type Data = (Tensor<4>, Tensor<1, Int>);

    fn new(dtype: DType, device: &Device) -> (Self, Self::Data) {
        let conv = |channels| {
            let padding = PaddingConfig2d::Explicit(1, 1, 1, 1);
            Conv2dConfig::new(channels, [3, 3]).with_padding(padding).init(device)
        };
        let model = Self {
            first: conv([1, 4]),
            pool: AvgPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            second: conv([4, 8]),
            classes: LinearConfig::new(8 * 4 * 4, 10).init(device),
        };
        let (x, y) = digits(64, dtype, device);
        (started(model, dtype), (x.reshape([64, 1, 8, 8]), y))
    }

    fn loss(&self, (x, y): &Self::Data) -> Tensor<1> {
        let x = self.pool.forward(activation::gelu(self.first.forward(x.clone())));
        let x: Tensor<2> = activation::gelu(self.second.forward(x)).flatten(1, 3);
        cross_entropy(self.classes.forward(x), y)
    }
}

const WIDTH: usize = 16;
const HEADS: usize = 2;
const LENGTH: usize = 8;
const ROWS: usize = 16;
const TOKENS: usize = 11;

/// Attention and two linear layers, each behind a norm and beside a residual.
#[derive(Module, Debug)]
struct Layer {
    attention_norm: LayerNorm,
    mlp_norm: LayerNorm,
    qkv: Linear,
    out: Linear,
    up: Linear,
    down: Linear,
}

impl Layer {
    fn new(device: &Device) -> Self {
        Self {
            attention_norm: LayerNormConfig::new(WIDTH).init(device),
            mlp_norm: LayerNormConfig::new(WIDTH).init(device),
            qkv: LinearConfig::new(WIDTH, 3 * WIDTH).init(device),
            out: LinearConfig::new(WIDTH, WIDTH).init(device),
            up: LinearConfig::new(WIDTH, 4 * WIDTH).init(device),
            down: LinearConfig::new(4 * WIDTH, WIDTH).init(device),
        }
    }

    fn forward(&self, x: Tensor<3>, mask: Tensor<4>) -> Tensor<3> {
        let qkv = self.qkv.forward(self.attention_norm.forward(x.clone()));
        let qkv = qkv.reshape([ROWS, LENGTH, 3, HEADS, WIDTH / HEADS]);
        let part = |part: usize| -> Tensor<4> {
            qkv.clone().narrow(2, part, 1).squeeze_dim::<4>(2).swap_dims(1, 2)
        };
        let scores = part(0).matmul(part(1).transpose()) / ((WIDTH / HEADS) as f64).sqrt();
        let mixed = activation::softmax(scores + mask, 3).matmul(part(2));
        let x = x + self.out.forward(mixed.swap_dims(1, 2).reshape([ROWS, LENGTH, WIDTH]));
        let hidden = activation::gelu(self.up.forward(self.mlp_norm.forward(x.clone())));
        x + self.down.forward(hidden)
    }
}

/// Learns the next token of rows in which it is the sum of the last two, modulo 11.
#[derive(Module, Debug)]
pub(crate) struct Transformer {
    tokens: Embedding,
    positions: Param<Tensor<2>>,
    layers: Vec<Layer>,
    classes: Linear,
}

impl Task for Transformer {
    /// Tokens, what comes after each, and the mask.
    type Data = (Tensor<2, Int>, Tensor<1, Int>, Tensor<4>);

    fn new(dtype: DType, device: &Device) -> (Self, Self::Data) {
        let model = Self {
            tokens: EmbeddingConfig::new(TOKENS, WIDTH).init(device),
            positions: Param::from_tensor(Tensor::zeros([LENGTH, WIDTH], device)),
            layers: vec![Layer::new(device), Layer::new(device)],
            classes: LinearConfig::new(WIDTH, TOKENS).init(device),
        };
        let (mut x, mut y) = (vec![], vec![]);
        for row in 0..ROWS as i64 {
            let (mut last, mut next) = (row % 11, (row * 7 + 3) % 11);
            for _ in 0..LENGTH {
                (last, next) = (next, (last + next) % 11);
                x.push(last);
                y.push(next);
            }
        }
        let mask: Vec<f32> = (0..LENGTH * LENGTH)
            .map(|i| if i % LENGTH > i / LENGTH { -1e9 } else { 0.0 })
            .collect();
        let mask = TensorData::new(mask, [1, 1, LENGTH, LENGTH]);
        let data = (
            Tensor::from_data(TensorData::new(x, [ROWS, LENGTH]), device),
            Tensor::from_data(TensorData::new(y, [ROWS * LENGTH]), device),
            Tensor::from_data(mask, (device, dtype)),
        );
        (started(model, dtype), data)
    }

    fn loss(&self, (x, y, mask): &Self::Data) -> Tensor<1> {
        let mut x = self.tokens.forward(x.clone()) + self.positions.val().unsqueeze();
        for layer in &self.layers {
            x = layer.forward(x, mask.clone());
        }
        cross_entropy(self.classes.forward(x.reshape([ROWS * LENGTH, WIDTH])), y)
    }
}
