//! Steps of rows.

use adamant::{
    Adam, AnyOptimizer, Arity, BuiltIn, DenseEquivalent, Error, Exec, Float, MOMENTS, RowGrads,
    RowOptimizer, Table, WithOptimizer,
};

use super::{Memory, Rows, Waiting, elements_mut};
use crate::{
    memory::Kind,
    slot::{Role, Slot},
};

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
