//! The steps that rows may have to catch up with.

use std::collections::VecDeque;

use super::{
    CatchUp,
    series::{self, Decay, Series},
    typed::TypedTable,
};
use crate::{
    Adam, Error,
    array::Float,
    isa::Cpu,
    kernel::{pairs_mut, registers, specialise, sweep, wide},
    rule::{AdamConstants, Count, Rule},
    simd::{Lanes, Simd, TILE, TOGETHER, Vector, Wide, WithSimd},
    tensor::Slices,
};

/// The latest steps of a table, and the rule that took them.
#[derive(Clone)]
pub(super) struct History<F: Float> {
    way: CatchUp,
    /// How many steps are kept.
    reach: usize,
    /// The rule of all steps that are kept; they may differ in what [`is_like`] allows.
    rule: Option<Adam>,
    /// The constants of each step, the latest last.
    steps: VecDeque<[F; AdamConstants::COUNT]>,
    series: Series,
}

/// For so few steps the series gains little; one by one, they have the bits of dense steps.
const FEW: usize = 3;

/// Whether the steps of two rules may be in one history: they may differ in learning rate and in strength
/// of weight decay only.
fn is_like(a: &Adam, b: &Adam) -> bool {
    let decays = |adam: &Adam| f64::from(adam.weight_decay != 0.0);
    Adam { lr: a.lr, weight_decay: decays(a), ..*a }
        == Adam { lr: a.lr, weight_decay: decays(b), ..*b }
}

impl<F: Float> History<F> {
    pub(super) fn new(way: CatchUp, reach: usize) -> Self {
        Self { way, reach, rule: None, steps: VecDeque::new(), series: Series::default() }
    }

    pub(super) fn reach(&self) -> usize {
        self.reach
    }

    /// The steps of work that it takes to catch up with `lag` steps.
    pub(super) fn steps_to_take(&self, lag: usize) -> usize {
        match self.way {
            CatchUp::Series => 1,
            CatchUp::Replay => lag.max(1),
        }
    }

    /// Checks that the steps of a rule can be caught up with.
    pub(super) fn check(&self, rule: &Adam) -> Result<(), Error> {
        match self.way {
            CatchUp::Series => series::check(rule),
            CatchUp::Replay => Ok(()),
        }
    }

    /// Whether a step of the rule can be added to those that are kept.
    pub(super) fn goes_on_with(&self, rule: &Adam) -> bool {
        self.rule.is_none_or(|kept| is_like(&kept, rule))
    }

    /// Forgets all steps.
    pub(super) fn clear(&mut self) {
        self.rule = None;
        self.steps.clear();
    }

    /// Adds step `t`, which [goes on with](Self::goes_on_with) those that are kept.
    pub(super) fn push(&mut self, rule: &Adam, t: u64) {
        // As they are. Those of a kernel are fitted to its type, and the sums of the series would differ.
        let constants = rule.constants(t);
        let is_first = self.rule.is_none();
        self.rule = Some(*rule);
        if self.steps.len() == self.reach {
            self.steps.pop_front();
        } else if self.steps.capacity() <= self.reach {
            // All that it will ever take.
            self.steps.reserve_exact(self.reach + 1);
        }
        self.steps.push_back(constants.map(F::constant));
        if self.way == CatchUp::Series {
            if is_first {
                self.series.begin(rule, self.reach);
            }
            self.series.push::<F>(rule, constants);
        }
    }

    /// Asks for the memory by which a row catches up with the last `lag` steps.
    #[inline(always)]
    pub(super) fn prefetch(&self, lag: usize) {
        if lag > FEW && self.way == CatchUp::Series {
            self.series.prefetch(lag);
        }
    }

    /// The first `count` of the last `lag` steps, one by one.
    #[inline(always)]
    fn replay<S: Simd>(
        &self,
        simd: S,
        lag: usize,
        count: usize,
        param: &mut [F],
        moments: [&mut [F]; 2],
    ) {
        let Some(rule) = self.rule else { return };
        let start = self.steps.len() - lag;
        let (front, back) = self.steps.as_slices();
        let within = |slice: &[_], place: usize| place.min(slice.len());
        let (cut, end) = (front.len(), start + count);
        let front = &front[within(front, start)..within(front, end)];
        let back = &back[start.saturating_sub(cut)..end.saturating_sub(cut)];
        let mut columns = Some((param, moments));
        specialise::<S, Adam>(
            rule,
            #[inline(always)]
            |rule| {
                if let Some((param, moments)) = columns.take() {
                    Replay { simd, rule, steps: [front, back] }.run(param, moments);
                }
            },
        );
    }

    /// All of the last `lag` steps at once; one by one for the parameters for which the series does
    /// not converge fast enough.
    #[inline(always)]
    fn jump<S: Simd, const N: usize>(
        &self,
        simd: S,
        cpu: Cpu,
        lag: usize,
        row: TypedTable<'_, Adam, F>,
    ) {
        let jump = self.series.jump::<F, N>(lag);
        let k = jump.constants.map(
            #[inline(always)]
            |k| Vector::splat(simd, k),
        );
        let TypedTable { param, moments: [exp_avg, exp_avg_sq], .. } = row;
        let columns = param.chunks_mut(TILE).zip(exp_avg.chunks_mut(TILE));
        for ((param, exp_avg), exp_avg_sq) in columns.zip(exp_avg_sq.chunks_mut(TILE)) {
            let grad = &F::ZEROS[..param.len()];
            let tensor = Slices { param, grad, moments: [exp_avg, exp_avg_sq] };
            if jump.serves_all() {
                let rule = Jump::<N> { decay: jump.decay, largest: jump.largest() };
                sweep(simd, rule, &k, tensor);
            } else {
                self.jump_or_replay(simd, cpu, lag, &jump, &k, tensor);
            }
        }
    }

    /// [`jump`](Self::jump) for a tile, where the series does not serve all parameters.
    #[inline(always)]
    fn jump_or_replay<S: Simd, const N: usize>(
        &self,
        simd: S,
        cpu: Cpu,
        lag: usize,
        jump: &series::Jump<F, N>,
        k: &[Vector<S, F>; N],
        tensor: Slices<'_, Jump<N>, F>,
    ) {
        let Slices { param, grad, moments: [exp_avg, exp_avg_sq] } = tensor;
        let len = param.len();
        let mut left_out = [false; TILE];
        let moments = exp_avg.iter().zip(&*exp_avg_sq);
        for (left_out, (&m, &v)) in left_out.iter_mut().zip(moments) {
            *left_out = !jump.serves(m, v);
        }
        let left_out = left_out[..len].contains(&true).then_some(left_out);

        let mut replayed = [F::default(); TILE];
        if left_out.is_some() {
            // The way of a parameter does not depend on where it starts. From 0, its steps lose less to
            // rounding.
            let [mut m, mut v] = [[F::default(); TILE]; 2];
            m[..len].copy_from_slice(exp_avg);
            v[..len].copy_from_slice(exp_avg_sq);
            let count = lag.min(self.series.window());
            let moments = [&mut m[..len], &mut v[..len]];
            Replayed { history: self, lag, count, param: &mut replayed[..len], moments }.run(cpu);
            for (replayed, &param) in replayed.iter_mut().zip(&*param) {
                *replayed = jump.arrive(param, *replayed);
            }
        }
        let moments = [exp_avg, exp_avg_sq];
        let rule = Jump::<N> { decay: jump.decay, largest: jump.largest() };
        sweep(simd, rule, k, Slices { param: &mut *param, grad, moments });
        if let Some(left_out) = left_out {
            for ((param, replayed), left_out) in param.iter_mut().zip(replayed).zip(left_out) {
                *param = if left_out { replayed } else { *param };
            }
        }
    }
}

/// Steps with a gradient of zero, taken one by one.
struct Replay<'a, S, F> {
    simd: S,
    rule: Adam,
    /// The constants of the steps; those of the second part come after those of the first.
    steps: [&'a [[F; AdamConstants::COUNT]]; 2],
}

impl<S: Simd, F: Float> Replay<'_, S, F> {
    /// Takes all steps of a few parameters before the next ones, so that memory is read and written once.
    #[inline(always)]
    fn run(&self, param: &mut [F], [exp_avg, exp_avg_sq]: [&mut [F]; 2]) {
        let simd = self.simd;
        let lanes = F::lanes::<S>();
        let whole = param.len() / (lanes * TOGETHER) * (lanes * TOGETHER);
        let (param, param_rest) = param.split_at_mut(whole);
        let (exp_avg, exp_avg_rest) = exp_avg.split_at_mut(whole);
        let (exp_avg_sq, exp_avg_sq_rest) = exp_avg_sq.split_at_mut(whole);

        let param = pairs_mut::<S, F>(param);
        let count = param.len();
        let exp_avg = &mut pairs_mut::<S, F>(exp_avg)[..count];
        let exp_avg_sq = &mut pairs_mut::<S, F>(exp_avg_sq)[..count];
        for i in 0..count {
            let [p, m, v] = [param[i], exp_avg[i], exp_avg_sq[i]];
            let start = [wide::<S, F>(simd, p), wide(simd, m), wide(simd, v)];
            let [p, m, v] = self.steps_of(
                start,
                #[inline(always)]
                |k| Wide([Vector::splat(simd, k); TOGETHER]),
            );
            (param[i], exp_avg[i], exp_avg_sq[i]) = (registers(p), registers(m), registers(v));
        }

        let rest = param_rest.chunks_mut(lanes).zip(exp_avg_rest.chunks_mut(lanes));
        for ((param, exp_avg), exp_avg_sq) in rest.zip(exp_avg_sq_rest.chunks_mut(lanes)) {
            let (m, v) = (Vector::read(simd, exp_avg), Vector::read(simd, exp_avg_sq));
            let start = [Vector::<S, F>::read(simd, param), m, v];
            let [p, m, v] = self.steps_of(
                start,
                #[inline(always)]
                |k| Vector::splat(simd, k),
            );
            p.write(param);
            m.write(exp_avg);
            v.write(exp_avg_sq);
        }
    }

    /// A parameter and its moments after all steps.
    #[inline(always)]
    fn steps_of<L: Lanes>(&self, start: [L; 3], splat: impl Fn(F) -> L) -> [L; 3] {
        let [mut param, mut exp_avg, mut exp_avg_sq] = start;
        let zero = splat(F::default());
        for steps in self.steps {
            for k in steps {
                let mut constants = [zero; AdamConstants::COUNT];
                for (constant, &k) in constants.iter_mut().zip(k) {
                    *constant = splat(k);
                }
                let moments = [exp_avg, exp_avg_sq];
                (param, [exp_avg, exp_avg_sq]) = self.rule.update(&constants, param, zero, moments);
            }
        }
        [param, exp_avg, exp_avg_sq]
    }
}

/// A row that catches up.
pub(super) struct BehindRow<'a, F: Float> {
    pub history: &'a History<F>,
    /// The steps to take, all with a gradient of zero.
    pub lag: usize,
    pub row: TypedTable<'a, Adam, F>,
}

impl<F: Float> BehindRow<'_, F> {
    #[inline]
    pub(super) fn run(self, cpu: Cpu) {
        let Self { history, lag, row } = self;
        if history.way == CatchUp::Replay || lag <= FEW {
            let TypedTable { param, moments, .. } = row;
            Replayed { history, lag, count: lag, param, moments }.run(cpu);
        } else {
            Jumped { cpu, history, lag, row }.run();
        }
    }
}

/// A row for which the first `count` of the last `lag` steps are taken one by one.
struct Replayed<'a, F: Float> {
    history: &'a History<F>,
    lag: usize,
    count: usize,
    param: &'a mut [F],
    moments: [&'a mut [F]; 2],
}

impl<F: Float> Replayed<'_, F> {
    /// Not inlined: the code is long, and each kind of settings has a loop of its own that would repeat it.
    #[inline(never)]
    fn run(self, cpu: Cpu) {
        cpu.run(self);
    }
}

impl<F: Float> WithSimd for Replayed<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { history, lag, count, param, moments } = self;
        history.replay(simd, lag, count, param, moments);
    }
}

/// A row that takes the last `lag` steps at once.
struct Jumped<'a, F: Float> {
    cpu: Cpu,
    history: &'a History<F>,
    lag: usize,
    row: TypedTable<'a, Adam, F>,
}

impl<F: Float> Jumped<'_, F> {
    /// Not inlined, as [`Replayed::run`].
    #[inline(never)]
    fn run(self) {
        self.cpu.run(self);
    }
}

impl<F: Float> WithSimd for Jumped<'_, F> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { cpu, history, lag, row } = self;
        if const { F::TERMS == 6 } {
            history.jump::<S, 10>(simd, cpu, lag, row);
        } else {
            history.jump::<S, 16>(simd, cpu, lag, row);
        }
    }
}

/// Many steps of [`Adam`] with a gradient of zero, as one: see [`Series`] for the formula.
#[derive(Clone, Copy)]
struct Jump<const N: usize> {
    decay: Decay,
    /// The largest inverse of a denominator: see [`series::Jump::largest`].
    largest: f64,
}

impl<const N: usize> Rule for Jump<N> {
    type Moments = Count<2>;
    type Constants = Count<N>;
    const MOMENT_NAMES: [&'static str; 2] = Adam::MOMENT_NAMES;

    fn check(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Not used: each row has constants of its own.
    fn constants(&self, _t: u64) -> [f64; N] {
        [0.0; N]
    }

    #[inline(always)]
    fn update<L: Lanes>(&self, k: &[L; N], param: L, _grad: L, [m, v]: [L; 2]) -> (L, [L; 2]) {
        let [decay, decay1, decay2, eps] = [k[0], k[1], k[2], k[3]];
        // Finite, also where the denominator is subnormal: m is 0 there, and 0 times infinity would be NaN. Without an
        // epsilon it is NaN, as in the steps that were skipped.
        let inverse = (param.splat(1.0) / (v.sqrt() + eps)).min(param.splat(self.largest));
        let near = eps * inverse;
        let mut sum = k[N - 1];
        for &term in k[4..N - 1].iter().rev() {
            sum = (-near).mul_add(sum, term);
        }
        let param = self.decay.arrive(decay, param, m * inverse * sum);
        (param, [decay1 * m, decay2 * v])
    }
}
