//! Lazy steps on rows of a table.

use std::sync::{Mutex, MutexGuard, TryLockError};

use super::{
    exec::{Runner, adamant_exec, free, put},
    memory::{Claims, Element, Place, adamant_array, adamant_type},
    optimizer::{WithRowRule, adamant_optimizer},
    status::{Failure, adamant_status, guarded, refuse},
    step::MOMENTS,
    versioned::{self, check_pointer, versioned},
};
use adamant::{Arity, Float, RowGrads, RowIndex, RowOptimizer, RowRule, RowScratch, Table};

/// A table of parameters with its moments: rows of `width` elements, one after the other. All arrays
/// in ADAMANT_F32, or all in ADAMANT_F64.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct adamant_table {
    /// `sizeof(adamant_table)`.
    pub size: usize,
    /// The number of parameters in a row: at least 1.
    pub width: usize,
    /// The parameters, written: rows times width.
    pub param: adamant_array,
    /// The optimizer's moments, written, in the order of `adamant_describe_moment`, each as long as the
    /// parameters; with "rowwise_adam" the second has one element a row. Before the first step each holds
    /// what `adamant_fill_moment` writes. One that the settings do without is ADAMANT_NONE.
    pub moments: [adamant_array; 4],
}

versioned!(adamant_table:);

/// The gradient of some rows of a table: their indices, in any order, and for each index a row of
/// values. The gradients of a row that is listed more than once are added up first: 16 of them in their
/// order, and such sums in pairs.
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
    /// For each index a row of gradients, of the type of the table.
    pub values: adamant_array,
    /// The elements from the start of a row of values to the start of the next: at least width, or 0
    /// for width.
    pub stride: usize,
}

versioned!(adamant_row_grads: stride);

/// Where the rows of a call are put in order; keeps its memory, 16 bytes for each index of the
/// largest call, for the next one. For one call at a time.
pub struct adamant_row_scratch(Mutex<RowScratch>);

/// What a handle holds, for one call.
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

impl adamant_table {
    const NONE: Self = Self {
        size: size_of::<Self>(),
        width: 0,
        param: adamant_array::NONE,
        moments: [adamant_array::NONE; MOMENTS],
    };

    /// A copy of the caller's, its arrays claimed; and their type, `ADAMANT_F32` or `ADAMANT_F64`.
    ///
    /// # Safety
    ///
    /// As [`versioned::size_of_struct`].
    pub(super) unsafe fn read(
        table: *const Self,
        claims: &mut Claims,
    ) -> Result<(Self, adamant_type), Failure> {
        use adamant_type::*;
        // SAFETY: the same promise.
        let found = unsafe { versioned::read(table, "table", Self::NONE)? };
        let element = claims.claim(&found.param, true, Place::of(&"param"))?;
        if !matches!(element, ADAMANT_F32 | ADAMANT_F64) {
            refuse!(
                ADAMANT_TYPE_MISMATCH,
                "param is {element:?}, but tables are in ADAMANT_F32 or ADAMANT_F64"
            );
        }
        for (number, moment) in found.moments.iter().enumerate() {
            let place = Place::of(&"moments").number(number);
            if claims.claim(moment, true, place)? != ADAMANT_NONE {
                moment.expect(element, place)?;
            }
        }
        Ok((found, element))
    }

    /// As one of Rust's.
    ///
    /// # Safety
    ///
    /// The arrays were claimed as `F`, the claims were found apart, and no other table of these arrays
    /// is alive.
    pub(super) unsafe fn table<'a, R: RowRule, F: Float + Element>(
        &self,
    ) -> Result<Table<'a, R, F>, Failure> {
        let count = R::ROW_MOMENT_NAMES.as_ref().len();
        for (number, moment) in self.moments.iter().enumerate().skip(count) {
            if moment.len > 0 {
                refuse!(
                    ADAMANT_TOO_MANY_MOMENTS,
                    "moments[{number}] has {} elements, but the optimizer has {count} moments",
                    moment.len
                );
            }
        }
        // SAFETY: the caller's promise, here and below.
        let param = unsafe { self.param.slice_mut() };
        // SAFETY: the caller's promise.
        let moments = R::RowMoments::from_fn(|number| unsafe { self.moments[number].slice_mut() });
        Ok(Table { param, moments, width: self.width })
    }
}

/// Claims an array of indices; they are read.
pub(super) fn claim_rows(rows: &adamant_array, claims: &mut Claims) -> Result<(), Failure> {
    use adamant_type::*;
    match claims.claim(rows, false, Place::of(&"rows"))? {
        ADAMANT_U32 | ADAMANT_U64 | ADAMANT_I32 | ADAMANT_I64 => Ok(()),
        ADAMANT_NONE if rows.len == 0 => Ok(()),
        other => refuse!(
            ADAMANT_TYPE_MISMATCH,
            "rows is {other:?}, but must be ADAMANT_U32, ADAMANT_U64, ADAMANT_I32 or ADAMANT_I64"
        ),
    }
}

/// Something to do with indices of any type.
pub(super) trait WithRows {
    fn run<I: RowIndex>(self, rows: &[I]) -> Result<(), Failure>;
}

/// Runs with claimed indices.
///
/// # Safety
///
/// `rows` passed [`claim_rows`], and the claims were found apart.
pub(super) unsafe fn with_rows(rows: &adamant_array, with: impl WithRows) -> Result<(), Failure> {
    const U64: u32 = adamant_type::ADAMANT_U64 as u32;
    const I32: u32 = adamant_type::ADAMANT_I32 as u32;
    const I64: u32 = adamant_type::ADAMANT_I64 as u32;
    // SAFETY: the caller's promise; the types are those that were claimed.
    unsafe {
        match rows.r#type {
            U64 => with.run(rows.slice::<u64>()),
            I32 => with.run(rows.slice::<i32>()),
            I64 => with.run(rows.slice::<i64>()),
            _ => with.run(rows.slice::<u32>()),
        }
    }
}

impl adamant_row_grads {
    const NONE: Self = Self {
        size: size_of::<Self>(),
        width: 0,
        rows: adamant_array::NONE,
        values: adamant_array::NONE,
        stride: 0,
    };

    /// A copy of the caller's, its arrays claimed, with a stride; `element` is the table's.
    ///
    /// # Safety
    ///
    /// As [`versioned::size_of_struct`].
    pub(super) unsafe fn read(
        grads: *const Self,
        element: adamant_type,
        claims: &mut Claims,
    ) -> Result<Self, Failure> {
        // SAFETY: the same promise.
        let mut found = unsafe { versioned::read(grads, "grads", Self::NONE)? };
        claim_rows(&found.rows, claims)?;
        let place = Place::of(&"values");
        if claims.claim(&found.values, false, place)? != adamant_type::ADAMANT_NONE {
            found.values.expect(element, place)?;
        }
        if found.stride == 0 {
            found.stride = found.width;
        }
        Ok(found)
    }

    /// As one of Rust's.
    ///
    /// # Safety
    ///
    /// The values were claimed as `F`, and the claims were found apart.
    pub(super) unsafe fn grads<'a, I: RowIndex, F: Float + Element>(
        &self,
        rows: &'a [I],
    ) -> RowGrads<'a, I, F> {
        // SAFETY: the caller's promise.
        let values = unsafe { self.values.slice() };
        RowGrads { rows, values, width: self.width, stride: self.stride }
    }
}

/// A lazy step whose arrays are checked.
struct Lazy<'a> {
    runner: Runner<'a>,
    t: u64,
    table: adamant_table,
    element: adamant_type,
    grads: adamant_row_grads,
    scratch: &'a mut RowScratch,
}

impl WithRowRule for Lazy<'_> {
    type Output = ();

    fn run<R: RowRule>(self, rule: R) -> Result<(), Failure> {
        if self.element == adamant_type::ADAMANT_F64 {
            self.run_in::<R, f64>(rule)
        } else {
            self.run_in::<R, f32>(rule)
        }
    }
}

impl Lazy<'_> {
    fn run_in<R: RowRule, F: Float + Element>(self, rule: R) -> Result<(), Failure> {
        let Self { runner, t, table, grads, scratch, .. } = self;
        // SAFETY: claimed as `F`, apart, and made a table once.
        let table = unsafe { table.table::<R, F>()? };
        let step = LazyStep { runner, rule, t, table, grads, scratch };
        // SAFETY: claimed and apart.
        unsafe { with_rows(&grads.rows, step) }
    }
}

struct LazyStep<'a, R: RowRule, F: Float> {
    runner: Runner<'a>,
    rule: R,
    t: u64,
    table: Table<'a, R, F>,
    grads: adamant_row_grads,
    scratch: &'a mut RowScratch,
}

impl<R: RowRule, F: Float + Element> WithRows for LazyStep<'_, R, F> {
    fn run<I: RowIndex>(self, rows: &[I]) -> Result<(), Failure> {
        let Self { runner, rule, t, table, grads, scratch } = self;
        // SAFETY: the values were claimed with the type of the table, and are apart from it.
        let grads = unsafe { grads.grads::<I, F>(rows) };
        Ok(rule.step_rows_lazy_on(runner.exec(), t, table, grads, scratch)?)
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
/// `exec` may be null for its default, and `scratch` for memory that is freed again.
///
/// Mistakes, besides those of every call: ADAMANT_TYPE_MISMATCH for arrays; ADAMANT_ZERO_WIDTH,
/// ADAMANT_TABLE_SHAPE, ADAMANT_MOMENT_MISMATCH and ADAMANT_TOO_MANY_MOMENTS for the table;
/// ADAMANT_WIDTH_MISMATCH, ADAMANT_STRIDE_TOO_SMALL, ADAMANT_VALUES_MISMATCH,
/// ADAMANT_ROW_OUT_OF_RANGE and ADAMANT_TOO_MANY_ROWS for the gradient; ADAMANT_HYPER_PARAMETER and
/// ADAMANT_CONSTANT_OVERFLOW for settings; ADAMANT_ZERO_STEP; ADAMANT_BUSY for scratch;
/// ADAMANT_UNKNOWN_ISA and ADAMANT_ISA_UNAVAILABLE.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn adamant_step_rows_lazy(
    optimizer: *const adamant_optimizer,
    exec: *const adamant_exec,
    t: u64,
    table: *const adamant_table,
    grads: *const adamant_row_grads,
    scratch: *mut adamant_row_scratch,
) -> adamant_status {
    guarded(|| {
        let mut claims = Claims::new();
        // SAFETY: the structs and handles are what the caller promises, here and below.
        let optimizer = unsafe { adamant_optimizer::read(optimizer)? };
        // SAFETY: the caller's promise.
        let runner = unsafe { Runner::read(exec)? };
        // SAFETY: the caller's promise.
        let (table, element) = unsafe { adamant_table::read(table, &mut claims)? };
        // SAFETY: the caller's promise.
        let grads = unsafe { adamant_row_grads::read(grads, element, &mut claims)? };
        claims.check()?;
        let (mut of_call, mut held);
        let scratch = if scratch.is_null() {
            of_call = RowScratch::default();
            &mut of_call
        } else {
            check_pointer(scratch, "scratch")?;
            // SAFETY: the caller's promise.
            held = hold(unsafe { &(*scratch).0 }, "scratch")?;
            &mut *held
        };
        optimizer.with_row_rule(Lazy { runner, t, table, element, grads, scratch })
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
