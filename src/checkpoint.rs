//! Whole models to and from a file in the format safetensors.
//!
//! A file holds, for each tensor of a model, its parameters under the tensor's name, each moment under
//! `NAME.MOMENT` (`layers.0.weight.exp_avg`), in the storage that it has, and for a moment of 8 bits its
//! scales under `NAME.MOMENT.scales`. The step counts stand in the file's metadata under `NAME.steps`. Any
//! library for safetensors reads it.
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

use core::fmt;
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use half::{bf16, f16};
use safetensors::{Dtype, SafeTensorError, SafeTensors, View};

use crate::{Moment, MomentRef, State, Storage, array::MomentArray};

/// The errors of saving and restoring a checkpoint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        error: io::Error,
    },

    /// The file is damaged, or of another format.
    #[error("{}: not a whole safetensors file: {error}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        error: SafeTensorError,
    },

    /// Two tensors have one name.
    #[error("{name} is the name of two arrays")]
    DuplicateName {
        /// The name.
        name: String,
    },

    /// The file lacks an array or a step count.
    #[error("the file has no {name}")]
    Missing {
        /// The name.
        name: String,
    },

    /// An array is not like the one to be restored.
    #[error("{name} is {found} in the file, but {expected} here")]
    Mismatch {
        /// The name of the array.
        name: String,
        /// Type and length in the file.
        found: String,
        /// Type and length of what is to be restored.
        expected: String,
    },
}

/// Saves the tensors of a model: for each a name, its parameters and its state.
///
/// The file is written under another name in the same folder, and takes its name once it is whole and on
/// disk. So a crash leaves the file that was there before.
///
/// # Errors
///
/// [`CheckpointError::DuplicateName`], or [`CheckpointError::File`] with what the system says.
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
        add(String::from(name), Array::of(param))?;
        for (moment, values) in state.moments() {
            add(format!("{name}.{moment}"), Array::of(values))?;
            if let MomentRef::Q8(_, scales) = values {
                add(format!("{name}.{moment}.scales"), Array::of(MomentRef::F32(scales)))?;
            }
        }
        metadata.insert(format!("{name}.steps"), state.steps().to_string());
    }

    // With metadata that is there and empty, safetensors writes a header that it cannot read.
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

/// Writes a file so that a crash leaves either the old file or the whole new one.
///
/// `write` gets the path of another file in the same folder, and creates and fills it. Then that file is put
/// on disk and renamed to `path`. If `write` fails, its file is removed, and the file at `path` is as it was.
///
/// [`save`] writes its files in this way; it serves checkpoints of other formats, too.
///
/// # Examples
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("settings.json");
/// adamant::checkpoint::replace_file(&path, |unfinished| std::fs::write(unfinished, "{}"))?;
/// assert_eq!(std::fs::read_to_string(&path)?, "{}");
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
///
/// The error of `write`, or what the system says.
pub fn replace_file<E: From<io::Error>>(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    // Threads that save to one path at the same time write different files.
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(format!(".{}-{call}.unfinished", std::process::id()));
    let unfinished = PathBuf::from(unfinished);
    let written = write(&unfinished).and_then(|()| {
        // Opened for writing, which Windows requires of a file that is put on disk.
        File::options().write(true).open(&unfinished)?.sync_all()?;
        Ok(fs::rename(&unfinished, path)?)
    });
    if written.is_err() {
        // The first error is the one to report, also if the file cannot be removed.
        let _ = fs::remove_file(&unfinished);
        return written;
    }
    Ok(sync_folder(path)?)
}

/// Puts the new name of a file on disk, too.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(())
}

/// A checkpoint that was read from a file.
pub struct Checkpoint {
    path: PathBuf,
    bytes: Vec<u8>,
    metadata: HashMap<String, String>,
}

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
        let read = SafeTensors::deserialize(&bytes)
            .and_then(|_| SafeTensors::read_metadata(&bytes))
            .map(|(_, metadata)| metadata.metadata().clone().unwrap_or_default());
        match read {
            Ok(metadata) => Ok(Self { path, bytes, metadata }),
            Err(error) => Err(CheckpointError::Format { path, error }),
        }
    }

    /// The names of all arrays, in no order.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Format`], which [`load`](Self::load) would have found.
    pub fn names(&self) -> Result<Vec<String>, CheckpointError> {
        Ok(self.arrays()?.names().into_iter().map(String::from).collect())
    }

    /// Restores the parameters and the state of a tensor. Each array must have the type and the length
    /// that it has in the file.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Missing`] or [`CheckpointError::Mismatch`] for an array, and then nothing has
    /// changed.
    pub fn restore(
        &self,
        name: &str,
        mut param: Moment<'_>,
        state: &mut State,
    ) -> Result<(), CheckpointError> {
        let arrays = self.arrays()?;
        let steps = format!("{name}.steps");
        let count = self.metadata.get(&steps).and_then(|count| count.parse().ok());
        let Some(count) = count else { return Err(CheckpointError::Missing { name: steps }) };
        check(&arrays, name, param.read())?;
        for (moment, values) in state.moments() {
            check(&arrays, &format!("{name}.{moment}"), values)?;
            if let MomentRef::Q8(_, scales) = values {
                check(&arrays, &format!("{name}.{moment}.scales"), MomentRef::F32(scales))?;
            }
        }

        copy(&arrays, name, &mut param);
        let moments: Vec<_> = state.moments().map(|(moment, _)| moment).collect();
        for moment in moments {
            if let Some(mut values) = state.moment_mut(moment) {
                copy(&arrays, &format!("{name}.{moment}"), &mut values);
            }
        }
        state.set_steps(count);
        Ok(())
    }

    fn arrays(&self) -> Result<SafeTensors<'_>, CheckpointError> {
        let format = |error| CheckpointError::Format { path: self.path.clone(), error };
        SafeTensors::deserialize(&self.bytes).map_err(format)
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checkpoint")
            .field("path", &self.path)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

/// An array on its way to a file.
struct Array<'a> {
    values: MomentRef<'a>,
    shape: [usize; 1],
}

impl<'a> Array<'a> {
    fn of(values: MomentRef<'a>) -> Self {
        Self { values, shape: [values.len()] }
    }
}

fn dtype(storage: Storage) -> Dtype {
    match storage {
        Storage::F32 => Dtype::F32,
        Storage::F64 => Dtype::F64,
        Storage::Bf16 => Dtype::BF16,
        Storage::F16 => Dtype::F16,
        Storage::Q8 => Dtype::U8,
    }
}

impl View for Array<'_> {
    fn dtype(&self) -> Dtype {
        dtype(self.values.storage())
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.values {
            MomentRef::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            MomentRef::F64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            MomentRef::Bf16(values) => {
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            }
            MomentRef::F16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            MomentRef::Q8(codes, _) => Cow::Borrowed(codes),
        }
    }

    fn data_len(&self) -> usize {
        self.values.len() * bytes_of(self.values.storage())
    }
}

fn bytes_of(storage: Storage) -> usize {
    match storage {
        Storage::F64 => 8,
        Storage::F32 => 4,
        Storage::Bf16 | Storage::F16 => 2,
        Storage::Q8 => 1,
    }
}

/// Fails unless the file has the array, of the same type and length.
fn check(
    arrays: &SafeTensors<'_>,
    name: &str,
    values: MomentRef<'_>,
) -> Result<(), CheckpointError> {
    let Ok(array) = arrays.tensor(name) else {
        return Err(CheckpointError::Missing { name: String::from(name) });
    };
    let (len, storage) = (values.len(), values.storage());
    if array.dtype() == dtype(storage) && array.data().len() == len * bytes_of(storage) {
        return Ok(());
    }
    Err(CheckpointError::Mismatch {
        name: String::from(name),
        found: format!("{:?} of shape {:?}", array.dtype(), array.shape()),
        expected: format!("{:?} of shape [{len}]", dtype(storage)),
    })
}

/// Copies an array that was checked.
fn copy(arrays: &SafeTensors<'_>, name: &str, to: &mut Moment<'_>) {
    let Ok(array) = arrays.tensor(name) else { return };
    let bytes = array.data();
    match &mut to.0 {
        MomentArray::F32(to) => from_bytes(to, bytes, f32::from_le_bytes),
        MomentArray::F64(to) => from_bytes(to, bytes, f64::from_le_bytes),
        MomentArray::Bf16(to) => from_bytes(to, bytes, bf16::from_le_bytes),
        MomentArray::F16(to) => from_bytes(to, bytes, f16::from_le_bytes),
        MomentArray::Q8(codes, scales) => {
            codes.copy_from_slice(bytes);
            if let Ok(array) = arrays.tensor(&format!("{name}.scales")) {
                from_bytes(scales, array.data(), f32::from_le_bytes);
            }
        }
    }
}

fn from_bytes<T, const N: usize>(to: &mut [T], bytes: &[u8], number: fn([u8; N]) -> T) {
    for (to, &bytes) in to.iter_mut().zip(bytes.as_chunks().0) {
        *to = number(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Adam, Optimizer, Sgd, StepOptions};

    const STORAGES: [Storage; 4] = [Storage::F32, Storage::Bf16, Storage::F16, Storage::Q8];

    fn file() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("model.safetensors");
        (folder, file)
    }

    /// Some steps of a model in `f32` whose moments are rounded at random.
    fn train(params: &mut [f32], state: &mut State, steps: u64) {
        for _ in 0..steps {
            let grads: Vec<f32> = params.iter().map(|param| param.sin()).collect();
            let options = StepOptions { seed: 7, ..StepOptions::default() };
            let (param, grad) = ((&mut *params).into(), (&grads).into());
            let report = Adam::adamw().step_with(param, grad, state, &options);
            assert!(report.is_ok(), "{report:?}");
        }
    }

    #[test]
    fn a_run_that_is_saved_and_resumed_has_the_bits_of_one_that_is_not() {
        for storage in &STORAGES {
            let start: Vec<f32> = (0..700).map(|i| i as f32 * 0.01 - 3.0).collect();
            let (mut params, mut state) =
                (start.clone(), Adam::adamw().state_in(*storage, start.len()));
            train(&mut params, &mut state, 5);
            let (_folder, file) = file();
            save(&file, [("w", MomentRef::F32(&params), &state)]).expect("a file");
            train(&mut params, &mut state, 5);

            let (mut resumed, mut resumed_state) =
                (vec![0.0; start.len()], Adam::adamw().state_in(*storage, start.len()));
            let saved = Checkpoint::load(&file).expect("the file");
            saved.restore("w", (&mut resumed).into(), &mut resumed_state).expect("the same arrays");
            assert_eq!(resumed_state.steps(), 5);
            train(&mut resumed, &mut resumed_state, 5);
            assert_eq!(resumed, params);
            assert!(resumed_state.moments().eq(state.moments()), "{storage}");
        }
    }

    #[test]
    fn a_model_without_tensors_is_saved_and_loaded() {
        let (_folder, file) = file();
        save(&file, []).expect("a file");
        assert_eq!(Checkpoint::load(&file).expect("the file").names().expect("names").len(), 0);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name_and_nothing_changes() {
        let (_folder, file) = file();
        let state = Adam::default().state(3);
        save(&file, [("w", MomentRef::F32(&[1.0; 3]), &state)]).expect("a file");
        let saved = Checkpoint::load(&file).expect("the file");

        let mut params = [2.0_f32; 3];
        for (storage, len, name) in [
            (Storage::F32, 4, "w.exp_avg"),
            (Storage::Bf16, 3, "w.exp_avg"),
            (Storage::Q8, 3, "w.exp_avg"),
        ] {
            let mut state = Adam::default().state_in(storage, len);
            let error = saved.restore("w", (&mut params).into(), &mut state).expect_err("refused");
            assert!(error.to_string().starts_with(name), "{error}");
            assert_eq!((params, state.steps()), ([2.0; 3], 0));
        }
        let mut momentum = Sgd { momentum: 0.9, ..Sgd::default() }.state(3);
        let error = saved.restore("w", (&mut params).into(), &mut momentum).expect_err("refused");
        assert_eq!(error.to_string(), "the file has no w.momentum_buffer");
        let mut state = Adam::default().state(3);
        let error = saved.restore("v", (&mut params).into(), &mut state).expect_err("refused");
        assert_eq!(error.to_string(), "the file has no v.steps");
        let mut wide = [2.0_f64; 3];
        assert!(saved.restore("w", (&mut wide).into(), &mut state).is_err());
        assert_eq!((params, wide), ([2.0; 3], [2.0; 3]));
    }

    #[test]
    fn a_damaged_file_is_refused_and_a_failed_save_leaves_the_old_one() {
        let (folder, file) = file();
        let state = Adam::default().state(3);
        save(&file, [("w", MomentRef::F32(&[1.0; 3]), &state)]).expect("a file");
        let whole = fs::read(&file).expect("the file");

        // Two arrays of one name.
        let twice = [("w", MomentRef::F32(&[2.0; 3]), &state); 2];
        let refused = save(&file, twice);
        assert!(matches!(refused, Err(CheckpointError::DuplicateName { .. })), "{refused:?}");
        assert_eq!(fs::read(&file).expect("the file"), whole);
        // A file that cannot be finished.
        let refused = replace_file(&file, |unfinished| {
            fs::write(unfinished, "half of")?;
            assert_eq!(unfinished.parent(), Some(folder.path()), "no other disk");
            Err(io::Error::other("the disk is full"))
        });
        assert_eq!(refused.expect_err("refused").to_string(), "the disk is full");
        assert_eq!(fs::read(&file).expect("the file"), whole);
        // No folder to write to.
        let nowhere = folder.path().join("none").join("model.safetensors");
        let refused = save(&nowhere, [("w", MomentRef::F32(&[1.0; 3]), &state)]);
        assert!(matches!(refused, Err(CheckpointError::File { .. })), "{refused:?}");
        assert_eq!(
            fs::read_dir(folder.path()).expect("the folder").count(),
            1,
            "nothing beside it"
        );

        for len in 0..whole.len() {
            fs::write(&file, &whole[..len]).expect("a shorter file");
            assert!(Checkpoint::load(&file).is_err(), "{len} of {} bytes", whole.len());
        }
        fs::write(&file, b"a file of another kind").expect("another file");
        let error = Checkpoint::load(&file).expect_err("refused");
        assert!(error.to_string().contains("not a whole safetensors file"), "{error}");
        assert!(Checkpoint::load(&nowhere).is_err());
    }
}
