//! Records of a whole module's optimizer, in burn's own format.

use std::path::Path;

use burn::{
    module::ParamId,
    optim::{OptimizerRecord, RecordState, StateSink, StateSource},
    store::RecordError,
    tensor::{Device, TensorData},
};
use burn_pack::{Reader, Scalar, Tensor, Writer};

use crate::{Error, OneCallOptimizer, ParamState, one_call::Entry};

/// The name of the entry with a parameter's rank, which burn's records have beside its state.
const RANK: &str = "__rank";

/// # Records
///
/// A record has the moments and the step count of each parameter, in the format of burn's optimizers. Records of
/// a `ModuleOptimizer` with a [`ParamOptimizer`](crate::ParamOptimizer) can be loaded here, and the other way
/// round. Settings are not part of it. Records of burn's own optimizers are refused.
///
/// Parameters are identified by their ids. So save and load the module, too: its record keeps the ids.
///
/// ```
/// use adamant_burn::{Adam, OneCallOptimizer};
/// use burn::{module::Module, nn::LinearConfig, store::ModuleRecord, tensor::Device};
///
/// # let folder = tempfile::tempdir()?;
/// # let folder = folder.path();
/// let device = Device::default().autodiff();
/// let new_model = || LinearConfig::new(2, 1).init(&device);
/// let model = new_model();
/// let optimizer = OneCallOptimizer::new(Adam::adamw())?;
/// // ... steps ...
/// optimizer.save(folder.join("optimizer.bpk"))?;
/// model.into_record().save(folder.join("model.bpk"))?;
///
/// let model = new_model().load_record(ModuleRecord::load(folder.join("model.bpk"))?);
/// let mut optimizer = OneCallOptimizer::new(Adam::adamw())?;
/// optimizer.load(folder.join("optimizer.bpk"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl OneCallOptimizer {
    /// The moments and step counts as a record, which burn can save.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] with the error of burn.
    pub fn to_record(&self) -> Result<OptimizerRecord, Error> {
        let (mut tensors, mut scalars, mut paths) = (vec![], vec![], vec![]);
        for (id, entry) in &self.entries {
            let prefix = id.val().to_string();
            let mut sink = StateSink::default();
            entry.state.state_flatten(&prefix, &mut sink);
            for (name, data) in sink.tensors {
                let (bytes, shape, dtype) = data.into_parts();
                tensors.push(Tensor::new(name, dtype, shape, Some(id.val()), bytes));
            }
            scalars.extend(sink.scalars);
            scalars.push((format!("{prefix}.{RANK}"), Scalar::from(entry.rank)));
            paths.push((prefix, &*entry.path));
        }
        let mut writer = Writer::new(tensors);
        for (name, value) in scalars {
            writer = writer.with_scalar(&name, value);
        }
        for (id, path) in paths {
            writer = writer.with_metadata(&id, path);
        }
        let bytes = writer.into_bytes().map_err(RecordError::from)?;
        Ok(OptimizerRecord::from_bytes(bytes)?)
    }

    /// Replaces all moments and step counts by those of a record. The next step checks that they fit the
    /// optimizers.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] if it cannot be read, or has a parameter that was stepped by another optimizer.
    pub fn load_record(&mut self, record: OptimizerRecord) -> Result<(), Error> {
        let reader = Reader::from_bytes(record.into_bytes()?).map_err(RecordError::from)?;
        let (scalars, paths) = (reader.scalars().clone(), reader.metadata().clone());
        let mut source = StateSource::new(scalars.clone());
        for tensor in reader.into_tensors().map_err(RecordError::from)? {
            let (name, dtype, shape, _, bytes) = tensor.into_parts().map_err(RecordError::from)?;
            source.insert_tensor(name, TensorData::from_bytes(bytes, shape, dtype));
        }
        let mut entries = vec![];
        let ranks = scalars.iter().filter_map(|(name, rank)| {
            let id = name.strip_suffix(RANK)?.strip_suffix('.')?;
            Some((id, id.parse::<u64>().ok()?, usize::try_from(*rank).ok()?))
        });
        for (prefix, id, rank) in ranks {
            let path = paths.get(prefix).cloned().unwrap_or_default();
            let state = ParamState::state_unflatten(prefix, &mut source, &Device::default());
            let Some(state) = state else {
                let message = format!("parameter {path} ({prefix}) has no moments of adamant's");
                return Err(RecordError::Validation(message).into());
            };
            entries.push((ParamId::from(id), Entry { state, path, rank }));
        }
        self.entries = entries.into_iter().collect();
        // A parameter that has its first gradient later gets numbers of its own.
        let ends = self.entries.values().map(|entry| entry.state.end());
        self.elements = ends.max().unwrap_or(0);
        Ok(())
    }

    /// Saves the moments and step counts to a file in burn's format. A crash, or an error, leaves the old file.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] or [`Error::File`] with the error of burn.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        self.to_record()?.save(path).map_err(|error| Error::of_file(error, path))
    }

    /// Loads a file that [`save`](Self::save) or burn has written.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if it cannot be read, or has a parameter that was stepped by another optimizer.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let record = OptimizerRecord::load(path).map_err(|error| Error::of_file(error, path))?;
        self.load_record(record).map_err(|error| Error::of_file(error, path))
    }
}
