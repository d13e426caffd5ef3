//! Statuses, and the message that goes with each.

use core::{
    cell::Cell,
    ffi::c_char,
    fmt::{self, Write},
    panic::AssertUnwindSafe,
};
use std::panic::catch_unwind;

use adamant::{Error, Outcome};

/// The result of a call. Every value but `ADAMANT_OK` and `ADAMANT_LEFT_OUT` is an error: the call has written
/// nothing, and `adamant_last_error` has the message.
///
/// Later versions may add some.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum adamant_status {
    /// The call did everything.
    ADAMANT_OK = 0,
    /// Not an error: the step was left out, since the norm of the gradients is not finite. No tensor has
    /// counted it.
    ADAMANT_LEFT_OUT = 1,

    /// A pointer is null.
    ADAMANT_NULL_POINTER = 2,
    /// A pointer is not aligned for its type.
    ADAMANT_MISALIGNED = 3,
    /// An array is larger than memory can be.
    ADAMANT_TOO_LARGE = 4,
    /// An array that is written overlaps another one of the call.
    ADAMANT_OVERLAP = 5,
    /// A number is not a value of its enum, or a flag is neither 0 nor 1.
    ADAMANT_UNKNOWN_VALUE = 6,
    /// The size of a struct is not that of any version of this library.
    ADAMANT_STRUCT_SIZE = 7,
    /// The types of arrays do not fit each other.
    ADAMANT_TYPE_MISMATCH = 8,
    /// The function is not for this optimizer.
    ADAMANT_UNSUPPORTED = 9,
    /// A number is outside its range.
    ADAMANT_OUT_OF_RANGE = 10,
    /// A handle is in use by another thread.
    ADAMANT_BUSY = 11,
    /// There is not enough memory.
    ADAMANT_OUT_OF_MEMORY = 12,
    /// The threads of a pool could not be started.
    ADAMANT_NO_THREADS = 13,
    /// A defect of this library: please report the message. Some of the results may be written.
    ADAMANT_PANICKED = 14,
    /// A mistake that has no status of its own. The message describes it.
    ADAMANT_OTHER = 15,

    /// An array is not as long as its tensor's parameters.
    ADAMANT_LENGTH_MISMATCH = 32,
    /// A moment was passed that the settings do not use.
    ADAMANT_UNUSED_MOMENT = 33,
    /// A moment of 8 bits does not have one scale for each 256 elements.
    ADAMANT_SCALES_MISMATCH = 34,
    /// The rows of a table have no parameters.
    ADAMANT_ZERO_WIDTH = 35,
    /// The number of parameters of a table is not a multiple of the width of its rows.
    ADAMANT_TABLE_SHAPE = 36,
    /// A moment of a table is not as long as its rows need.
    ADAMANT_MOMENT_MISMATCH = 37,
    /// A table and its gradient, or its `adamant_dense_equivalent`, differ in the number of rows.
    ADAMANT_ROW_COUNT_MISMATCH = 38,
    /// A state and its rows have not taken the same steps. (Reserved: no function keeps both.)
    ADAMANT_STEP_MISMATCH = 39,
    /// The rows of a gradient and of its table differ in width.
    ADAMANT_WIDTH_MISMATCH = 40,
    /// The rows of a gradient overlap.
    ADAMANT_STRIDE_TOO_SMALL = 41,
    /// The number of values of a gradient is not that of its indices times the width.
    ADAMANT_VALUES_MISMATCH = 42,
    /// A row index is negative, or not less than the number of rows.
    ADAMANT_ROW_OUT_OF_RANGE = 43,
    /// A call has too many indices, or its table too many rows, to be sorted.
    ADAMANT_TOO_MANY_ROWS = 44,
    /// A setting of an optimizer is outside its range, infinite or NaN, or does not fit the others.
    ADAMANT_HYPER_PARAMETER = 45,
    /// A constant of the step is too large for the type of the step.
    ADAMANT_CONSTANT_OVERFLOW = 46,
    /// The step count is 0; the first step is 1.
    ADAMANT_ZERO_STEP = 47,
    /// A tensor or table has taken 2^64 - 1 steps, and cannot count another.
    ADAMANT_STEP_OVERFLOW = 48,
    /// The environment variable ADAMANT_ISA names no instruction set.
    ADAMANT_UNKNOWN_ISA = 49,
    /// This CPU lacks the instruction set that was asked for.
    ADAMANT_ISA_UNAVAILABLE = 50,
    /// No optimizer has this name.
    ADAMANT_UNKNOWN_OPTIMIZER = 51,
    /// An optimizer has no setting of this name.
    ADAMANT_UNKNOWN_SETTING = 52,
    /// A setting was given a value of another kind.
    ADAMANT_WRONG_SETTING = 53,
    /// A tensor has more moments than its optimizer.
    ADAMANT_TOO_MANY_MOMENTS = 54,
    /// A number of `adamant_step_options` is outside its range.
    ADAMANT_OPTION = 55,
    /// A pool was asked for with 0 threads, or with too many.
    ADAMANT_THREAD_COUNT = 56,
    /// There are not as many places for norms as tensors. (Reserved: a call has one count for both.)
    ADAMANT_NORMS_MISMATCH = 57,
    /// A state has the moments of another optimizer. (Reserved: no function keeps a state.)
    ADAMANT_STATE_MISMATCH = 58,
    /// A state has no moment of this name. (Reserved: no function keeps a state.)
    ADAMANT_UNKNOWN_MOMENT = 59,
    /// Many steps in a row were left out. (Reserved: no function scales losses.)
    ADAMANT_TRAINING_STALLED = 60,
}

impl From<Outcome> for adamant_status {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Taken => Self::ADAMANT_OK,
            Outcome::LeftOut => Self::ADAMANT_LEFT_OUT,
        }
    }
}

/// The refusal of a call. Its message is already this thread's last error.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure(adamant_status);

impl Failure {
    /// Stores the message.
    #[cold]
    pub(super) fn new(status: adamant_status, message: fmt::Arguments<'_>) -> Self {
        let mut text = Message { bytes: [0; MESSAGE], len: 0 };
        // The end of a message that is too long is left out.
        let _ = text.write_fmt(message);
        LAST.set(text.bytes);
        Self(status)
    }
}

impl From<Error> for Failure {
    #[cold]
    fn from(error: Error) -> Self {
        use adamant_status::*;
        let status = match error {
            Error::LengthMismatch { .. } => ADAMANT_LENGTH_MISMATCH,
            Error::UnusedMoment { .. } => ADAMANT_UNUSED_MOMENT,
            Error::ScalesMismatch { .. } => ADAMANT_SCALES_MISMATCH,
            Error::ZeroWidth => ADAMANT_ZERO_WIDTH,
            Error::TableShape { .. } => ADAMANT_TABLE_SHAPE,
            Error::MomentMismatch { .. } => ADAMANT_MOMENT_MISMATCH,
            Error::RowCountMismatch { .. } => ADAMANT_ROW_COUNT_MISMATCH,
            Error::StepMismatch { .. } => ADAMANT_STEP_MISMATCH,
            Error::WidthMismatch { .. } => ADAMANT_WIDTH_MISMATCH,
            Error::StrideTooSmall { .. } => ADAMANT_STRIDE_TOO_SMALL,
            Error::ValuesMismatch { .. } => ADAMANT_VALUES_MISMATCH,
            Error::RowOutOfRange { .. } => ADAMANT_ROW_OUT_OF_RANGE,
            Error::TooManyRows { .. } => ADAMANT_TOO_MANY_ROWS,
            Error::HyperParameter { .. } => ADAMANT_HYPER_PARAMETER,
            Error::ConstantOverflow { .. } => ADAMANT_CONSTANT_OVERFLOW,
            Error::ZeroStep => ADAMANT_ZERO_STEP,
            Error::StepOverflow => ADAMANT_STEP_OVERFLOW,
            Error::UnknownIsa { .. } => ADAMANT_UNKNOWN_ISA,
            Error::IsaUnavailable { .. } => ADAMANT_ISA_UNAVAILABLE,
            Error::NoThreads { .. } => ADAMANT_NO_THREADS,
            Error::TypeMismatch { .. }
            | Error::TableStorage { .. }
            | Error::RowsInBlocks { .. } => ADAMANT_TYPE_MISMATCH,
            Error::UnknownOptimizer { .. } => ADAMANT_UNKNOWN_OPTIMIZER,
            Error::UnknownSetting { .. } => ADAMANT_UNKNOWN_SETTING,
            Error::WrongSetting { .. } => ADAMANT_WRONG_SETTING,
            Error::TooManyMoments { .. } => ADAMANT_TOO_MANY_MOMENTS,
            Error::Option { .. } => ADAMANT_OPTION,
            Error::ThreadCount { .. } => ADAMANT_THREAD_COUNT,
            Error::NormsMismatch { .. } => ADAMANT_NORMS_MISMATCH,
            Error::StateMismatch { .. } => ADAMANT_STATE_MISMATCH,
            Error::UnknownMoment { .. } => ADAMANT_UNKNOWN_MOMENT,
            Error::TrainingStalled { .. } => ADAMANT_TRAINING_STALLED,
            // Later versions of the core may have more.
            _ => ADAMANT_OTHER,
        };
        Self::new(status, format_args!("{error}"))
    }
}

/// Refuses the call: a status, and the message as in `format!`. `Failure` and `adamant_status` must be in
/// scope: a test or a fuzz target has this crate as a module, so that no path to them is the same everywhere.
macro_rules! refuse {
    ($status:ident, $($message:tt)+) => {
        return Err(Failure::new(adamant_status::$status, format_args!($($message)+)))
    };
}
pub(super) use refuse;

/// The longest message, with the zero that ends it.
const MESSAGE: usize = 512;

thread_local! {
    /// It has no destructor, so that it lives as long as its thread.
    static LAST: Cell<[u8; MESSAGE]> = const { Cell::new([0; MESSAGE]) };
}

/// A text that ends with at least one zero.
struct Message {
    bytes: [u8; MESSAGE],
    len: usize,
}

impl Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = &mut self.bytes[self.len..MESSAGE - 1];
        let fits = (0..=text.len().min(room.len())).rfind(|&end| text.is_char_boundary(end));
        let fits = fits.unwrap_or(0);
        room[..fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        if fits == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

/// Runs the body of a function, and turns its result, error or panic into a status.
pub(super) fn guarded<S: Into<adamant_status>>(
    run: impl FnOnce() -> Result<S, Failure>,
) -> adamant_status {
    // After a panic, nothing that the closure left unfinished is used again, except the content of a handle,
    // whose lock then is poisoned.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(outcome)) => outcome.into(),
        Ok(Err(Failure(status))) => status,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or(panic.downcast_ref::<String>().map(String::as_str));
            let text = text.unwrap_or("no message");
            Failure::new(adamant_status::ADAMANT_PANICKED, format_args!("panicked: {text}")).0
        }
    }
}

impl From<()> for adamant_status {
    fn from((): ()) -> Self {
        Self::ADAMANT_OK
    }
}

/// # The last error
///
/// The message of the last call on this thread that returned an error; empty if no call has. It names the
/// argument and the numbers, in at most 511 bytes of UTF-8.
///
/// The memory belongs to the library. It holds the message until another call on this thread returns an
/// error, or the thread ends. Calls that succeed do not change it.
#[unsafe(no_mangle)]
pub extern "C" fn adamant_last_error() -> *const c_char {
    LAST.with(|last| last.as_ptr().cast_const().cast())
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;

    use super::*;

    fn message() -> String {
        // SAFETY: a text of this thread, which ends with a zero.
        let text = unsafe { CStr::from_ptr(adamant_last_error()) };
        text.to_str().expect("UTF-8").to_owned()
    }

    #[test]
    fn a_panic_is_a_status_with_its_message() {
        let status = guarded(|| -> Result<(), Failure> { panic!("at {}", 7) });
        assert_eq!(status, adamant_status::ADAMANT_PANICKED);
        assert_eq!(message(), "panicked: at 7");
    }

    #[test]
    fn a_message_that_is_too_long_is_cut_between_letters() {
        let long = "é".repeat(400);
        let status = guarded(|| -> Result<(), Failure> { refuse!(ADAMANT_BUSY, "x{long}") });
        assert_eq!(status, adamant_status::ADAMANT_BUSY);
        assert_eq!(message(), format!("x{}", "é".repeat(255)));
        let status = guarded(|| -> Result<(), Failure> { refuse!(ADAMANT_BUSY, "{long}") });
        assert_eq!(status, adamant_status::ADAMANT_BUSY);
        assert_eq!(message(), "é".repeat(255));
    }

    #[test]
    fn each_thread_has_its_own_message() {
        let refused = || guarded(|| -> Result<(), Failure> { refuse!(ADAMANT_BUSY, "here") });
        refused();
        assert_eq!(std::thread::spawn(message).join().expect("a message"), "");
        assert_eq!(message(), "here");
    }
}
