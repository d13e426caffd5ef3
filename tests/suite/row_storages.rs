//! Tables in any storage: a step on listed rows is a step of the dense reference on each of them, with
//! the gradient that is the row's sum, on every instruction set and any number of threads.

use crate::support::{
    AnyRule, Columns, Draw, ForEachRule, WithRule, exec, execs, for_each_rule,
    mixed::{
        GradType, MixedColumns, MixedListed, MomentType, ParamType, RowValues, Types, check_rows,
    },
    number, ordinary, serial, with_rule,
};
use adamant::{
    Adam, Error, Exec, Isa, Lion, Outcome, Param, Report, StepOptions, Storage,
    rule::BuiltIn,
    table::{CatchUp, DenseEquivalent, RowGrads, RowOptimizer, RowScratch, RowWiseAdam, Table},
};
use half::{bf16, f16};
use proptest::prelude::{ProptestConfig, prop, proptest};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

fn options() -> StepOptions<'static> {
    StepOptions { exec: serial(), ..StepOptions::default() }
}

/// A table, and the gradients of some steps.
struct Run {
    rng: ChaCha8Rng,
    special: bool,
    rows: usize,
    width: usize,
    types: Types,
}

impl Run {
    fn new(seed: u64, rows: usize, width: usize, types: Types) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self { rng, special: seed.is_multiple_of(4), rows, width, types }
    }

    fn value(&mut self, column: usize) -> f32 {
        let bits: u64 = self.rng.random();
        if self.special { number(bits) } else { ordinary(column, bits) }
    }

    fn table(&mut self, rule: &dyn AnyRule) -> MixedColumns {
        let columns = Columns::new(rule, self.rows * self.width, |column, _| self.value(column));
        // The upper half of the elements' numbers changes within the table.
        MixedColumns::new(rule, &columns, self.types, (1 << 32) - 100)
    }

    /// `count` rows and their values. In a small table, many rows are duplicates.
    fn listed(&mut self, count: usize) -> MixedListed {
        let stride = self.width + 1;
        let rows = (0..count).map(|_| self.rng.random_range(0..self.rows) as u32).collect();
        let values: Vec<f32> = (0..count * stride).map(|_| self.value(1)).collect();
        MixedListed { rows, values: RowValues::new(self.types.grad, &values), stride }
    }

    /// Takes steps on `counts` listed rows, the first with number `t`. Fails unless they give the bits of the
    /// reference.
    #[track_caller]
    fn check(mut self, rule: &dyn AnyRule, t: u64, counts: &[usize], options: &StepOptions<'_>) {
        let table = self.table(rule);
        let steps: Vec<_> = counts.iter().map(|&count| self.listed(count)).collect();
        check_rows(rule, t, &table, self.width, &steps, options);
    }
}

fn every_types() -> impl Iterator<Item = Types> {
    ParamType::ALL.into_iter().flat_map(|param| {
        GradType::ALL.into_iter().flat_map(move |grad| {
            MomentType::ALL.into_iter().flat_map(move |first| {
                MomentType::ALL.into_iter().map(move |second| {
                    let moments = [first, second, MomentType::F32, first];
                    Types { param, grad, to_zero: false, moments }
                })
            })
        })
    })
}

/// The width that a number chooses: near the width of registers, and of the tile in which duplicates are added up;
/// whole blocks if moments are in 8 bits.
fn width(number: usize, types: &Types) -> usize {
    match types.has_blocks() {
        true => [256, 512, 1280][number % 3],
        false => [1, 3, 15, 16, 17, 33, 64, 100, 256, 1030][number % 10],
    }
}

#[test]
fn every_combination_of_types_gives_the_reference_bits() {
    for (number, types) in every_types().enumerate() {
        let seed = number as u64;
        let options = StepOptions {
            grad_factor: if seed.is_multiple_of(2) { 1.0 } else { 0.37 },
            flush_subnormals: seed.is_multiple_of(5),
            skip_nonfinite: seed % 8 == 4,
            max_norm: (seed % 4 == 1).then_some(0.5),
            seed,
            ..StepOptions::default()
        };
        for exec in execs(false) {
            let options = StepOptions { exec, ..options };
            let run = Run::new(seed, 6, width(number, &types), types);
            run.check(&Adam::adamw(), 1 + seed, &[4, 0, 9], &options);
        }
    }
}

struct EveryRule;

impl EveryRule {
    fn check(rule: &dyn AnyRule) {
        for exec in execs(false) {
            for (number, moment) in MomentType::ALL.into_iter().enumerate() {
                let (param, grad) =
                    (ParamType::ALL[(2 * number + 1) % 7], GradType::ALL[number % 3]);
                let types = Types { param, grad, to_zero: false, moments: [moment; 4] };
                let options = StepOptions { exec, ..StepOptions::default() };
                let run = Run::new(1 + number as u64, 6, width(6 + number, &types), types);
                run.check(rule, 5, &[5, 8], &options);
            }
        }
    }
}

impl ForEachRule for EveryRule {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        Self::check(&rule);
    }
}

#[test]
fn every_optimizer_gives_the_reference_bits() {
    for_each_rule(&mut EveryRule);
}

const HALVES: Types = Types {
    param: ParamType::Bf16Stochastic,
    grad: GradType::Bf16,
    to_zero: false,
    moments: [MomentType::Bf16; 4],
};

#[cfg(feature = "rayon")]
#[test]
fn every_thread_count_gives_the_reference_bits() {
    let blocks = Types {
        moments: [MomentType::Q8, MomentType::F16, MomentType::F32, MomentType::F32],
        ..HALVES
    };
    for threads in [1, 2, 3, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        for exec in execs(true) {
            for (rows, width, count, types) in
                [(900, 40, 1500, HALVES), (1, 40, 900, HALVES), (150, 256, 200, blocks)]
            {
                let options = StepOptions { exec, max_norm: Some(1.0), ..StepOptions::default() };
                let run = Run::new(threads as u64, rows, width, types);
                pool.install(|| run.check(&Adam::default(), 3, &[count, count / 2], &options));
            }
        }
    }
}

/// If all rows of a table are listed, they are rounded with the random bits of a dense step.
#[test]
fn a_step_on_all_rows_has_the_bits_of_a_dense_step() {
    let adam = Adam::adamw();
    let (rows, width) = (9, 256);
    for moment in MomentType::ALL {
        let types = Types { grad: GradType::F32, moments: [moment; 4], ..HALVES };
        let mut run = Run::new(7, rows, width, types);
        let mut dense = run.table(&adam);
        let mut table = dense.clone();
        let options = StepOptions { seed: 5, ..options() };
        for t in 1..4 {
            let grads: Vec<f32> = (0..rows * width).map(|_| run.value(1)).collect();
            dense.set_grad(&grads);
            table.set_grad(&grads);
            assert_eq!(dense.step(&adam, &options), Outcome::Taken);
            let (listed, mut scratch): (Vec<_>, _) = ((0..rows).collect(), RowScratch::default());
            let sorted = RowGrads::new(&listed, &grads, width).sort(rows, &mut scratch);
            let sorted = sorted.expect("rows of the table");
            let report = adam.step_rows_lazy_on(t, table.table(width), sorted, &options);
            assert_eq!(report.map(|report| report.outcome), Ok(Outcome::Taken));
            table.steps = t;
        }
        table.assert_same_bits(&dense, &|| format!("{types:?}"));
    }
}

/// Moments and parameters that adamant and the caller own, in each storage.
#[test]
fn tables_are_stepped_with_a_state_in_every_storage() {
    let adam = Adam { lr: 0.25, ..Adam::default() };
    for storage in [Storage::F32, Storage::Bf16, Storage::F16, Storage::Q8] {
        let width = 256;
        let mut state = adam.row_state_in(storage, 4, width);
        let mut param = vec![bf16::ONE; 4 * width];
        for _ in 0..2 {
            let values = vec![bf16::ONE; 2 * width];
            let grads = RowGrads::new(&[2_u32, 2], &values, width);
            assert_eq!(adam.step_rows_lazy(&mut param, grads, &mut state), Ok(()));
        }
        assert_eq!(state.steps(), 2);
        assert_eq!((param[2 * width].to_f32() * 8.0).round(), 4.0, "{storage:?}");
        assert!([0, width, 3 * width].iter().all(|&place| param[place] == bf16::ONE));
    }
}

/// A table for a state, and the error of a step with it.
fn refused(step: Result<Report, Error>, expected: Error, message: &str) {
    assert_eq!(expected.to_string(), message);
    assert_eq!(step, Err(expected));
}

#[test]
fn rows_that_are_no_whole_blocks_are_refused_for_moments_of_8_bits() {
    let adam = Adam::default();
    let (mut param, mut state) = (vec![1.0_f32; 10 * 64], adam.row_state_in(Storage::Q8, 10, 64));
    let values = vec![1.0_f32; 64];
    let found = adam.step_rows_lazy(&mut param, RowGrads::new(&[7_u32], &values, 64), &mut state);
    let message = "exp_avg is in 8 bits, where 256 elements of a row share a scale, so its rows cannot be \
                   64 wide: use a multiple of 256, or keep it in bf16";
    let expected = Error::RowsInBlocks { moment: "exp_avg", width: 64 };
    assert_eq!(expected.to_string(), message);
    assert_eq!((found, state.steps()), (Err(expected), 0));
    assert_eq!(param, [1.0; 640]);
}

#[test]
fn a_moment_of_8_bits_with_other_scales_is_refused() {
    let (mut param, mut codes, mut scales) = (vec![bf16::ONE; 512], vec![0; 512], vec![0.0; 3]);
    let table =
        Table::new(&mut param, 256).with_moments([adamant::Moment::q8(&mut codes, &mut scales)]);
    let (values, mut scratch) = (vec![bf16::ONE; 256], RowScratch::default());
    let sorted = RowGrads::new(&[1_u32], &values, 256).sort(2, &mut scratch).expect("a row");
    let found = Lion::default().step_rows_lazy_on(1, table, sorted, &options());
    let expected = Error::ScalesMismatch { tensor: 0, moment: "exp_avg", len: 3, expected: 2 };
    assert_eq!(found, Err(expected));
}

#[test]
fn a_copy_or_a_half_of_another_length_is_refused() {
    let (mut param, mut copy, mut low) = (vec![1.0; 8], vec![f16::ONE; 7], vec![0; 9]);
    let (mut high, mut exp_avg) = (vec![bf16::ONE; 8], vec![0.0_f32; 8]);
    let (values, mut scratch) = (vec![1.0_f32; 4], RowScratch::default());
    let mut step = |param: Param<'_>| {
        let table = Table::new(param, 4).with_moments([(&mut exp_avg).into()]);
        let sorted = RowGrads::new(&[1_u32], &values, 4).sort(2, &mut scratch).expect("a row");
        Lion::default().step_rows_lazy_on(1, table, sorted, &options())
    };
    let mismatch = |argument, len| Error::LengthMismatch { tensor: 0, argument, len, expected: 8 };
    let found = step(Param::with_copy(&mut param, &mut copy));
    refused(
        found,
        mismatch("copy of param", 7),
        "copy of param of tensor 0 has 7 elements, but must have 8",
    );
    let found = step(Param::from_halves(&mut high, &mut low));
    assert_eq!(found, Err(mismatch("low half of param", 9)));
}

#[test]
fn steps_that_take_one_type_refuse_others() {
    let adam = Adam::default();
    let (mut param, values) = (vec![bf16::ONE; 8], vec![1.0_f32; 4]);
    let mut scratch = RowScratch::default();
    let row_wise = RowWiseAdam(adam);
    let mut state = row_wise.row_state(2, 4);
    let sorted = RowGrads::new(&[1_u32], &values, 4).sort(2, &mut scratch).expect("a row");
    let (found, expected) = (Storage::Bf16, Storage::F32);
    let storage = |argument, method| Error::TableStorage { argument, found, method, expected };
    refused(
        row_wise.step_rows_lazy_with((&mut param).into(), sorted, &mut state, &options()),
        storage("param", "RowWiseAdam"),
        "param of the table is bf16, but RowWiseAdam needs f32",
    );

    let mut state = adam.row_state(2, 4);
    let mut waiting = DenseEquivalent::<f32>::new(2, CatchUp::Replay);
    let mut dense = |param: Param<'_>, values: RowGrads<'_, u32, bf16>| {
        let sorted = values.sort(2, &mut scratch).expect("a row");
        adam.step_rows_dense_equivalent_with(param, sorted, &mut state, &mut waiting, &options())
    };
    let halves = vec![bf16::ONE; 4];
    let grads = RowGrads::new(&[1_u32], &halves, 4);
    assert_eq!(dense((&mut param).into(), grads), Err(storage("param", "DenseEquivalent")));
    let mut single = vec![1.0_f32; 8];
    assert_eq!(dense((&mut single).into(), grads), Err(storage("grad", "DenseEquivalent")));
    let mut double = vec![1.0_f64; 8];
    let (found, expected) = (Storage::F32, Storage::F64);
    let mismatch = Error::TypeMismatch { tensor: 0, argument: "exp_avg", found, expected };
    assert_eq!(dense((&mut double).into(), grads), Err(mismatch));
    assert_eq!((param, single, double), (vec![bf16::ONE; 8], vec![1.0; 8], vec![1.0; 8]));
    assert_eq!((state.steps(), waiting.step()), (0, 0));
}

/// Lazy steps of an optimizer with hyper-parameters from a seed.
struct AnySteps {
    seed: u64,
    rows: usize,
    width: usize,
    types: Types,
    counts: Vec<usize>,
    exec: Exec<'static>,
}

impl WithRule for &AnySteps {
    fn run<R: BuiltIn>(self) {
        let seed = self.seed;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let t = 1 + seed % 1000;
        let rule = loop {
            let mut bits = || rng.random();
            let mut draw = Draw::new(&mut bits);
            let rule: R = draw.rule();
            let holds = |&constant: &f64| (constant as f32).is_finite();
            let fits = |t| rule.constants(t).as_ref().iter().all(holds);
            if draw.in_range && (t..).take(self.counts.len()).all(fits) {
                break rule;
            }
        };
        self.check(&rule, t);
    }
}

impl AnySteps {
    fn check(&self, rule: &dyn AnyRule, t: u64) {
        let Self { seed, rows, width, types, exec, .. } = *self;
        let options = StepOptions {
            exec,
            grad_factor: if seed & 1 == 0 { 1.0 } else { 0.37 },
            flush_subnormals: seed & 2 == 0,
            skip_nonfinite: seed & 8 == 0,
            seed,
            ..StepOptions::default()
        };
        Run::new(seed, rows, width, types).check(rule, t, &self.counts, &options);
    }
}

proptest! {
    // A case that fails is printed, and becomes a test with a name.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_steps_give_the_reference_bits(
        row: u8,
        seed: u64,
        rows in 1..60usize,
        width in 1..80usize,
        counts in prop::collection::vec(0..40usize, 1..4),
        param in prop::sample::select(ParamType::ALL.to_vec()),
        grad in prop::sample::select(GradType::ALL.to_vec()),
        moments in prop::array::uniform4(prop::sample::select(MomentType::ALL.to_vec())),
        isa in prop::sample::select(Isa::available()),
        parallel: bool,
    ) {
        let types = Types { param, grad, to_zero: false, moments };
        let (rows, width) = match types.has_blocks() {
            true => (1 + rows / 8, 256 * (1 + width % 2)),
            false => (rows, width),
        };
        with_rule(row, &AnySteps { seed, rows, width, types, counts, exec: exec(isa, parallel) });
    }
}
