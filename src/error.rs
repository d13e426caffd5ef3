use core::fmt;

use crate::{Isa, Storage};

/// The errors that a call can return. If a call returns one, it has changed no buffer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An array does not have the length that it must have, which mostly is that of the tensor's parameters.
    #[error("{argument} of tensor {tensor} has {len} elements, but must have {expected}")]
    LengthMismatch {
        /// The position of the tensor in the call; 0 if there is only one.
        tensor: usize,
        /// `"grad"`, the name of a moment such as `"exp_avg"`, or of another array of the call.
        argument: &'static str,
        /// The length that was passed.
        len: usize,
        /// The length that the array must have.
        expected: usize,
    },

    /// A moment was passed that the settings do not use.
    #[error(
        "{moment} of tensor {tensor} has {len} elements, but these hyper-parameters do not use it"
    )]
    UnusedMoment {
        /// The position of the tensor in the call; 0 if there is only one.
        tensor: usize,
        /// The name of the moment.
        moment: &'static str,
        /// The length that was passed; it must be 0.
        len: usize,
    },

    /// A tensor has more moments than its optimizer.
    #[error("tensor {tensor} has {passed} moments, but the optimizer has {optimizer}")]
    TooManyMoments {
        /// The position of the tensor in the call; 0 if there is only one.
        tensor: usize,
        /// The number of moments that were passed.
        passed: usize,
        /// The number of moments that the optimizer has.
        optimizer: usize,
    },

    /// The type of an array does not fit the type of the parameters.
    #[error("{argument} of tensor {tensor} is {found}, which does not go with {expected}")]
    TypeMismatch {
        /// The position of the tensor in the call; 0 if there is only one.
        tensor: usize,
        /// `"grad"`, or the name of a moment such as `"exp_avg"`.
        argument: &'static str,
        /// The storage of the array.
        found: Storage,
        /// The storage of the parameters, or the storage that was expected.
        expected: Storage,
    },

    /// The moments of a state do not have the names of the optimizer's moments.
    #[error("the state of tensor {tensor} is another optimizer's: {}", unlike(found, expected))]
    StateMismatch {
        /// The position of the tensor in the call; 0 if there is only one.
        tensor: usize,
        /// The name of the state's moment; empty if it has none in this place.
        found: &'static str,
        /// The name of the optimizer's moment; empty if it has none in this place.
        expected: &'static str,
    },

    /// A state has no moment of this name.
    #[error("the state has no moment {name:?}; known: {}", known.join(", "))]
    UnknownMoment {
        /// The name.
        name: String,
        /// The names that it has.
        known: Vec<&'static str>,
    },

    /// A moment of 8 bits does not have one scale for each 256 elements.
    #[error("{moment} of tensor {tensor} has {len} scales, but its codes need {expected}")]
    ScalesMismatch {
        /// The position of the tensor in the call.
        tensor: usize,
        /// The name of the moment.
        moment: &'static str,
        /// The number of scales that was passed.
        len: usize,
        /// The number that is needed.
        expected: usize,
    },

    /// The rows of a table or of its gradient have no elements.
    #[error("the width is 0, but a row has at least 1 parameter")]
    ZeroWidth,

    /// The number of parameters of a table is not a multiple of the width of its rows.
    #[error("the table has {len} parameters, which is not a multiple of its width, {width}")]
    TableShape {
        /// The number of parameters.
        len: usize,
        /// The number of parameters in a row.
        width: usize,
    },

    /// A moment of a table is not as long as its rows need.
    #[error("{moment} has {len} elements, but {rows} rows of {width} parameters need {expected}")]
    MomentMismatch {
        /// The name of the moment.
        moment: &'static str,
        /// The length that was passed.
        len: usize,
        /// The rows of the table.
        rows: usize,
        /// The parameters in a row.
        width: usize,
        /// The length that is needed; 0 if the settings do not use the moment.
        expected: usize,
    },

    /// A table has another number of rows than its gradient was [sorted](crate::table::RowGrads::sort) for, or
    /// its [`DenseEquivalent`](crate::table::DenseEquivalent) was made for.
    #[error(
        "the table has {rows} rows, but its gradient or its DenseEquivalent was made for {expected}"
    )]
    RowCountMismatch {
        /// The rows of the table.
        rows: usize,
        /// The rows that were expected.
        expected: usize,
    },

    /// A state and the [`DenseEquivalent`](crate::table::DenseEquivalent) of its rows have not taken the same
    /// steps.
    #[error("the state has taken {state} steps, but its rows {rows}")]
    StepMismatch {
        /// The steps of the state.
        state: u64,
        /// The steps of its rows.
        rows: u64,
    },

    /// This way to step rows does not support the type of an array of the table.
    #[error("{argument} of the table is {found}, but {method} needs {expected}")]
    TableStorage {
        /// `"param"`, `"grad"`, or the name of a moment such as `"exp_avg"`.
        argument: &'static str,
        /// The storage of the array.
        found: Storage,
        /// The way to step rows.
        method: &'static str,
        /// The storage that it needs.
        expected: Storage,
    },

    /// A moment of a table is kept in 8 bits, but the width of the rows is not a multiple of 256.
    #[error(
        "{moment} is in 8 bits, where 256 elements of a row share a scale, so its rows cannot be {width} \
         wide: use a multiple of 256, or keep it in bf16"
    )]
    RowsInBlocks {
        /// The name of the moment.
        moment: &'static str,
        /// The parameters in a row.
        width: usize,
    },

    /// The rows of a gradient and of its table differ in width.
    #[error("the gradient's rows are {width} wide, but those of the table are {expected}")]
    WidthMismatch {
        /// The width of the gradient.
        width: usize,
        /// The width of the table.
        expected: usize,
    },

    /// The rows of a gradient overlap.
    #[error("the gradient's stride is {stride}, but its rows are {width} wide")]
    StrideTooSmall {
        /// The elements from the start of a row to the start of the next.
        stride: usize,
        /// The width of a row.
        width: usize,
    },

    /// The length of the values of a gradient does not fit the number of its indices.
    #[error(
        "values has {len} elements, which does not fit {indices} rows of {width}, {stride} apart"
    )]
    ValuesMismatch {
        /// The length that was passed.
        len: usize,
        /// The number of row indices.
        indices: usize,
        /// The width of a row.
        width: usize,
        /// The elements from the start of a row to the start of the next.
        stride: usize,
    },

    /// A row index is negative, or not less than the number of rows.
    #[error("rows[{position}] is {row}, but the table has {rows} rows, from 0 on")]
    RowOutOfRange {
        /// The position of the index in the call.
        position: usize,
        /// The index.
        row: i128,
        /// The rows of the table.
        rows: usize,
    },

    /// A call has too many indices, or its table too many rows, to be sorted.
    #[error("{indices} indices into a table of {rows} rows are too many for one call")]
    TooManyRows {
        /// The number of row indices.
        indices: usize,
        /// The rows of the table.
        rows: usize,
    },

    /// A setting is outside its range, infinite or NaN, or does not fit the other settings.
    #[error("{name} is {}, but must be {allowed}", Short(*value))]
    HyperParameter {
        /// The name of the field.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The values allowed, in words or as an interval.
        allowed: &'static str,
    },

    /// An option of the step is outside its range.
    #[error("{name} is {}, but must be {allowed}", Short(*value))]
    Option {
        /// The name of the field of [`StepOptions`](crate::StepOptions).
        name: &'static str,
        /// Its value, after clipping.
        value: f64,
        /// The values allowed, in words.
        allowed: &'static str,
    },

    /// An optimizer has no setting of this name.
    #[error("{optimizer} has no setting {name:?}; known: {}", known.join(", "))]
    UnknownSetting {
        /// The optimizer.
        optimizer: &'static str,
        /// The name.
        name: String,
        /// The names that it has.
        known: Vec<&'static str>,
    },

    /// A setting was given a value of another kind.
    #[error("{name} is {value}, but must be {allowed}")]
    WrongSetting {
        /// The name of the setting.
        name: &'static str,
        /// The value, as text.
        value: String,
        /// The values allowed, in words.
        allowed: String,
    },

    /// No optimizer has this name.
    #[error("{name:?} is no optimizer; known: {}", known.join(", "))]
    UnknownOptimizer {
        /// The name.
        name: String,
        /// The names of all optimizers.
        known: Vec<&'static str>,
    },

    /// A constant of the step is too large for the type of the step.
    #[error(
        "the hyper-parameters make {} a constant of the step, which {float} cannot hold",
        Short(*value)
    )]
    ConstantOverflow {
        /// The constant.
        value: f64,
        /// `"f32"` or `"f64"`.
        float: &'static str,
    },

    /// The step count is 0; the first step is 1.
    #[error("the step count is 0, but steps are counted from 1")]
    ZeroStep,

    /// Many steps in a row were left out, since gradients were not finite at any scale of the loss.
    #[error("{steps} steps in a row were left out: gradients are not finite at any loss scale")]
    TrainingStalled {
        /// The number of steps.
        steps: u64,
    },

    /// A state has taken `u64::MAX` steps, and cannot count another.
    #[error("the state has taken {} steps and cannot count another", u64::MAX)]
    StepOverflow,

    /// No instruction set has this name: the value of the environment variable `ADAMANT_ISA`, for example.
    #[error("{name:?} is no instruction set; known: scalar, avx2, avx512 or neon")]
    UnknownIsa {
        /// The name that was found.
        name: String,
    },

    /// This CPU, or this [build](Isa), lacks the instruction set that was asked for.
    #[error("the instruction set {isa} is not available here; available: {}", names(available))]
    IsaUnavailable {
        /// The instruction set that was asked for.
        isa: Isa,
        /// The instruction sets of this CPU.
        available: Vec<Isa>,
    },

    /// A pool was asked for with 0 threads, or with too many.
    #[error("a pool of {threads} threads was asked for, but it must have 1 to {most}")]
    ThreadCount {
        /// The number that was asked for.
        threads: usize,
        /// The largest number.
        most: usize,
    },

    /// The system refused to start the threads of a pool.
    #[error("a pool of {threads} threads cannot be started: {reason}")]
    NoThreads {
        /// The number of threads that was asked for.
        threads: usize,
        /// The error of the system.
        reason: String,
    },

    /// The length of the slice for norms differs from the number of tensors.
    #[error("there are {len} places for the norms of {tensors} tensors")]
    NormsMismatch {
        /// The length that was passed.
        len: usize,
        /// The number of tensors.
        tensors: usize,
    },
}

impl Error {
    /// The position in its call of the tensor that this error is about; `None` if it is about something else.
    ///
    /// A caller whose tensors have names can add the name to the message.
    pub fn tensor(&self) -> Option<usize> {
        match *self {
            Self::LengthMismatch { tensor, .. }
            | Self::UnusedMoment { tensor, .. }
            | Self::TooManyMoments { tensor, .. }
            | Self::TypeMismatch { tensor, .. }
            | Self::StateMismatch { tensor, .. }
            | Self::ScalesMismatch { tensor, .. } => Some(tensor),
            _ => None,
        }
    }
}

/// How the moments of a state differ from those of an optimizer.
fn unlike(found: &str, expected: &str) -> String {
    match (found, expected) {
        ("", expected) => format!("it has no {expected}"),
        (found, "") => format!("it has {found}, which this one does not use"),
        (found, expected) => format!("it has {found}, not {expected}"),
    }
}

/// A number without needless digits: `1`, `0.001`, `1e-40`. It allocates nothing, as no refused step may.
struct Short(f64);

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // From here on, `Debug` writes exponents.
        const LARGE: f64 = 1e16;
        match self.0 {
            whole if whole.fract() == 0.0 && whole.abs() < LARGE => write!(f, "{whole}"),
            other => write!(f, "{other:?}"),
        }
    }
}

fn names(sets: &[Isa]) -> String {
    let names: Vec<&str> = sets.iter().map(|isa| isa.name()).collect();
    names.join(", ")
}
