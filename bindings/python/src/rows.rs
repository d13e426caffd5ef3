//! Sparse gradients: steps on some rows of a parameter.

use core::slice;

use adamant::{
    Adam, AnyOptimizer, Arity, BuiltIn, CatchUp, DenseEquivalent, Error, Exec, Float, Grad,
    MOMENTS, RowGrads, RowOptimizer, RowScratch, Table, WithOptimizer,
};
use pyo3::{PyResult, exceptions::PyRuntimeError};

use crate::{
    memory::Kind,
    slot::{Role, Slot},
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
                _ => self.values::<f32>().into(),
            }
        }
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

unsafe fn elements_mut<'a, T>(data: usize, len: usize) -> &'a mut [T] {
    match len {
        0 => &mut [],
        // SAFETY: the caller's promise.
        _ => unsafe { slice::from_raw_parts_mut(data as *mut T, len) },
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

/// A parameter and its moments, as a table.
struct Arrays {
    param: usize,
    moments: [usize; MOMENTS],
    len: usize,
    width: usize,
}

/// Why a parameter's rows cannot be stepped.
pub fn problem(slot: &Slot) -> Option<&'static str> {
    let kind = slot.facts.kind.unwrap_or(Kind::Other);
    if !matches!(kind.real(), Kind::F32 | Kind::F64) {
        return Some("sparse gradients need parameters in float32 or float64");
    }
    let entries = slot.state.iter().flat_map(|state| &state.entries);
    for entry in entries {
        let is_like = entry.facts.kind.map(Kind::real) == Some(kind.real());
        match entry.role {
            Role::Codes(_) => return Some("sparse gradients need state_dtype=None"),
            Role::Moment(_) if !is_like => return Some("sparse gradients need state_dtype=None"),
            _ => {}
        }
    }
    None
}

impl Arrays {
    fn of(slot: &Slot, width: usize) -> Self {
        let mut moments = [0; MOMENTS];
        for entry in slot.state.iter().flat_map(|state| &state.entries) {
            if let Role::Moment(moment) = entry.role {
                moments[moment] = entry.facts.data;
            }
        }
        let len = slot.facts.len * slot.facts.kind.map_or(1, Kind::reals);
        Self { param: slot.facts.data, moments, len, width }
    }

    /// # Safety
    ///
    /// They are arrays of `F` that nobody else uses for `'a`.
    unsafe fn table<'a, R: adamant::Rule, F: Float>(&self) -> Table<'a, R, F> {
        // SAFETY: the caller's promise.
        let of =
            |data: usize| unsafe { elements_mut::<F>(data, if data == 0 { 0 } else { self.len }) };
        Table {
            param: of(self.param),
            moments: R::Moments::from_fn(|moment| of(self.moments[moment])),
            width: self.width,
        }
    }
}

/// Values times a factor, in new memory if it is not 1.
fn scaled<'a, F: Float>(values: &'a [F], factor: f64, room: &'a mut Vec<F>) -> &'a [F] {
    if factor == 1.0 {
        return values;
    }
    let factor = F::from_f64(factor);
    room.extend(values.iter().map(|&value| value * factor));
    room
}

/// A step on rows.
pub struct RowStep<'a> {
    pub exec: Exec<'a>,
    pub t: u64,
    pub slot: &'a Slot,
    pub rows: &'a Rows,
    pub factor: f64,
    pub memory: &'a mut Memory,
}

impl RowStep<'_> {
    /// Takes the step.
    ///
    /// # Safety
    ///
    /// What is known of the slot and the rows holds, [`problem`] found none, and nobody else uses the
    /// parameter and its state.
    pub unsafe fn run(self, optimizer: &AnyOptimizer) -> Result<(), Error> {
        optimizer.with(self)
    }

    fn run_in<R: BuiltIn, F: Float>(self, rule: R) -> Result<(), Error> {
        let Self { exec, t, slot, rows, factor, memory } = self;
        let mut room = Vec::new();
        // SAFETY: the promise of `run`.
        let (table, indices, values) = unsafe {
            let table = Arrays::of(slot, rows.width).table::<R, F>();
            (table, rows.indices(), rows.values::<F>())
        };
        let values = scaled(values, factor, &mut room);
        let grads = RowGrads::new(indices, values, rows.width);
        rule.step_rows_lazy_on(exec, t, table, grads, &mut memory.scratch)
    }

    fn run_waiting<F: Float>(
        self,
        adam: &Adam,
        waiting: fn(&mut Waiting) -> Option<&mut DenseEquivalent<F>>,
    ) -> Result<(), Error> {
        let Self { exec, slot, rows, factor, memory, .. } = self;
        let Some(waiting) = memory.waiting.as_mut().and_then(waiting) else { return Ok(()) };
        let mut room = Vec::new();
        // SAFETY: the promise of `run`.
        let (table, indices, values) = unsafe {
            let table = Arrays::of(slot, rows.width).table::<Adam, F>();
            (table, rows.indices(), rows.values::<F>())
        };
        let values = scaled(values, factor, &mut room);
        let grads = RowGrads::new(indices, values, rows.width);
        adam.step_rows_dense_equivalent_on(exec, table, grads, waiting)
    }

    /// Takes the step with the results of a dense one; as [`run`](Self::run).
    ///
    /// # Safety
    ///
    /// As [`run`](Self::run).
    pub unsafe fn run_dense_equivalent(self, adam: &Adam) -> Result<(), Error> {
        match self.memory.waiting {
            Some(Waiting::F64(_)) => self.run_waiting::<f64>(adam, Waiting::f64),
            _ => self.run_waiting::<f32>(adam, Waiting::f32),
        }
    }
}

impl Waiting {
    fn f32(&mut self) -> Option<&mut DenseEquivalent<f32>> {
        match self {
            Self::F32(waiting) => Some(waiting),
            Self::F64(_) => None,
        }
    }

    fn f64(&mut self) -> Option<&mut DenseEquivalent<f64>> {
        match self {
            Self::F64(waiting) => Some(waiting),
            Self::F32(_) => None,
        }
    }
}

impl WithOptimizer for RowStep<'_> {
    type Output = Result<(), Error>;

    fn run<R: BuiltIn>(self, rule: R) -> Self::Output {
        match self.slot.facts.kind.map(Kind::real) {
            Some(Kind::F64) => self.run_in::<R, f64>(rule),
            _ => self.run_in::<R, f32>(rule),
        }
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
    width: usize,
    waiting: &mut Waiting,
    rows: Option<&[i64]>,
) -> Result<(), Error> {
    let arrays = Arrays::of(slot, width);
    match waiting {
        Waiting::F32(waiting) => {
            // SAFETY: the caller's promise, here and below.
            let table = unsafe { arrays.table::<Adam, f32>() };
            match rows {
                Some(rows) => waiting.catch_up_on(exec, table, rows),
                None => waiting.catch_up_all_on(exec, table),
            }
        }
        Waiting::F64(waiting) => {
            // SAFETY: as above.
            let table = unsafe { arrays.table::<Adam, f64>() };
            match rows {
                Some(rows) => waiting.catch_up_on(exec, table, rows),
                None => waiting.catch_up_all_on(exec, table),
            }
        }
    }
}

/// Finds out whether steps of Adam can have the results of dense ones, by a step of no rows.
pub fn check_dense_equivalent(adam: &Adam, way: CatchUp) -> Result<(), Error> {
    let mut waiting = DenseEquivalent::<f64>::new(0, way);
    let table = Table { param: &mut [], moments: [&mut [][..], &mut []], width: 1 };
    let grads = RowGrads::<i64, f64>::new(&[], &[], 1);
    adam.step_rows_dense_equivalent_on(Exec::default(), table, grads, &mut waiting)
}
