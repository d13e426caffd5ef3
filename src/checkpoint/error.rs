//! The errors of a checkpoint.

use std::{io, path::PathBuf};

/// The errors of saving and restoring a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        #[source]
        error: io::Error,
    },

    /// The file is damaged, or of another format.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The mistake in it.
        reason: String,
    },

    /// Two arrays have one name: two tensors, or a tensor and a moment.
    #[error("two arrays have the name {name}")]
    DuplicateName {
        /// The name.
        name: String,
    },

    /// The file does not have an array or a step count.
    #[error("{}: {name} is missing", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },

    /// An array in the file has another type or length than the array to be restored.
    #[error("{}: {name} is {found} in the file, but {expected} here", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// The name of the array.
        name: String,
        /// Type and length in the file.
        found: String,
        /// Type and length of the array to be restored.
        expected: String,
    },
}
