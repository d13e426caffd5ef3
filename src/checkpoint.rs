//! Whole models to and from a file in the format safetensors.
//!
//! For each tensor of a model, a file has:
//!
//! - its parameters under the name of the tensor;
//! - each moment under `NAME.MOMENT` (`layers.0.weight.exp_avg`), in the storage that it has;
//! - the scales of a moment of 8 bits under `NAME.MOMENT.scales`;
//! - its step count under `NAME.steps`, in the metadata of the file; so is the number of its first element under
//!   `NAME.first`, if it was set ([`State::set_first`]).
//!
//! Any library for safetensors reads such a file. Settings are not in it: with the feature `serde`, save an
//! [`AnyOptimizer`](crate::AnyOptimizer) beside it.
//!
//! # Examples
//!
//! ```
//! use adamant::{Adam, MomentRef, Moment, Optimizer, Storage, checkpoint};
//!
//! let adam = Adam::adamw();
//! let mut params = vec![1.0_f32; 300];
//! let mut state = adam.state_in(Storage::Q8, params.len());
//! adam.step(&mut params, &[0.5; 300], &mut state)?;
//!
//! let folder = tempfile::tempdir()?;
//! let file = folder.path().join("model.safetensors");
//! checkpoint::save(&file, [("weight", MomentRef::F32(&params), &state)])?;
//!
//! let (mut again, mut restored) = (vec![0.0_f32; 300], adam.state_in(Storage::Q8, 300));
//! let saved = checkpoint::Checkpoint::load(&file)?;
//! saved.restore("weight", Moment::from(&mut again), &mut restored)?;
//! assert_eq!((&again, restored.steps()), (&params, 1));
//! assert!(restored.moments().eq(state.moments()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod array;
mod error;
mod replace;

use core::{fmt, iter};
use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
};

use safetensors::{
    SafeTensorError, SafeTensors,
    tensor::{Metadata, TensorInfo},
};

use crate::{Moment, MomentRef, State};
use array::{Array, mismatch};

pub use error::CheckpointError;
pub use replace::replace_file;

/// Saves the tensors of a model: for each a name, its parameters and its state.
///
/// The file is written under another name in the same folder, and renamed when it is complete and on disk. So
/// a crash leaves the old file.
///
/// # Errors
///
/// [`CheckpointError::DuplicateName`], or [`CheckpointError::File`] with the error of the system.
pub fn save<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, MomentRef<'a>, &'a State)>,
) -> Result<(), CheckpointError> {
    let mut arrays = BTreeMap::new();
    let mut metadata = HashMap::new();
    let mut add = |name: String, array: Array<'a>| match arrays.insert(name.clone(), array) {
        Some(_) => Err(CheckpointError::DuplicateName { name }),
        None => Ok(()),
    };
    for (name, param, state) in tensors {
        for (name, values) in named(name, param, state).flat_map(with_scales) {
            add(name, Array::of(values))?;
        }
        metadata.insert(format!("{name}.steps"), state.steps().to_string());
        if let Some(first) = state.first() {
            metadata.insert(format!("{name}.first"), first.to_string());
        }
    }

    // If the metadata is present but empty, safetensors writes a header that it cannot read.
    let metadata = (!metadata.is_empty()).then_some(metadata);
    replace_file(path, |unfinished| safetensors::serialize_to_file(arrays, metadata, unfinished))
        .map_err(|error: SafeTensorError| {
            let error = match error {
                SafeTensorError::IoError(error) => error,
                error => io::Error::other(error),
            };
            CheckpointError::File { path: path.to_path_buf(), error }
        })
}

/// The names of a tensor's arrays in a file.
fn named<'a>(
    name: &str,
    param: MomentRef<'a>,
    state: &'a State,
) -> impl Iterator<Item = (String, MomentRef<'a>)> {
    let moments = state.moments().map(move |(moment, values)| (format!("{name}.{moment}"), values));
    iter::once((String::from(name), param)).chain(moments)
}

/// An array, and the scales of one in 8 bits.
fn with_scales(
    (name, values): (String, MomentRef<'_>),
) -> impl Iterator<Item = (String, MomentRef<'_>)> {
    let scales = match values {
        MomentRef::Q8(_, scales) => Some((format!("{name}.scales"), MomentRef::F32(scales))),
        _ => None,
    };
    iter::once((name, values)).chain(scales)
}

/// A checkpoint that was read from a file.
pub struct Checkpoint {
    path: PathBuf,
    bytes: Vec<u8>,
    header: Metadata,
    /// The position in `bytes` that the offsets of the header are counted from.
    data: usize,
}

/// The length of the number at the start of a file: the length of its header.
const HEADER_LEN: usize = size_of::<u64>();

impl Checkpoint {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::File`] if it cannot be read, [`CheckpointError::Format`] if it is damaged.
    pub fn load(path: &Path) -> Result<Self, CheckpointError> {
        let path = path.to_path_buf();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) => return Err(CheckpointError::File { path, error }),
        };
        match SafeTensors::read_metadata(&bytes) {
            Ok((len, header)) => Ok(Self { path, bytes, header, data: HEADER_LEN + len }),
            Err(error) => {
                let reason = format!("not a whole safetensors file: {error}");
                Err(CheckpointError::Format { path, reason })
            }
        }
    }

    /// The names of all arrays, in the order of their bytes in the file.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// Restores the parameters and the state of a tensor. Each array must have the type and the length that it has in
    /// the file. Moments are found by their names; the file does not record the optimizer. So a state of another
    /// optimizer whose moments have the same names is restored without an error: Adam, NAdam, RAdam, ADOPT and Yogi
    /// share theirs.
    ///
    /// If the file has no number of the first element, the state keeps its own.
    ///
    /// A copy of the parameters in 16 bits ([`Param::with_copy`](crate::Param::with_copy)) is not in the file. The next
    /// step writes it; round it from the parameters if it is read before.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Missing`] or [`CheckpointError::Mismatch`] for an array,
    /// [`CheckpointError::Format`] for a number in the metadata that is none, and then nothing has changed.
    pub fn restore(
        &self,
        name: &str,
        param: Moment<'_>,
        state: &mut State,
    ) -> Result<(), CheckpointError> {
        self.restore_all([(name, param, state)])
    }

    /// Restores the parameters and the states of some tensors, as [`restore`](Self::restore) does for one: all of
    /// them, or none.
    ///
    /// # Errors
    ///
    /// As [`restore`](Self::restore), and then nothing has changed.
    pub fn restore_all<'a>(
        &self,
        tensors: impl IntoIterator<Item = (&'a str, Moment<'a>, &'a mut State)>,
    ) -> Result<(), CheckpointError> {
        let mut tensors: Vec<_> = tensors.into_iter().collect();
        let mut counts = Vec::with_capacity(tensors.len());
        for (name, param, state) in &mut tensors {
            counts.push(self.counts(name)?);
            for (name, values) in named(name, param.read(), state).flat_map(with_scales) {
                self.check(&name, values)?;
            }
        }

        for ((name, mut param, state), (steps, first)) in tensors.into_iter().zip(counts) {
            self.copy(name, &mut param);
            let moments: Vec<_> = state.moments().map(|(moment, _)| moment).collect();
            for moment in moments {
                if let Some(mut values) = state.moment_mut(moment) {
                    self.copy(&format!("{name}.{moment}"), &mut values);
                }
            }
            state.set_steps(steps);
            // A file without the number leaves that of the state.
            if first.is_some() {
                state.set_first(first);
            }
        }
        Ok(())
    }

    /// The step count of a tensor, and the number of its first element if it was set.
    fn counts(&self, name: &str) -> Result<(u64, Option<u64>), CheckpointError> {
        let steps = format!("{name}.steps");
        let Some(found) = self.count(&steps)? else {
            return Err(CheckpointError::Missing { path: self.path.clone(), name: steps });
        };
        Ok((found, self.count(&format!("{name}.first"))?))
    }

    /// A number among the metadata.
    fn count(&self, name: &str) -> Result<Option<u64>, CheckpointError> {
        let metadata = self.header.metadata().as_ref();
        let Some(count) = metadata.and_then(|metadata| metadata.get(name)) else {
            return Ok(None);
        };
        count.parse().map(Some).map_err(|error| CheckpointError::Format {
            path: self.path.clone(),
            reason: format!("{name} is {count:?}: {error}"),
        })
    }

    /// Fails unless the file has the array, of the same type and length.
    fn check(&self, name: &str, values: MomentRef<'_>) -> Result<(), CheckpointError> {
        let (path, name) = (self.path.clone(), String::from(name));
        let Some((info, bytes)) = self.array(&name) else {
            return Err(CheckpointError::Missing { path, name });
        };
        match mismatch(values, info, bytes) {
            None => Ok(()),
            Some([found, expected]) => {
                Err(CheckpointError::Mismatch { path, name, found, expected })
            }
        }
    }

    /// Copies an array that was checked.
    fn copy(&self, name: &str, to: &mut Moment<'_>) {
        let bytes = |name: &str| self.array(name).map(|(_, bytes)| bytes);
        if let Some(values) = bytes(name) {
            to.put_le_bytes(values, bytes(&format!("{name}.scales")).unwrap_or_default());
        }
    }

    /// The type, shape and bytes of an array.
    fn array(&self, name: &str) -> Option<(&TensorInfo, &[u8])> {
        let info = self.header.info(name)?;
        let (start, end) = info.data_offsets;
        Some((info, self.bytes.get(self.data + start..self.data + end)?))
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("path", &self.path)
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}
