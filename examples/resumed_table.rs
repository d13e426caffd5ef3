//! An embedding table whose training is interrupted, saved, loaded and goes on: to the same bits.
//!
//! ```text
//! cargo run --release --example resumed_table
//! ```

use std::{error::Error, ops::Range, path::Path};

use adamant::{
    Adam, Moment, MomentRef, State,
    checkpoint::{self, Checkpoint, CheckpointError},
    table::{RowGrads, RowOptimizer},
};

const ROWS: usize = 1000;
const WIDTH: usize = 16;

fn adam() -> Adam {
    Adam { lr: 0.01, ..Adam::default() }
}

/// A table, and the state that the optimizer keeps.
struct Embedding {
    param: Vec<f32>,
    state: State,
}

impl Embedding {
    fn new() -> Self {
        Self { param: vec![1.0; ROWS * WIDTH], state: adam().row_state(ROWS, WIDTH) }
    }

    /// Steps the rows of some batches. A row may be listed more than once.
    fn train(&mut self, batches: Range<usize>) -> Result<(), adamant::Error> {
        for batch in batches {
            let ids: Vec<u32> =
                (0..64).map(|i| (batch * 97 + i * i) as u32 % ROWS as u32).collect();
            let row = |&id: &u32| &self.param[id as usize * WIDTH..][..WIDTH];
            // Of half the squared length of each listed row.
            let grads: Vec<f32> = ids.iter().flat_map(row).copied().collect();
            let grads = RowGrads::new(&ids, &grads, WIDTH);
            adam().step_rows_lazy(&mut self.param, grads, &mut self.state)?;
        }
        Ok(())
    }

    fn save(&self, file: &Path) -> Result<(), CheckpointError> {
        checkpoint::save(file, [("table", MomentRef::F32(&self.param), &self.state)])
    }

    fn load(file: &Path) -> Result<Self, CheckpointError> {
        let Self { mut param, mut state } = Self::new();
        Checkpoint::load(file)?.restore("table", Moment::from(&mut param), &mut state)?;
        Ok(Self { param, state })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut whole = Embedding::new();
    whole.train(0..100)?;

    let name = format!("adamant-table-{}.safetensors", std::process::id());
    let file = std::env::temp_dir().join(name);
    let mut interrupted = Embedding::new();
    interrupted.train(0..37)?;
    interrupted.save(&file)?;
    drop(interrupted);
    let mut resumed = Embedding::load(&file)?;
    std::fs::remove_file(file)?;
    let steps = resumed.state.steps();
    resumed.train(37..100)?;

    assert_eq!(resumed.param, whole.param);
    assert!(resumed.state.moments().eq(whole.state.moments()));
    println!("resumed after {steps} of {} steps: the same bits", whole.state.steps());
    Ok(())
}
