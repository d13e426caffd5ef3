//! Regressions of a step, by criterion: `cargo bench --bench step`.
//!
//! For how close a step comes to the limits of the machine, see the bench `roofline`.

mod support;

use std::time::Duration;

use adamant::{
    Adam, Exec, Isa, Optimizer, StepOptions, Threads,
    rule::{BuiltIn, Float, Rule},
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use support::{Division, ForEachOptimizer, for_each_optimizer};

/// Parameters, gradients and moments in L1, in L2, in the last cache, and in memory.
const ELEMENTS: [usize; 4] = [1 << 10, 16 << 10, 256 << 10, 16 << 20];

struct Serial<'a>(&'a mut Criterion);

impl ForEachOptimizer for Serial<'_> {
    fn visit<R: BuiltIn>(&mut self, name: &'static str, rule: R, _division: Division) {
        self.bench::<R, f32>(name, rule);
        self.bench::<R, f64>(name, rule);
    }
}

impl Serial<'_> {
    fn bench<R: Rule, F: Float>(&mut self, name: &'static str, rule: R) {
        let mut group = self.0.benchmark_group(format!("{name}/{}", F::NAME));
        for elements in ELEMENTS {
            group.throughput(Throughput::Elements(elements as u64));
            let mut param = vec![F::from_f64(1.0); elements];
            let grad = vec![F::from_f64(0.01); elements];
            for isa in Isa::available() {
                let mut state = rule.state_in(F::STORAGE, elements);
                let exec = Exec { isa: Some(isa), threads: Threads::Serial };
                let options = StepOptions { exec, ..StepOptions::default() };
                let mut tensors = [state.tensor(&mut param, &grad)];
                group.bench_function(BenchmarkId::new(isa.name(), elements), |bencher| {
                    bencher.iter(|| rule.step_tensors(&mut tensors, &options));
                });
            }
        }
        group.finish();
    }
}

/// Every optimizer on one thread and every instruction set.
fn serial(criterion: &mut Criterion) {
    for_each_optimizer(&mut Serial(criterion));
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
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = serial, call
}
criterion_main!(benches);
