//! The cases: which tensors, and how a step over them is measured.

use std::{ops::Range, time::Duration};

use adamant::{Exec, Float, Isa, Optimizer, Rule, State, Tensor};
use aligned_vec::{AVec, avec};
use rayon::prelude::*;

use crate::{
    limits::{DIVISIONS, Divider, Stream, plain},
    report::Row,
    support::Division,
    timing::{Plan, time},
};

/// The tensors of a call.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    /// The tensors' lengths.
    pub lens: Vec<usize>,
}

impl Case {
    pub fn dense(len: usize) -> Self {
        Self::optimizer("dense", len)
    }

    /// One tensor; the name is that of an optimizer.
    pub fn optimizer(name: &'static str, len: usize) -> Self {
        Self { name, lens: vec![len] }
    }

    /// What a call costs that has next to nothing to do.
    pub fn call() -> Self {
        Self { name: "call", lens: vec![16] }
    }

    pub fn thousand() -> Self {
        Self { name: "1000x1024", lens: vec![1024; 1000] }
    }

    /// The 148 parameter tensors of GPT-2 with 124 million parameters (Radford et al., 2019).
    pub fn gpt2() -> Self {
        const WIDTH: usize = 768;
        let layer = [
            [WIDTH, WIDTH],                 // first layer norm
            [WIDTH * 3 * WIDTH, 3 * WIDTH], // attention in
            [WIDTH * WIDTH, WIDTH],         // attention out
            [WIDTH, WIDTH],                 // second layer norm
            [WIDTH * 4 * WIDTH, 4 * WIDTH], // perceptron in
            [4 * WIDTH * WIDTH, WIDTH],     // perceptron out
        ];
        let mut lens = vec![50_257 * WIDTH, 1024 * WIDTH];
        lens.extend(std::iter::repeat_n(layer.as_flattened(), 12).flatten());
        lens.extend([WIDTH, WIDTH]);
        Self { name: "gpt2", lens }
    }

    pub fn elements(&self) -> usize {
        self.lens.iter().sum()
    }
}

/// Memory for a case's tensors, taken in turn by everything that is measured.
pub struct Arrays<R: Rule, F: Float> {
    rule: R,
    param: AVec<F>,
    grad: AVec<F>,
    state: State<R, F>,
    /// Where the tensors lie: apart, as an allocator would put them.
    tensors: Vec<Range<usize>>,
    case: Case,
}

impl<R: Rule, F: Float> Arrays<R, F> {
    pub fn new(rule: R, case: Case) -> Self {
        /// What malloc notes before each of its blocks, in elements.
        const APART: usize = 4;
        let mut end = 0;
        let place = |&len: &usize| {
            let start = if end == 0 { 0 } else { end + APART };
            end = start + len;
            start..end
        };
        let tensors: Vec<_> = case.lens.iter().map(place).collect();
        let mut state = rule.state(end);
        for moment in state.moments_mut() {
            moment.fill(F::from_f64(0.0001));
        }
        let (param, grad) = (avec![F::from_f64(1.0); end], avec![F::from_f64(0.01); end]);
        Self { rule, param, grad, state, tensors, case }
    }

    fn kept(&self) -> usize {
        self.state.moments().into_iter().filter(|moment| !moment.is_empty()).count()
    }

    /// The tensors of the case.
    fn tensors(&mut self) -> Vec<Tensor<'_, R, F>> {
        let moments = self.state.moments_mut();
        cut(Tensor { param: &mut self.param, grad: &self.grad, moments }, &self.tensors)
    }

    /// Repeats [`Stream`] over as many elements as the case has, in one tensor.
    fn stream<const N: usize>(&mut self, exec: Exec, repetitions: usize) -> Duration {
        let mut kept = self.state.moments_mut().into_iter().filter(|moment| !moment.is_empty());
        let moments = std::array::from_fn(|_| kept.next().unwrap_or_default());
        let whole = Tensor::<Stream<N>, F> { param: &mut self.param, grad: &self.grad, moments };
        let (whole, _) = whole.split_at(self.case.elements());
        let mut tensor = [whole];
        time(repetitions, || {
            Stream::<N>.step_many_on(exec, 1, &mut tensor).expect("a valid step");
        })
    }

    /// Measures a step against its limits, on the threads of the pool that this is called in.
    pub fn measure(&mut self, exec: Exec, division: Division, plan: Plan) -> Row {
        let threads = if exec.parallel { rayon::current_num_threads() } else { 1 };
        let (rule, mut t) = (self.rule, 0);
        let [step, stream, divider, plain] = plan.medians(|which, repetitions| match which {
            0 => {
                let mut tensors = self.tensors();
                time(repetitions, || {
                    t += 1;
                    rule.step_many_on(exec, t, &mut tensors).expect("a valid step");
                })
            }
            1 => match self.kept() {
                0 => self.stream::<0>(exec, repetitions),
                1 => self.stream::<1>(exec, repetitions),
                2 => self.stream::<2>(exec, repetitions),
                3 => self.stream::<3>(exec, repetitions),
                _ => self.stream::<4>(exec, repetitions),
            },
            2 => divider::<F>(division, exec, repetitions),
            _ => self.plain(exec.parallel, repetitions),
        });
        let elements = self.case.elements();
        let per_element = |nanoseconds: f64| nanoseconds / elements as f64;
        let divider = match division {
            Division::Nothing => 0.0,
            _ => divider / (DIVIDED * threads) as f64,
        };
        Row::new(
            self.case.name,
            F::NAME,
            exec.isa,
            elements,
            threads,
            per_element(step),
            ((3 + 2 * self.kept()) * size_of::<F>()) as f64,
            per_element(stream).max(divider),
            Some(plain / step),
        )
    }

    fn plain(&mut self, parallel: bool, repetitions: usize) -> Duration {
        let rule = self.rule;
        let constants = rule.constants(10);
        let run = |tensor: &mut Tensor<'_, R, F>| plain(rule, constants.as_ref(), tensor);
        let mut tensors = self.tensors();
        if parallel {
            let mut pieces = vec![];
            for mut rest in tensors {
                while rest.param.len() > PLAIN_PIECE {
                    let (piece, others) = rest.split_at(PLAIN_PIECE);
                    pieces.push(piece);
                    rest = others;
                }
                pieces.push(rest);
            }
            time(repetitions, || pieces.par_iter_mut().for_each(run))
        } else {
            time(repetitions, || tensors.iter_mut().for_each(run))
        }
    }
}

fn cut<'a, R: Rule, F: Float>(
    mut rest: Tensor<'a, R, F>,
    ranges: &[Range<usize>],
) -> Vec<Tensor<'a, R, F>> {
    let (mut tensors, mut done) = (vec![], 0);
    for range in ranges {
        let (_, others) = rest.split_at(range.start - done);
        let (tensor, others) = others.split_at(range.len());
        tensors.push(tensor);
        (rest, done) = (others, range.end);
    }
    tensors
}

/// The elements in a piece of the compiler's loop where it runs on several threads.
const PLAIN_PIECE: usize = 16 << 10;

/// Divisions of each thread in a run of the divider.
pub const DIVIDED: usize = 1024 * DIVISIONS;

/// The time in which every thread does [`DIVIDED`] divisions, each of a root or not.
pub fn divider<F: Float>(division: Division, exec: Exec, repetitions: usize) -> Duration {
    match division {
        Division::RootAndQuotient => divide::<true, F>(exec, repetitions),
        Division::Quotient => divide::<false, F>(exec, repetitions),
        Division::Nothing => Duration::MAX,
    }
}

fn divide<const ROOT: bool, F: Float>(exec: Exec, repetitions: usize) -> Duration {
    let serial = Exec { parallel: false, ..exec };
    let run = || {
        let (mut param, grad) = ([F::from_f64(1.0); 1024], [F::from_f64(0.5); 1024]);
        let mut tensor =
            [Tensor::<Divider<ROOT>, F> { param: &mut param, grad: &grad, moments: [] }];
        for _ in 0..repetitions {
            Divider::<ROOT>.step_many_on(serial, 1, &mut tensor).expect("a valid step");
        }
    };
    time(1, || {
        if exec.parallel {
            rayon::broadcast(|_| run());
        } else {
            run();
        }
    })
}

/// What memory and divider can do, for the report's header: gigabytes a second that stream through
/// arrays larger than the caches, and nanoseconds for a square root and a division.
pub fn ceilings(isa: Isa, parallel: bool, elements: usize, plan: Plan) -> (f64, f64) {
    let threads = if parallel { rayon::current_num_threads() } else { 1 };
    let exec = Exec { isa, parallel };
    let mut arrays = Arrays::<_, f32>::new(Stream::<2>, Case::dense(elements));
    let [stream, divider] = plan.medians(|which, repetitions| match which {
        0 => arrays.stream::<2>(exec, repetitions),
        _ => divide::<true, f32>(exec, repetitions),
    });
    (28.0 * elements as f64 / stream, divider / (DIVIDED * threads) as f64)
}
