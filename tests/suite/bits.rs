//! The kernels give the bits of `reference`: on every instruction set, at every offset, length
//! and cut, on any number of threads.

use std::marker::PhantomData;

use crate::support::{
    Columns, DenseRule, Draw, ForEachRule, Way, WithRule, check, columns, exec, execs,
    for_each_negative_zero, for_each_pair, for_each_rule, with_rule,
};
use adamant::{
    Adam, Isa, Optimizer, Outcome, StepOptions,
    reference::Reference,
    rule::{BuiltIn, Float, Lanes, Rule},
};
use proptest::prelude::{Just, ProptestConfig, any, prop, prop_oneof, proptest};
use rand::{Rng, SeedableRng, rngs::ChaCha8Rng};

/// Lengths at which a kernel may go wrong.
const LENGTHS: [usize; 24] = [
    0, 1, // empty, lone tail
    2, 3, 4, 5, // around a NEON register of f32, an AVX2 register of f64
    7, 8, 9, // around an AVX2 register of f32, an AVX-512 register of f64
    15, 16, 17, // around an AVX-512 register of f32
    31, 32, 33, // two registers, for what an unrolled loop leaves over
    63, 64, 65, // around a cache line and the grain of a cut
    127, 128, 129, // around several
    255, 257, 1000, // many registers and a tail
];

/// Long enough to be cut for threads: around twice the smallest piece, and well above.
#[cfg(feature = "rayon")]
const THREADED: [usize; 5] = [16_383, 16_384, 16_385, 50_001, 130_003];

struct EveryIsaLengthAndOffset<F>(PhantomData<F>);

impl<F: Float> EveryIsaLengthAndOffset<F> {
    fn check(rule: &dyn DenseRule<F>) {
        for exec in execs(false) {
            for (seed, len) in LENGTHS.into_iter().enumerate() {
                let before = columns(rule, seed as u64, len, true);
                check(rule, 1..3, &before, &Way::whole(exec));
            }
            for offset in 0..64 / size_of::<F>() {
                let before = columns(rule, offset as u64, 100, true);
                check(rule, 7..9, &before, &Way { offset, ..Way::whole(exec) });
            }
        }
    }
}

impl<F: Float> ForEachRule for EveryIsaLengthAndOffset<F> {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        Self::check(&rule);
    }
}

#[test]
fn every_isa_length_and_offset_gives_the_reference_bits_f32() {
    for_each_rule(&mut EveryIsaLengthAndOffset::<f32>(PhantomData));
}

#[test]
fn every_isa_length_and_offset_gives_the_reference_bits_f64() {
    for_each_rule(&mut EveryIsaLengthAndOffset::<f64>(PhantomData));
}

struct EveryIsa<F>(PhantomData<F>);

impl<F: Float> EveryIsa<F> {
    fn check(rule: &dyn DenseRule<F>) {
        for exec in execs(false) {
            check(rule, 1..4, &columns(rule, 3, 100, true), &Way::whole(exec));
        }
    }
}

impl<F: Float> ForEachRule for EveryIsa<F> {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        Self::check(&rule);
    }
}

#[test]
fn every_pair_of_choices_gives_the_reference_bits() {
    for_each_pair(&mut EveryIsa::<f32>(PhantomData));
    for_each_pair(&mut EveryIsa::<f64>(PhantomData));
}

/// The first step of ADOPT turned a parameter of -0 into 0 where the learning rate was -0.
#[test]
fn settings_of_negative_zero_give_the_reference_bits() {
    for_each_negative_zero(&mut EveryIsa::<f32>(PhantomData));
    for_each_negative_zero(&mut EveryIsa::<f64>(PhantomData));
}

#[cfg(feature = "rayon")]
fn every_thread_count<F: Float>() {
    for threads in [1, 2, 3, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        for exec in execs(true) {
            for (seed, len) in THREADED.into_iter().enumerate() {
                let before = columns::<F>(&Adam::adamw(), seed as u64, len, true);
                let cuts = vec![3, 100, 101, 1_101, 9_000, 9_000, 40_000];
                for way in [Way::whole(exec), Way { cuts, offset: 3, ..Way::whole(exec) }] {
                    pool.install(|| check(&Adam::adamw(), 3..4, &before, &way));
                }
            }
        }
    }
}

#[cfg(feature = "rayon")]
#[test]
fn every_thread_count_gives_the_reference_bits_f32() {
    every_thread_count::<f32>();
}

#[cfg(feature = "rayon")]
#[test]
fn every_thread_count_gives_the_reference_bits_f64() {
    every_thread_count::<f64>();
}

/// In a pool of three threads, which cut every tensor here.
#[cfg(feature = "rayon")]
struct EveryRuleCut<F>(rayon::ThreadPool, PhantomData<F>);

#[cfg(feature = "rayon")]
impl<F: Float> EveryRuleCut<F> {
    fn check(&self, rule: &dyn DenseRule<F>) {
        let before = columns(rule, 11, 40_003, true);
        let way = Way { cuts: vec![257, 30_000], ..Way::whole(exec(Isa::detect(), true)) };
        self.0.install(|| check(rule, 2..3, &before, &way));
    }
}

#[cfg(feature = "rayon")]
impl<F: Float> ForEachRule for EveryRuleCut<F> {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        self.check(&rule);
    }
}

#[cfg(feature = "rayon")]
#[test]
fn every_optimizer_cut_for_threads_gives_the_reference_bits() {
    let pool = || rayon::ThreadPoolBuilder::new().num_threads(3).build().expect("a pool");
    for_each_rule(&mut EveryRuleCut::<f32>(pool(), PhantomData));
    for_each_rule(&mut EveryRuleCut::<f64>(pool(), PhantomData));
}

/// The global pool, entered from a thread that is in none; see RAYON_NUM_THREADS in `.ci/run`.
#[test]
fn a_call_from_outside_the_pool_gives_the_reference_bits() {
    for exec in execs(true) {
        for len in [40_000, 100_000, 300_007] {
            let before = columns(&Adam::default(), len as u64, len, false);
            check::<f32>(&Adam::default(), 1..2, &before, &Way::whole(exec));
        }
    }
}

#[test]
fn many_small_tensors_at_once_are_like_each_alone() {
    for exec in execs(true) {
        let before = columns::<f32>(&Adam::default(), 5, 40_000, true);
        for every in [1, 63, 64, 1024, 9000] {
            let cuts: Vec<usize> = (0..40_000).step_by(every).collect();
            for at_once in [true, false] {
                let way = Way { cuts: cuts.clone(), at_once, ..Way::whole(exec) };
                check(&Adam::default(), 2..3, &before, &way);
            }
        }
    }
}

/// A step of an optimizer with hyper-parameters from a seed.
struct AnyStep {
    seed: u64,
    t: u64,
    len: usize,
    way: Way,
}

impl WithRule for &AnyStep {
    fn run<R: BuiltIn>(self) {
        self.check::<R, f32>();
        self.check::<R, f64>();
    }
}

impl AnyStep {
    fn check<R: BuiltIn, F: Float>(&self) {
        let Self { seed, t, .. } = *self;
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut bits = || random.next_u64();
        let rule = loop {
            let mut draw = Draw::new(&mut bits);
            let rule: R = draw.rule();
            let holds = |&constant: &f64| F::from_f64(constant).is_finite();
            if draw.in_range && rule.constants(t).as_ref().iter().all(holds) {
                break rule;
            }
        };
        self.check_rule::<F>(&rule);
    }

    fn check_rule<F: Float>(&self, rule: &dyn DenseRule<F>) {
        let before = columns(rule, self.seed, self.len, self.seed.is_multiple_of(2));
        check(rule, [self.t], &before, &self.way);
    }
}

proptest! {
    // A case that fails is printed, and becomes a test with a name.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_step_gives_the_reference_bits(
        row: u8,
        seed: u64,
        t in prop_oneof![1..100u64, 1..u64::MAX, Just(u64::MAX)],
        len in 0..3000usize,
        offset in 0..16usize,
        cuts in prop::collection::vec(any::<usize>(), 0..4),
        at_once: bool,
        isa in prop::sample::select(Isa::available()),
    ) {
        let way = Way { exec: exec(isa, true), offset, cuts, at_once };
        with_rule(row, &AnyStep { seed, t, len, way });
    }
}

/// An average moves in one of two ways: one for a beta below a half, one for larger betas. The beta decides after
/// it was rounded to the type of the step.
#[test]
fn a_beta_that_rounds_to_a_half_gives_the_reference_bits() {
    for beta in [0.5, 0.5 - 1e-12, 0.5 + 1e-12] {
        let adam = Adam { beta1: beta, beta2: beta, ..Adam::default() };
        for exec in execs(false) {
            check::<f32>(&adam, 1..4, &columns(&adam, 1, 100, true), &Way::whole(exec));
        }
    }
}

/// A rule outside the crate that uses the operations of [`Lanes`] that Adam does not use.
#[derive(Clone, Copy, Debug)]
struct EveryOperation;

impl EveryOperation {
    #[inline(always)]
    fn formula<L: Lanes>(param: L, grad: L, m: L) -> (L, L) {
        let clipped = grad.max(param.splat(-0.5)).min(param.splat(0.5)) - m.abs();
        let sign = L::select(m.less_than(-grad), param, clipped / grad);
        // In `f32`, the first one becomes 0.
        let rounded = grad.splat(1e-60) * grad.splat(1e38);
        (sign.sqrt() + param * m + rounded, clipped.mul_add(sign, grad))
    }
}

impl Rule for EveryOperation {
    type Moments = adamant::rule::Count<1>;
    type Constants = adamant::rule::Count<0>;
    const MOMENT_NAMES: [&'static str; 1] = ["m"];

    fn check(&self) -> Result<(), adamant::Error> {
        Ok(())
    }

    fn constants(&self, _t: u64) -> [f64; 0] {
        []
    }

    #[inline(always)]
    fn update<L: Lanes>(&self, _k: &[L; 0], param: L, grad: L, [m]: [L; 1]) -> (L, [L; 1]) {
        let (param, m) = Self::formula(param, grad, m);
        (param, [m])
    }
}

impl Reference for EveryOperation {
    fn reference<F: Float>(&self, _t: u64, param: &mut [F], grad: &[F], [m]: [&mut [F]; 1]) {
        for ((param, &grad), m) in param.iter_mut().zip(grad).zip(m) {
            (*param, *m) = Self::formula(*param, grad, *m);
        }
    }
}

#[test]
fn every_operation_on_registers_gives_the_bits_of_plain_numbers() {
    for exec in execs(false) {
        let way = Way::whole(exec);
        let rule = &EveryOperation;
        check(rule, 1..4, &columns::<f32>(rule, 1, 5000, true), &way);
        check(rule, 1..4, &columns::<f64>(rule, 2, 5000, true), &way);
    }
}

#[test]
fn infinities_and_nan_stay_in_their_element() {
    for exec in execs(false) {
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN] {
            let mut columns = Columns::<f32>::new(&Adam::default(), 40, |_, _| 0.5);
            columns.grad[20] = bad;
            let (mut steps, options) = (0, StepOptions { exec, ..StepOptions::default() });
            let tensor = columns.tensor(&mut steps);
            let report = Adam::default().step_tensors(&mut [tensor], &options);
            assert_eq!(report.expect("a valid step").outcome, Outcome::Taken);
            for column in [&columns.param, &columns.moments[0], &columns.moments[1]] {
                let finite = column.iter().enumerate().filter(|(_, x)| x.is_finite());
                assert_eq!(finite.count(), 39 + usize::from(column[20].is_finite()));
            }
            assert!(!columns.moments[0][20].is_finite());
        }
    }
}
