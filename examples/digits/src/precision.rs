//! The types of a model's arrays, and steps on them.

use adamant::{Grad, MixedOptimizer, MixedState, Param, Pass, Rule, Storage};
use anyhow::Result;
use clap::ValueEnum;
use half::{bf16, slice::HalfFloatSliceExt};

/// Which types the arrays of a model are of. Gradients and steps are computed in f32 in any case, and
/// then rounded to what is kept.
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

/// All arrays of a model, and how far it is trained.
pub struct MixedModel<R: Rule> {
    rule: R,
    /// Random bits depend on it.
    seed: u64,
    param: Params,
    /// What gradients are rounded to, unless they are taken as they come, in f32.
    grad: Option<Vec<bf16>>,
    state: MixedState<R>,
}

enum Params {
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

    fn rounds_grad(self) -> bool {
        match self {
            Self::F32 | Self::Q8 => false,
            Self::Bf16 | Self::Bf16Master | Self::Split => true,
        }
    }

    /// What moments are kept in.
    fn storage(self) -> Storage {
        match self {
            Self::F32 | Self::Bf16Master | Self::Split => Storage::F32,
            Self::Bf16 => Storage::Bf16,
            Self::Q8 => Storage::Q8,
        }
    }
}

impl<R: Rule> MixedModel<R> {
    /// Starts from parameters in f32, and replaces them by those that the model reads.
    pub fn new(rule: R, precision: Precision, seed: u64, initial: &mut [f32]) -> Result<Self> {
        let len = initial.len();
        let model = Self {
            seed,
            param: Params::new(precision, initial)?,
            grad: precision.rounds_grad().then(|| vec![bf16::ZERO; len]),
            state: rule.mixed_state(len, precision.storage()),
            rule,
        };
        model.param.read(initial);
        Ok(model)
    }

    /// Takes one step, and writes the parameters that the model reads.
    pub fn step(&mut self, params: &mut [f32], grads: &[f32]) -> Result<()> {
        let grad = match &mut self.grad {
            Some(rounded) => {
                rounded.convert_from_f32_slice(grads);
                Grad::Bf16(rounded)
            }
            None => Grad::F32(grads),
        };
        let pass = Pass { seed: self.seed, ..Pass::default() };
        // No norm was passed by which a step could be left out.
        let _ = self.rule.step_with(self.param.borrow(), grad, pass, &mut self.state)?;
        self.param.read(params);
        Ok(())
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
            Self::F32(param) => Param::F32(param),
            Self::Bf16(param) => Param::Bf16Stochastic(param),
            Self::F32AndBf16(param, copy) => Param::F32AndBf16(param, copy),
            Self::Split(high, low) => Param::Split(high, low),
        }
    }

    /// The numbers that the model computes with, widened.
    fn read(&self, wide: &mut [f32]) {
        match self {
            Self::F32(param) => wide.copy_from_slice(param),
            Self::Bf16(param) | Self::F32AndBf16(_, param) | Self::Split(param, _) => {
                param.convert_to_f32_slice(wide);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use adamant::{Adam, Optimizer};

    use super::*;

    fn adam() -> Adam {
        Adam { lr: 0.01, ..Adam::default() }
    }

    fn initial() -> Vec<f32> {
        (0..1000).map(|i| (i as f32 * 0.37).sin()).collect()
    }

    /// What a model reads after some steps.
    fn trained(precision: Precision) -> Vec<f32> {
        let mut params = initial();
        let mut model = MixedModel::new(adam(), precision, 7, &mut params).unwrap();
        for _ in 0..20 {
            let grads = params.clone();
            model.step(&mut params, &grads).unwrap();
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
        assert_eq!(trained(Precision::F32), params);
    }

    /// 20 steps of at most 0.01 each, and an eighth of the way for the noise.
    #[test]
    fn every_precision_goes_the_same_way() {
        let exact = trained(Precision::F32);
        for &precision in Precision::value_variants() {
            let params = trained(precision);
            let off = params.iter().zip(&exact).map(|(a, b)| (a - b).abs());
            let mean = off.sum::<f32>() / exact.len() as f32;
            assert!(mean < 0.025, "{precision:?}: {mean}");
        }
    }
}
