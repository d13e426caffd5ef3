//! A file that was read.

use std::{collections::HashMap, path::Path};

use adamant::{Moment, Q8, State, Storage};
use candle_core::{Device, Tensor};
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::array::dtype_of;
use crate::Error;

/// A file that was read.
pub(super) struct Saved<'a> {
    pub(super) path: &'a Path,
    arrays: SafeTensors<'a>,
    pub(super) metadata: HashMap<String, String>,
}

impl<'a> Saved<'a> {
    pub(super) fn read(path: &'a Path, bytes: &'a [u8]) -> Result<Self, Error> {
        let damaged = |error: SafeTensorError| Error::Format {
            path: path.into(),
            reason: format!("not a whole safetensors file: {error}"),
        };
        let arrays = SafeTensors::deserialize(bytes).map_err(damaged)?;
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
        let metadata = metadata.metadata().clone().unwrap_or_default();
        Ok(Self { path, arrays, metadata })
    }

    pub(super) fn missing(&self, name: &str) -> Error {
        Error::Missing { path: self.path.into(), name: name.into() }
    }

    pub(super) fn mismatch(&self, name: &str, found: String, expected: String) -> Error {
        Error::Mismatch { path: self.path.into(), name: name.into(), found, expected }
    }

    pub(super) fn entry(&self, name: &str) -> Result<&str, Error> {
        self.metadata.get(name).map(String::as_str).ok_or_else(|| self.missing(name))
    }

    pub(super) fn number(&self, name: &str) -> Result<u64, Error> {
        let entry = self.entry(name)?;
        entry.parse().map_err(|error| Error::Format {
            path: self.path.into(),
            reason: format!("{name} is {entry:?}: {error}"),
        })
    }

    /// The bytes of an array, if it has the type and shape.
    pub(super) fn bytes(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&[u8], Error> {
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
    pub(super) fn tensor(&self, name: &str, variable: &Tensor) -> Result<Tensor, Error> {
        let bytes = self.bytes(name, variable.dtype().into(), variable.dims())?;
        let dtype = variable.dtype();
        Ok(Tensor::from_raw_buffer(bytes, dtype, variable.dims(), &Device::Cpu)?)
    }

    /// Restores the moments of a variable.
    pub(super) fn restore(&self, name: &str, state: &mut State) -> Result<(), Error> {
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

    pub(super) fn restore_moment(
        &self,
        name: &str,
        shape: &[usize],
        moment: &mut Moment<'_>,
    ) -> Result<(), Error> {
        let bytes = self.bytes(name, dtype_of(moment.storage()), shape)?;
        let scales = match moment.storage() {
            Storage::Q8 => {
                let scales = Q8::scales(moment.len());
                self.bytes(&format!("{name}.scales"), Dtype::F32, &[scales])?
            }
            _ => &[],
        };
        let copied = moment.copy_from_le_bytes(bytes, scales);
        copied.map_err(|error| Error::Step { name: Some(name.into()), error })
    }
}
