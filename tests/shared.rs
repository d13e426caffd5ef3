//! Each kind of call with its arrays shared among threads: of a pool of adamant's own, and threads that the
//! caller lends. Miri runs these tests with fewer elements. It sees whether two threads reach the same memory,
//! and whether a thread reaches memory by a reference that has ended.

mod support;

use std::{
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use adamant::{
    Adam, Exec, Grad, Isa, Outcome, Pool, RunTasks, StepOptions, Threads, accumulate,
    norm::first_nonfinite,
    table::{CatchUp, DenseEquivalent, RowGrads, RowOptimizer, RowScratch, RowWiseAdam},
};
use half::bf16;
use support::{
    AnyRule,
    mixed::{
        GradType, MixedColumns, MixedListed, MomentType, ParamType, RowValues, Types, check_rows,
    },
    model::Model,
    ordinary,
    rows::{Event, IndexType, Listed, RowColumns, check_dense_equivalent, check_lazy_with},
};

/// New threads for each call.
struct NewThreads;

impl RunTasks for NewThreads {
    fn threads(&self) -> usize {
        3
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        thread::scope(|scope| {
            for number in 0..tasks {
                scope.spawn(move || task(number));
            }
        });
    }
}

/// Enough elements for three threads. In Miri, calls are shared from fewer elements on.
const LEN: usize = if cfg!(miri) { 300 } else { 100_000 };

fn exec(threads: Threads<'_>) -> Exec<'_> {
    // Miri has no other instruction set.
    Exec { isa: cfg!(miri).then_some(Isa::Scalar), threads }
}

fn options() -> StepOptions<'static> {
    StepOptions {
        exec: exec(Threads::Tasks(&NewThreads)),
        grad_factor: 0.5,
        max_norm: Some(1e4),
        ..StepOptions::default()
    }
}

/// A number of an ordinary magnitude.
fn value(column: usize, place: usize) -> f32 {
    ordinary(column, (place as u64 ^ 0x55).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// Types by a number: of parameters, gradients and moments each one after the other.
fn types(number: usize) -> Types {
    Types {
        param: ParamType::ALL[number % ParamType::ALL.len()],
        grad: GradType::ALL[number % GradType::ALL.len()],
        to_zero: number.is_multiple_of(2),
        moments: [0, 1, 0, 1].map(|moment| MomentType::ALL[(number / 2 + moment) % 4]),
    }
}

#[test]
fn tensors_of_every_type_are_shared() {
    let pool = Pool::new(3).expect("threads");
    let adam: Rc<dyn AnyRule> = Rc::new(Adam::adamw());
    let kinds: Vec<_> = (0..ParamType::ALL.len()).map(|number| Some(types(number))).collect();
    let lent = Threads::Tasks(&NewThreads);
    for (number, threads) in [Threads::Pool(&pool), lent].into_iter().enumerate() {
        // In Miri, half of the types for each way to share.
        let kinds = kinds.chunks(4).skip(if cfg!(miri) { number } else { 0 });
        let kinds = kinds.step_by(if cfg!(miri) { 2 } else { 1 });
        for kinds in kinds.chain([&[None; 2][..]]) {
            let tensors = kinds.iter().zip(1..).map(|(&types, seed)| {
                // Those whose seeds are multiples of 5 have special values.
                adam.tensor(seed, LEN / kinds.len(), 3, types)
            });
            let model = Model(vec![(Rc::clone(&adam), tensors.collect())]);
            // Some gradients are infinite in f16, and so is their norm.
            let options = StepOptions { exec: exec(threads), max_norm: None, ..options() };
            assert_eq!(model.check(1, &options), [Some(Outcome::Taken)]);
        }
    }
}

/// Rows of a table in no particular order, some of them twice.
fn places(rows: usize) -> Vec<usize> {
    (0..rows).map(|index| index * 7 % (rows - rows / 8)).collect()
}

const WIDTH: usize = 24;
const ROWS: usize = LEN / WIDTH;

fn listed(number: usize) -> Listed<f32> {
    let value = |place| value(1, place + number);
    Listed::new(IndexType::U32, places(ROWS), WIDTH, value)
}

#[test]
fn rows_of_a_table_are_shared() {
    let adam = Adam::default();
    let table = RowColumns::new(&adam, ROWS, WIDTH, value);
    check_lazy_with(&adam, 3, &table, &[listed(0)], options(), 0);
    let row_wise = RowWiseAdam(adam);
    let table = RowColumns::new(&row_wise, ROWS, WIDTH, value);
    check_lazy_with(&row_wise, 3, &table, &[listed(0)], options(), 0);
}

#[test]
fn rows_of_a_table_in_16_and_8_bits_are_shared() {
    for number in [4, 6] {
        let types = types(number);
        let width = if types.has_blocks() { 256 } else { WIDTH };
        let rows = (LEN / width).max(2);
        let adam = Adam::default();
        let columns = support::Columns::new(&adam, rows * width, value);
        let table = MixedColumns::new(&adam, &columns, types, 7 << 30);
        let values: Vec<f32> = (0..rows * width).map(|place| value(1, place)).collect();
        let listed = MixedListed {
            rows: places(rows).into_iter().map(|row| row as u32).collect(),
            values: RowValues::new(types.grad, &values),
            stride: width,
        };
        check_rows(&adam, 3, &table, width, [&listed], &options());
    }
}

#[test]
fn rows_that_catch_up_are_shared() {
    let adam = Adam::adamw();
    for way in [CatchUp::Series, CatchUp::Replay] {
        let table = RowColumns::new(&adam, ROWS, WIDTH, value);
        let some = |number: usize| {
            let Listed { rows, values, .. } = listed(number);
            let count = rows.len() / (number + 1);
            let (rows, values) = (rows[..count].to_vec(), values[..count * WIDTH].to_vec());
            Listed { index_type: IndexType::I64, rows, values, stride: WIDTH }
        };
        let events = [Event::Step(adam, some(0)), Event::Step(adam, some(1)), Event::CatchUpAll];
        check_dense_equivalent(way, 5, &table, &events, exec(Threads::Tasks(&NewThreads)), 0);
    }
}

#[test]
fn gradients_are_shared_where_they_are_added_and_looked_at() {
    let pool = Pool::new(3).expect("threads");
    for threads in [Threads::Pool(&pool), Threads::Tasks(&NewThreads)] {
        let mut sums: Vec<f32> = (0..LEN).map(|place| value(0, place)).collect();
        let mut grad: Vec<_> = (0..LEN).map(|place| bf16::from_f32(value(1, place))).collect();
        let expected: Vec<_> =
            sums.iter().zip(&grad).map(|(sum, grad)| sum + grad.to_f32()).collect();
        accumulate(&mut sums, Grad::zeroed(&mut grad), exec(threads)).expect("equal lengths");
        assert_eq!(sums, expected);
        assert!(grad.iter().all(|&grad| grad == bf16::ZERO));

        sums[LEN - 1] = f32::NAN;
        let grads = [Grad::from(&grad), Grad::from(&sums)];
        assert_eq!(first_nonfinite(exec(threads), &grads), Ok(Some(1)));
    }
}

/// Runs the tasks one after the other, and counts them.
#[derive(Default)]
struct Counted(AtomicUsize);

impl RunTasks for Counted {
    fn threads(&self) -> usize {
        3
    }

    fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        self.0.fetch_add(tasks, Ordering::Relaxed);
        (0..tasks).for_each(task);
    }
}

#[test]
#[cfg_attr(miri, ignore = "there, every batch is shared")]
fn a_small_batch_is_shared_if_the_whole_table_catches_up_first() {
    const WIDTH: usize = 4;
    let (rows, values) = (LEN / WIDTH, [1.0_f32; WIDTH]);
    let adam = Adam::default();
    let mut state = adam.row_state(rows, WIDTH);
    let mut waiting = DenseEquivalent::<f32>::new(rows, CatchUp::Replay);
    let (mut param, mut scratch) = (vec![1.0_f32; rows * WIDTH], RowScratch::default());
    // The number of tasks of a step on the first row.
    let mut tasks_of = |adam: &Adam| {
        let counted = Counted::default();
        let options =
            StepOptions { exec: exec(Threads::Tasks(&counted)), ..StepOptions::default() };
        let grads = RowGrads::new(&[0_u32], &values, WIDTH).sort(rows, &mut scratch);
        let grads = grads.expect("a row of the table");
        let param = (&mut param).into();
        let report =
            adam.step_rows_dense_equivalent_with(param, grads, &mut state, &mut waiting, &options);
        assert_eq!(report.expect("a valid step").outcome, Outcome::Taken);
        counted.0.into_inner()
    };
    assert_eq!([tasks_of(&adam), tasks_of(&adam)], [0, 0]);
    // Another decay: all rows take the steps with the old one first.
    assert!(tasks_of(&Adam { beta2: 0.99, ..adam }) > 1);
}
