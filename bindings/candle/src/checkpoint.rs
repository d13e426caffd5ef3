//! Variables and optimizer to and from one file.

mod array;
mod saved;

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::Path,
};

use adamant::{AnyOptimizer, MomentRef};
use safetensors::SafeTensorError;

use crate::{Error, VarOptimizer};
use array::Array;
use saved::Saved;

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
