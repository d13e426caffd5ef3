//! Rows that have yet to catch up.

use adamant::{
    Adam, Error, StepOptions,
    table::{CatchUp, DenseEquivalent, RowGrads, RowScratch, Table},
};

use crate::{memory::Kind, slot::Slot};

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

pub(super) use either;

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

    pub(super) fn is_double(&self) -> bool {
        matches!(self, Self::F64(_))
    }

    /// The numbers in a row of a parameter, if its first dimensions are these rows.
    pub(super) fn width_in(&self, slot: &Slot) -> Option<usize> {
        let kind = slot.facts.kind?;
        let (shape, mut rows) = (slot.facts.shape(), 1);
        let last = shape.iter().position(|&size| {
            rows *= size as usize;
            self.is_for(kind, rows)
        })?;
        let width: usize = shape[last + 1..].iter().map(|&size| size as usize).product();
        Some(width * kind.reals())
    }

    /// The first of all rows that is behind, and by how many steps.
    pub fn any_behind(&self) -> Option<(i64, u64)> {
        either!(self, waiting => (0..waiting.rows()).find_map(|row| {
            let skipped = waiting.skipped(row)?;
            (skipped > 0).then_some((row as i64, skipped))
        }))
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
