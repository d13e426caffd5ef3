//! Sparse gradients: steps on some rows of a parameter.

use core::slice;

use adamant::{
    Adam, AnyOptimizer, BuiltIn, CatchUp, DenseEquivalent, Element, Error, Exec, Grad, Report,
    RowGrads, RowOptimizer, RowScratch, SortedRows, StepOptions, Table, WithOptimizer,
};
use half::{bf16, f16};
use pyo3::{PyResult, exceptions::PyRuntimeError};

use crate::{
    memory::Kind,
    slot::{Form, Role, Slot, moments_of, param_of},
};

/// The rows of a sparse gradient, as Python found them: contiguous arrays.
pub struct Rows {
    /// The address of `int64` indices.
    pub indices: usize,
    pub count: usize,
    /// The address of the values: for each index a row of numbers in the type of the parameter.
    pub values: usize,
    /// The rows of the parameter.
    pub rows: usize,
    /// The numbers in a row.
    pub width: usize,
}

impl Rows {
    /// # Safety
    ///
    /// What Python found still holds, and nobody writes it for `'a`; here and below.
    pub unsafe fn indices<'a>(&self) -> &'a [i64] {
        // SAFETY: the caller's promise.
        unsafe { elements(self.indices, self.count) }
    }

    unsafe fn values<'a, F>(&self) -> &'a [F] {
        // SAFETY: the caller's promise.
        unsafe { elements(self.values, self.count * self.width) }
    }

    /// The values as gradients, for norms.
    pub unsafe fn grad<'a>(&self, kind: Kind) -> Grad<'a> {
        // SAFETY: the caller's promise.
        unsafe {
            match kind.real() {
                Kind::F64 => self.values::<f64>().into(),
                Kind::Bf16 => self.values::<bf16>().into(),
                Kind::F16 => self.values::<f16>().into(),
                _ => self.values::<f32>().into(),
            }
        }
    }

    /// The gradients, sorted by row; the values are of a type.
    unsafe fn sort<'a>(
        &self,
        kind: Kind,
        scratch: &'a mut RowScratch,
    ) -> Result<SortedRows<'a>, Error> {
        // SAFETY: the caller's promise.
        unsafe {
            match kind.real() {
                Kind::F64 => self.sort_of::<f64>(scratch),
                Kind::Bf16 => self.sort_of::<bf16>(scratch),
                Kind::F16 => self.sort_of::<f16>(scratch),
                _ => self.sort_of::<f32>(scratch),
            }
        }
    }

    unsafe fn sort_of<'a, E: Element>(
        &self,
        scratch: &'a mut RowScratch,
    ) -> Result<SortedRows<'a>, Error> {
        // SAFETY: the caller's promise.
        let (indices, values) = unsafe { (self.indices(), self.values::<E>()) };
        RowGrads::new(indices, values, self.width).sort(self.rows, scratch)
    }

    /// The position of the first index that is none of a row, and the index.
    pub unsafe fn stray_index(&self) -> Option<(usize, i64)> {
        // SAFETY: the caller's promise.
        let indices = unsafe { self.indices() };
        let is_row = |&index: &i64| usize::try_from(index).is_ok_and(|row| row < self.rows);
        let position = indices.iter().position(|index| !is_row(index))?;
        Some((position, indices[position]))
    }
}

unsafe fn elements<'a, T>(data: usize, len: usize) -> &'a [T] {
    match len {
        0 => &[],
        // SAFETY: the caller's promise.
        _ => unsafe { slice::from_raw_parts(data as *const T, len) },
    }
}

/// What is remembered of a parameter with sparse gradients.
#[derive(Default)]
pub struct Memory {
    scratch: RowScratch,
    pub waiting: Option<Waiting>,
}

impl Memory {
    /// The width of the rows that wait, if any do. They must be those of the parameter as it is now. `name`
    /// is for errors.
    pub fn width(&mut self, slot: &Slot, name: impl Fn() -> String) -> PyResult<Option<usize>> {
        let Some(waiting) = &self.waiting else { return Ok(None) };
        let width = waiting.width_in(slot);
        if width.is_none() {
            if waiting.is_behind() {
                let (name, was) = (name(), if waiting.is_double() { "float64" } else { "float32" });
                return Err(PyRuntimeError::new_err(format!(
                    "{name} was {} rows of {was}, some of which were behind when it was changed: call \
                     optimizer.catch_up() before a change of type or shape, or load a checkpoint",
                    waiting.rows(),
                )));
            }
            self.waiting = None;
        }
        Ok(width)
    }
}

/// Which rows have yet to catch up with dense steps.
pub enum Waiting {
    F32(DenseEquivalent<f32>),
    F64(DenseEquivalent<f64>),
}

macro_rules! either {
    ($waiting:expr, $inner:ident => $run:expr) => {
        match $waiting {
            Waiting::F32($inner) => $run,
            Waiting::F64($inner) => $run,
        }
    };
}

impl Waiting {
    pub fn new(kind: Kind, rows: usize, way: CatchUp, step: u64) -> Self {
        let mut waiting = match kind.real() {
            Kind::F64 => Self::F64(DenseEquivalent::new(rows, way)),
            _ => Self::F32(DenseEquivalent::new(rows, way)),
        };
        waiting.set_step(step);
        waiting
    }

    /// Whether it is for such a table.
    pub fn is_for(&self, kind: Kind, rows: usize) -> bool {
        self.is_double() == (kind.real() == Kind::F64) && self.rows() == rows
    }

    fn is_double(&self) -> bool {
        matches!(self, Self::F64(_))
    }

    /// The numbers in a row of a parameter, if its first dimensions are these rows.
    fn width_in(&self, slot: &Slot) -> Option<usize> {
        let kind = slot.facts.kind?;
        let (shape, mut rows) = (slot.facts.shape(), 1);
        let last = shape.iter().position(|&size| {
            rows *= size as usize;
            self.is_for(kind, rows)
        })?;
        let width: usize = shape[last + 1..].iter().map(|&size| size as usize).product();
        Some(width * kind.reals())
    }

    /// Whether any row is behind.
    pub fn is_behind(&self) -> bool {
        either!(self, waiting => {
            (0..waiting.rows()).any(|row| waiting.skipped(row).is_some_and(|skipped| skipped > 0))
        })
    }

    pub fn rows(&self) -> usize {
        either!(self, waiting => waiting.rows())
    }

    pub fn step(&self) -> u64 {
        either!(self, waiting => waiting.step())
    }

    /// Takes all rows to be at a step.
    pub fn set_step(&mut self, step: u64) {
        either!(self, waiting => waiting.set_step(step));
    }

    /// The first of some rows that is behind, and by how many steps.
    pub fn first_behind(&self, rows: &[i64]) -> Option<(i64, u64)> {
        rows.iter().find_map(|&row| {
            let skipped = either!(self, waiting => waiting.skipped(usize::try_from(row).ok()?))?;
            (skipped > 0).then_some((row, skipped))
        })
    }
}

/// Why a parameter's rows cannot be stepped.
pub fn problem(slot: &Slot, form: Form) -> Option<&'static str> {
    let has = |role| slot.state.as_ref().is_some_and(|state| state.entry(role).is_some());
    if has(Role::Master) || has(Role::Low) {
        return Some("sparse gradients need parameters without master copies");
    }
    if form.dense_equivalent.is_none() {
        return None;
    }
    let kind = slot.facts.kind.unwrap_or(Kind::Other);
    if !matches!(kind.real(), Kind::F32 | Kind::F64) {
        return Some("sparse gradients with dense_equivalent need parameters in float32 or float64");
    }
    let entries = slot.state.iter().flat_map(|state| &state.entries);
    for entry in entries {
        let is_like = entry.facts.kind.map(Kind::real) == Some(kind.real());
        match entry.role {
            Role::Codes(_) => {
                return Some("sparse gradients with dense_equivalent need state_dtype=None");
            }
            Role::Moment(_) if !is_like => {
                return Some("sparse gradients with dense_equivalent need state_dtype=None");
            }
            _ => {}
        }
    }
    None
}

/// A parameter and its moments, as a table.
///
/// # Safety
///
/// What is known of the slot holds, and nobody else uses the parameter and its state for `'a`.
unsafe fn table<'a>(slot: &Slot, form: Form, width: usize) -> Table<'a> {
    let all = 0..slot.facts.len * slot.facts.kind.map_or(1, Kind::reals);
    // SAFETY: the caller's promise.
    let (param, moments) = unsafe { (param_of(slot, form, all.clone()), moments_of(slot, all)) };
    let passed = moments.iter().rposition(|moment| !moment.is_empty()).map_or(0, |last| last + 1);
    Table::new(param, width).with_moments(moments.into_iter().take(passed)).with_first(slot.first)
}

/// A step on rows.
pub struct RowStep<'a> {
    pub options: StepOptions<'a>,
    pub t: u64,
    pub slot: &'a Slot,
    pub form: Form,
    pub rows: &'a Rows,
    pub memory: &'a mut Memory,
}

impl RowStep<'_> {
    /// Takes the step.
    ///
    /// # Safety
    ///
    /// What is known of the slot and the rows holds, [`problem`] found none, and nobody else uses the
    /// parameter and its state.
    pub unsafe fn run(self, optimizer: &AnyOptimizer) -> Result<Report, Error> {
        optimizer.with(self)
    }

    /// Takes the step with the results of a dense one; as [`run`](Self::run).
    ///
    /// # Safety
    ///
    /// As [`run`](Self::run).
    pub unsafe fn run_dense_equivalent(self, adam: &Adam) -> Result<(), Error> {
        let Self { options, slot, form, rows, memory, .. } = self;
        let Memory { scratch, waiting: Some(waiting) } = memory else { return Ok(()) };
        let kind = slot.facts.kind.unwrap_or(Kind::F32);
        // SAFETY: the caller's promise.
        let (table, grads) =
            unsafe { (table(slot, form, rows.width), rows.sort(kind, scratch)?) };
        either!(waiting, waiting => {
            adam.step_rows_dense_equivalent_on(table, grads, waiting, &options).map(|_| ())
        })
    }
}

impl WithOptimizer for RowStep<'_> {
    type Output = Result<Report, Error>;

    fn run<R: BuiltIn>(self, rule: R) -> Self::Output {
        let Self { options, t, slot, form, rows, memory } = self;
        let kind = slot.facts.kind.unwrap_or(Kind::F32);
        // SAFETY: the promise of `run`.
        let (table, grads) =
            unsafe { (table(slot, form, rows.width), rows.sort(kind, &mut memory.scratch)?) };
        rule.step_rows_lazy_on(t, table, grads, &options)
    }
}

/// Brings rows to the present step: those that are listed, or all.
///
/// # Safety
///
/// As [`RowStep::run`].
pub unsafe fn catch_up(
    exec: Exec<'_>,
    slot: &Slot,
    form: Form,
    width: usize,
    waiting: &mut Waiting,
    rows: Option<&[i64]>,
) -> Result<(), Error> {
    // SAFETY: the caller's promise.
    let table = unsafe { table(slot, form, width) };
    either!(waiting, waiting => match rows {
        Some(rows) => waiting.catch_up_on(exec, table, rows),
        None => waiting.catch_up_all_on(exec, table),
    })
}

/// Finds out whether steps of Adam can have the results of dense ones, by a step of no rows.
pub fn check_dense_equivalent(adam: &Adam, way: CatchUp) -> Result<(), Error> {
    let mut waiting = DenseEquivalent::<f64>::new(0, way);
    let mut param = [0.0_f64; 0];
    let mut scratch = RowScratch::default();
    let grads = RowGrads::<i64, f64>::new(&[], &[], 1).sort(0, &mut scratch)?;
    let table = Table::new(&mut param, 1);
    let options = StepOptions::default();
    adam.step_rows_dense_equivalent_on(table, grads, &mut waiting, &options).map(|_| ())
}
