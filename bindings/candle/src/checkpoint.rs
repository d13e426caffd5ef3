//! Variables and optimizer to and from one file.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fs, io,
    path::Path,
};

use adamant::{AnyOptimizer, Moment, MomentRef, State, Storage};
use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensorError, SafeTensors, View};

use crate::{Error, VarOptimizer};

/// The key of the groups' settings in a file's metadata.
const GROUPS: &str = "adamant.groups";
/// The key of the seed.
const SEED: &str = "adamant.seed";

/// The arrays and the metadata of a file.
type Contents<'a> = (BTreeMap<String, Array<'a>>, HashMap<String, String>);

/// # Checkpoints
///
/// One file in the format safetensors has all of a run: each variable under its name and with its shape, as
/// [`VarMap::save`](candle_nn::VarMap::save) writes it and [`VarMap::load`](candle_nn::VarMap::load) reads
/// it; each moment under `NAME.MOMENT` (`fc.weight.exp_avg`), in the storage that it has, and for a moment of
/// 8 bits its scales under `NAME.MOMENT.scales`. The metadata has the step count of each variable under
/// `NAME.steps`, its group under `NAME.group`, the number of its first element among all elements of the model
/// under `NAME.first` (random bits depend on it), the settings of the groups, and the seed.
///
/// ```
/// use adamant_candle::{Adam, VarOptimizer};
/// # use candle_core::{DType, Device};
/// # use candle_nn::{VarBuilder, VarMap, linear};
///
/// # let folder = tempfile::tempdir()?;
/// # let file = folder.path().join("run.safetensors");
/// # let map = VarMap::new();
/// # linear(3, 2, VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))?;
/// let optimizer = VarOptimizer::from_var_map(&map, Adam::adamw())?;
/// // ... steps ...
/// optimizer.save(&file)?;
///
/// // In another run, with a model of the same variables:
/// let mut optimizer = VarOptimizer::from_var_map(&map, Adam::adamw())?;
/// optimizer.load(&file)?;
/// # Ok::<(), candle_core::Error>(())
/// ```
impl VarOptimizer {
    /// Saves the variables and everything that the optimizer keeps for them, and the settings of its groups.
    ///
    /// The file is written under another name in the same folder, and renamed when it is complete and on disk.
    /// So a crash leaves the old file.
    ///
    /// # Errors
    ///
    /// [`Error::Unnamed`] if the optimizer was made by [`new`](Self::new), [`Error::DuplicateName`] if a
    /// moment has the name of a variable, [`Error::File`] with the error of the system.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let (arrays, metadata) = self.contents()?;
        adamant::checkpoint::replace_file(path, |unfinished| {
            safetensors::serialize_to_file(arrays, Some(metadata), unfinished)
        })
        .map_err(|error: SafeTensorError| {
            let error = match error {
                SafeTensorError::IoError(error) => error,
                error => io::Error::other(error),
            };
            Error::File { path: path.into(), error }
        })
    }

    /// Restores a file of [`save`](Self::save): variables, moments, step counts, settings and seed. A run that
    /// continues from there has the bits of a run that was not interrupted.
    ///
    /// The optimizer must be like the one that was saved: the same variables in the same groups, the same
    /// kinds of optimizers, moments in the same storage. Settings of this one are replaced;
    /// [`stochastic`](Self::stochastic) and [`options`](Self::options) but the seed stay.
    ///
    /// # Errors
    ///
    /// [`Error::Unnamed`], [`Error::File`], [`Error::Format`]; [`Error::Missing`] or [`Error::Mismatch`] with
    /// the name of what differs.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        if !self.named {
            return Err(Error::Unnamed);
        }
        let bytes = fs::read(path).map_err(|error| Error::File { path: path.into(), error })?;
        let file = Saved::read(path, &bytes)?;

        let groups = self.saved_groups(&file)?;
        let seed = file.number(SEED)?;
        let mut restored = Vec::with_capacity(self.params.len());
        for param in &self.params {
            let (group, expected) = (file.number(&format!("{}.group", param.name))?, param.group);
            if group != expected as u64 {
                let name = format!("{}.group", param.name);
                return Err(file.mismatch(&name, group.to_string(), expected.to_string()));
            }
            let values = file.tensor(&param.name, &param.var)?;
            let first = file.number(&format!("{}.first", param.name))?;
            let steps = format!("{}.steps", param.name);
            let state = match file.metadata.contains_key(&steps) {
                true => {
                    let mut state = self.new_state(param);
                    file.restore(&param.name, &mut state)?;
                    state.set_steps(file.number(&steps)?);
                    state.set_first(first);
                    Some(state)
                }
                false => None,
            };
            restored.push((values, state, first));
        }

        // Shapes and types were compared, and the values are new tensors: nothing here can fail.
        for (param, (values, state, first)) in self.params.iter_mut().zip(restored) {
            param.var.set(&values)?;
            (param.state, param.first) = (state, first);
        }
        self.groups = groups;
        self.options.seed = seed;
        Ok(())
    }

    /// The arrays and the metadata of a file.
    fn contents(&self) -> Result<Contents<'_>, Error> {
        if !self.named {
            return Err(Error::Unnamed);
        }
        let mut arrays = BTreeMap::new();
        let mut add = |name: String, array| match arrays.insert(name.clone(), array) {
            Some(_) => Err(Error::DuplicateName { name }),
            None => Ok(()),
        };
        let groups = serde_json::to_string(&self.groups).map_err(candle_core::Error::wrap)?;
        let mut metadata =
            HashMap::from([(GROUPS.into(), groups), (SEED.into(), self.options.seed.to_string())]);
        for param in &self.params {
            let name = &param.name;
            add(name.clone(), Array::Tensor(&param.var))?;
            metadata.insert(format!("{name}.group"), param.group.to_string());
            metadata.insert(format!("{name}.first"), param.first.to_string());
            let Some(state) = &param.state else { continue };
            metadata.insert(format!("{name}.steps"), state.steps().to_string());
            for (moment, values) in state.moments() {
                let shape = param.var.dims().to_vec();
                add(format!("{name}.{moment}"), Array::Moment(values, shape))?;
                if let MomentRef::Q8(_, scales) = values {
                    let shape = vec![scales.len()];
                    let scales = Array::Moment(MomentRef::F32(scales), shape);
                    add(format!("{name}.{moment}.scales"), scales)?;
                }
            }
        }
        Ok((arrays, metadata))
    }

    /// The settings of the groups in a file, if they are of the same kinds of optimizers.
    fn saved_groups(&self, file: &Saved<'_>) -> Result<Vec<AnyOptimizer>, Error> {
        let groups: Vec<AnyOptimizer> =
            serde_json::from_str(file.entry(GROUPS)?).map_err(|error| Error::Format {
                path: file.path.into(),
                reason: format!("{GROUPS}: {error}"),
            })?;
        let kinds = |groups: &[AnyOptimizer]| {
            groups.iter().map(AnyOptimizer::name).collect::<Vec<_>>().join(", ")
        };
        let (found, expected) = (kinds(&groups), kinds(&self.groups));
        match found == expected {
            true => Ok(groups),
            false => Err(file.mismatch(GROUPS, found, expected)),
        }
    }
}

/// A file that was read.
struct Saved<'a> {
    path: &'a Path,
    arrays: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

impl<'a> Saved<'a> {
    fn read(path: &'a Path, bytes: &'a [u8]) -> Result<Self, Error> {
        let damaged = |error: SafeTensorError| Error::Format {
            path: path.into(),
            reason: format!("not a whole safetensors file: {error}"),
        };
        let arrays = SafeTensors::deserialize(bytes).map_err(damaged)?;
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let metadata = metadata.metadata().clone().unwrap_or_default();
        Ok(Self { path, arrays, metadata })
    }

    fn missing(&self, name: &str) -> Error {
        Error::Missing { path: self.path.into(), name: name.into() }
    }

    fn mismatch(&self, name: &str, found: String, expected: String) -> Error {
        Error::Mismatch { path: self.path.into(), name: name.into(), found, expected }
    }

    fn entry(&self, name: &str) -> Result<&str, Error> {
        self.metadata.get(name).map(String::as_str).ok_or_else(|| self.missing(name))
    }

    fn number(&self, name: &str) -> Result<u64, Error> {
        let entry = self.entry(name)?;
        entry.parse().map_err(|error| Error::Format {
            path: self.path.into(),
            reason: format!("{name} is {entry:?}: {error}"),
        })
    }

    /// The bytes of an array, if it has the type and shape.
    fn bytes(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&[u8], Error> {
        let Ok(array) = self.arrays.tensor(name) else {
            return Err(self.missing(name));
        };
        if array.dtype() == dtype && array.shape() == shape {
            return Ok(array.data());
        }
        let found = format!("{:?} of shape {:?}", array.dtype(), array.shape());
        Err(self.mismatch(name, found, format!("{dtype:?} of shape {shape:?}")))
    }

    /// The saved values of a variable.
    fn tensor(&self, name: &str, variable: &Tensor) -> Result<Tensor, Error> {
        let bytes = self.bytes(name, variable.dtype().into(), variable.dims())?;
        let dtype = variable.dtype();
        Ok(Tensor::from_raw_buffer(bytes, dtype, variable.dims(), &Device::Cpu)?)
    }

    /// Restores the moments of a variable.
    fn restore(&self, name: &str, state: &mut State) -> Result<(), Error> {
        let variable = self.arrays.tensor(name);
        let shape = variable.map(|array| array.shape().to_vec()).unwrap_or_default();
        let moments: Vec<_> = state.moments().map(|(moment, _)| moment).collect();
        for moment in moments {
            let array = format!("{name}.{moment}");
            let Some(mut values) = state.moment_mut(moment) else { continue };
            self.restore_moment(&array, &shape, &mut values)?;
        }
        Ok(())
    }

    fn restore_moment(
        &self,
        name: &str,
        shape: &[usize],
        moment: &mut Moment<'_>,
    ) -> Result<(), Error> {
        let bytes = self.bytes(name, dtype_of(moment.storage()), shape)?;
        let copied = match moment.storage() {
            Storage::F64 => moment.copy_from(MomentRef::F64(&numbers(bytes, f64::from_le_bytes))),
            Storage::Bf16 => {
                moment.copy_from(MomentRef::Bf16(&numbers(bytes, half::bf16::from_le_bytes)))
            }
            Storage::F16 => {
                moment.copy_from(MomentRef::F16(&numbers(bytes, half::f16::from_le_bytes)))
            }
            Storage::Q8 => {
                let scales = adamant::Q8::scales(moment.len());
                let scales = self.bytes(&format!("{name}.scales"), Dtype::F32, &[scales])?;
                moment.copy_from(MomentRef::Q8(bytes, &numbers(scales, f32::from_le_bytes)))
            }
            _ => moment.copy_from(MomentRef::F32(&numbers(bytes, f32::from_le_bytes))),
        };
        copied.map_err(|error| Error::Step { name: Some(name.into()), error })
    }
}

fn numbers<T, const N: usize>(bytes: &[u8], number: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks().0.iter().map(|&bytes| number(bytes)).collect()
}

fn dtype_of(storage: Storage) -> Dtype {
    match storage {
        Storage::F64 => Dtype::F64,
        Storage::Bf16 => Dtype::BF16,
        Storage::F16 => Dtype::F16,
        Storage::Q8 => Dtype::U8,
        _ => Dtype::F32,
    }
}

/// An array on its way to a file.
enum Array<'a> {
    Tensor(&'a Tensor),
    /// With its shape.
    Moment(MomentRef<'a>, Vec<usize>),
}

impl View for Array<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Tensor(tensor) => View::dtype(tensor),
            Self::Moment(moment, _) => dtype_of(moment.storage()),
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Tensor(tensor) => tensor.dims(),
            Self::Moment(_, shape) => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let moment = match self {
            Self::Tensor(tensor) => return View::data(tensor),
            Self::Moment(moment, _) => moment,
        };
        match moment {
            MomentRef::F64(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            MomentRef::Bf16(values) => {
                values.iter().flat_map(|value| value.to_le_bytes()).collect()
            }
            MomentRef::F16(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            MomentRef::F32(values) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            MomentRef::Q8(codes, _) => Cow::Borrowed(codes),
            // `Storage` has no other.
            _ => Cow::Borrowed(&[]),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Tensor(tensor) => View::data_len(tensor),
            Self::Moment(moment, _) => {
                moment.len()
                    * match moment.storage() {
                        Storage::F64 => 8,
                        Storage::Bf16 | Storage::F16 => 2,
                        Storage::Q8 => 1,
                        _ => 4,
                    }
            }
        }
    }
}
