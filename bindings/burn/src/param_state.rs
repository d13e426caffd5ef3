//! The state of a parameter, and its form in burn's records.

use adamant::{AnyOptimizer, DynOptimizer as _, MomentRef, Optimizer as _, Q8, State, Storage};
use burn::{
    optim::{RecordState, StateSink, StateSource},
    tensor::{DType, Device, TensorData},
};
use burn_pack::Scalar;

use crate::Error;

/// The moments and the step count of a parameter, as burn's records keep them.
///
/// A record has each moment under its name (`exp_avg`), in the storage that it has, and for a moment of 8
/// bits its scales under `exp_avg.scales`; and the numbers `steps`, `first` and `len`.
#[derive(Clone, Debug)]
pub struct ParamState(Kept);

#[derive(Clone, Debug)]
enum Kept {
    Ready(Box<State>),
    /// Loaded from a record. The next step checks that it fits the optimizer.
    Saved(Saved),
}

#[derive(Clone, Debug)]
struct Saved {
    steps: u64,
    first: u64,
    len: u64,
    arrays: Vec<(String, TensorData)>,
}

const STEPS: &str = "steps";
const FIRST: &str = "first";
const LEN: &str = "len";
const SCALES: &str = "scales";

impl ParamState {
    /// Moments before the first step. `first` is the number of the first element among all of the model.
    pub(crate) fn new(optimizer: &AnyOptimizer, storage: Storage, len: usize, first: u64) -> Self {
        let mut state = optimizer.state_in(storage, len);
        state.set_first(first);
        Self(Kept::Ready(Box::new(state)))
    }

    /// The number of steps.
    pub fn steps(&self) -> u64 {
        match &self.0 {
            Kept::Ready(state) => state.steps(),
            Kept::Saved(saved) => saved.steps,
        }
    }

    /// One more than the number of the parameter's last element among all of the model.
    pub(crate) fn end(&self) -> u64 {
        let (first, len) = match &self.0 {
            Kept::Ready(state) => (state.first().unwrap_or(0), state.len() as u64),
            Kept::Saved(saved) => (saved.first, saved.len),
        };
        first.saturating_add(len)
    }

    /// The state, if it was stepped since it was made or loaded.
    pub fn state(&self) -> Option<&State> {
        match &self.0 {
            Kept::Ready(state) => Some(state),
            Kept::Saved(_) => None,
        }
    }

    /// The state, if it is ready for a step.
    pub(crate) fn state_mut(&mut self) -> Option<&mut State> {
        match &mut self.0 {
            Kept::Ready(state) => Some(state),
            Kept::Saved(_) => None,
        }
    }

    /// Makes the state ready for a step. Fails if moments that were loaded do not fit the optimizer.
    pub(crate) fn ready(
        &mut self,
        optimizer: &AnyOptimizer,
        storage: Storage,
        len: usize,
        parameter: impl Fn() -> String,
    ) -> Result<(), Error> {
        if let Kept::Saved(saved) = &self.0 {
            let state = saved.restore(optimizer, storage, len, parameter)?;
            self.0 = Kept::Ready(Box::new(state));
        }
        Ok(())
    }
}

impl Saved {
    fn array(&self, name: &str) -> Option<&TensorData> {
        self.arrays.iter().find(|(known, _)| known == name).map(|(_, data)| data)
    }

    fn restore(
        &self,
        optimizer: &AnyOptimizer,
        storage: Storage,
        len: usize,
        parameter: impl Fn() -> String,
    ) -> Result<State, Error> {
        let mut state = optimizer.state_in(storage, len);
        let names: Vec<_> = state.moments().map(|(name, _)| name).collect();
        let unlike = |moment: &str, found: Option<&TensorData>, expected| Error::Saved {
            parameter: parameter(),
            moment: moment.into(),
            found: found.map_or("not".into(), |data| {
                format!("{:?} of {} elements", data.dtype(), data.num_elements())
            }),
            expected,
        };
        for (name, data) in &self.arrays {
            let moment = name.strip_suffix(".scales").unwrap_or(name);
            if !names.contains(&moment) {
                return Err(unlike(name, Some(data), format!("not kept by {}", optimizer.name())));
            }
        }
        // The bytes of an array, if it has the type and the length.
        let bytes = |name: &str, dtype: DType, len: usize| match self.array(name) {
            Some(data) if data.dtype() == dtype && data.num_elements() == len => {
                Ok(data.as_bytes())
            }
            found => Err(unlike(name, found, format!("{dtype:?} of {len} elements"))),
        };
        for name in names {
            let Some(mut moment) = state.moment_mut(name) else { continue };
            let array = bytes(name, dtype_of(moment.storage()), moment.len())?;
            let scales = match moment.storage() {
                Storage::Q8 => {
                    bytes(&format!("{name}.{SCALES}"), DType::F32, Q8::scales(moment.len()))?
                }
                _ => &[],
            };
            let copied = moment.copy_from_le_bytes(array, scales);
            copied.map_err(|error| Error::Step { parameter: Some(parameter()), error })?;
        }
        state.set_steps(self.steps);
        state.set_first(self.first);
        Ok(state)
    }
}

fn dtype_of(storage: Storage) -> DType {
    match storage {
        Storage::F64 => DType::F64,
        Storage::Bf16 => DType::BF16,
        Storage::F16 => DType::F16,
        Storage::Q8 => DType::U8,
        _ => DType::F32,
    }
}

fn data(moment: MomentRef<'_>) -> TensorData {
    let shape = [moment.len()];
    match moment {
        MomentRef::F64(values) => TensorData::new(values.to_vec(), shape),
        MomentRef::Bf16(values) => TensorData::new(values.to_vec(), shape),
        MomentRef::F16(values) => TensorData::new(values.to_vec(), shape),
        MomentRef::Q8(codes, _) => TensorData::new(codes.to_vec(), shape),
        MomentRef::F32(values) => TensorData::new(values.to_vec(), shape),
        // `Storage` has no other.
        _ => TensorData::new(Vec::<f32>::new(), [0]),
    }
}

impl RecordState for ParamState {
    fn state_flatten(&self, prefix: &str, out: &mut StateSink) {
        let (steps, first, len) = match &self.0 {
            Kept::Ready(state) => {
                for (name, moment) in state.moments() {
                    out.push_tensor(prefix, name, data(moment));
                    if let MomentRef::Q8(_, scales) = moment {
                        let scales = data(MomentRef::F32(scales));
                        out.push_tensor(prefix, &format!("{name}.{SCALES}"), scales);
                    }
                }
                (state.steps(), state.first().unwrap_or(0), state.len() as u64)
            }
            Kept::Saved(saved) => {
                for (name, data) in &saved.arrays {
                    out.push_tensor(prefix, name, data.clone());
                }
                (saved.steps, saved.first, saved.len)
            }
        };
        out.push_scalar(prefix, STEPS, Scalar::from(steps));
        out.push_scalar(prefix, FIRST, Scalar::from(first));
        out.push_scalar(prefix, LEN, Scalar::from(len));
    }

    fn state_unflatten(prefix: &str, src: &mut StateSource, _device: &Device) -> Option<Self> {
        let steps = src.take_scalar(prefix, STEPS)?.try_into().ok()?;
        let first = src.take_scalar(prefix, FIRST)?.try_into().ok()?;
        let len = src.take_scalar(prefix, LEN)?.try_into().ok()?;
        let mut arrays = vec![];
        for moment in moment_names() {
            for name in [moment.to_owned(), format!("{moment}.{SCALES}")] {
                if let Some(data) = src.take_tensor(prefix, &name) {
                    arrays.push((name, data));
                }
            }
        }
        Some(Self(Kept::Saved(Saved { steps, first, len, arrays })))
    }
}

/// The names of all moments of all optimizers, each once.
fn moment_names() -> Vec<&'static str> {
    let optimizers = AnyOptimizer::NAMES.iter().filter_map(|name| AnyOptimizer::new(name).ok());
    let mut names: Vec<_> = optimizers
        .flat_map(|optimizer| {
            (0..optimizer.moment_count()).map(move |moment| optimizer.moment_name(moment))
        })
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}
