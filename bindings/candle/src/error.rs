//! The errors of this crate, each with the name of its variable.

use std::{io, path::PathBuf};

use adamant::Storage;
use candle_core::{DType, DeviceLocation, Shape};

/// The errors that the methods of [`VarOptimizer`](crate::VarOptimizer) return. If a method returns one, no
/// variable, moment or step count has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A variable or a gradient is not in the memory of the CPU.
    #[error("{tensor} is on {location:?}, not on the CPU")]
    Device {
        /// `variable NAME` or `the gradient of NAME`.
        tensor: String,
        /// Where it is.
        location: DeviceLocation,
    },

    /// A variable or a gradient is of a type that adamant does not support.
    #[error("{tensor} is {dtype:?}, but must be F32, F64, BF16 or F16")]
    DType {
        /// `variable NAME` or `the gradient of NAME`.
        tensor: String,
        /// Its type.
        dtype: DType,
    },

    /// The elements of a variable are not one after the other.
    #[error("variable {name} is not contiguous: shape {shape:?}, strides {strides:?}")]
    NotContiguous {
        /// The variable.
        name: String,
        /// Its shape.
        shape: Shape,
        /// Its strides.
        strides: Vec<usize>,
    },

    /// A variable is a part of a larger storage, or reaches beyond its storage.
    #[error(
        "variable {name} is a view: elements {start} to {end} of a storage that has {storage_len}"
    )]
    View {
        /// The variable.
        name: String,
        /// The position of its first element in the storage.
        start: usize,
        /// The position after its last element.
        end: usize,
        /// The number of elements of the storage.
        storage_len: usize,
    },

    /// Two variables have the same memory.
    #[error("variables {first} and {second} share their memory; pass one of them")]
    Shared {
        /// The variable that comes first.
        first: String,
        /// The other one.
        second: String,
    },

    /// A gradient lies in the memory of a variable.
    #[error("the gradient of {name} lies in the memory of variable {variable}; pass a copy of it")]
    SharedGrad {
        /// The variable whose gradient it is.
        name: String,
        /// The variable that has the memory.
        variable: String,
    },

    /// A gradient has another shape than its variable.
    #[error("the gradient of {name} has shape {grad:?}, but the variable has {variable:?}")]
    GradShape {
        /// The variable.
        name: String,
        /// The shape of the gradient.
        grad: Shape,
        /// The shape of the variable.
        variable: Shape,
    },

    /// Two variables have one name.
    #[error("two variables have the name {name}")]
    DuplicateName {
        /// The name.
        name: String,
    },

    /// A new group has no variables.
    #[error("none of the {variables} variables is in the new group")]
    EmptyGroup {
        /// The number of variables.
        variables: usize,
    },

    /// There is no group of that number.
    #[error("there is no group {group}; groups are numbered from 0, and there are {groups}")]
    UnknownGroup {
        /// The number.
        group: usize,
        /// The number of groups.
        groups: usize,
    },

    /// Moments of a variable in F64 are to be kept in another type.
    #[error("variable {name} is F64, and so its moments cannot be {storage}")]
    MomentsOfF64 {
        /// The variable.
        name: String,
        /// The storage that was asked for.
        storage: Storage,
    },

    /// Moments of a variable that is not F64 are to be kept in F64.
    #[error("variable {name} is {dtype:?}, and so its moments cannot be f64")]
    MomentsInF64 {
        /// The variable.
        name: String,
        /// Its type.
        dtype: DType,
    },

    /// The storage of moments was changed after the first step.
    #[error("variable {name} has taken {steps} steps: its moments stay in the storage they have")]
    Started {
        /// The variable.
        name: String,
        /// Its steps.
        steps: u64,
    },

    /// adamant refused the step.
    #[error("{}{error}", name.as_ref().map(|name| format!("variable {name}: ")).unwrap_or_default())]
    Step {
        /// The variable, if the mistake concerns one.
        name: Option<String>,
        /// The mistake.
        #[source]
        error: adamant::Error,
    },

    /// An optimizer whose variables have no names is to be saved or loaded.
    #[error(
        "variables have no names to be saved by; make the optimizer with from_var_map or from_named"
    )]
    Unnamed,

    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        error: io::Error,
    },

    /// A file is damaged, or of another format.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The mistake.
        reason: String,
    },

    /// A file does not have an array or an entry.
    #[error("{}: {name} is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The name of the array or the entry.
        name: String,
    },

    /// A file and the optimizer differ.
    #[error("{}: {name} is {found} in the file, but {expected} here", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The array or the entry.
        name: String,
        /// The value in the file.
        found: String,
        /// The value of the optimizer.
        expected: String,
    },

    /// An operation of candle failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

impl From<Error> for candle_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Candle(error) => error,
            error => Self::wrap(error),
        }
    }
}

impl Error {
    /// The refusal of a step, with the name of the variable instead of its position.
    pub(crate) fn of_step(error: adamant::Error, names: &[&str]) -> Self {
        let name = error.tensor().and_then(|position| names.get(position));
        let name = name.map(|&name| name.into());
        Self::Step { name, error }
    }
}
