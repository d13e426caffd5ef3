//! The ways to step a table of which a batch lists some rows.

use adamant::{
    Adam, Buffer, Optimizer, State, reference,
    table::{CatchUp, DenseEquivalent, RowGrads, RowOptimizer},
};
use anyhow::Result;

/// How a table is stepped; dense-equivalent rows catch up by a series or by replay.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Lazy,
    Series,
    Replay,
    Dense,
}

/// Steps a table, and keeps what that takes besides the parameters.
pub trait Stepper {
    /// Called with the rows of a batch before the forward pass reads them.
    fn before_reading(&mut self, _param: &mut [f32], _rows: &[u32]) -> Result<()> {
        Ok(())
    }

    /// Takes a step.
    fn step(&mut self, param: &mut [f32], grads: RowGrads<u32, f32>) -> Result<()>;

    /// Called before the whole table is read: to evaluate it, or to save it.
    fn before_reading_all(&mut self, _param: &mut [f32]) -> Result<()> {
        Ok(())
    }
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Lazy, Self::Series, Self::Replay, Self::Dense];

    pub fn name(self) -> &'static str {
        match self {
            Self::Lazy => "lazy",
            Self::Series => "dense-equivalent, series",
            Self::Replay => "dense-equivalent, replay",
            Self::Dense => "dense",
        }
    }

    /// Prepares to step a table of `rows` by `width`.
    pub fn stepper(self, adam: Adam, rows: usize, width: usize) -> Box<dyn Stepper> {
        let dense_equivalent = |catch_up| {
            Box::new(Waiting {
                adam,
                width,
                state: adam.row_state(rows, width),
                waiting: DenseEquivalent::new(rows, catch_up),
            })
        };
        match self {
            Self::Lazy => Box::new(Lazy { adam, state: adam.row_state(rows, width) }),
            Self::Series => dense_equivalent(CatchUp::Series),
            Self::Replay => dense_equivalent(CatchUp::Replay),
            Self::Dense => Box::new(Dense {
                adam,
                state: adam.state(rows * width),
                grad: Buffer::zeros(rows * width),
            }),
        }
    }
}

/// Leaves rows that are not listed as they are, and their moments too.
struct Lazy {
    adam: Adam,
    state: State,
}

impl Stepper for Lazy {
    fn step(&mut self, param: &mut [f32], grads: RowGrads<u32, f32>) -> Result<()> {
        Ok(self.adam.step_rows_lazy(param, grads, &mut self.state)?)
    }
}

/// Takes rows where dense steps take them, as soon as they are needed.
struct Waiting {
    adam: Adam,
    width: usize,
    state: State,
    /// The steps that each row has still to take.
    waiting: DenseEquivalent<f32>,
}

impl Stepper for Waiting {
    fn before_reading(&mut self, param: &mut [f32], rows: &[u32]) -> Result<()> {
        Ok(self.waiting.catch_up(self.state.table(param, self.width), rows)?)
    }

    fn step(&mut self, param: &mut [f32], grads: RowGrads<u32, f32>) -> Result<()> {
        let Self { adam, state, waiting, .. } = self;
        Ok(adam.step_rows_dense_equivalent(param, grads, state, waiting)?)
    }

    fn before_reading_all(&mut self, param: &mut [f32]) -> Result<()> {
        Ok(self.waiting.catch_up_all(self.state.table(param, self.width))?)
    }
}

/// Steps all rows, most of them with a gradient of zero.
struct Dense {
    adam: Adam,
    state: State,
    /// As long as the table; zero between steps.
    grad: Buffer<f32>,
}

impl Stepper for Dense {
    fn step(&mut self, param: &mut [f32], grads: RowGrads<u32, f32>) -> Result<()> {
        let width = grads.width;
        let place = |row: u32| row as usize * width..(row as usize + 1) * width;
        // In the order in which steps of rows add up gradients of one row.
        let rows: Vec<usize> = grads.rows.iter().map(|&row| row as usize).collect();
        for (row, sum) in reference::sum_rows(&rows, grads.values, width, width) {
            self.grad[place(row as u32)].copy_from_slice(&sum);
        }
        self.adam.step(param, &self.grad, &mut self.state)?;
        // Cheaper than to clear the whole of it.
        for &row in grads.rows {
            self.grad[place(row)].fill(0.0);
        }
        Ok(())
    }
}
