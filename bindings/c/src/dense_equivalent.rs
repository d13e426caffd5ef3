//! Steps on rows with the results of dense steps.

use std::sync::Mutex;

use super::{
    exec::{Runner, adamant_exec, free, put},
    memory::{Claims, Place, adamant_array, adamant_type, check_memory, type_of},
    optimizer::adamant_optimizer,
    rows::{WithRows, adamant_row_grads, adamant_table, claim_rows, hold, with_rows},
    status::{Failure, adamant_status, guarded, refuse},
    step::{adamant_report, adamant_step_options, claim_report, put_report},
    versioned::check_pointer,
};
use adamant::{
    Error, Outcome, StepOptions,
    rule::Float,
    table::{CatchUp, DenseEquivalent, RowIndex, RowScratch, Table},
};

/// How a row catches up with the steps in which it was not listed.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum adamant_catch_up {
    /// All skipped steps at once, by a series: the cost does not depend on how many there are, and the
    /// error is like that of the dense steps.
    ADAMANT_CATCH_UP_SERIES = 0,
    /// The skipped steps one by one: the bits of the dense steps, and their cost.
    ADAMANT_CATCH_UP_REPLAY = 1,
}

/// The state of a table's rows for steps of Adam and AdamW that touch a few rows, but have the results of
/// dense steps, in which all other rows have gradients of zero: the results of TensorFlow's Adam, and of
/// PyTorch's with dense gradients. It counts the steps.
///
/// A row takes the steps that it has missed when it is next needed. So, for each batch:
/// `adamant_dense_equivalent_catch_up` with the rows that the forward pass will read; forward and backward
/// pass; `adamant_step_rows_dense_equivalent` on the rows that have a gradient. Before the whole table is read,
/// for an evaluation or a checkpoint, `adamant_dense_equivalent_catch_up_all`. A checkpoint then is parameters,
/// moments and `adamant_dense_equivalent_step`; a new handle is restored from it by
/// `adamant_dense_equivalent_set_step`.
///
/// One call at a time can use it. Another one gets ADAMANT_BUSY.
pub struct adamant_dense_equivalent(Mutex<Held>);

/// The content of a handle.
struct Held {
    waiting: Waiting,
    scratch: RowScratch,
}

#[derive(Clone)]
enum Waiting {
    F32(DenseEquivalent<f32>),
    F64(DenseEquivalent<f64>),
}

/// Runs with what a handle holds, of either type.
macro_rules! either {
    ($waiting:expr, $inner:ident => $run:expr) => {
        match $waiting {
            Waiting::F32($inner) => $run,
            Waiting::F64($inner) => $run,
        }
    };
}

impl Waiting {
    fn element(&self) -> adamant_type {
        match self {
            Self::F32(_) => adamant_type::ADAMANT_F32,
            Self::F64(_) => adamant_type::ADAMANT_F64,
        }
    }

    fn check_element(&self, table: adamant_type) -> Result<(), Failure> {
        let own = self.element();
        if table != own {
            refuse!(
                ADAMANT_TYPE_MISMATCH,
                "the table is {table:?}, but its adamant_dense_equivalent was made for {own:?}"
            );
        }
        Ok(())
    }

    /// The bytes that one for so many rows may come to take: 4 a row, and a history of 288 a step.
    fn bytes(rows: usize) -> Option<usize> {
        (rows / 64).max(4096).checked_mul(288)?.checked_add(rows.checked_mul(4)?)
    }
}

/// Runs with what a handle holds.
///
/// # Safety
///
/// The handle is null, misaligned, or from `adamant_dense_equivalent_new` and not freed before the call
/// ends.
unsafe fn with_handle<T>(
    handle: *const adamant_dense_equivalent,
    run: impl FnOnce(&mut Waiting) -> Result<T, Failure>,
) -> Result<T, Failure> {
    // SAFETY: the caller's promise.
    unsafe { with_held(handle, |held| run(&mut held.waiting)) }
}

/// Runs with all that a handle holds.
///
/// # Safety
///
/// As [`with_handle`].
unsafe fn with_held<T>(
    handle: *const adamant_dense_equivalent,
    run: impl FnOnce(&mut Held) -> Result<T, Failure>,
) -> Result<T, Failure> {
    check_pointer(handle, "dense_equivalent")?;
    // SAFETY: a live handle: the caller's promise.
    let handle = unsafe { &(*handle).0 };
    run(&mut *hold(handle, "dense_equivalent")?)
}

/// Writes a new handle to where the caller wants it.
///
/// # Safety
///
/// As [`put`].
unsafe fn put_handle(
    out: *mut *mut adamant_dense_equivalent,
    waiting: Waiting,
) -> Result<(), Failure> {
    check_pointer(out, "dense_equivalent")?;
    let held = Held { waiting, scratch: RowScratch::default() };
    let handle = Box::into_raw(Box::new(adamant_dense_equivalent(Mutex::new(held))));
    // SAFETY: the caller's promise.
    unsafe { put(out, "dense_equivalent", handle) }
}

/// # Steps on rows with the results of dense steps
///
/// Makes an `adamant_dense_equivalent` for a table of `rows` rows in `type`, ADAMANT_F32 or ADAMANT_F64, that
/// has taken no step yet, and writes its handle to `*dense_equivalent`. `way` is one of `adamant_catch_up`.
///
/// It takes 7 to 8 bytes a row, and at least 0.2 to 1.2 MB.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for dense_equivalent, ADAMANT_UNKNOWN_VALUE or
/// ADAMANT_TYPE_MISMATCH for type and way, ADAMANT_OUT_OF_MEMORY for rows.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_dense_equivalent_new(
    rows: usize,
    r#type: u32,
    way: u32,
    dense_equivalent: *mut *mut adamant_dense_equivalent,
) -> adamant_status {
    guarded(|| {
        check_pointer(dense_equivalent, "dense_equivalent")?;
        const SERIES: u32 = adamant_catch_up::ADAMANT_CATCH_UP_SERIES as u32;
        const REPLAY: u32 = adamant_catch_up::ADAMANT_CATCH_UP_REPLAY as u32;
        let way = match way {
            SERIES => CatchUp::Series,
            REPLAY => CatchUp::Replay,
            other => {
                refuse!(ADAMANT_UNKNOWN_VALUE, "way is {other}, which is no adamant_catch_up")
            }
        };
        let element = type_of(r#type, Place::of(&"dense_equivalent"))?;
        check_memory(Waiting::bytes(rows), format_args!("{rows} rows"))?;
        let waiting = match element {
            adamant_type::ADAMANT_F32 => Waiting::F32(DenseEquivalent::new(rows, way)),
            adamant_type::ADAMANT_F64 => Waiting::F64(DenseEquivalent::new(rows, way)),
            other => refuse!(
                ADAMANT_TYPE_MISMATCH,
                "type is {other:?}, but must be ADAMANT_F32 or ADAMANT_F64"
            ),
        };
        // SAFETY: the caller's promise.
        unsafe { put_handle(dense_equivalent, waiting) }
    })
}

/// Makes a copy, and writes its handle to `*copy`.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either, ADAMANT_BUSY, ADAMANT_OUT_OF_MEMORY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_dense_equivalent_clone(
    dense_equivalent: *const adamant_dense_equivalent,
    copy: *mut *mut adamant_dense_equivalent,
) -> adamant_status {
    guarded(|| {
        check_pointer(copy, "copy")?;
        // SAFETY: the caller's promise, here and below.
        let waiting = unsafe {
            with_handle(dense_equivalent, |waiting| {
                let rows = either!(waiting, waiting => waiting.rows());
                check_memory(Waiting::bytes(rows), format_args!("{rows} rows"))?;
                Ok(waiting.clone())
            })?
        };
        // SAFETY: the caller's promise.
        unsafe { put_handle(copy, waiting) }
    })
}

/// Frees an `adamant_dense_equivalent`. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_dense_equivalent_free(
    dense_equivalent: *mut adamant_dense_equivalent,
) {
    // SAFETY: null, or from one of the above and freed once: the caller's promise.
    unsafe { free(dense_equivalent) }
}

/// Writes the number of rows of the table to `*rows`.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer, ADAMANT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_dense_equivalent_rows(
    dense_equivalent: *const adamant_dense_equivalent,
    rows: *mut usize,
) -> adamant_status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe {
        with_handle(dense_equivalent, |waiting| {
            put(rows, "rows", either!(waiting, waiting => waiting.rows()))
        })
    })
}

/// Writes the number of steps taken to `*step`.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer, ADAMANT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_dense_equivalent_step(
    dense_equivalent: *const adamant_dense_equivalent,
    step: *mut u64,
) -> adamant_status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe {
        with_handle(dense_equivalent, |waiting| {
            put(step, "step", either!(waiting, waiting => waiting.step()))
        })
    })
}

/// Sets the number of steps taken, to restore a checkpoint. All rows then count as being at that step: steps
/// that a row had yet to catch up with are forgotten.
///
/// ADAMANT_NULL_POINTER, ADAMANT_MISALIGNED, ADAMANT_BUSY.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_dense_equivalent_set_step(
    dense_equivalent: *mut adamant_dense_equivalent,
    step: u64,
) -> adamant_status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe {
        with_handle(dense_equivalent, |waiting| {
            either!(waiting, waiting => waiting.set_step(step));
            Ok(())
        })
    })
}

/// Writes to `*skipped` how many steps a row has to catch up with.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for either pointer, ADAMANT_BUSY,
/// ADAMANT_ROW_OUT_OF_RANGE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_dense_equivalent_skipped(
    dense_equivalent: *const adamant_dense_equivalent,
    row: usize,
    skipped: *mut u64,
) -> adamant_status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe {
        with_handle(dense_equivalent, |waiting| {
            let (found, rows) = either!(waiting, waiting => (waiting.skipped(row), waiting.rows()));
            let position = 0;
            let found = found.ok_or(Error::RowOutOfRange { position, row: row as i128, rows })?;
            put(skipped, "skipped", found)
        })
    })
}

/// Brings the listed rows (ADAMANT_U32, ADAMANT_U64, ADAMANT_I32 or ADAMANT_I64, in any order) to the
/// present step, before they are read. `exec` may be null for its default.
///
/// Mistakes, besides those of every call: ADAMANT_TYPE_MISMATCH for arrays; ADAMANT_ZERO_WIDTH,
/// ADAMANT_TABLE_SHAPE, ADAMANT_MOMENT_MISMATCH, ADAMANT_TOO_MANY_MOMENTS and
/// ADAMANT_ROW_COUNT_MISMATCH for the table; ADAMANT_ROW_OUT_OF_RANGE and ADAMANT_TOO_MANY_ROWS for
/// the rows; ADAMANT_BUSY; ADAMANT_UNKNOWN_ISA and ADAMANT_ISA_UNAVAILABLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_dense_equivalent_catch_up(
    dense_equivalent: *mut adamant_dense_equivalent,
    exec: *const adamant_exec,
    table: *const adamant_table,
    rows: *const adamant_array,
) -> adamant_status {
    guarded(|| {
        let mut claims = Claims::new();
        // SAFETY: structs and handles are what the caller promises.
        let (runner, table) =
            unsafe { (Runner::read(exec)?, adamant_table::read(table, &mut claims)?) };
        check_pointer(rows, "rows")?;
        // SAFETY: not null, aligned, and so an array.
        let rows = unsafe { rows.read() };
        claim_rows(&rows, &mut claims)?;
        claims.check()?;
        // SAFETY: the caller's promise.
        unsafe {
            with_handle(dense_equivalent, |waiting| {
                waiting.check_element(table.element)?;
                // SAFETY: claimed with this type, apart, and made a table and a slice once.
                either!(waiting, waiting => {
                    let table = table.table();
                    with_rows(&rows, CatchUpRows { runner, table, waiting })
                })
            })
        }
    })
}

struct CatchUpRows<'a, F: Float> {
    runner: Runner<'a>,
    table: Table<'a>,
    waiting: &'a mut DenseEquivalent<F>,
}

impl<F: Float> WithRows<'_> for CatchUpRows<'_, F> {
    type Output = ();

    fn run<I: RowIndex>(self, rows: &[I]) -> Result<(), Failure> {
        let Self { runner, table, waiting } = self;
        Ok(waiting.catch_up_with(table, rows, runner.exec())?)
    }
}

/// Brings all rows to the present step, before the table is evaluated or saved. `exec` may be null for
/// its default.
///
/// Mistakes: as `adamant_dense_equivalent_catch_up`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_dense_equivalent_catch_up_all(
    dense_equivalent: *mut adamant_dense_equivalent,
    exec: *const adamant_exec,
    table: *const adamant_table,
) -> adamant_status {
    guarded(|| {
        let mut claims = Claims::new();
        // SAFETY: structs and handles are what the caller promises.
        let (runner, table) =
            unsafe { (Runner::read(exec)?, adamant_table::read(table, &mut claims)?) };
        claims.check()?;
        // SAFETY: the caller's promise.
        unsafe {
            with_handle(dense_equivalent, |waiting| {
                waiting.check_element(table.element)?;
                // SAFETY: claimed with this type, apart, and made a table once.
                either!(waiting, waiting => {
                    Ok(waiting.catch_up_all_with(table.table(), runner.exec())?)
                })
            })
        }
    })
}

/// Takes the next step on all rows of a table, at the cost of the listed ones. The gradient of all other rows
/// is zero. `options` and `exec` may be null for their defaults; `report` may be null.
///
/// For "adam" and "adamw", with all arrays in ADAMANT_F32, or all in ADAMANT_F64. Learning rate and strength
/// of weight decay may change from step to step; a change of anything else is allowed, but then the step
/// first catches up with the whole table. ADAMANT_CATCH_UP_SERIES serves beta1 < 0.995 sqrt(beta2), weight
/// decay that is decoupled, and lr * weight_decay < 1; the rest is ADAMANT_HYPER_PARAMETER. Options are as
/// for `adamant_step_rows_lazy`; flush_subnormals must be 0.
///
/// Returns ADAMANT_LEFT_OUT if the options made it leave the step out. Mistakes: those of `adamant_step_rows_lazy` and
/// ADAMANT_ROW_COUNT_MISMATCH, ADAMANT_UNSUPPORTED for other optimizers, ADAMANT_STEP_OVERFLOW.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_step_rows_dense_equivalent(
    optimizer: *const adamant_optimizer,
    table: *const adamant_table,
    grads: *const adamant_row_grads,
    dense_equivalent: *mut adamant_dense_equivalent,
    options: *const adamant_step_options,
    exec: *const adamant_exec,
    report: *mut adamant_report,
) -> adamant_status {
    guarded(|| {
        let mut claims = Claims::new();
        // SAFETY: structs and handles are what the caller promises, here and below.
        let (optimizer, runner) =
            unsafe { (adamant_optimizer::read(optimizer)?, Runner::read(exec)?) };
        let adam = optimizer.adam()?;
        // SAFETY: as above.
        let options = unsafe { adamant_step_options::read(options)? };
        let options = StepOptions { exec: runner.exec(), ..options };
        // SAFETY: as above.
        let reported = unsafe { claim_report(report, &mut claims)? };
        // SAFETY: as above.
        let table = unsafe { adamant_table::read(table, &mut claims)? };
        // SAFETY: as above.
        let grads = unsafe { adamant_row_grads::read(grads, &mut claims)? };
        claims.check()?;
        // SAFETY: the caller's promise.
        let done = unsafe {
            with_held(dense_equivalent, |Held { waiting, scratch }| {
                waiting.check_element(table.element)?;
                let grads = grads.sort(table.element, table.rows()?, scratch)?;
                // SAFETY: claimed, apart, and made a table once.
                let table = table.table();
                either!(waiting, waiting => {
                    Ok(adam.step_rows_dense_equivalent_on(table, grads, waiting, &options)?)
                })
            })?
        };
        // SAFETY: claimed as memory that is written.
        unsafe { put_report(report, reported, &done)? };
        Ok::<Outcome, _>(done.outcome)
    })
}
