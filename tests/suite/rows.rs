//! Steps on rows give the bits of `reference`: on every instruction set, in any order, with any
//! duplicates, on any number of threads.

use std::marker::PhantomData;

use crate::{
    own::Own,
    support::{
        Draw, ForEachRule, RowsRule, WithRule, exec, execs, for_each_rule, number, ordinary,
        rows::{
            Event, IndexType, Listed, RowColumns, check_dense_equivalent,
            check_dense_equivalent_with, check_lazy, check_lazy_with,
        },
        serial, with_rule,
    },
};
use adamant::{
    Adam, AnyOptimizer, Epsilon, Error, Exec, Isa, Moment, Outcome, Report, Sgd, State,
    StepOptions, Storage,
    rule::{BuiltIn, Float, WithOptimizer},
    table::{CatchUp, DenseEquivalent, RowGrads, RowOptimizer, RowScratch, RowWiseAdam, Table},
};
use proptest::prelude::{ProptestConfig, prop, proptest};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

/// Widths at which a kernel may go wrong.
const WIDTHS: [usize; 14] = [
    1, 2, 3, 7, 8, // less than a register
    15, 16, 17, 33, // around registers, and around the sums of a row-wise mean
    64, 100, // usual ones
    1023, 1025, 2050, // around the tile in which duplicates are added up
];

/// Options of every kind by a seed; odd ones for ordinary numbers alone, whose norm is no extreme one.
fn options(seed: u64, exec: Exec<'static>) -> StepOptions<'static> {
    StepOptions {
        exec,
        grad_factor: if seed.is_multiple_of(3) { 1.0 } else { 0.37 },
        max_norm: (seed % 4 == 1).then_some(0.5),
        grad_norm: (seed % 8 == 1).then_some(100.0),
        skip_nonfinite: seed % 4 == 2,
        flush_subnormals: seed % 5 < 2,
        ..StepOptions::default()
    }
}

/// Tables and gradients from a seed.
struct Random {
    rng: ChaCha8Rng,
    special: bool,
}

impl Random {
    fn new(seed: u64, special: bool) -> Self {
        Self { rng: ChaCha8Rng::seed_from_u64(seed), special }
    }

    fn value<F: Float>(&mut self, column: usize) -> F {
        let bits: u64 = self.rng.random();
        if self.special { number(bits) } else { ordinary(column, bits) }
    }

    fn table<F: Float>(
        &mut self,
        rule: &dyn RowsRule<F>,
        rows: usize,
        width: usize,
    ) -> RowColumns<F> {
        RowColumns::new(rule, rows, width, |column, _| self.value(column))
    }

    /// `count` rows of `rows`, of which many are duplicates if there are enough.
    fn listed<F: Float>(&mut self, rows: usize, count: usize, stride: usize) -> Listed<F> {
        let index_type = IndexType::ALL[self.rng.random_range(0..IndexType::ALL.len())];
        let listed = (0..count).map(|_| self.rng.random_range(0..rows)).collect();
        Listed::new(index_type, listed, stride, |_| self.value(1))
    }
}

struct EveryWidth<F>(PhantomData<F>);

impl<F: Float> EveryWidth<F> {
    fn check(rule: &dyn RowsRule<F>) {
        for exec in execs(false) {
            for (seed, width) in WIDTHS.into_iter().enumerate() {
                let mut random = Random::new(seed as u64, seed % 2 == 0);
                let before = random.table(rule, 7, width);
                let steps = [3, 0, 9, 1].map(|count| random.listed(7, count, width + seed % 3));
                let options = options(seed as u64, exec);
                check_lazy_with(rule, 2, &before, &steps, options, seed);
            }
        }
    }
}

impl<F: Float> ForEachRule for EveryWidth<F> {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        Self::check(&rule);
    }
}

#[test]
fn lazy_steps_of_every_optimizer_give_the_reference_bits_f32() {
    for_each_rule(&mut EveryWidth::<f32>(PhantomData));
}

#[test]
fn lazy_steps_of_every_optimizer_give_the_reference_bits_f64() {
    for_each_rule(&mut EveryWidth::<f64>(PhantomData));
}

#[test]
fn lazy_steps_of_a_users_rule_in_a_loop_of_its_own_give_the_reference_bits() {
    EveryWidth::<f32>::check(&Own { lr: 0.5 });
    EveryWidth::<f64>::check(&Own { lr: 0.5 });
}

fn adams() -> [Adam; 6] {
    let adam = Adam::default();
    [
        adam,
        Adam { weight_decay: 0.1, maximize: true, ..adam },
        Adam { epsilon: Epsilon::Hat, eps: 0.01, ..Adam::adamw() },
        Adam { beta1: 0.3, beta2: 0.95, eps: 1.0, ..Adam::adamw() },
        Adam { cautious: true, beta2: 0.9999, ..adam },
        Adam { beta1: 0.0, eps: 0.0, ..adam },
    ]
}

#[test]
fn row_wise_steps_give_the_reference_bits() {
    for adam in adams() {
        EveryWidth::<f32>::check(&RowWiseAdam(adam));
        EveryWidth::<f64>::check(&RowWiseAdam(adam));
    }
}

/// All rows of a call are the same; or each is listed once, in ascending or descending order.
#[test]
fn duplicates_and_any_order_give_the_reference_bits() {
    let adam = Adam::adamw();
    for exec in execs(false) {
        // Near 16, the number that is added up in order, and near two, three and four times 16.
        let many = [16, 17, 31, 32, 33, 48, 49, 64, 65, 1000].map(|count| vec![3; count]);
        let other = [(0..1000).collect(), (0..1000).rev().collect(), vec![999, 0]];
        for rows in many.into_iter().chain(other) {
            let mut random = Random::new(7, false);
            let before = random.table::<f32>(&adam, 1000, 5);
            let listed = Listed::new(IndexType::U32, rows, 5, |_| random.value(1));
            check_lazy(&adam, 1, &before, &[listed], exec, 1);
        }
    }
}

/// Sums that begin with 0 would make it 0, and so would leave these parameters as they are.
#[test]
fn the_sum_of_any_number_of_negative_zeros_is_negative_zero() {
    let sgd = Sgd { lr: 1.0, ..Sgd::default() };
    for exec in execs(false) {
        // One, a few, and as many as are added up in pairs.
        for count in [1, 2, 16, 17, 33] {
            let before = RowColumns::new(&sgd, 1, 5, |_, _| -0.0_f32);
            let listed = Listed::new(IndexType::U32, vec![0; count], 5, |_| -0.0);
            check_lazy(&sgd, 1, &before, &[listed], exec, 0);

            let (mut param, mut state) = ([-0.0_f32; 5], sgd.row_state(1, 5));
            let (rows, values) = (vec![0_u32; count], vec![-0.0_f32; 5 * count]);
            sgd.step_rows_lazy(&mut param, RowGrads::new(&rows, &values, 5), &mut state)
                .expect("a valid step");
            assert_eq!(param.map(f32::to_bits), [0; 5], "{count}");
        }
    }
}

#[cfg(feature = "rayon")]
#[test]
fn every_thread_count_gives_the_reference_bits() {
    for threads in [1, 2, 3, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        for exec in execs(true) {
            for (seed, (rows, count)) in
                [(2000, 3000), (3000, 200), (1, 500), (4, 4000)].into_iter().enumerate()
            {
                let mut random = Random::new(seed as u64, true);
                let adam = Adam::adamw();
                let before = random.table::<f32>(&adam, rows, 40);
                let steps = [random.listed(rows, count, 40), random.listed(rows, count, 41)];
                let row_wise = RowWiseAdam(adam);
                let row_wise_before = random.table::<f32>(&row_wise, rows, 40);
                let events = steps.clone().map(|listed| Event::Step(adam, listed));
                pool.install(|| {
                    check_lazy(&adam, 1, &before, &steps, exec, 0);
                    check_lazy(&row_wise, 1, &row_wise_before, &steps, exec, 0);
                    for way in [CatchUp::Series, CatchUp::Replay] {
                        check_dense_equivalent(way, 5, &before, &events, exec, 0);
                    }
                });
            }
        }
    }
}

/// The global pool, for a call from a thread that is in no pool.
#[test]
fn a_call_from_outside_the_pool_gives_the_reference_bits() {
    for exec in execs(true) {
        let mut random = Random::new(3, false);
        let adam = Adam::default();
        let before = random.table::<f32>(&adam, 3000, 64);
        let steps = [random.listed(3000, 5000, 64)];
        check_lazy(&adam, 1, &before, &steps, exec, 0);
    }
}

/// Steps on few rows of a table, so that the others wait. Learning rates change, the epsilon changes for a while, and
/// at times rows catch up before they are read.
fn events<F: Float>(
    random: &mut Random,
    adam: Adam,
    table: &RowColumns<F>,
    count: usize,
) -> Vec<Event<F>> {
    let rows = table.rows();
    (0..count)
        .map(|step| match random.rng.random_range(0..10) {
            0 => {
                let Listed { index_type, rows, .. } = random.listed::<F>(rows, 3, 1);
                Event::CatchUp(index_type, rows)
            }
            1 if step % 20 == 19 => Event::CatchUpAll,
            _ => {
                let scale = random.rng.random_range(0.0..2.0);
                let (lr, weight_decay) = (scale * adam.lr, scale * adam.weight_decay);
                // The settings of the rule change, too, and then change back.
                let eps = if step % 50 > 40 { 2.0 * adam.eps + 1e-6 } else { adam.eps };
                let count = random.rng.random_range(0..4);
                let listed = random.listed(rows, count, table.width);
                Event::Step(Adam { lr, weight_decay, eps, ..adam }, listed)
            }
        })
        .collect()
}

fn dense_equivalent<F: Float>(special: bool) {
    for (seed, adam) in adams().into_iter().enumerate() {
        for exec in execs(false) {
            for (width, start) in [(1, 0), (16, 3), (33, 100_000)] {
                let mut random = Random::new(seed as u64, special);
                let before = random.table::<F>(&adam, 40, width);
                let events = events(&mut random, adam, &before, 120);
                let number = 2 * (seed + width) as u64 + u64::from(!special);
                let options = StepOptions { flush_subnormals: false, ..options(number, exec) };
                let check =
                    |way| check_dense_equivalent_with(way, start, &before, &events, options, seed);
                check(CatchUp::Replay);
                if adam.weight_decay == 0.0 || adam.decoupled_weight_decay {
                    check(CatchUp::Series);
                }
            }
        }
    }
}

#[test]
fn dense_equivalent_steps_give_the_reference_bits() {
    dense_equivalent::<f32>(false);
    dense_equivalent::<f64>(false);
}

#[test]
fn dense_equivalent_steps_of_any_numbers_give_the_reference_bits() {
    dense_equivalent::<f32>(true);
    dense_equivalent::<f64>(true);
}

/// Lazy steps of an optimizer with hyper-parameters from a seed.
struct AnySteps {
    seed: u64,
    rows: usize,
    width: usize,
    counts: Vec<usize>,
    exec: Exec<'static>,
}

impl WithRule for &AnySteps {
    fn run<R: BuiltIn>(self) {
        self.check::<R, f32>();
        self.check::<R, f64>();
    }
}

impl AnySteps {
    fn check<R: BuiltIn, F: Float>(&self) {
        let seed = self.seed;
        let mut random = Random::new(seed, seed.is_multiple_of(2));
        let t = 1 + seed % 1000;
        let rule = loop {
            let mut bits = || random.rng.random();
            let mut draw = Draw::new(&mut bits);
            let rule: R = draw.rule();
            let holds = |&constant: &f64| F::from_f64(constant).is_finite();
            let fits = |t| rule.constants(t).as_ref().iter().all(holds);
            if draw.in_range && (t..).take(self.counts.len()).all(fits) {
                break rule;
            }
        };
        self.check_rule::<F>(&rule, t, &mut random);
    }

    fn check_rule<F: Float>(&self, rule: &dyn RowsRule<F>, t: u64, random: &mut Random) {
        let Self { seed, rows, width, exec, .. } = *self;
        let before = random.table(rule, rows, width);
        let steps: Vec<_> =
            self.counts.iter().map(|&count| random.listed(rows, count, width + 1)).collect();
        check_lazy_with(rule, t, &before, &steps, options(seed, exec), (seed % 16) as usize);
    }
}

proptest! {
    // A case that fails is printed, and becomes a test with a name.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_lazy_steps_give_the_reference_bits(
        row: u8,
        seed: u64,
        rows in 1..200usize,
        width in 1..80usize,
        counts in prop::collection::vec(0..100usize, 1..4),
        isa in prop::sample::select(Isa::available()),
        parallel: bool,
    ) {
        with_rule(row, &AnySteps { seed, rows, width, counts, exec: exec(isa, parallel) });
    }

    #[test]
    fn any_dense_equivalent_steps_give_the_reference_bits(
        seed: u64,
        adam in prop::sample::select(adams().to_vec()),
        rows in 1..100usize,
        width in 1..40usize,
        start in prop::sample::select(vec![0, 5, 1000, u64::from(u32::MAX) - 20, 1 << 40]),
        count in 0..60usize,
        isa in prop::sample::select(Isa::available()),
        parallel: bool,
    ) {
        let exec = exec(isa, parallel);
        let mut random = Random::new(seed, seed % 2 == 0);
        let before = random.table::<f32>(&adam, rows, width);
        let events = events(&mut random, adam, &before, count);
        check_dense_equivalent(CatchUp::Replay, start, &before, &events, exec, 0);
        if adam.weight_decay == 0.0 || adam.decoupled_weight_decay {
            check_dense_equivalent(CatchUp::Series, start, &before, &events, exec, 0);
        }
    }
}

/// In a table that is small compared to the history, every row has caught up several times, also rows that are never
/// listed.
#[test]
fn rows_that_wait_for_longer_than_the_history_give_the_reference_bits() {
    let adam = Adam::adamw();
    for way in [CatchUp::Series, CatchUp::Replay] {
        let mut random = Random::new(5, false);
        let before = random.table::<f32>(&adam, 3, 4);
        let first = random.listed(3, 3, 4);
        let nothing = Event::Step(adam, random.listed(3, 0, 4));
        let mut events = vec![Event::Step(adam, first)];
        events.extend(std::iter::repeat_n(nothing, 9000));
        check_dense_equivalent(way, 0, &before, &events, serial(), 0);
    }
}

/// A row that skips some steps, catches up by the series, and skips some again.
fn check_skipped(adam: Adam, steps: usize, again: usize, m: &[f32], v: f32) {
    check_skipped_from(1000, adam, steps, again, &vec![1.0; m.len()], m, v);
}

/// The same, of these parameters, after `start` steps.
fn check_skipped_from(
    start: u64,
    adam: Adam,
    steps: usize,
    again: usize,
    param: &[f32],
    m: &[f32],
    v: f32,
) {
    let width = m.len();
    let moments = vec![m.to_vec(), vec![v; width]];
    let before = RowColumns { width, param: param.to_vec(), moments };
    let skip = || Event::Step(adam, Listed::new(IndexType::U32, vec![], width, |_| 0.0));
    let mut events: Vec<_> = (0..steps).map(|_| skip()).collect();
    events.push(Event::CatchUp(IndexType::U32, vec![0]));
    events.extend((0..again).map(|_| skip()));
    for exec in execs(false) {
        check_dense_equivalent(CatchUp::Series, start, &before, &events, exec, 0);
    }
}

/// Found by fuzzing.
#[test]
fn an_epsilon_that_overflows_on_the_way_gives_the_reference_bits() {
    let epsilon = Epsilon::Hat;
    let adam = Adam { eps: 3e38, epsilon, beta1: 0.0, beta2: 0.5, ..Adam::default() };
    check_skipped(adam, 4, 0, &[1.0], 1.0);
}

#[test]
fn a_weight_decay_that_underflows_gives_the_reference_bits() {
    let adam = Adam { lr: 1.0, ..Adam::adamw() };
    check_skipped(Adam { weight_decay: 1.0_f64.next_down(), ..adam }, 21, 0, &[1.0], 1.0);
    check_skipped(Adam { weight_decay: 0.999999, ..adam }, 60, 4, &[1.0], 1.0);
}

#[test]
fn an_epsilon_whose_inverse_is_subnormal_gives_the_reference_bits() {
    // Rounded twice, its product with its inverse is over 1.
    let below_largest = (0..100_000).map(|i| f32::from_bits(f32::MAX.to_bits() - 100 * i));
    let eps = below_largest.into_iter().find(|eps| eps * (1.0 / eps) > 1.0);
    let eps = f64::from(eps.expect("a number with such an inverse")) * 0.999_f64.sqrt();
    let adam = Adam { eps, lr: 1e38, epsilon: Epsilon::Hat, beta1: 0.3, ..Adam::default() };
    let m: Vec<f32> = (0..1000).map(|i| 1.0 + i as f32 / 100.0).collect();
    check_skipped(adam, 6, 0, &m, 0.0);
}

/// The sums of the series are of numbers that are not rounded to the type of the step.
#[test]
fn settings_below_the_smallest_number_give_the_reference_bits() {
    let adam = Adam::default();
    for tiny in [1e-44, 1e-45, 1e-46, 1e-60] {
        for start in [0, 1000] {
            for v in [0.04, 1e-30, 0.0] {
                let m: Vec<_> = (0..100).map(|i| 1.2_f32.powi(i) * 1e-3).collect();
                let param: Vec<_> = m.iter().map(|m| 1e-6 / m).collect();
                for epsilon in [Epsilon::Standard, Epsilon::Hat] {
                    let adam = Adam { eps: tiny, epsilon, ..adam };
                    check_skipped_from(start, adam, 7, 4, &param, &m, v);
                }
                check_skipped_from(start, Adam { lr: tiny, ..adam }, 7, 4, &[0.0; 100], &m, v);
            }
        }
    }
}

/// A large table has a longer history, and all rows catch up within it.
#[test]
fn no_row_of_a_large_table_waits_for_longer_than_the_history() {
    let (rows, adam) = (300_000, Adam::default());
    let (mut param, mut state) = (vec![1.0_f32; rows], adam.row_state(rows, 1));
    let mut waiting = DenseEquivalent::<f32>::new(rows, CatchUp::Series);
    let options = StepOptions { exec: exec(Isa::detect(), true), ..StepOptions::default() };
    let mut scratch = RowScratch::default();
    for step in 0..10_000 {
        let (row, grad) = ([step * 7 % rows], [0.5_f32]);
        let grads = RowGrads::new(if step % 3 == 0 { &row[..] } else { &[] }, &grad, 1);
        let grads = RowGrads { values: &grad[..grads.rows.len()], ..grads };
        let grads = grads.sort(rows, &mut scratch).expect("rows of the table");
        let table = state.table(&mut param, 1);
        let report = adam.step_rows_dense_equivalent_on(table, grads, &mut waiting, &options);
        assert!(report.is_ok());
    }
    let longest = (0..rows).filter_map(|row| waiting.skipped(row)).max();
    assert!(longest.is_some_and(|longest| (4096..=rows as u64 / 64).contains(&longest)));
    assert_eq!(waiting.skipped(rows), None);
}

/// After a save, a run goes on with the bits of a run that was restarted from it.
#[test]
fn steps_after_a_checkpoint_have_the_bits_of_steps_after_a_restart() {
    fn check<F: Float>(way: CatchUp) {
        let (rows, width, adam) = (50, 8, Adam { weight_decay: 0.1, ..Adam::adamw() });
        let mut random = Random::new(1, false);
        let mut columns = random.table::<F>(&adam, rows, width);
        let mut waiting = DenseEquivalent::new(rows, way);
        let exec = serial();
        let options = StepOptions { exec, ..StepOptions::default() };
        let mut scratch = RowScratch::default();
        let mut train = |columns: &mut RowColumns<F>,
                         waiting: &mut DenseEquivalent<F>,
                         from: usize| {
            for step in from..from + 300 {
                let (row, values) = ([step * 7 % rows], vec![F::from_f64(0.25); width]);
                let grads = RowGrads::new(&row, &values, width);
                let grads = grads.sort(rows, &mut scratch).expect("rows of the table");
                let report =
                    adam.step_rows_dense_equivalent_on(columns.table(), grads, waiting, &options);
                assert!(report.is_ok());
            }
            waiting.catch_up_all_with(columns.table(), exec).expect("the table");
        };
        train(&mut columns, &mut waiting, 0);
        let (mut restored, mut fresh) = (columns.clone(), DenseEquivalent::new(rows, way));
        fresh.set_step(waiting.step());
        train(&mut columns, &mut waiting, 300);
        train(&mut restored, &mut fresh, 300);
        columns.assert_same_bits(&restored, &|| format!("{way:?}"));
    }
    for way in [CatchUp::Series, CatchUp::Replay] {
        check::<f32>(way);
        check::<f64>(way);
    }
}

#[test]
fn an_empty_table_of_any_width_is_stepped() {
    const HALF: usize = 1 << (usize::BITS - 1);
    let adam = Adam::default();
    for isa in Isa::available() {
        for parallel in [false, true] {
            let exec = exec(isa, parallel);
            let options = StepOptions { exec, max_norm: Some(1.0), ..StepOptions::default() };
            for width in [1, HALF >> 3, HALF >> 1, 3 * (HALF >> 2), usize::MAX] {
                let table = || {
                    let moments = [Moment::none(), Moment::none()];
                    Table::new(&mut [0.0_f32; 0], width).with_moments(moments)
                };
                let mut scratch = RowScratch::default();
                let grads = RowGrads::<u32, f32>::new(&[], &[], width);
                let taken = |report: Report| assert_eq!(report.outcome, Outcome::Taken);
                let sorted = grads.sort(0, &mut scratch).expect("no rows");
                let lazy = adam.step_rows_lazy_on(1, table(), sorted, &options).map(taken);
                let mut waiting = DenseEquivalent::<f32>::new(0, CatchUp::Replay);
                let sorted = grads.sort(0, &mut scratch).expect("no rows");
                let dense = adam
                    .step_rows_dense_equivalent_on(table(), sorted, &mut waiting, &options)
                    .map(taken);
                let caught_up = waiting.catch_up_all_with(table(), exec);
                assert_eq!([lazy, dense, caught_up], [Ok(()), Ok(()), Ok(())], "{width}");
            }
        }
    }
}

#[test]
fn a_state_and_rows_that_took_other_steps_are_refused() {
    let adam = Adam::default();
    let (mut param, mut state) = (vec![1.0_f32; 8], adam.row_state(4, 2));
    let mut waiting = DenseEquivalent::new(4, CatchUp::Series);
    state.set_steps(1000);
    let grads = RowGrads::new(&[1_u32], &[0.5, 0.5], 2);
    let error = adam.step_rows_dense_equivalent(&mut param, grads, &mut state, &mut waiting);
    assert_eq!(error, Err(Error::StepMismatch { state: 1000, rows: 0 }));
    assert_eq!((param, state.steps(), waiting.step()), (vec![1.0; 8], 1000, 0));
}

#[test]
fn the_error_of_a_sum_of_duplicates_does_not_grow_with_their_number() {
    let sgd = Sgd { lr: 1.0, ..Sgd::default() };
    for count in [17, 1000, 1 << 20] {
        let mut state = sgd.row_state(1, 3);
        let mut param = [0.0_f32; 3];
        let values = [0.1_f32, -0.3, 1e-3];
        let grads = values.repeat(count);
        let rows = vec![0_u32; count];
        sgd.step_rows_lazy(&mut param, RowGrads::new(&rows, &grads, 3), &mut state)
            .expect("a valid step");
        for (param, value) in param.into_iter().zip(values) {
            let right = -f64::from(value) * count as f64;
            let error = (f64::from(param) / right - 1.0).abs();
            // 16 additions, and one for each doubling of the count. A sum in plain order would have an error of 1e-3.
            let most = 40.0 * f64::from(f32::EPSILON) / 2.0;
            assert!(error <= most, "{count} times {value}: {param}, error {error:e}");
        }
    }
}

/// An optimizer of which only the name is known gives the bits of its type.
#[test]
fn rows_are_stepped_by_an_optimizer_that_was_chosen_by_name() {
    for name in AnyOptimizer::NAMES {
        struct Step<'a>(&'a mut [f32], &'a mut State);

        impl WithOptimizer for Step<'_> {
            type Output = ();

            fn run<R: BuiltIn>(self, rule: R) {
                let grads = RowGrads::new(&[7_u32, 2, 7], &[0.1_f32; 6], 2);
                rule.step_rows_lazy(self.0, grads, self.1).expect("a valid step");
            }
        }

        let optimizer = AnyOptimizer::new(name).expect("an optimizer of the list");
        for storage in [Storage::F32, Storage::Bf16] {
            let (mut found, mut expected) = (vec![1.0_f32; 20], vec![1.0_f32; 20]);
            let (mut state, mut other) =
                (optimizer.row_state_in(storage, 10, 2), optimizer.row_state_in(storage, 10, 2));
            for _ in 0..3 {
                let grads = RowGrads::new(&[7_u32, 2, 7], &[0.1_f32; 6], 2);
                optimizer.step_rows_lazy(&mut found, grads, &mut state).expect("a valid step");
                optimizer.with(Step(&mut expected, &mut other));
            }
            assert_eq!((&found, state.steps()), (&expected, 3), "{name}");
            assert!(state.moments().eq(other.moments()), "{name}");
            assert!(found[14] != 1.0 && found[0] == 1.0, "{name}");
        }
    }
}
