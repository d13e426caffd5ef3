//! A tensor in training, kept in the ways that users keep one.

use std::path::Path;

use adamant::{
    DynOptimizer, Moment, MomentRef, State, Storage, Tensor,
    checkpoint::{self, Checkpoint},
};
use rand::{RngExt, rngs::ChaCha8Rng};

use crate::support::{Columns, Way, model::AnyTensor, serial};

#[allow(clippy::large_enum_variant, reason = "a run has a few of them")]
pub enum Trained {
    /// Cut into tensors of their own; mostly into one.
    Parts(Vec<AnyTensor>),
    /// With moments in a state of adamant's own.
    Owned(AnyTensor, State),
}

impl Trained {
    pub fn tensors(&mut self) -> Vec<Tensor<'_>> {
        match self {
            Self::Parts(parts) => parts.iter_mut().map(AnyTensor::tensor).collect(),
            Self::Owned(AnyTensor::Mixed(columns), state) => vec![columns.tensor_of(state)],
            Self::Owned(AnyTensor::Double { columns, to_zero, .. }, state) => {
                let Columns { param, grad, .. } = columns;
                vec![if *to_zero {
                    state.tensor(param, adamant::Grad::zeroed(grad))
                } else {
                    state.tensor(param, &*grad)
                }]
            }
        }
    }

    /// All of it, in one piece.
    pub fn whole(&self, optimizer: &dyn DynOptimizer) -> AnyTensor {
        match self {
            Self::Parts(parts) => join(parts),
            Self::Owned(tensor, state) => {
                let mut tensor = tensor.clone();
                restore(&mut tensor, optimizer, state);
                tensor
            }
        }
    }

    /// Takes the gradients of a tensor that this one follows.
    pub fn take_grad(&mut self, expected: &AnyTensor, offset: usize) {
        let parts = match self {
            Self::Parts(parts) => &mut parts[..],
            Self::Owned(tensor, _) => std::slice::from_mut(tensor),
        };
        let mut start = 0;
        for part in parts {
            match (part, expected) {
                (AnyTensor::Mixed(part), AnyTensor::Mixed(whole)) => part.take_grad(whole, offset),
                (AnyTensor::Double { columns, .. }, AnyTensor::Double { columns: whole, .. }) => {
                    let end = start + columns.len();
                    columns.grad.copy_from_slice(&whole.grad[start..end]);
                    start = end;
                }
                _ => panic!("other types"),
            }
        }
    }

    /// Cuts it anew, anywhere, into memory that begins anywhere.
    pub fn cut(&mut self, rng: &mut ChaCha8Rng, optimizer: &dyn DynOptimizer) {
        let whole = self.whole(optimizer);
        let count = rng.random_range(0..4);
        let cuts: Vec<usize> = (0..count).map(|_| rng.random_range(0..1 << 20)).collect();
        let offset = rng.random_range(0..32);
        *self = Self::Parts(parts(&whole, &Way { exec: serial(), offset, cuts, at_once: true }));
    }

    /// Puts the moments into a state, by their names.
    pub fn own(&mut self, optimizer: &dyn DynOptimizer) {
        let whole = self.whole(optimizer);
        let state = state(&whole, optimizer);
        *self = Self::Owned(whole, state);
    }
}

/// Saves all tensors of some groups in a file, in which those have a place whose parameters are one array,
/// and goes on with what the file holds. Returns how many were saved.
pub fn save_and_load<'a>(
    folder: &Path,
    tensors: impl Iterator<Item = (&'a dyn DynOptimizer, &'a mut Trained)>,
) -> u64 {
    let mut saved: Vec<_> = tensors
        .map(|(optimizer, trained)| {
            let whole = trained.whole(optimizer);
            let state = state(&whole, optimizer);
            (optimizer, trained, whole, state)
        })
        .filter(|(_, _, whole, _)| param(whole).is_some())
        .collect();
    let file = folder.join("model.safetensors");
    let name = |number: usize| format!("layers.{number}.weight");
    let names: Vec<_> = (0..saved.len()).map(name).collect();
    let of_file = saved.iter().zip(&names).map(|((_, _, whole, state), name)| {
        (name.as_str(), param(whole).expect("one array"), state)
    });
    checkpoint::save(&file, of_file).expect("a file");

    let loaded = Checkpoint::load(&file).expect("the file");
    for ((optimizer, trained, whole, _), name) in saved.iter_mut().zip(&names) {
        spoil(whole);
        let mut restored = new_state(whole, *optimizer);
        let param = param_mut(whole).expect("one array");
        loaded.restore(name, param, &mut restored).expect("a tensor of the file");
        **trained = Trained::Owned(whole.clone(), restored);
    }
    saved.len() as u64
}

fn parts(whole: &AnyTensor, way: &Way) -> Vec<AnyTensor> {
    match whole {
        AnyTensor::Mixed(columns) => {
            columns.pieces(way).into_iter().map(AnyTensor::Mixed).collect()
        }
        AnyTensor::Double { columns, to_zero, steps } => {
            let mut cuts: Vec<_> = way.cuts.iter().map(|cut| cut % (columns.len() + 1)).collect();
            cuts.extend([0, columns.len()]);
            cuts.sort_unstable();
            let part = |cuts: &[usize]| AnyTensor::Double {
                columns: part(columns, cuts[0]..cuts[1]),
                to_zero: *to_zero,
                steps: *steps,
            };
            cuts.windows(2).map(part).collect()
        }
    }
}

fn part(columns: &Columns<f64>, range: std::ops::Range<usize>) -> Columns<f64> {
    // A moment that the rule does without is empty.
    let part = |column: &Vec<f64>| column.get(range.clone()).unwrap_or_default().to_vec();
    Columns {
        param: part(&columns.param),
        grad: part(&columns.grad),
        moments: columns.moments.iter().map(part).collect(),
    }
}

fn join(parts: &[AnyTensor]) -> AnyTensor {
    let mut mixed = vec![];
    let mut double = None;
    for part in parts {
        match part {
            AnyTensor::Mixed(columns) => mixed.push(columns.clone()),
            AnyTensor::Double { columns, to_zero, steps } => {
                let (whole, ..): &mut (Columns<f64>, _, _) =
                    double.get_or_insert((self::part(columns, 0..0), *to_zero, *steps));
                whole.param.extend(&columns.param);
                whole.grad.extend(&columns.grad);
                for (whole, moment) in whole.moments.iter_mut().zip(&columns.moments) {
                    whole.extend(moment);
                }
            }
        }
    }
    match double {
        Some((columns, to_zero, steps)) => AnyTensor::Double { columns, to_zero, steps },
        None => AnyTensor::Mixed(crate::support::mixed::MixedColumns::join(&mixed)),
    }
}

fn new_state(tensor: &AnyTensor, optimizer: &dyn DynOptimizer) -> State {
    use adamant::Optimizer;
    match tensor {
        AnyTensor::Mixed(columns) => columns.new_state(optimizer),
        AnyTensor::Double { columns, .. } => optimizer.state_in(Storage::F64, columns.len()),
    }
}

fn state(tensor: &AnyTensor, optimizer: &dyn DynOptimizer) -> State {
    match tensor {
        AnyTensor::Mixed(columns) => columns.state(optimizer),
        AnyTensor::Double { columns, steps, .. } => {
            let mut state = new_state(tensor, optimizer);
            state.set_steps(*steps);
            for (moment, values) in columns.moments.iter().enumerate() {
                if let Some(mut kept) = state.moment_mut(optimizer.moment_name(moment)) {
                    kept.copy_from(MomentRef::F64(values)).expect("the same type and length");
                }
            }
            state
        }
    }
}

/// Takes moments and step count of a state.
pub fn restore(tensor: &mut AnyTensor, optimizer: &dyn DynOptimizer, state: &State) {
    match tensor {
        AnyTensor::Mixed(columns) => columns.restore(optimizer, state),
        AnyTensor::Double { columns, steps, .. } => {
            *steps = state.steps();
            for (moment, values) in columns.moments.iter_mut().enumerate() {
                if let Some(saved) = state.moment(optimizer.moment_name(moment)) {
                    let mut kept = Moment::from(values.as_mut_slice());
                    kept.copy_from(saved).expect("the same type and length");
                }
            }
        }
    }
}

/// Moments and step count of a tensor that has taken no step.
pub fn begin(tensor: &mut AnyTensor, optimizer: &dyn DynOptimizer) {
    let state = new_state(tensor, optimizer);
    restore(tensor, optimizer, &state);
}

fn param(tensor: &AnyTensor) -> Option<MomentRef<'_>> {
    match tensor {
        AnyTensor::Mixed(columns) => columns.param(),
        AnyTensor::Double { columns, .. } => Some(MomentRef::F64(&columns.param)),
    }
}

fn param_mut(tensor: &mut AnyTensor) -> Option<Moment<'_>> {
    match tensor {
        AnyTensor::Mixed(columns) => columns.param_mut(),
        AnyTensor::Double { columns, .. } => Some(Moment::from(columns.param.as_mut_slice())),
    }
}

/// Other numbers everywhere.
fn spoil(tensor: &mut AnyTensor) {
    match tensor {
        AnyTensor::Mixed(columns) => columns.overwrite(|_, place| 0x4142_4344 ^ place as u64),
        AnyTensor::Double { columns, .. } => columns.param.fill(-7.0),
    }
}
