//! The types of the arrays of a tensor in mixed precision.

use adamant::Storage;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParamType {
    F32,
    F32AndBf16,
    F32AndF16,
    Split,
    Bf16,
    Bf16Stochastic,
    F16,
    F16Stochastic,
}

impl ParamType {
    pub const ALL: [Self; 8] = [
        Self::F32,
        Self::F32AndBf16,
        Self::F32AndF16,
        Self::Split,
        Self::Bf16,
        Self::Bf16Stochastic,
        Self::F16,
        Self::F16Stochastic,
    ];

    pub(super) fn is_stochastic(self) -> bool {
        matches!(self, Self::Bf16Stochastic | Self::F16Stochastic)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GradType {
    F32,
    Bf16,
    F16,
}

impl GradType {
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MomentType {
    F32,
    Bf16,
    F16,
    Q8,
}

impl MomentType {
    pub const ALL: [Self; 4] = [Self::F32, Self::Bf16, Self::F16, Self::Q8];

    pub fn storage(self) -> Storage {
        match self {
            Self::F32 => Storage::F32,
            Self::Bf16 => Storage::Bf16,
            Self::F16 => Storage::F16,
            Self::Q8 => Storage::Q8,
        }
    }
}

/// The types of a tensor's arrays, and whether its gradients become zeros.
#[derive(Clone, Copy, Debug)]
pub struct Types {
    pub param: ParamType,
    pub grad: GradType,
    pub to_zero: bool,
    pub moments: [MomentType; 4],
}
