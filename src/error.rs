use crate::{Isa, Storage};

/// The errors that a call can return; whenever one is returned, every buffer is as it was.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An array of a tensor is not as long as the tensor's parameters.
    #[error("{argument} of tensor {tensor} has {len} elements, but its param has {expected}")]
    LengthMismatch {
        /// The position of the tensor in the call; 0 where there is one only.
        tensor: usize,
        /// `"grad"`, or the name of a moment such as `"exp_avg"`.
        argument: &'static str,
        /// The length that was passed.
        len: usize,
        /// The length of the parameters.
        expected: usize,
    },

    /// A moment was passed that the hyper-parameters do without.
    #[error(
        "{moment} of tensor {tensor} has {len} elements, but these hyper-parameters do without"
    )]
    UnusedMoment {
        /// The position of the tensor in the call; 0 where there is one only.
        tensor: usize,
        /// The name of the moment.
        moment: &'static str,
        /// The length that was passed, where 0 is expected.
        len: usize,
    },

    /// A tensor has more moments than its optimizer.
    #[error("tensor {tensor} has {passed} moments, but the optimizer has {optimizer}")]
    TooManyMoments {
        /// The position of the tensor in the call; 0 where there is one only.
        tensor: usize,
        /// The number of moments that were passed.
        passed: usize,
        /// The number of moments that the optimizer has.
        optimizer: usize,
    },

    /// An array is of a type that does not go with that of the parameters.
    #[error("{argument} of tensor {tensor} is {found}, which does not go with {expected}")]
    TypeMismatch {
        /// The position of the tensor in the call; 0 where there is one only.
        tensor: usize,
        /// `"grad"`, or the name of a moment such as `"exp_avg"`.
        argument: &'static str,
        /// What the array is kept in.
        found: Storage,
        /// What the parameters are kept in, or what was expected.
        expected: Storage,
    },

    /// A state has the moments of another optimizer.
    #[error("the state of tensor {tensor} has {found:?} where the optimizer has {expected:?}")]
    StateMismatch {
        /// The position of the tensor in the call; 0 where there is one only.
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

    /// A moment of 8 bits has not one scale for each 256 elements.
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

    /// A table or its gradient has rows of no parameters.
    #[error("the width is 0, but a row has at least 1 parameter")]
    ZeroWidth,

    /// The parameters of a table are no whole number of rows.
    #[error("the table has {len} parameters, which is no multiple of its width, {width}")]
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
        /// The length that is needed; 0 if these hyper-parameters do without the moment.
        expected: usize,
    },

    /// A table has another number of rows than its gradient was [sorted](crate::RowGrads::sort) for, or
    /// its [`DenseEquivalent`](crate::DenseEquivalent) was made for.
    #[error("the table has {rows} rows, but its gradient or catching up was set up for {expected}")]
    RowCountMismatch {
        /// The rows of the table.
        rows: usize,
        /// The rows that were expected.
        expected: usize,
    },

    /// A state and the [`DenseEquivalent`](crate::DenseEquivalent) of its rows have not taken the same
    /// steps.
    #[error("the state has taken {state} steps, but its rows {rows}")]
    StepMismatch {
        /// The steps of the state.
        state: u64,
        /// The steps of its rows.
        rows: u64,
    },

    /// A table has an array of a type that this way to step rows does not take.
    #[error("{argument} of the table is {found}, but {method} needs {expected}")]
    TableStorage {
        /// `"param"`, `"grad"`, or the name of a moment such as `"exp_avg"`.
        argument: &'static str,
        /// What the array is kept in.
        found: Storage,
        /// The way to step rows.
        method: &'static str,
        /// The storage that it needs.
        expected: Storage,
    },

    /// A moment of a table is kept in 8 bits, and the rows are no whole blocks.
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

    /// A gradient's rows are wider or narrower than those of the table.
    #[error("the gradient's rows are {width} wide, but those of the table {expected}")]
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

    /// The values of a gradient are not as many as its indices need.
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

    /// A row index is negative or beyond the table.
    #[error("rows[{position}] is {row}, but the table has {rows} rows, from 0 on")]
    RowOutOfRange {
        /// Where in the call the index stands.
        position: usize,
        /// The index.
        row: i128,
        /// The rows of the table.
        rows: usize,
    },

    /// A call has more indices for a larger table than can be put in order.
    #[error("{indices} indices into a table of {rows} rows are too many for one call")]
    TooManyRows {
        /// The number of row indices.
        indices: usize,
        /// The rows of the table.
        rows: usize,
    },

    /// A hyper-parameter is outside its range, infinite or NaN, or does not go with the others.
    #[error("{name} is {value}, but must be {allowed}")]
    HyperParameter {
        /// The name of the field.
        name: &'static str,
        /// Its value.
        value: f64,
        /// The values allowed, in words or as an interval.
        allowed: &'static str,
    },

    /// An option of the step is outside its range.
    #[error("{name} is {value:e}, but must be {allowed}")]
    Option {
        /// The name of the field of [`StepOptions`](crate::StepOptions).
        name: &'static str,
        /// Its value, after clipping.
        value: f64,
        /// The values allowed, in words.
        allowed: &'static str,
    },

    /// An optimizer has no setting of a name.
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

    /// A name is no optimizer's.
    #[error("{name:?} is no optimizer; known: {}", known.join(", "))]
    UnknownOptimizer {
        /// The name.
        name: String,
        /// The names that there are.
        known: Vec<&'static str>,
    },

    /// A constant of the step is too large for the type of the step.
    #[error(
        "the hyper-parameters make {value:e} a constant of the step, which {float} cannot hold"
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

    /// Every step for a while was left out, since gradients were not finite at any scale of the loss.
    #[error("{steps} steps in a row were left out: gradients are not finite at any loss scale")]
    TrainingStalled {
        /// The number of steps.
        steps: u64,
    },

    /// A state has taken `u64::MAX` steps, and can't count another.
    #[error("the state has taken {} steps and cannot count another", u64::MAX)]
    StepOverflow,

    /// A name, such as the environment variable `ADAMANT_ISA` holds, is no instruction set's.
    #[error("{name:?} is no instruction set; known: scalar, avx2, avx512 or neon")]
    UnknownIsa {
        /// What was found instead.
        name: String,
    },

    /// This CPU lacks the instruction set that was asked for.
    #[error("the instruction set {isa} is not available here; available: {}", names(available))]
    IsaUnavailable {
        /// What was asked for.
        isa: Isa,
        /// What this CPU has.
        available: Vec<Isa>,
    },

    /// A pool was asked for with no threads, or with too many.
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
        /// What the system said.
        reason: String,
    },

    /// The slice for the norms of tensors is not as long as there are tensors.
    #[error("there are {len} places for the norms of {tensors} tensors")]
    NormsMismatch {
        /// The length that was passed.
        len: usize,
        /// The number of tensors.
        tensors: usize,
    },
}

fn names(sets: &[Isa]) -> String {
    let names: Vec<&str> = sets.iter().map(|isa| isa.name()).collect();
    names.join(", ")
}
