//! The cases of dense steps: which tensors, and how a step over them is measured.

use std::{ops::Range, time::Duration};

use adamant::{
    Buffer, Isa, Optimizer, Param, StepOptions, Tensor,
    rule::{Float, Rule},
};
use rayon::prelude::*;

use crate::{
    limits::{DIVIDED, Fastest, Place, Stream, divider},
    plain,
    report::{Measures, Row},
    support::Division,
    timing::{Plan, Time, time},
};

/// The tensors of a call.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: &'static str,
    /// The tensors' lengths.
    pub lens: Vec<usize>,
}

impl Case {
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
    param: Buffer<F>,
    grad: Buffer<F>,
    /// None for a moment that the settings do without.
    moments: Vec<Option<Placed<F>>>,
    /// Where the tensors lie: apart, as an allocator would put them.
    tensors: Vec<Range<usize>>,
    /// Of each tensor.
    steps: Vec<u64>,
    case: Case,
}

/// An array that begins where [`State`](adamant::State) would have it begin.
struct Placed<F: Float> {
    buffer: Buffer<F>,
    start: usize,
}

impl<F: Float> Placed<F> {
    fn new(len: usize, place: usize, kept: usize, value: f64) -> Self {
        let (line, page) = (64 / size_of::<F>(), 4096 / size_of::<F>());
        let start = match len < page {
            true => 0,
            false => place * (page / (kept + 1)).next_multiple_of(line),
        };
        Self { buffer: filled(len + start, value), start }
    }

    fn get_mut(&mut self) -> &mut [F] {
        &mut self.buffer[self.start..]
    }
}

fn filled<F: Float>(len: usize, value: f64) -> Buffer<F> {
    let mut buffer = Buffer::zeros(len);
    buffer.fill(F::from_f64(value));
    buffer
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
        let count = R::MOMENT_NAMES.as_ref().len();
        let keeps = |moment: &usize| rule.start(*moment).is_some();
        let kept = (0..count).filter(keeps).count();
        let mut place = 0;
        let moments = (0..count).map(|moment| {
            // As a state begins: a moment that only got smaller would be subnormal after a thousand steps, which some
            // CPUs take ten times as long for.
            rule.start(moment).map(|value| {
                place += 1;
                Placed::new(end, place, kept, value)
            })
        });
        Self {
            rule,
            moments: moments.collect(),
            param: filled(end, 1.0),
            grad: filled(end, 0.01),
            steps: vec![0; tensors.len()],
            tensors,
            case,
        }
    }

    fn kept(&self) -> usize {
        self.moments.iter().flatten().count()
    }

    /// Everything.
    fn whole(&mut self) -> plain::Arrays<'_, F> {
        let mut moments = self.moments.iter_mut();
        let moments = std::array::from_fn(|_| match moments.next() {
            Some(Some(moment)) => moment.get_mut(),
            _ => &mut [],
        });
        plain::Arrays { param: &mut self.param, grad: &self.grad, moments }
    }

    /// The tensors of the case, as arrays.
    fn parts(&mut self) -> Vec<plain::Arrays<'_, F>> {
        let ranges = self.tensors.clone();
        let (mut rest, mut parts, mut done) = (self.whole(), vec![], 0);
        for range in ranges {
            let (_, others) = rest.split_at(range.start - done);
            let (part, others) = others.split_at(range.len());
            parts.push(part);
            (rest, done) = (others, range.end);
        }
        parts
    }

    /// A stream over as many elements as the case has.
    fn stream(&mut self) -> Stream<'_> {
        // Numbers of 8 bytes count as two of 4.
        let scale = size_of::<F>() / 4;
        let elements = self.case.elements();
        let mut stream = Stream::new(elements * scale);
        let (plain::Arrays { param, grad, moments }, _) = self.whole().split_at(elements);
        stream.read(grad);
        stream.change(param);
        for moment in moments.into_iter().filter(|moment| !moment.is_empty()) {
            stream.change(moment);
        }
        stream
    }

    fn step(&mut self, place: Place, repetitions: usize) -> Duration {
        if self.case.name == "call" && Isa::selected().is_ok_and(|isa| isa == place.isa) {
            return self.plain_step(repetitions);
        }
        let (rule, count) = (self.rule, self.moments.len());
        let mut steps = std::mem::take(&mut self.steps);
        let parts = self.parts().into_iter().zip(&mut steps);
        let mut tensors: Vec<Tensor<'_>> = parts
            .map(|(plain::Arrays { param, grad, moments }, steps)| {
                let moments = moments.into_iter().take(count).map(F::moment);
                Tensor::new(Param::from(param), grad, steps).with_moments(moments)
            })
            .collect();
        let options = StepOptions { exec: place.exec(), ..StepOptions::default() };
        let time = time(repetitions, || {
            let _ = rule.step_tensors(&mut tensors, &options).expect("a valid step");
        });
        drop(tensors);
        self.steps = steps;
        time
    }

    /// Without options, which small tensors have a short way for, and on the selected instruction set.
    fn plain_step(&mut self, repetitions: usize) -> Duration {
        let mut state = self.rule.state_in(F::STORAGE, self.param.len());
        let (rule, param, grad) = (self.rule, &mut self.param[..], &self.grad[..]);
        time(repetitions, || rule.step(param, grad, &mut state).expect("a valid step"))
    }

    /// Measures a step against its limits, on the threads of the pool that this is called in.
    pub fn measure(&mut self, place: Place, division: Division, plan: Plan) -> Row {
        let elements = self.case.elements();
        assert!(division.quotients <= 1, "no loop of several quotients");
        let fastest = Fastest::of(&[self.stream()], place, plan);
        let [step, stream, other, divided, compiler, plain] =
            plan.times(|which, repetitions| match which {
                0 => self.step(place, repetitions),
                1 | 2 => fastest.run(which - 1, &[self.stream()], place.isa, repetitions),
                3 if division.quotients > 0 => divider::<F>(division.roots, place, repetitions),
                4 => self.for_any_cpu(place, repetitions),
                5 if !place.parallel => self.for_isa(place, repetitions),
                _ => Duration::MAX,
            });
        let per_element = |nanoseconds: f64| nanoseconds / elements as f64;
        let divided = match division.quotients {
            0 => 0.0,
            _ => divided.median / (DIVIDED * place.threads()) as f64,
        };
        let stream = per_element(Time::median_of_faster(stream, other));
        let mut row = Row::new(Measures {
            case: self.case.name.into(),
            dtype: F::NAME,
            place,
            elements,
            step: Time { median: per_element(step.median), ..step },
            bytes_per_element: ((3 + 2 * self.kept()) * size_of::<F>()) as f64,
            limit_ns_per_element: stream.max(divided),
        });
        row.speedup_over_compiler = Some(compiler.median / step.median);
        row.speedup_over_plain = (!place.parallel).then(|| plain.median / step.median);
        row
    }

    /// The formula as a plain loop that is built for any CPU of this kind.
    fn for_any_cpu(&mut self, place: Place, repetitions: usize) -> Duration {
        let rule = self.rule;
        let constants = rule.constants(10);
        let run = |part: &mut plain::Arrays<'_, F>| {
            plain::for_any_cpu(rule, constants.as_ref(), part);
        };
        let mut parts = self.parts();
        if !place.parallel {
            return time(repetitions, || parts.iter_mut().for_each(run));
        }
        let mut pieces = vec![];
        for mut rest in parts {
            while rest.param.len() > PLAIN_PIECE {
                let (piece, others) = rest.split_at(PLAIN_PIECE);
                pieces.push(piece);
                rest = others;
            }
            pieces.push(rest);
        }
        time(repetitions, || pieces.par_iter_mut().for_each(run))
    }

    /// The formula as a plain loop that is built for the instruction set, on one thread.
    fn for_isa(&mut self, place: Place, repetitions: usize) -> Duration {
        let rule = self.rule;
        let constants = rule.constants(10);
        let mut parts = self.parts();
        time(repetitions, || {
            for part in &mut parts {
                plain::for_isa(place.isa, rule, constants.as_ref(), part);
            }
        })
    }
}

/// The elements in a piece of the compiler's loop where it runs on several threads.
const PLAIN_PIECE: usize = 16 << 10;
