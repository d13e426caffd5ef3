//! Lazy steps on rows of a table.

mod claimed;

use std::sync::{Mutex, MutexGuard, TryLockError};

pub(super) use claimed::{WithRows, claim_rows, with_rows};

use super::{
    exec::{Runner, adamant_exec, free, put},
    memory::{Claims, Place, adamant_array, adamant_type},
    norm::order_of,
    optimizer::{WithRowRule, adamant_optimizer},
    status::{Failure, adamant_status, guarded, refuse},
    step::{adamant_report, adamant_step_options, claim_report, put_report},
    versioned::{self, check_pointer, versioned},
};
use adamant::{
    Outcome, Report, StepOptions,
    table::{RowOptimizer, RowRule, RowScratch, SortedRows, Table},
};

/// A table of parameters with its moments: rows of `width` elements, one after the other. All arrays
/// in ADAMANT_F64, or each of any other type that an `adamant_tensor` takes.
///
/// Fill it with zeros and set `size`; then set the fields that you need. The struct must have the fields up to
/// `moments`; a smaller `size` means zeros for the others.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct adamant_table {
    /// `sizeof(adamant_table)`.
    pub size: usize,
    /// The number of parameters in a row: at least 1; a multiple of 256 with moments in ADAMANT_Q8.
    pub width: usize,
    /// The parameters, written: rows times width.
    pub param: adamant_array,
    /// The optimizer's moments, written, in the order of `adamant_describe_moment`, each as long as the
    /// parameters; with "rowwise_adam" the second has one element a row. Before the first step,
    /// `adamant_fill_moment` fills each one. A moment that the settings do not use is ADAMANT_NONE.
    pub moments: [adamant_array; 4],
    /// As in `adamant_tensor`.
    pub param_extra: adamant_array,
    /// As in `adamant_tensor`.
    pub scales: [adamant_array; 4],
    /// The number of the first parameter among all elements of the model. The random bits of an element depend
    /// on its number, as in `adamant_tensor`, but this is always used: there is no use_first. A model with
    /// several tables numbers them one after the other: each `first` is that of the table before, plus the
    /// length of that table's param. Tables with the same numbers get the same random bits.
    pub first: u64,
    /// As in `adamant_tensor`.
    pub stochastic_param: u32,
    /// 0.
    pub reserved: u32,
}

versioned!(adamant_table: param_extra, scales, first, stochastic_param);

/// The gradient of some rows of a table: their indices, in any order, and for each index a row of
/// values. If a row is listed more than once, its gradients are added up first: each 16 of them in their
/// order, then these sums in pairs.
///
/// A `size` without the last field means that rows follow each other without gaps.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct adamant_row_grads {
    /// `sizeof(adamant_row_grads)`.
    pub size: usize,
    /// The number of parameters in a row, as in the table.
    pub width: usize,
    /// The rows' indices, from 0: ADAMANT_U32, ADAMANT_U64, ADAMANT_I32 or ADAMANT_I64.
    pub rows: adamant_array,
    /// For each index a row of gradients: ADAMANT_F64 with a table in ADAMANT_F64, or else ADAMANT_F32,
    /// ADAMANT_BF16 or ADAMANT_F16, which are added up in float.
    pub values: adamant_array,
    /// The elements from the start of a row of values to the start of the next: at least width, or 0
    /// for width.
    pub stride: usize,
}

versioned!(adamant_row_grads: stride);

/// Memory in which the rows of a call are sorted: 16 bytes for each index of the largest call, and 8 more if
/// norms are computed. It is kept for the next call. One call at a time can use it.
pub struct adamant_row_scratch(Mutex<RowScratch>);

/// The content of a handle, for one call.
pub(super) fn hold<'a, T>(handle: &'a Mutex<T>, name: &str) -> Result<MutexGuard<'a, T>, Failure> {
    match handle.try_lock() {
        Ok(held) => Ok(held),
        Err(TryLockError::WouldBlock) => {
            refuse!(ADAMANT_BUSY, "{name} is in use by another thread")
        }
        Err(TryLockError::Poisoned(_)) => {
            refuse!(ADAMANT_PANICKED, "{name} was left half done by a call that panicked")
        }
    }
}

/// Runs with memory for sorting: that of the caller, or new memory.
///
/// # Safety
///
/// The handle is null, misaligned, or from `adamant_row_scratch_new` and not freed before the call ends.
unsafe fn with_scratch<T>(
    scratch: *mut adamant_row_scratch,
    run: impl FnOnce(&mut RowScratch) -> Result<T, Failure>,
) -> Result<T, Failure> {
    if scratch.is_null() {
        return run(&mut RowScratch::default());
    }
    check_pointer(scratch, "scratch")?;
    // SAFETY: a live handle: the caller's promise.
    run(&mut *hold(unsafe { &(*scratch).0 }, "scratch")?)
}

/// A lazy step whose arrays are checked.
struct Lazy<'a> {
    t: u64,
    table: Table<'a>,
    grads: SortedRows<'a>,
    options: StepOptions<'a>,
}

impl WithRowRule for Lazy<'_> {
    type Output = Report;

    fn run<R: RowRule>(self, rule: R) -> Result<Report, Failure> {
        let Self { t, table, grads, options } = self;
        Ok(rule.step_rows_lazy_on(t, table, grads, &options)?)
    }
}

/// # Lazy steps on rows of a table
///
/// Makes an `adamant_row_scratch` and writes its handle to `*scratch`.
///
/// ADAMANT_NULL_POINTER or ADAMANT_MISALIGNED for scratch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_row_scratch_new(
    scratch: *mut *mut adamant_row_scratch,
) -> adamant_status {
    guarded(|| {
        check_pointer(scratch, "scratch")?;
        let found = Box::into_raw(Box::new(adamant_row_scratch(Mutex::default())));
        // SAFETY: the caller's promise.
        unsafe { put(scratch, "scratch", found) }
    })
}

/// Frees an `adamant_row_scratch`. Null does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_row_scratch_free(scratch: *mut adamant_row_scratch) {
    // SAFETY: null, or from `adamant_row_scratch_new` and freed once: the caller's promise.
    unsafe { free(scratch) }
}

/// Takes step `t`, counted from 1, on the listed rows of a table only. All others keep parameters and
/// moments as they are: PyTorch's SparseAdam, for every optimizer. The cost is that of the listed rows.
/// `scratch` may be null: then the call allocates memory and frees it. `options` and `exec` may be null for
/// their defaults; `report` may be null.
///
/// The norm of the options is that of the gradients of the listed rows, after the gradients of each row were
/// added up. To clip by the norm of a whole model, pass that norm with use_grad_norm;
/// `adamant_row_grad_norm` computes the part of this table. Gradients are only read, so keep_grads changes
/// nothing.
///
/// Returns ADAMANT_LEFT_OUT if the options made it leave the step out. Mistakes, besides those of every call:
/// ADAMANT_TYPE_MISMATCH for arrays; ADAMANT_ZERO_WIDTH, ADAMANT_TABLE_SHAPE, ADAMANT_MOMENT_MISMATCH,
/// ADAMANT_LENGTH_MISMATCH, ADAMANT_SCALES_MISMATCH and ADAMANT_TOO_MANY_MOMENTS for the table;
/// ADAMANT_WIDTH_MISMATCH, ADAMANT_STRIDE_TOO_SMALL, ADAMANT_VALUES_MISMATCH, ADAMANT_ROW_OUT_OF_RANGE and
/// ADAMANT_TOO_MANY_ROWS for the gradient; ADAMANT_OPTION for options; ADAMANT_HYPER_PARAMETER and
/// ADAMANT_CONSTANT_OVERFLOW for settings; ADAMANT_ZERO_STEP; ADAMANT_BUSY for scratch;
/// ADAMANT_UNKNOWN_ISA and ADAMANT_ISA_UNAVAILABLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_step_rows_lazy(
    optimizer: *const adamant_optimizer,
    t: u64,
    table: *const adamant_table,
    grads: *const adamant_row_grads,
    scratch: *mut adamant_row_scratch,
    options: *const adamant_step_options,
    exec: *const adamant_exec,
    report: *mut adamant_report,
) -> adamant_status {
    guarded(|| {
        let mut claims = Claims::new();
        // SAFETY: the structs and handles are what the caller promises, here and below.
        let optimizer = unsafe { adamant_optimizer::read(optimizer)? };
        // SAFETY: the caller's promise.
        let runner = unsafe { Runner::read(exec)? };
        // SAFETY: the caller's promise.
        let options = unsafe { adamant_step_options::read(options)? };
        let options = StepOptions { exec: runner.exec(), ..options };
        // SAFETY: the caller's promise.
        let reported = unsafe { claim_report(report, &mut claims)? };
        // SAFETY: the caller's promise.
        let table = unsafe { adamant_table::read(table, &mut claims)? };
        // SAFETY: the caller's promise.
        let grads = unsafe { adamant_row_grads::read(grads, &mut claims)? };
        claims.check()?;
        // SAFETY: the caller's promise; claimed, apart, and made a table and slices once.
        let done = unsafe {
            with_scratch(scratch, |scratch| {
                let grads = grads.sort(table.element, table.rows()?, scratch)?;
                optimizer.with_row_rule(Lazy { t, table: table.table(), grads, options })
            })?
        };
        // SAFETY: claimed as memory that is written.
        unsafe { put_report(report, reported, &done)? };
        Ok::<Outcome, _>(done.outcome)
    })
}

/// Writes to `*norm` a norm of the gradients of some rows of a table of `rows` rows, those of a row that is
/// listed more than once added up first. `order` is one of `adamant_norm_order`. `scratch` may be
/// null: then the call allocates memory and frees it. `exec` may be null for its default.
///
/// It has the bits of `adamant_grad_norms` of one array that holds the sums of the listed rows, in ascending
/// order. The Euclidean norm of a model is the root of the sum of the squares of its parts' norms: pass it
/// to all steps of the model as grad_norm of `adamant_step_options`.
///
/// Mistakes, besides those of every call: those of `adamant_step_rows_lazy` for the gradient.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_row_grad_norm(
    order: u32,
    rows: usize,
    grads: *const adamant_row_grads,
    scratch: *mut adamant_row_scratch,
    exec: *const adamant_exec,
    norm: *mut f64,
) -> adamant_status {
    guarded(|| {
        let order = order_of(order)?;
        let mut claims = Claims::new();
        claims.claim_out(norm.cast(), 1, adamant_type::ADAMANT_F64, Place::of(&"norm"))?;
        // SAFETY: the structs and handles are what the caller promises, here and below.
        let runner = unsafe { Runner::read(exec)? };
        // SAFETY: the caller's promise.
        let grads = unsafe { adamant_row_grads::read(grads, &mut claims)? };
        claims.check()?;
        // SAFETY: the caller's promise; claimed, apart, and made slices once.
        let found = unsafe {
            with_scratch(scratch, |scratch| {
                let mut sorted = grads.sort(adamant_type::ADAMANT_F32, rows, scratch)?;
                Ok(sorted.grad_norm(order, runner.exec())?)
            })?
        };
        // SAFETY: claimed as memory that is written.
        unsafe { norm.write(found) };
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::{panic, thread};

    use super::*;

    /// A status of a call that holds what a handle holds.
    fn status_of(handle: &Mutex<RowScratch>) -> adamant_status {
        guarded(|| hold(handle, "scratch").map(|_| ()))
    }

    #[test]
    fn a_handle_in_use_by_another_thread_is_refused() {
        let handle = Mutex::default();
        assert_eq!(status_of(&handle), adamant_status::ADAMANT_OK);
        let held = hold(&handle, "scratch");
        let of_other = thread::scope(|scope| scope.spawn(|| status_of(&handle)).join());
        assert_eq!(of_other.expect("a status"), adamant_status::ADAMANT_BUSY);
        drop(held);
        assert_eq!(status_of(&handle), adamant_status::ADAMANT_OK);
    }

    #[test]
    fn a_handle_that_a_panic_left_half_done_is_refused() {
        let handle = Mutex::default();
        let panicked = panic::catch_unwind(panic::AssertUnwindSafe(|| {
            let _held = hold(&handle, "scratch");
            panic!("half done");
        }));
        assert!(panicked.is_err());
        assert_eq!(status_of(&handle), adamant_status::ADAMANT_PANICKED);
    }
}
