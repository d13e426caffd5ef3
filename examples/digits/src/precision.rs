//! The types of a tensor's arrays.

use adamant::{Grad, Optimizer, Param, State, Storage, Tensor};
use anyhow::Result;
use clap::ValueEnum;
use half::{bf16, slice::HalfFloatSliceExt};

use crate::model::{Kind, TensorInfo};

/// The types of a model's arrays. Gradients and steps are always computed in f32, and then rounded to the types
/// of the arrays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// Everything in f32
    F32,
    /// Everything in bf16; parameters and moments are rounded at random
    Bf16,
    /// Parameters in f32, with a bf16 copy for the model to read; gradients in bf16, moments in f32
    Bf16Master,
    /// Parameters in f32, kept as two halves, of which the model reads the upper; gradients in bf16,
    /// moments in f32
    Split,
    /// Parameters and gradients in f32, moments of 8 bits
    Q8,
}

/// A tensor in training: parameters, gradients and moments, each in the type that it is kept in.
pub struct Trained {
    pub name: String,
    pub kind: Kind,
    pub params: Params,
    /// The memory for rounded gradients; `None` if they stay in f32.
    grads: Option<Vec<bf16>>,
    pub state: State,
}

/// Parameters as they are kept.
pub enum Params {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F32AndBf16(Vec<f32>, Vec<bf16>),
    /// Upper and lower half.
    Split(Vec<bf16>, Vec<u16>),
}

impl Precision {
    /// As on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn rounds_grads(self) -> bool {
        match self {
            Self::F32 | Self::Q8 => false,
            Self::Bf16 | Self::Bf16Master | Self::Split => true,
        }
    }

    /// The storage of moments.
    fn storage(self) -> Storage {
        match self {
            Self::F32 | Self::Bf16Master | Self::Split => Storage::F32,
            Self::Bf16 => Storage::Bf16,
            Self::Q8 => Storage::Q8,
        }
    }
}

impl Trained {
    /// Starts from parameters in f32. `first` is the number of the first one in the whole model.
    pub fn new(
        info: TensorInfo,
        optimizer: &(impl Optimizer + ?Sized),
        precision: Precision,
        first: usize,
        initial: &[f32],
    ) -> Result<Self> {
        let TensorInfo { name, len, kind } = info;
        let mut state = optimizer.state_in(precision.storage(), len);
        state.set_first(first as u64);
        let grads = precision.rounds_grads().then(|| vec![bf16::ZERO; len]);
        Ok(Self { name, kind, params: Params::new(precision, initial)?, grads, state })
    }

    /// The tensor as a step takes it.
    pub fn tensor<'a>(&'a mut self, grads: &'a [f32]) -> Tensor<'a> {
        let grad = match &mut self.grads {
            Some(rounded) => {
                rounded.convert_from_f32_slice(grads);
                Grad::from(&*rounded)
            }
            None => Grad::from(grads),
        };
        self.state.tensor(self.params.borrow(), grad)
    }
}

impl Params {
    fn new(precision: Precision, values: &[f32]) -> Result<Self> {
        let rounded = || values.iter().map(|&value| bf16::from_f32(value)).collect();
        Ok(match precision {
            Precision::F32 | Precision::Q8 => Self::F32(values.to_vec()),
            Precision::Bf16 => Self::Bf16(rounded()),
            Precision::Bf16Master => Self::F32AndBf16(values.to_vec(), rounded()),
            Precision::Split => {
                let (mut high, mut low) = (vec![bf16::ZERO; values.len()], vec![0; values.len()]);
                Param::split(values, &mut high, &mut low)?;
                Self::Split(high, low)
            }
        })
    }

    fn borrow(&mut self) -> Param<'_> {
        match self {
            Self::F32(params) => params.into(),
            Self::Bf16(params) => Param::stochastic(params),
            Self::F32AndBf16(params, copy) => Param::with_copy(params, copy),
            Self::Split(high, low) => Param::from_halves(high, low),
        }
    }

    /// The numbers that the model computes with, widened.
    pub fn read(&self, wide: &mut [f32]) {
        match self {
            Self::F32(params) => wide.copy_from_slice(params),
            Self::Bf16(params) | Self::F32AndBf16(_, params) | Self::Split(params, _) => {
                params.convert_to_f32_slice(wide);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use adamant::{Adam, StepOptions};

    use super::*;

    fn adam() -> Adam {
        Adam { lr: 0.01, ..Adam::default() }
    }

    fn initial() -> Vec<f32> {
        (0..1000).map(|i| (i as f32 * 0.37).sin()).collect()
    }

    /// The parameters after some steps.
    fn stepped(precision: Precision) -> Vec<f32> {
        let mut params = initial();
        let info = TensorInfo { name: "weight".into(), len: params.len(), kind: Kind::Weights };
        let mut trained = Trained::new(info, &adam(), precision, 0, &params).unwrap();
        trained.params.read(&mut params);
        let options = StepOptions { seed: 7, ..StepOptions::default() };
        for _ in 0..20 {
            let grads = params.clone();
            let _ = adam().step_tensors(&mut [trained.tensor(&grads)], &options).unwrap();
            trained.params.read(&mut params);
        }
        params
    }

    #[test]
    fn f32_has_the_bits_of_a_plain_step() {
        let (mut params, mut state) = (initial(), adam().state(1000));
        for _ in 0..20 {
            let grads = params.clone();
            adam().step(&mut params, &grads, &mut state).unwrap();
        }
        assert_eq!(stepped(Precision::F32), params);
    }

    /// 20 steps of at most 0.01 each, and an eighth of the way for the noise.
    #[test]
    fn every_precision_goes_the_same_way() {
        let exact = stepped(Precision::F32);
        for &precision in Precision::value_variants() {
            let params = stepped(precision);
            let off = params.iter().zip(&exact).map(|(a, b)| (a - b).abs());
            let mean = off.sum::<f32>() / exact.len() as f32;
            assert!(mean < 0.025, "{precision:?}: {mean}");
        }
    }
}
