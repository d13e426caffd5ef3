//! Steps beside other threads that read the variables.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use adamant_candle::{Sgd, StepOptions, VarOptimizer};
use candle_core::{Device, Result, Tensor, Var};

use crate::grads;

/// Each reader locks two variables at a time, some in one order and some in the other. Two optimizers write the
/// variables, in opposite orders. If a step waited for a lock while it holds another, this test would not end.
#[test]
fn steps_neither_hang_nor_are_seen_in_part_beside_readers_of_several_variables() -> Result<()> {
    let vars: Vec<Var> = (0..8)
        .map(|_| Var::from_tensor(&Tensor::full(1000_f32, 4096, &Device::Cpu)?))
        .collect::<Result<_>>()?;
    let reversed: Vec<Var> = vars.iter().rev().cloned().collect();
    let done = AtomicBool::new(false);
    let until = Instant::now() + Duration::from_millis(400);
    let reads = thread::scope(|scope| {
        let readers: Vec<_> = [(0, 7), (7, 0), (3, 4), (5, 2)]
            .into_iter()
            .map(|(first, second)| {
                let (vars, done) = (&vars, &done);
                scope.spawn(move || {
                    let mut reads = 0;
                    while !done.load(Ordering::Relaxed) {
                        // Both locks are held while the sum is computed.
                        let sum = vars[first].add(&vars[second]).expect("a sum");
                        let sum = sum.to_vec1::<f32>().expect("its values");
                        // In a variable that is seen during a step, some elements would differ.
                        assert!(sum.iter().all(|&value| value == sum[0]), "seen in part");
                        reads += 1;
                    }
                    reads
                })
            })
            .collect();
        let writers: Vec<_> = [vars.clone(), reversed]
            .into_iter()
            .map(|vars| {
                scope.spawn(move || {
                    let sgd = Sgd { lr: 1.0, ..Sgd::default() };
                    let mut optimizer = VarOptimizer::new(vars.clone(), sgd).expect("variables");
                    let store = grads(vars.iter().map(|var| (var, var.ones_like().expect("ones"))));
                    let mut steps = 0_u32;
                    while Instant::now() < until && steps < 400 {
                        let _ =
                            optimizer.step_with(&store, &StepOptions::default()).expect("a step");
                        steps += 1;
                    }
                    steps
                })
            })
            .collect();
        let steps: u32 = writers.into_iter().map(|writer| writer.join().expect("no panic")).sum();
        done.store(true, Ordering::Relaxed);
        for var in &vars {
            let value = var.to_vec1::<f32>().expect("its values")[0];
            assert_eq!(value, 1000.0 - steps as f32, "the sum of all steps");
        }
        readers.into_iter().map(|reader| reader.join().expect("no panic")).sum::<u32>()
    });
    assert!(reads > 0);
    Ok(())
}
