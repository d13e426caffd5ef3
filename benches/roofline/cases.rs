//! The cases: which tensors, and how a step over them is measured.

use std::{ops::Range, time::Duration};

use adamant::{Adam, Exec, Float, Isa, Optimizer, Rule, State, Tensor};
use aligned_vec::{AVec, avec};
use rayon::prelude::*;

use crate::{
    limits::{Divider, Stream, plain},
    report::Row,
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
        Self { name: "dense", lens: vec![len] }
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
pub struct Arrays<F: Float> {
    param: AVec<F>,
    grad: AVec<F>,
    state: State<Adam, F>,
    /// Where the tensors lie: apart, as an allocator would put them.
    tensors: Vec<Range<usize>>,
    case: Case,
}

impl<F: Float> Arrays<F> {
    pub fn new(case: Case) -> Self {
        /// What malloc notes before each of its blocks, in elements.
        const APART: usize = 4;
        let mut end = 0;
        let place = |&len: &usize| {
            let start = if end == 0 { 0 } else { end + APART };
            end = start + len;
            start..end
        };
        let tensors: Vec<_> = case.lens.iter().map(place).collect();
        let mut state = Adam::default().state(end);
        let [m, v] = state.moments_mut();
        m.fill(F::from_f64(0.01));
        v.fill(F::from_f64(0.0001));
        Self {
            param: avec![F::from_f64(1.0); end],
            grad: avec![F::from_f64(0.01); end],
            state,
            tensors,
            case,
        }
    }

    /// The tensors of the case, with the rule's share of the moments.
    fn tensors<R: Rule<Moments = adamant::Count<2>>>(&mut self) -> Vec<Tensor<'_, R, F>> {
        Self::cut(&mut self.param, &self.grad, &mut self.state, &self.tensors)
    }

    /// As many elements as the case has, in one tensor.
    fn flat<R: Rule<Moments = adamant::Count<2>>>(&mut self) -> Vec<Tensor<'_, R, F>> {
        let whole = 0..self.case.elements();
        Self::cut(&mut self.param, &self.grad, &mut self.state, &[whole])
    }

    fn cut<'a, R: Rule<Moments = adamant::Count<2>>>(
        param: &'a mut [F],
        grad: &'a [F],
        state: &'a mut State<Adam, F>,
        ranges: &[Range<usize>],
    ) -> Vec<Tensor<'a, R, F>> {
        let mut rest = Tensor { param, grad, moments: state.moments_mut() };
        let (mut tensors, mut done) = (vec![], 0);
        for range in ranges {
            let (_, others) = rest.split_at(range.start - done);
            let (tensor, others) = others.split_at(range.len());
            tensors.push(tensor);
            (rest, done) = (others, range.end);
        }
        tensors
    }

    /// Measures a step against its limits, on the threads of the pool that this is called in.
    pub fn measure(&mut self, exec: Exec, plan: Plan) -> Row {
        let threads = if exec.parallel { rayon::current_num_threads() } else { 1 };
        let adam = Adam { lr: 1e-6, ..Adam::default() };
        let mut t = 0;
        let [step, stream, divider, plain] = plan.medians(|which, repetitions| match which {
            0 => {
                let mut tensors = self.tensors();
                time(repetitions, || {
                    t += 1;
                    adam.step_many_on(exec, t, &mut tensors).expect("a valid step");
                })
            }
            1 => {
                let mut flat = self.flat();
                time(repetitions, || {
                    Stream.step_many_on(exec, 1, &mut flat).expect("a valid step");
                })
            }
            2 => divider::<F>(exec, repetitions),
            _ => self.plain(exec.parallel, &adam, repetitions),
        });
        let elements = self.case.elements();
        let per_element = |nanoseconds: f64| nanoseconds / elements as f64;
        let bytes = 7 * size_of::<F>();
        let limit = per_element(stream).max(divider / (DIVIDED * threads) as f64);
        Row::new(
            self.case.name,
            F::NAME,
            exec.isa,
            elements,
            threads,
            per_element(step),
            bytes as f64,
            limit,
            plain / step,
        )
    }

    fn plain(&mut self, parallel: bool, adam: &Adam, repetitions: usize) -> Duration {
        let run = |tensor: &mut Tensor<'_, Adam, F>| {
            let [m, v] = &mut tensor.moments;
            plain(adam, 10, tensor.param, tensor.grad, m, v);
        };
        if parallel {
            let mut pieces = vec![];
            for mut rest in self.tensors() {
                while rest.param.len() > PLAIN_PIECE {
                    let (piece, others) = rest.split_at(PLAIN_PIECE);
                    pieces.push(piece);
                    rest = others;
                }
                pieces.push(rest);
            }
            time(repetitions, || pieces.par_iter_mut().for_each(run))
        } else {
            let mut tensors = self.tensors();
            time(repetitions, || tensors.iter_mut().for_each(run))
        }
    }
}

/// The elements in a piece of the compiler's loop where it runs on several threads.
const PLAIN_PIECE: usize = 16 << 10;

/// Square roots and divisions of each thread in a run of the divider.
const DIVIDED: usize = 1024 * Divider::EACH;

/// The time in which every thread does [`DIVIDED`] square roots and divisions.
fn divider<F: Float>(exec: Exec, repetitions: usize) -> Duration {
    let serial = Exec { parallel: false, ..exec };
    let run = || {
        let (mut param, grad) = ([F::from_f64(1.0); 1024], [F::from_f64(0.5); 1024]);
        let mut tensor = [Tensor::<Divider, F> { param: &mut param, grad: &grad, moments: [] }];
        for _ in 0..repetitions {
            Divider.step_many_on(serial, 1, &mut tensor).expect("a valid step");
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
    let mut arrays = Arrays::<f32>::new(Case::dense(elements));
    let [stream, divider] = plan.medians(|which, repetitions| match which {
        0 => {
            let mut flat = arrays.flat();
            time(repetitions, || Stream.step_many_on(exec, 1, &mut flat).expect("a valid step"))
        }
        _ => divider::<f32>(exec, repetitions),
    });
    (28.0 * elements as f64 / stream, divider / (DIVIDED * threads) as f64)
}
