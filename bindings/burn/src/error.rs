//! The errors of this crate, each with the name of its parameter.

use std::path::{Path, PathBuf};

use adamant::Storage;
use burn::{store::RecordError, tensor::DType};

/// The errors that a call can return. If a call returns one, no parameter, moment or step count has
/// changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A parameter or a gradient is on a device of another backend.
    #[error("{tensor} is not in the memory of burn-flex: {reason}")]
    Backend {
        /// `parameter PATH` or `the gradient of PATH`.
        tensor: String,
        /// The message of burn.
        reason: String,
    },

    /// A parameter or a gradient is of a type that adamant does not support.
    #[error("{tensor} is {dtype:?}, but must be F32, F64, BF16 or F16")]
    DType {
        /// `parameter PATH` or `the gradient of PATH`.
        tensor: String,
        /// Its type.
        dtype: DType,
    },

    /// A gradient has another shape than its parameter.
    #[error("the gradient of {parameter} has shape {grad:?}, but the parameter has {shape:?}")]
    GradShape {
        /// The path of the parameter.
        parameter: String,
        /// The shape of the gradient.
        grad: Vec<usize>,
        /// The shape of the parameter.
        shape: Vec<usize>,
    },

    /// A module has one parameter in two places.
    #[error("{first} and {second} are one parameter, of which burn keeps two values")]
    Shared {
        /// The first path.
        first: String,
        /// The second one.
        second: String,
    },

    /// Moments that were loaded are not those of the optimizer.
    #[error("{moment} of {parameter} is {found} in the record, but {expected} here")]
    Saved {
        /// The path of the parameter.
        parameter: String,
        /// The name of the moment.
        moment: String,
        /// Type and length in the record.
        found: String,
        /// Type and length in the optimizer.
        expected: String,
    },

    /// Moments of a parameter in F64 are to be kept in another type, or the other way round.
    #[error("{parameter} is {dtype:?}, and so its moments cannot be {storage}")]
    Moments {
        /// The path of the parameter.
        parameter: String,
        /// The type of the parameter.
        dtype: DType,
        /// The storage that was asked for.
        storage: Storage,
    },

    /// adamant refused the step.
    #[error("{}{error}", parameter.as_ref().map(|path| format!("{path}: ")).unwrap_or_default())]
    Step {
        /// The path of the parameter, if the mistake concerns one.
        parameter: Option<String>,
        /// The mistake.
        #[source]
        error: adamant::Error,
    },

    /// A record cannot be read or written, or is not one of this crate.
    #[error(transparent)]
    Record(#[from] RecordError),

    /// A file cannot be read or written, or has no record of this crate.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of its record.
        #[source]
        error: RecordError,
    },
}

impl From<adamant::Error> for Error {
    fn from(error: adamant::Error) -> Self {
        Self::Step { parameter: None, error }
    }
}

impl Error {
    /// The error of a record in a file.
    pub(crate) fn of_file(error: impl Into<Self>, path: &Path) -> Self {
        match error.into() {
            Self::Record(error) => Self::File { path: path.into(), error },
            error => error,
        }
    }

    /// The refusal of a step, with the path of the parameter instead of its position.
    pub(crate) fn of_step<'a>(
        error: adamant::Error,
        mut paths: impl Iterator<Item = &'a str>,
    ) -> Self {
        let path = error.tensor().and_then(|position| paths.nth(position));
        let parameter = path.map(String::from);
        Self::Step { parameter, error }
    }
}
