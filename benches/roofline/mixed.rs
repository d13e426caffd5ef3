//! The cases of mixed precision: arrays that are not all `f32`, and what comes before and after a step.

use std::{hint::black_box, time::Duration};

use adamant::{
    Adam, Grad, Moment, Optimizer, Param, Q8, StepOptions, Tensor,
    norm::{NormOrder, grad_norms},
};
use aligned_vec::{AVec, avec};
use half::{bf16, f16};

use crate::{
    limits::{DIVIDED, Fastest, Place, Stream, divider},
    report::{Measures, Row},
    timing::{Plan, Time, time},
};

/// What is of which type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Parameters and gradients in bf16, rounded to nearest; moments in `f32`.
    Bf16F32,
    /// The same, in f16.
    F16F32,
    /// Gradients alone in bf16.
    F32Bf16Grad,
    /// Parameters in two halves, and gradients in bf16.
    Split,
    /// Moments alone in bf16.
    Bf16Moments,
    /// Everything in bf16, rounded at random.
    Bf16,
    /// Moments of 8 bits.
    Q8,
    /// All that follows a backward pass: the norm of the gradients, and a step of AdamW that clips and
    /// unscales them, writes a bf16 copy of the parameters and leaves gradients of zero; else `f32`.
    Tail,
    /// Everything in `f32`, with moments that have decayed to less than normal numbers, and are flushed.
    Flush,
    /// The norm of gradients in `f32`.
    Norm,
}

#[derive(Clone, Copy, Debug)]
pub struct MixedCase {
    pub kind: Kind,
    pub elements: usize,
}

impl MixedCase {
    pub fn name(self) -> &'static str {
        match self.kind {
            Kind::Bf16F32 => "bf16-f32",
            Kind::F16F32 => "f16-f32",
            Kind::F32Bf16Grad => "f32-bf16grad",
            Kind::Split => "split",
            Kind::Bf16Moments => "bf16-moments",
            Kind::Bf16 => "bf16",
            Kind::Q8 => "q8",
            Kind::Tail => "tail",
            Kind::Flush => "flush",
            Kind::Norm => "norm",
        }
    }

    /// All cases, or those that a run in a hurry has time for.
    pub fn all(quick: bool) -> Vec<Self> {
        use Kind::{Bf16, Bf16F32, Bf16Moments, F16F32, F32Bf16Grad, Flush, Norm, Split, Tail};
        let sizes: &[usize] =
            if quick { &[1 << 20, 16 << 20] } else { &[1 << 20, 16 << 20, 64 << 20] };
        let mut cases = vec![];
        for kind in
            [Bf16F32, F16F32, F32Bf16Grad, Split, Bf16Moments, Bf16, Kind::Q8, Tail, Flush, Norm]
        {
            cases.extend(sizes.iter().map(|&elements| Self { kind, elements }));
        }
        cases
    }
}

/// Memory of every type, allocated for the case that asks for it.
struct Memory {
    len: usize,
    wide: AVec<f32>,
    bf16: AVec<bf16>,
    f16: AVec<f16>,
    low: AVec<u16>,
    codes: AVec<u8>,
    scales: AVec<f32>,
}

const PARAM: f32 = 1.0;
const GRAD: f32 = 0.01;
const MOMENT: f32 = 0.0001;
const SUBNORMAL: f32 = 1e-40;

impl Memory {
    fn new(len: usize) -> Self {
        Self {
            len,
            wide: AVec::new(0),
            bf16: AVec::new(0),
            f16: AVec::new(0),
            low: AVec::new(0),
            codes: AVec::new(0),
            scales: AVec::new(0),
        }
    }

    fn wide(&mut self, value: f32) -> &mut [f32] {
        filled(&mut self.wide, self.len, value)
    }

    fn bf16(&mut self, value: f32) -> &mut [bf16] {
        filled(&mut self.bf16, self.len, bf16::from_f32(value))
    }

    fn f16(&mut self, value: f32) -> &mut [f16] {
        filled(&mut self.f16, self.len, f16::from_f32(value))
    }

    /// Codes and scales.
    fn q8(&mut self) -> (&mut [u8], &mut [f32]) {
        let codes = filled(&mut self.codes, self.len, 100);
        (codes, filled(&mut self.scales, Q8::scales(self.len), MOMENT))
    }

    /// `f32` and its copy.
    fn with_copy(&mut self) -> (&mut [f32], &mut [bf16]) {
        let wide = filled(&mut self.wide, self.len, PARAM);
        (wide, filled(&mut self.bf16, self.len, bf16::from_f32(PARAM)))
    }

    fn halves(&mut self) -> (&mut [bf16], &mut [u16]) {
        let high = filled(&mut self.bf16, self.len, bf16::from_f32(PARAM));
        (high, filled(&mut self.low, self.len, 0))
    }

    fn param(&mut self, kind: Kind) -> Param<'_> {
        match kind {
            Kind::Bf16F32 => self.bf16(PARAM).into(),
            Kind::Bf16 => Param::stochastic(self.bf16(PARAM)),
            Kind::F16F32 => self.f16(PARAM).into(),
            Kind::Split => {
                let (high, low) = self.halves();
                Param::from_halves(high, low)
            }
            Kind::Tail => {
                let (wide, copy) = self.with_copy();
                Param::with_copy(wide, copy)
            }
            _ => self.wide(PARAM).into(),
        }
    }

    fn grad(&mut self, kind: Kind) -> Grad<'_> {
        match kind {
            Kind::Bf16F32 | Kind::F32Bf16Grad | Kind::Split | Kind::Bf16 => {
                Grad::from(&*self.bf16(GRAD))
            }
            Kind::F16F32 => Grad::from(&*self.f16(GRAD)),
            Kind::Tail => Grad::zeroed(self.wide(GRAD)),
            Kind::Flush => Grad::from(&*self.wide(0.0)),
            Kind::Bf16Moments | Kind::Q8 | Kind::Norm => Grad::from(&*self.wide(GRAD)),
        }
    }

    fn moment(&mut self, kind: Kind) -> Moment<'_> {
        match kind {
            Kind::Flush => self.wide(SUBNORMAL).into(),
            Kind::Bf16Moments | Kind::Bf16 => self.bf16(MOMENT).into(),
            Kind::Q8 => {
                let (codes, scales) = self.q8();
                Moment::q8(codes, scales)
            }
            _ => self.wide(MOMENT).into(),
        }
    }
}

fn filled<T: Copy>(array: &mut AVec<T>, len: usize, value: T) -> &mut [T] {
    if array.is_empty() {
        *array = avec![value; len];
    }
    array
}

/// The memory of a case, taken in turn by everything that is measured.
pub struct Arrays {
    case: MixedCase,
    param: Memory,
    grad: Memory,
    moments: [Memory; 2],
    steps: u64,
}

/// What a loss was multiplied by.
const LOSS_SCALE: f64 = 1024.0;

impl Arrays {
    pub fn new(case: MixedCase) -> Self {
        let memory = || Memory::new(case.elements);
        let moments = [memory(), memory()];
        Self { case, param: memory(), grad: memory(), moments, steps: 1000 }
    }

    /// Measures a step against its limits, on the threads of the pool that this is called in.
    pub fn measure(&mut self, place: Place, plan: Plan) -> Row {
        let MixedCase { kind, elements } = self.case;
        let (divides, compares) = (kind != Kind::Norm, matches!(kind, Kind::Tail | Kind::Q8));
        let fastest = Fastest::of(&self.streams(), place, plan);
        let f32_fastest =
            (kind == Kind::Q8).then(|| Fastest::of(&[self.f32_stream()], place, plan));
        let [step, stream, other, division, f32_step, f32_stream, unflushed] =
            plan.times(|which, repetitions| match which {
                0 => self.step(place, true, repetitions),
                1 | 2 => fastest.run(which - 1, &self.streams(), place.isa, repetitions),
                3 if divides => divider::<f32>(1, place, repetitions),
                4 if compares => self.f32_step(place, repetitions),
                5 => match f32_fastest {
                    Some(fastest) => fastest.run(0, &[self.f32_stream()], place.isa, repetitions),
                    None => Duration::MAX,
                },
                6 if kind == Kind::Flush => self.step(place, false, repetitions),
                _ => Duration::MAX,
            });
        let per_element = |nanoseconds: f64| nanoseconds / elements as f64;
        let division = match divides {
            true => division.median / (DIVIDED * place.threads()) as f64,
            false => 0.0,
        };
        let stream = per_element(Time::median_of_faster(stream, other));
        let mut row = Row::new(Measures {
            case: self.case.name().into(),
            dtype: if kind == Kind::Norm { "f32" } else { "mixed" },
            place,
            elements,
            step: Time { median: per_element(step.median), ..step },
            bytes_per_element: kind.bytes(),
            limit_ns_per_element: stream.max(division),
        });
        row.times_f32_step = compares.then(|| step.median / f32_step.median);
        row.times_as_fast_as_f32_limit = (kind == Kind::Q8)
            .then(|| f32_stream.median.max(division * elements as f64) / step.median);
        row.times_unflushed = (kind == Kind::Flush).then(|| unflushed.median / step.median);
        row
    }

    /// The rule for this case. Gradients that were left as zeros must not make the moments subnormal,
    /// and so these change next to nothing.
    fn rule(&self) -> Adam {
        let adam = if self.case.kind == Kind::Tail { Adam::adamw() } else { Adam::default() };
        Adam { lr: 1e-6, beta1: 0.999_999, beta2: 0.999_999, ..adam }
    }

    fn step(&mut self, place: Place, flush_subnormals: bool, repetitions: usize) -> Duration {
        let (kind, rule, exec) = (self.case.kind, self.rule(), place.exec());
        if kind == Kind::Norm {
            let grads = &[Grad::from(&*self.grad.wide(GRAD))];
            return time(repetitions, || {
                let norm = grad_norms(NormOrder::Two, exec, grads, &mut [0.0]);
                black_box(norm.expect("a valid norm"));
            });
        }
        if kind == Kind::Flush {
            for moment in &mut self.moments {
                moment.wide(0.0).fill(if flush_subnormals { 0.0 } else { SUBNORMAL });
            }
        }
        let mut options = StepOptions { exec, ..StepOptions::default() };
        options.flush_subnormals = flush_subnormals && kind == Kind::Flush;
        if kind == Kind::Tail {
            (options.grad_factor, options.max_norm) = (1.0 / LOSS_SCALE, Some(1.0));
        }
        let moments = self.moments.each_mut().map(|moment| moment.moment(kind));
        let (param, grad) = (self.param.param(kind), self.grad.grad(kind));
        let mut tensors = [Tensor::new(param, grad, &mut self.steps).with_moments(moments)];
        time(repetitions, || {
            let _ = rule.step_tensors(&mut tensors, &options).expect("a valid step");
        })
    }

    /// A step with everything in `f32`, and nothing besides.
    fn f32_step(&mut self, place: Place, repetitions: usize) -> Duration {
        let rule = self.rule();
        let options = StepOptions { exec: place.exec(), ..StepOptions::default() };
        let moments = self.moments.each_mut().map(|moment| moment.wide(MOMENT).into());
        let (param, grad) = (self.param.wide(PARAM), &*self.grad.wide(GRAD));
        let mut tensors = [Tensor::new(param, grad, &mut self.steps).with_moments(moments)];
        time(repetitions, || {
            let _ = rule.step_tensors(&mut tensors, &options).expect("a valid step");
        })
    }

    /// The passes over memory that a step consists of.
    fn streams(&mut self) -> Vec<Stream<'_>> {
        let Self { case: MixedCase { kind, elements }, param, grad, moments, .. } = self;
        let mut stream = Stream::new(*elements);
        match kind {
            Kind::Norm => {
                stream.read(grad.wide(GRAD));
                return vec![stream];
            }
            Kind::Bf16F32 | Kind::F32Bf16Grad | Kind::Split | Kind::Bf16 => {
                stream.read(grad.bf16(GRAD));
            }
            Kind::F16F32 => stream.read(grad.f16(GRAD)),
            Kind::Tail => stream.change(grad.wide(GRAD)),
            Kind::Flush => stream.read(grad.wide(0.0)),
            Kind::Bf16Moments | Kind::Q8 => stream.read(grad.wide(GRAD)),
        }
        match kind {
            Kind::Bf16F32 | Kind::Bf16 => stream.change(param.bf16(PARAM)),
            Kind::F16F32 => stream.change(param.f16(PARAM)),
            Kind::Split => {
                let (high, low) = param.halves();
                stream.change(high);
                stream.change(low);
            }
            Kind::Tail => {
                let (wide, copy) = param.with_copy();
                stream.change(wide);
                stream.write(copy);
            }
            _ => stream.change(param.wide(PARAM)),
        }
        let mut scales = Stream::new(Q8::scales(*elements));
        for moment in moments {
            match kind {
                Kind::Bf16Moments | Kind::Bf16 => stream.change(moment.bf16(MOMENT)),
                Kind::Q8 => {
                    let (codes, of_blocks) = moment.q8();
                    stream.change(codes);
                    scales.change(of_blocks);
                }
                Kind::Flush => stream.change(moment.wide(SUBNORMAL)),
                _ => stream.change(moment.wide(MOMENT)),
            }
        }
        match kind {
            Kind::Q8 => vec![stream, scales],
            Kind::Tail => vec![stream.read_first(), stream],
            _ => vec![stream],
        }
    }

    /// The same, of a step with everything in `f32`.
    fn f32_stream(&mut self) -> Stream<'_> {
        let mut stream = Stream::new(self.case.elements);
        stream.read(self.grad.wide(GRAD));
        stream.change(self.param.wide(PARAM));
        self.moments.iter_mut().for_each(|moment| stream.change(moment.wide(MOMENT)));
        stream
    }
}

impl Kind {
    /// That a step reads and writes for each element.
    fn bytes(self) -> f64 {
        match self {
            Self::Bf16F32 | Self::F16F32 => 2.0 + 4.0 + 16.0,
            Self::F32Bf16Grad | Self::Split => 2.0 + 8.0 + 16.0,
            Self::Bf16Moments => 4.0 + 8.0 + 8.0,
            Self::Bf16 => 2.0 + 4.0 + 8.0,
            // A scale for each 256 elements of both moments.
            Self::Q8 => 4.0 + 8.0 + 4.0 + 16.0 / 256.0,
            // The norm reads the gradients once more.
            Self::Tail => 4.0 + 8.0 + 10.0 + 16.0,
            Self::Flush => 4.0 + 8.0 + 16.0,
            Self::Norm => 4.0,
        }
    }
}
