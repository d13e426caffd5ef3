//! An embedding table whose training is interrupted, saved, loaded and goes on: to the same bits.
//!
//! ```text
//! cargo run --release --example resumed_table
//! ```

use std::ops::Range;

use adamant::{Adam, Error, MomentRef, RowGrads, RowOptimizer, State};

const ROWS: usize = 1000;
const WIDTH: usize = 16;

fn adam() -> Adam {
    Adam { lr: 0.01, ..Adam::default() }
}

/// A table, and what the optimizer remembers.
struct Embedding {
    param: Vec<f32>,
    state: State,
}

/// All that has to be kept: names and arrays, and the number of steps.
struct Checkpoint {
    param: Vec<f32>,
    steps: u64,
    moments: Vec<(&'static str, Vec<f32>)>,
}

impl Embedding {
    fn new() -> Self {
        Self { param: vec![1.0; ROWS * WIDTH], state: adam().row_state(ROWS, WIDTH) }
    }

    /// Steps the rows of some batches. A row may be listed more than once.
    fn train(&mut self, batches: Range<usize>) -> Result<(), Error> {
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

    fn save(&self) -> Checkpoint {
        let array = |(name, moment)| match moment {
            MomentRef::F32(values) => Some((name, values.to_vec())),
            // `row_state` keeps moments in f32.
            _ => None,
        };
        let moments = self.state.moments().filter_map(array).collect();
        Checkpoint { param: self.param.clone(), steps: self.state.steps(), moments }
    }

    fn load(saved: &Checkpoint) -> Result<Self, Error> {
        let mut embedding = Self { param: saved.param.clone(), ..Self::new() };
        embedding.state.set_steps(saved.steps);
        for (name, values) in &saved.moments {
            embedding.state.set_moment_from_f32(name, values)?;
        }
        Ok(embedding)
    }
}

fn main() -> Result<(), Error> {
    let mut whole = Embedding::new();
    whole.train(0..100)?;

    let mut interrupted = Embedding::new();
    interrupted.train(0..37)?;
    let saved = interrupted.save();
    drop(interrupted);
    let mut resumed = Embedding::load(&saved)?;
    resumed.train(37..100)?;

    assert_eq!(resumed.param, whole.param);
    assert!(resumed.state.moments().eq(whole.state.moments()));
    println!("resumed after {} of {} steps: the same bits", saved.steps, whole.state.steps());
    Ok(())
}
