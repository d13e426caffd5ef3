//! The cases of tables of which a step touches some rows.

use std::{collections::BTreeSet, time::Duration};

use adamant::{
    Adam, Buffer, Isa, Optimizer, StepOptions, Tensor,
    table::{
        CatchUp, DenseEquivalent, RowGrads, RowOptimizer, RowRule, RowScratch, RowWiseAdam, Table,
    },
};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng, seq::SliceRandom};

use crate::{
    limits::Place,
    plain,
    report::{Measures, Row},
    timing::{Plan, Time, time},
};

/// What a step on some rows means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Lazy,
    DenseEquivalent,
    RowWise,
}

/// How the rows of a step are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// A fifth of the indices are duplicates; all rows of the table have their turn before one comes
    /// again, in another order each time.
    Fresh,
    /// Row k with a probability of 1 / (k + 1): the rows that are met again and again stay in cache.
    Zipf,
}

#[derive(Clone, Copy, Debug)]
pub struct RowCase {
    pub kind: Kind,
    pub choice: Choice,
    /// Whether the arrays lie on huge pages, as adamant's own do.
    pub huge_pages: bool,
    pub rows: usize,
    pub width: usize,
    pub indices: usize,
}

impl RowCase {
    pub fn name(&self) -> String {
        let kind = match self.kind {
            Kind::Lazy => "rows-lazy",
            Kind::DenseEquivalent => "rows-dense-equivalent",
            Kind::RowWise => "rows-rowwise",
        };
        let Self { width, indices, .. } = self;
        let choice = if self.choice == Choice::Zipf { "-zipf" } else { "" };
        let huge = if self.huge_pages { "-huge" } else { "" };
        let small = if self.rows < MANY { "-cached" } else { "" };
        format!("{kind}-{width}x{indices}{choice}{small}{huge}")
    }

    /// All cases, or those that a run in a hurry has time for.
    pub fn all(quick: bool) -> Vec<Self> {
        let mut cases = vec![];
        for kind in [Kind::Lazy, Kind::DenseEquivalent, Kind::RowWise] {
            let fresh = Self {
                kind,
                choice: Choice::Fresh,
                huge_pages: false,
                rows: if quick { MANY / 4 } else { MANY },
                width: 64,
                indices: 4096,
            };
            cases.push(fresh);
            cases.push(Self { rows: 2048, indices: 1024, ..fresh });
            if quick {
                continue;
            }
            cases.push(Self { huge_pages: true, ..fresh });
            cases.push(Self { choice: Choice::Zipf, ..fresh });
            cases.push(Self { indices: 65_536, ..fresh });
            cases.push(Self { indices: 65_536, huge_pages: true, ..fresh });
            cases.push(Self { indices: 65_536, choice: Choice::Zipf, ..fresh });
            cases.push(Self { width: 128, ..fresh });
            cases.push(Self { width: 128, indices: 65_536, ..fresh });
        }
        cases
    }
}

/// Rows of a table that no cache holds.
const MANY: usize = 1 << 20;

/// The indices of a step, and what the limit knows of them.
struct Listed {
    rows: Vec<u32>,
    unique: Vec<u32>,
}

impl Listed {
    fn new(mut rows: Vec<u32>, rng: &mut ChaCha8Rng) -> Self {
        rows.shuffle(rng);
        let unique = BTreeSet::from_iter(rows.iter().copied()).into_iter().collect();
        Self { rows, unique }
    }

    /// As many steps as it takes for every row to have had its turn, twice.
    fn steps(case: &RowCase) -> Vec<Self> {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let unique = (case.indices * 4 / 5).min(case.rows);
        let mut all: Vec<u32> = (0..case.rows as u32).collect();
        let rounds = case.rows.div_ceil(unique).max(2);
        let mut steps = vec![];
        for _ in 0..2 {
            all.shuffle(&mut rng);
            for fresh in all.chunks_exact(unique).take(rounds) {
                let rows = match case.choice {
                    Choice::Fresh => {
                        let again = (unique..case.indices).map(|_| rng.random_range(0..unique));
                        fresh.iter().copied().chain(again.map(|place| fresh[place])).collect()
                    }
                    Choice::Zipf => {
                        // The integral of 1 / (1 + x), inverted; `all` says which row is the k-th.
                        let end = (case.rows as f64 + 1.0).ln();
                        let rank = |share: f64| ((share * end).exp() - 1.0) as usize;
                        let ranks = (0..case.indices).map(|_| rank(rng.random_range(0.0..1.0)));
                        ranks
                            .map(|rank| (rank.min(case.rows - 1) * 7919 % case.rows) as u32)
                            .collect()
                    }
                };
                steps.push(Self::new(rows, &mut rng));
            }
        }
        steps
    }
}

/// Memory of either kind.
enum Memory {
    Pages(Vec<f32>),
    HugePages(Buffer<f32>),
}

impl Memory {
    fn new(len: usize, huge_pages: bool, value: f32) -> Self {
        if huge_pages {
            let mut buffer = Buffer::zeros(len);
            buffer.fill(value);
            Self::HugePages(buffer)
        } else {
            Self::Pages(vec![value; len])
        }
    }

    fn get(&mut self) -> &mut [f32] {
        match self {
            Self::Pages(vec) => vec,
            Self::HugePages(buffer) => buffer,
        }
    }
}

/// The memory of a case, taken in turn by everything that is measured.
pub struct Arrays {
    case: RowCase,
    param: Memory,
    exp_avg: Memory,
    exp_avg_sq: Memory,
    values: Vec<f32>,
    steps: Vec<Listed>,
    next: usize,
}

const ADAM: Adam = Adam {
    lr: 1e-6,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    epsilon: adamant::Epsilon::Standard,
    weight_decay: 0.0,
    decoupled_weight_decay: false,
    maximize: false,
    cautious: false,
};

impl Arrays {
    pub fn new(case: RowCase) -> Self {
        let RowCase { rows, width, indices, huge_pages, .. } = case;
        let len = rows * width;
        let squares = if case.kind == Kind::RowWise { rows } else { len };
        Self {
            case,
            param: Memory::new(len, huge_pages, 1.0),
            exp_avg: Memory::new(len, huge_pages, 1e-3),
            exp_avg_sq: Memory::new(squares, huge_pages, 1e-4),
            values: vec![0.01; indices * width],
            steps: Listed::steps(&case),
            next: 0,
        }
    }

    /// Repeats something, each time with the indices of another step.
    fn repeat<T>(&mut self, repetitions: usize, mut step: impl FnMut(Parts<'_>) -> T) -> Duration {
        time(repetitions, || {
            self.next = (self.next + 1) % self.steps.len();
            let _ = step(Parts {
                width: self.case.width,
                param: self.param.get(),
                exp_avg: self.exp_avg.get(),
                exp_avg_sq: self.exp_avg_sq.get(),
                values: &self.values,
                listed: &self.steps[self.next],
            });
        })
    }

    /// Measures a step against the limit, on the threads of the pool that this is called in.
    pub fn measure(&mut self, place: Place, plan: Plan) -> Row {
        let case = self.case;
        let options = &StepOptions { exec: place.exec(), ..StepOptions::default() };
        let mut scratch = RowScratch::default();
        let mut waiting = DenseEquivalent::<f32>::new(case.rows, CatchUp::Series);
        waiting.set_step(1000);
        let mut t = 1000;
        let is_dense_equivalent = case.kind == Kind::DenseEquivalent;
        let [step, limit, compiler, lazy, plain] = plan.times(|which, repetitions| match which {
            0 => match case.kind {
                Kind::Lazy => self.lazy(&ADAM, place, &mut t, &mut scratch, repetitions),
                Kind::RowWise => {
                    self.lazy(&RowWiseAdam(ADAM), place, &mut t, &mut scratch, repetitions)
                }
                Kind::DenseEquivalent => self.repeat(repetitions, |parts| {
                    let Parts { width, values, listed, .. } = parts;
                    let grads = RowGrads::new(&listed.rows, values, width);
                    let grads = grads.sort(case.rows, &mut scratch).expect("rows of the table");
                    let table = parts.table();
                    ADAM.step_rows_dense_equivalent_on(table, grads, &mut waiting, options)
                        .expect("a valid step")
                        .outcome
                }),
            },
            1 => self.repeat(repetitions, |parts| parts.touch(place.parallel)),
            2 => match case.kind {
                Kind::RowWise => Duration::MAX,
                _ => self.repeat(repetitions, |parts| parts.plain(None, place.parallel)),
            },
            3 if is_dense_equivalent => self.lazy(&ADAM, place, &mut t, &mut scratch, repetitions),
            4 if case.kind != Kind::RowWise && !place.parallel => {
                self.repeat(repetitions, |parts| parts.plain(Some(place.isa), false))
            }
            _ => Duration::MAX,
        });
        let unique: usize = self.steps.iter().map(|step| step.unique.len()).sum();
        let unique = unique as f64 / self.steps.len() as f64;
        let elements = case.indices * case.width;
        let squares = if case.kind == Kind::RowWise { 1 } else { case.width };
        let state_bytes = 2.0 * 4.0 * (2 * case.width + squares) as f64 * unique;
        let per_element = |nanoseconds: f64| nanoseconds / elements as f64;
        let mut row = Row::new(Measures {
            case: case.name(),
            dtype: "f32",
            place,
            elements,
            step: Time { median: per_element(step.median), ..step },
            bytes_per_element: 4.0 + state_bytes / elements as f64,
            limit_ns_per_element: per_element(limit.median),
        });
        // The plain loops are those of a formula for each parameter.
        if case.kind != Kind::RowWise {
            row.speedup_over_compiler = Some(compiler.median / step.median);
            row.speedup_over_plain = (!place.parallel).then(|| plain.median / step.median);
        }
        row.us_per_step = Some(step.median / 1e3);
        if is_dense_equivalent {
            row.times_lazy = Some(step.median / lazy.median);
            row.speedup_over_dense =
                (case.indices == 4096).then(|| self.dense(place, plan) / step.median);
        }
        row
    }

    /// The time of a dense step over the whole table. It is not taken in turn with the others: it
    /// leaves the cache full of what is yet to be written to memory, and they would pay for it.
    fn dense(&mut self, place: Place, plan: Plan) -> f64 {
        let grad = &vec![0.0_f32; self.case.rows * self.case.width];
        let options = StepOptions { exec: place.exec(), ..StepOptions::default() };
        let mut steps = 1000;
        let [dense] = plan.times(|_, repetitions| {
            self.repeat(repetitions, |Parts { param, exp_avg, exp_avg_sq, .. }| {
                let moments = [exp_avg.into(), exp_avg_sq.into()];
                let tensor = Tensor::new(param, grad, &mut steps).with_moments(moments);
                let _ = ADAM.step_tensors(&mut [tensor], &options).expect("a valid step");
            })
        });
        dense.median
    }

    fn lazy<R: RowRule>(
        &mut self,
        rule: &R,
        place: Place,
        t: &mut u64,
        scratch: &mut RowScratch,
        repetitions: usize,
    ) -> Duration {
        let rows = self.case.rows;
        self.repeat(repetitions, |parts| {
            *t += 1;
            let grads = RowGrads::new(&parts.listed.rows, parts.values, parts.width);
            let options = StepOptions { exec: place.exec(), ..StepOptions::default() };
            let grads = grads.sort(rows, scratch).expect("rows of the table");
            rule.step_rows_lazy_on(*t, parts.table(), grads, &options)
                .expect("a valid step")
                .outcome
        })
    }
}

/// A table, a gradient and the rows of a step.
struct Parts<'a> {
    width: usize,
    param: &'a mut [f32],
    exp_avg: &'a mut [f32],
    /// As long as the others, or one element a row.
    exp_avg_sq: &'a mut [f32],
    values: &'a [f32],
    listed: &'a Listed,
}

impl<'a> Parts<'a> {
    fn table(self) -> Table<'a> {
        let moments = [self.exp_avg.into(), self.exp_avg_sq.into()];
        Table::new(self.param, self.width).with_moments(moments)
    }

    fn span(self) -> Span<'a> {
        let Self { width, param, exp_avg, exp_avg_sq, values, listed } = self;
        let square_width = exp_avg_sq.len() * width / param.len();
        let sums = &values[..listed.unique.len() * width];
        let rows = &listed.unique;
        Span { width, square_width, first: 0, param, exp_avg, exp_avg_sq, sums, rows }
    }

    /// The limit: the same rows, each once and in order, with gradients that are summed up already,
    /// trivial arithmetic, and memory that is asked for some rows ahead.
    fn touch(self, parallel: bool) {
        self.span().run(parallel, &|span| span.touch());
    }

    /// A plain loop over the same, nothing asked for ahead: for an instruction set, or for any CPU.
    fn plain(self, isa: Option<Isa>, parallel: bool) {
        let constants = adamant::rule::Rule::constants(&ADAM, 1000);
        self.span().run(parallel, &|span| {
            span.each_row(|param, exp_avg, exp_avg_sq, grad| {
                let moments = [exp_avg, exp_avg_sq, &mut [], &mut []];
                let mut row = plain::Arrays { param, grad, moments };
                match isa {
                    Some(isa) => plain::for_isa(isa, ADAM, &constants, &mut row),
                    None => plain::for_any_cpu(ADAM, &constants, &mut row),
                }
            });
        });
    }
}

/// A part of a table, and the rows in it.
struct Span<'a> {
    width: usize,
    square_width: usize,
    first: usize,
    param: &'a mut [f32],
    exp_avg: &'a mut [f32],
    exp_avg_sq: &'a mut [f32],
    sums: &'a [f32],
    rows: &'a [u32],
}

/// Rows that a thread takes at a time.
const PIECE: usize = 128;

impl<'a> Span<'a> {
    fn run(self, parallel: bool, run: &(impl Fn(Span<'_>) + Sync)) {
        if !parallel || self.rows.len() < 2 * PIECE {
            return run(self);
        }
        let (left, right) = self.halve();
        rayon::join(|| left.run(true, run), || right.run(true, run));
    }

    fn halve(self) -> (Span<'a>, Span<'a>) {
        let Self { width, square_width, first, .. } = self;
        let (left, right) = self.rows.split_at(self.rows.len() / 2);
        let cut = right[0] as usize - first;
        let (param, param_rest) = self.param.split_at_mut(cut * width);
        let (exp_avg, exp_avg_rest) = self.exp_avg.split_at_mut(cut * width);
        let (exp_avg_sq, exp_avg_sq_rest) = self.exp_avg_sq.split_at_mut(cut * square_width);
        let (sums, sums_rest) = self.sums.split_at(left.len() * width);
        (
            Span { width, square_width, first, param, exp_avg, exp_avg_sq, sums, rows: left },
            Span {
                width,
                square_width,
                first: first + cut,
                param: param_rest,
                exp_avg: exp_avg_rest,
                exp_avg_sq: exp_avg_sq_rest,
                sums: sums_rest,
                rows: right,
            },
        )
    }

    #[inline(always)]
    fn each_row(self, mut run: impl FnMut(&mut [f32], &mut [f32], &mut [f32], &[f32])) {
        let Self { width, square_width, first, .. } = self;
        for (&row, grad) in self.rows.iter().zip(self.sums.chunks_exact(width)) {
            let row = row as usize - first;
            run(
                &mut self.param[row * width..][..width],
                &mut self.exp_avg[row * width..][..width],
                &mut self.exp_avg_sq[row * square_width..][..square_width],
                grad,
            );
        }
    }

    fn touch(self) {
        const AHEAD: usize = 6;
        let Self { width, square_width, first, .. } = self;
        for (index, (&row, grad)) in self.rows.iter().zip(self.sums.chunks_exact(width)).enumerate()
        {
            if let Some(&ahead) = self.rows.get(index + AHEAD) {
                let ahead = ahead as usize - first;
                prefetch(&self.param[ahead * width..][..width]);
                prefetch(&self.exp_avg[ahead * width..][..width]);
                prefetch(&self.exp_avg_sq[ahead * square_width..][..square_width]);
            }
            let row = row as usize - first;
            for array in
                [&mut self.param[row * width..][..width], &mut self.exp_avg[row * width..][..width]]
            {
                for (element, grad) in array.iter_mut().zip(grad) {
                    *element += 1e-9 * grad;
                }
            }
            for (element, grad) in
                self.exp_avg_sq[row * square_width..][..square_width].iter_mut().zip(grad)
            {
                *element += 1e-9 * grad;
            }
        }
    }
}

/// Asks for a row's memory.
#[inline(always)]
#[allow(unsafe_code, reason = "the intrinsic takes a pointer")]
fn prefetch(row: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        for line in row.chunks(16) {
            // SAFETY: a prefetch has no effect that a program could see.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}
