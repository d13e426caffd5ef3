//! Runs on rows of tables.

use adamant::{
    Adam,
    rule::{BuiltIn, Float, WithOptimizer},
    table::{CatchUp, RowWiseAdam},
};
use rand::{RngExt, rngs::ChaCha8Rng, seq::IndexedRandom};

use crate::{
    Counts,
    dense::any_optimizer,
    support::{
        RowsRule, number, ordinary,
        rows::{Event, IndexType, Listed, RowColumns, check_dense_equivalent, check_lazy},
    },
    threads::Place,
};

pub fn run(rng: &mut ChaCha8Rng, counts: &mut Counts) {
    counts.tables += 1;
    if rng.random() { any_kind::<f32>(rng, counts) } else { any_kind::<f64>(rng, counts) }
}

fn any_kind<F: Float>(rng: &mut ChaCha8Rng, counts: &mut Counts) {
    struct Lazy<'a, F>(&'a mut ChaCha8Rng, &'a mut Counts, std::marker::PhantomData<F>);
    impl<F: Float> WithOptimizer for Lazy<'_, F> {
        type Output = ();

        fn run<R: BuiltIn>(self, rule: R) {
            lazy::<F>(self.0, self.1, &rule);
        }
    }
    match rng.random_range(0..4) {
        0 => {
            let adam = Adam { lr: 0.01, ..Adam::default() };
            lazy::<F>(rng, counts, &RowWiseAdam(adam));
        }
        1 | 2 => dense_equivalent::<F>(rng, counts),
        _ => {
            let optimizer = any_optimizer(rng);
            optimizer.with(Lazy::<F>(rng, counts, std::marker::PhantomData));
        }
    }
}

/// A table for a rule, and a function that draws gradients for it.
struct Drawn<F> {
    table: RowColumns<F>,
    special: bool,
}

impl<F: Float> Drawn<F> {
    fn new(rng: &mut ChaCha8Rng, rule: &dyn RowsRule<F>) -> Self {
        let [special, tall, wide] = [4, 8, 8].map(|times| rng.random_ratio(1, times));
        let rows = rng.random_range(1..if tall { 5000 } else { 100 });
        let width = rng.random_range(1..if wide { 1200 } else { 70 });
        let table =
            RowColumns::new(rule, rows, width, |column, _| value(rng.random(), column, special));
        Self { table, special }
    }

    /// Up to so many rows, of which few or many are duplicates.
    fn listed(&self, rng: &mut ChaCha8Rng, most: usize, counts: &mut Counts) -> Listed<F> {
        let index_type = *IndexType::ALL.choose(rng).expect("a type");
        let among = if rng.random() { self.table.rows() } else { 1 + self.table.rows() / 20 };
        let rows: Vec<_> =
            (0..rng.random_range(0..=most)).map(|_| rng.random_range(0..among)).collect();
        counts.steps += 1;
        counts.elements += (rows.len() * self.table.width) as u64;
        let stride = self.table.width + if rng.random_ratio(1, 4) { 3 } else { 0 };
        Listed::new(index_type, rows, stride, |_| value(rng.random(), 1, self.special))
    }
}

fn value<F: Float>(bits: u64, column: usize, special: bool) -> F {
    if special { number(bits) } else { ordinary(column, bits) }
}

/// How many rows a step lists at most: so many that threads share them, one time in eight.
fn any_most(rng: &mut ChaCha8Rng, width: usize) -> usize {
    if rng.random_ratio(1, 8) { 100_000 / width } else { 30 }
}

fn lazy<F: Float>(rng: &mut ChaCha8Rng, counts: &mut Counts, rule: &dyn RowsRule<F>) {
    let drawn = Drawn::<F>::new(rng, rule);
    let most = any_most(rng, drawn.table.width);
    let steps = rng.random_range(1..if most > 30 { 5 } else { 50 });
    let steps: Vec<_> = (0..steps).map(|_| drawn.listed(rng, most, counts)).collect();
    let (place, t, offset) = (Place::any(rng), rng.random_range(1..1000), rng.random_range(0..32));
    place.run(|| check_lazy(rule, t, &drawn.table, &steps, place.exec, offset));
}

fn dense_equivalent<F: Float>(rng: &mut ChaCha8Rng, counts: &mut Counts) {
    let way = if rng.random() { CatchUp::Series } else { CatchUp::Replay };
    let adam = Adam {
        lr: 0.01,
        weight_decay: if rng.random() { 0.1 } else { 0.0 },
        decoupled_weight_decay: true,
        ..Adam::default()
    };
    let drawn = Drawn::<F>::new(rng, &adam);
    let most = any_most(rng, drawn.table.width);
    let steps = rng.random_range(1..if most > 30 { 5 } else { 150 });
    let mut eps = adam.eps;
    let events: Vec<_> = (0..steps)
        .map(|_| match rng.random_range(0..40) {
            0..4 => {
                let Listed { index_type, rows, .. } = drawn.listed(rng, 5, counts);
                Event::CatchUp(index_type, rows)
            }
            4 => Event::CatchUpAll,
            kind => {
                // Another rule, now and then.
                eps *= if kind == 5 { 2.0 } else { 1.0 };
                let lr = adam.lr * rng.random_range(0.0..2.0);
                Event::Step(Adam { lr, eps, ..adam }, drawn.listed(rng, most, counts))
            }
        })
        .collect();
    let (place, start) = (Place::any(rng), *[0, 5, 100_000, 1 << 40].choose(rng).expect("a step"));
    let offset = rng.random_range(0..32);
    place.run(|| check_dense_equivalent(way, start, &drawn.table, &events, place.exec, offset));
}
