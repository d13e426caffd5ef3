//! Regressions of a step, by criterion: `cargo bench --bench step`.
//!
//! For how close a step comes to the limits of the machine, see the bench `roofline`.

use adamant::{Adam, Exec, Float, Isa, Optimizer};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Parameters, gradients and moments in L1, in L2, in the last cache, and in memory.
const ELEMENTS: [usize; 4] = [1 << 10, 16 << 10, 256 << 10, 16 << 20];

fn serial<F: Float>(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group(format!("adam/{}", F::NAME));
    for elements in ELEMENTS {
        group.throughput(Throughput::Elements(elements as u64));
        let mut param = vec![F::from_f64(1.0); elements];
        let grad = vec![F::from_f64(0.01); elements];
        for isa in Isa::available() {
            let adam = Adam { lr: 1e-6, ..Adam::default() };
            let mut state = adam.state(elements);
            let exec = Exec { isa, parallel: false };
            group.bench_with_input(BenchmarkId::new(isa.name(), elements), &(), |bencher, ()| {
                bencher.iter(|| adam.step_on(exec, &mut param, &grad, &mut state));
            });
        }
    }
    group.finish();
}

/// The cost of a call, from outside a pool, on the threads that it chooses.
fn call(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("call/f32");
    for elements in [16, 64 << 10, 1 << 20] {
        let adam = Adam { lr: 1e-6, ..Adam::default() };
        let (mut param, grad) = (vec![1.0_f32; elements], vec![0.01; elements]);
        let mut state = adam.state(elements);
        group.bench_function(BenchmarkId::from_parameter(elements), |bencher| {
            bencher.iter(|| adam.step(&mut param, &grad, &mut state));
        });
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(20);
    targets = serial::<f32>, serial::<f64>, call
}
criterion_main!(benches);
