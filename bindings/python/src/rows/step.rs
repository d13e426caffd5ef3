//! Steps of rows.

use adamant::{
    Adam, AnyOptimizer, Error, Exec, Report, StepOptions,
    rule::{BuiltIn, WithOptimizer},
    table::{RowOptimizer, Table},
};

use super::{Memory, Rows, Waiting, waiting::either};
use crate::{
    memory::Kind,
    slot::{Form, Role, Slot, moments_of, param_of},
};

/// Why a parameter's rows of so many numbers cannot be stepped.
pub fn problem(slot: &Slot, form: Form, width: usize) -> Option<&'static str> {
    let has = |role| slot.state.as_ref().is_some_and(|state| state.entry(role).is_some());
    if has(Role::Master) || has(Role::Low) {
        return Some("sparse gradients need parameters without master copies");
    }
    let mut entries = slot.state.iter().flat_map(|state| &state.entries);
    if form.dense_equivalent.is_none() {
        let is_blocked = entries.any(|entry| matches!(entry.role, Role::Codes(_)));
        return (is_blocked && !width.is_multiple_of(256)).then_some(
            "sparse gradients with 8-bit moments need rows of a multiple of 256 numbers, since 256 share a \
             scale; others go with state_dtype=torch.bfloat16",
        );
    }
    let kind = slot.facts.kind.unwrap_or(Kind::Other);
    if !matches!(kind.real(), Kind::F32 | Kind::F64) {
        return Some(
            "sparse gradients with dense_equivalent need parameters in float32 or float64",
        );
    }
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
        let Memory { scratch, waiting: Some(waiting), .. } = memory else { return Ok(()) };
        // SAFETY: the caller's promise.
        let (table, grads) = unsafe { (table(slot, form, rows.width), rows.sort(scratch)?) };
        either!(waiting, waiting => {
            adam.step_rows_dense_equivalent_on(table, grads, waiting, &options).map(|_| ())
        })
    }
}

impl WithOptimizer for RowStep<'_> {
    type Output = Result<Report, Error>;

    fn run<R: BuiltIn>(self, rule: R) -> Self::Output {
        let Self { options, t, slot, form, rows, memory } = self;
        // SAFETY: the promise of `run`.
        let (table, grads) =
            unsafe { (table(slot, form, rows.width), rows.sort(&mut memory.scratch)?) };
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
        Some(rows) => waiting.catch_up_with(table, rows, exec),
        None => waiting.catch_up_all_with(table, exec),
    })
}
