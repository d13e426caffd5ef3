//! The cases of mixed precision: arrays that are not all `f32`, and what comes before and after a step.

use std::{hint::black_box, ops::Range, time::Duration};

use adamant::{
    Adam, Exec, Grad, MixedOptimizer, MixedTensor, Moment, Optimizer, Param, Pass, Q8, Tensor,
    clip_factor, grad_norm_on,
};
use aligned_vec::{AVec, avec};
use half::{bf16, f16, slice::HalfFloatSliceExt};
use pulp::Arch;
use rayon::prelude::*;

use crate::{
    cases::{DIVIDED, divider},
    report::Row,
    support::Division,
    timing::{Plan, time},
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

    fn param(&mut self, kind: Kind) -> Param<'_> {
        match kind {
            Kind::Bf16F32 => Param::Bf16(self.bf16(PARAM)),
            Kind::Bf16 => Param::Bf16Stochastic(self.bf16(PARAM)),
            Kind::F16F32 => Param::F16(self.f16(PARAM)),
            Kind::Split => Param::Split(
                filled(&mut self.bf16, self.len, bf16::from_f32(PARAM)),
                filled(&mut self.low, self.len, 0),
            ),
            Kind::Tail => Param::F32AndBf16(
                filled(&mut self.wide, self.len, PARAM),
                filled(&mut self.bf16, self.len, bf16::from_f32(PARAM)),
            ),
            Kind::F32Bf16Grad | Kind::Bf16Moments | Kind::Q8 | Kind::Flush => {
                Param::F32(self.wide(PARAM))
            }
            Kind::Norm => Param::F32(&mut []),
        }
    }

    fn grad(&mut self, kind: Kind) -> Grad<'_> {
        match kind {
            Kind::Bf16F32 | Kind::F32Bf16Grad | Kind::Split | Kind::Bf16 => {
                Grad::Bf16(self.bf16(GRAD))
            }
            Kind::F16F32 => Grad::F16(self.f16(GRAD)),
            Kind::Bf16Moments | Kind::Q8 | Kind::Norm => Grad::F32(self.wide(GRAD)),
            Kind::Tail => Grad::F32ToZero(self.wide(GRAD)),
            Kind::Flush => Grad::F32(self.wide(0.0)),
        }
    }

    fn moment(&mut self, kind: Kind) -> Moment<'_> {
        match kind {
            Kind::Bf16F32 | Kind::F16F32 | Kind::F32Bf16Grad | Kind::Split | Kind::Tail => {
                Moment::F32(self.wide(MOMENT))
            }
            Kind::Flush => Moment::F32(self.wide(SUBNORMAL)),
            Kind::Bf16Moments | Kind::Bf16 => Moment::Bf16(self.bf16(MOMENT)),
            Kind::Q8 => Moment::Q8(
                filled(&mut self.codes, self.len, 100),
                filled(&mut self.scales, Q8::scales(self.len), MOMENT),
            ),
            Kind::Norm => Moment::F32(&mut []),
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
    t: u64,
}

/// What a loss was multiplied by.
const LOSS_SCALE: f64 = 1024.0;

impl Arrays {
    pub fn new(case: MixedCase) -> Self {
        let memory = || Memory::new(case.elements);
        let moments = [memory(), memory()];
        Self { case, param: memory(), grad: memory(), moments, t: 1000 }
    }

    /// Measures a step against its limits, on the threads of the pool that this is called in.
    pub fn measure(&mut self, exec: Exec, plan: Plan) -> Row {
        let MixedCase { kind, elements } = self.case;
        let threads = if exec.parallel { rayon::current_num_threads() } else { 1 };
        let (divides, compares) = (kind != Kind::Norm, matches!(kind, Kind::Tail | Kind::Q8));
        let [step, stream, division, f32_step, f32_stream, unflushed] =
            plan.medians(|which, repetitions| match which {
                0 => self.step(exec, true, repetitions),
                1 => self.stream(exec.parallel, repetitions),
                2 if divides => divider::<f32>(Division::RootAndQuotient, exec, repetitions),
                3 if compares => self.f32_step(exec, repetitions),
                4 if kind == Kind::Q8 => self.f32_stream(exec.parallel, repetitions),
                5 if kind == Kind::Flush => self.step(exec, false, repetitions),
                _ => Duration::MAX,
            });
        let division = if divides { division / (DIVIDED * threads) as f64 } else { 0.0 };
        let bytes: usize = self.pieces().iter().map(|piece| piece.bytes(kind)).sum();
        let mut row = Row::new(
            self.case.name(),
            if kind == Kind::Norm { "f32" } else { "mixed" },
            exec.isa,
            elements,
            threads,
            step / elements as f64,
            bytes as f64 / elements as f64,
            (stream / elements as f64).max(division),
            None,
        );
        row.times_f32_step = compares.then(|| step / f32_step);
        row.times_as_fast_as_f32_limit =
            (kind == Kind::Q8).then(|| f32_stream.max(division * elements as f64) / step);
        row.times_unflushed = (kind == Kind::Flush).then(|| unflushed / step);
        row
    }

    fn tensor(&mut self) -> MixedTensor<'_, Adam> {
        let kind = self.case.kind;
        MixedTensor {
            param: self.param.param(kind),
            grad: self.grad.grad(kind),
            moments: self.moments.each_mut().map(|moment| moment.moment(kind)),
            first: 0,
        }
    }

    /// The rule for this case. Gradients that were left as zeros must not make the moments subnormal,
    /// and so these change next to nothing.
    fn rule(&self) -> Adam {
        let adam = if self.case.kind == Kind::Tail { Adam::adamw() } else { Adam::default() };
        Adam { lr: 1e-6, beta1: 0.999_999, beta2: 0.999_999, ..adam }
    }

    fn step(&mut self, exec: Exec, flush_subnormals: bool, repetitions: usize) -> Duration {
        let (kind, rule, mut t) = (self.case.kind, self.rule(), self.t);
        let mut tensor = [self.tensor()];
        if kind == Kind::Flush {
            for moment in &mut tensor[0].moments {
                if let Moment::F32(moment) = moment {
                    moment.fill(if flush_subnormals { 0.0 } else { SUBNORMAL });
                }
            }
        }
        let time = time(repetitions, || {
            t += 1;
            let flush_subnormals = flush_subnormals && kind == Kind::Flush;
            let mut pass = Pass { flush_subnormals, ..Pass::default() };
            if let Grad::F32(grad) = &tensor[0].grad
                && kind == Kind::Norm
            {
                black_box(grad_norm_on(exec, &[grad]).expect("a valid norm"));
                return;
            }
            if let Grad::F32ToZero(grad) = &tensor[0].grad {
                let norm = grad_norm_on(exec, &[&**grad]).expect("a valid norm");
                pass.grad_factor = clip_factor(norm / LOSS_SCALE, 1.0) / LOSS_SCALE;
                pass.grad_norm = Some(norm);
            }
            let _ = rule.step_mixed(exec, t, pass, &mut tensor).expect("a valid step");
        });
        self.t = t;
        time
    }

    /// A step with everything in `f32`, and nothing besides.
    fn f32_step(&mut self, exec: Exec, repetitions: usize) -> Duration {
        let (rule, t) = (self.rule(), self.t);
        let [exp_avg, exp_avg_sq] = &mut self.moments;
        let mut tensor = [Tensor {
            param: self.param.wide(PARAM),
            grad: self.grad.wide(GRAD),
            moments: [exp_avg.wide(MOMENT), exp_avg_sq.wide(MOMENT)],
        }];
        time(repetitions, || rule.step_many_on(exec, t, &mut tensor).expect("a valid step"))
    }

    /// Moves the bytes of a step, and leaves every value as it was, but for copies.
    fn stream(&mut self, parallel: bool, repetitions: usize) -> Duration {
        let kind = self.case.kind;
        stream(self.pieces(), kind, parallel, repetitions)
    }

    /// The same, of a step with everything in `f32`.
    fn f32_stream(&mut self, parallel: bool, repetitions: usize) -> Duration {
        let [exp_avg, exp_avg_sq] = &mut self.moments;
        let tensor = MixedTensor {
            param: Param::F32(self.param.wide(PARAM)),
            grad: Grad::F32(self.grad.wide(GRAD)),
            moments: [Moment::F32(exp_avg.wide(MOMENT)), Moment::F32(exp_avg_sq.wide(MOMENT))],
            first: 0,
        };
        let pieces = pieces(tensor, self.case.elements);
        stream(pieces, self.case.kind, parallel, repetitions)
    }

    fn pieces(&mut self) -> Vec<Piece<'_>> {
        let elements = self.case.elements;
        pieces(self.tensor(), elements)
    }
}

fn stream(mut pieces: Vec<Piece<'_>>, kind: Kind, parallel: bool, repetitions: usize) -> Duration {
    let cpu = Arch::new();
    time(repetitions, || {
        for pass in kind.passes() {
            if parallel {
                pieces.par_iter_mut().for_each(|piece| piece.stream(cpu, *pass));
            } else {
                pieces.iter_mut().for_each(|piece| piece.stream(cpu, *pass));
            }
        }
    })
}

fn pieces(tensor: MixedTensor<'_, Adam>, elements: usize) -> Vec<Piece<'_>> {
    let count = elements / PIECE;
    let MixedTensor { param, grad, moments, .. } = tensor;
    let grads = Span::of_grad(grad).cut(count);
    let mut others = Span::of_param(param);
    others.extend(moments.into_iter().flat_map(Span::of_moment));
    let mut others: Vec<_> = others.into_iter().map(|span| span.cut(count).into_iter()).collect();
    let mut pieces = vec![];
    for grad in grads {
        let others = others.iter_mut().filter_map(Iterator::next).collect();
        pieces.push(Piece { grad, others });
    }
    pieces
}

/// One of the passes over memory that a step consists of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OverMemory {
    Norm,
    Step,
}

impl Kind {
    fn passes(self) -> &'static [OverMemory] {
        match self {
            Self::Norm => &[OverMemory::Norm],
            Self::Tail => &[OverMemory::Norm, OverMemory::Step],
            _ => &[OverMemory::Step],
        }
    }
}

/// Elements that a thread takes at a time.
const PIECE: usize = 16 << 10;

/// Tiles in a piece, each of 1,024 elements: all arrays are read at once, as in a step.
const TILES: usize = 16;

/// A part of each array.
struct Piece<'a> {
    grad: Span<'a>,
    others: Vec<Span<'a>>,
}

impl Piece<'_> {
    /// On the best instruction set: with narrow registers alone, small arrays would come slower than a
    /// step takes them.
    fn stream(&mut self, cpu: Arch, pass: OverMemory) {
        cpu.dispatch(
            #[inline(always)]
            || match pass {
                OverMemory::Norm => {
                    for tile in 0..TILES {
                        self.grad.read(tile);
                    }
                }
                OverMemory::Step => {
                    for tile in 0..TILES {
                        self.grad.stream(tile);
                        for span in &mut self.others {
                            span.stream(tile);
                        }
                    }
                }
            },
        );
    }

    fn bytes(&self, kind: Kind) -> usize {
        let of_pass = |pass: &OverMemory| match pass {
            OverMemory::Norm => self.grad.bytes_read(),
            OverMemory::Step => {
                let bytes = self.others.iter().map(Span::bytes);
                self.grad.bytes() + bytes.sum::<usize>()
            }
        };
        kind.passes().iter().map(of_pass).sum()
    }
}

/// A part of an array.
enum Span<'a> {
    F32(Access<'a, f32>),
    U16(Access<'a, u16>),
    U8(Access<'a, u8>),
}

/// What a step does with an array.
enum Access<'a, T> {
    Read(&'a [T]),
    Change(&'a mut [T]),
    Write(&'a mut [T]),
}

/// Calls a method of whatever type of access there is.
macro_rules! access {
    ($span:expr, $access:ident => $call:expr) => {
        match $span {
            Span::F32($access) => $call,
            Span::U16($access) => $call,
            Span::U8($access) => $call,
        }
    };
}

impl<'a> Span<'a> {
    fn of_param(param: Param<'a>) -> Vec<Self> {
        use Access::{Change, Write};
        match param {
            Param::F32(param) => vec![Self::F32(Change(param))],
            Param::F32AndBf16(param, copy) => {
                vec![Self::F32(Change(param)), Self::U16(Write(copy.reinterpret_cast_mut()))]
            }
            Param::F32AndF16(param, copy) => {
                vec![Self::F32(Change(param)), Self::U16(Write(copy.reinterpret_cast_mut()))]
            }
            Param::Split(high, low) => {
                vec![Self::U16(Change(high.reinterpret_cast_mut())), Self::U16(Change(low))]
            }
            Param::Bf16(param) | Param::Bf16Stochastic(param) => {
                vec![Self::U16(Change(param.reinterpret_cast_mut()))]
            }
            Param::F16(param) => vec![Self::U16(Change(param.reinterpret_cast_mut()))],
        }
    }

    fn of_grad(grad: Grad<'a>) -> Self {
        use Access::{Change, Read};
        match grad {
            Grad::F32(grad) => Self::F32(Read(grad)),
            Grad::Bf16(grad) => Self::U16(Read(grad.reinterpret_cast())),
            Grad::F16(grad) => Self::U16(Read(grad.reinterpret_cast())),
            Grad::F32ToZero(grad) => Self::F32(Change(grad)),
            Grad::Bf16ToZero(grad) => Self::U16(Change(grad.reinterpret_cast_mut())),
            Grad::F16ToZero(grad) => Self::U16(Change(grad.reinterpret_cast_mut())),
        }
    }

    fn of_moment(moment: Moment<'a>) -> Vec<Self> {
        use Access::Change;
        match moment {
            Moment::F32(moment) => vec![Self::F32(Change(moment))],
            Moment::Bf16(moment) => vec![Self::U16(Change(moment.reinterpret_cast_mut()))],
            Moment::Q8(codes, scales) => {
                vec![Self::U8(Change(codes)), Self::F32(Change(scales))]
            }
        }
    }

    fn cut(self, count: usize) -> Vec<Self> {
        match self {
            Self::F32(access) => access.cut(count).map(Self::F32).collect(),
            Self::U16(access) => access.cut(count).map(Self::U16).collect(),
            Self::U8(access) => access.cut(count).map(Self::U8).collect(),
        }
    }

    #[inline(always)]
    fn stream(&mut self, tile: usize) {
        access!(self, access => access.stream(tile));
    }

    #[inline(always)]
    fn read(&self, tile: usize) {
        access!(self, access => read(access.values(), tile));
    }

    fn bytes_read(&self) -> usize {
        access!(self, access => size_of_val(access.values()))
    }

    fn bytes(&self) -> usize {
        access!(self, access => access.passes() * size_of_val(access.values()))
    }
}

impl<'a, T: Bits> Access<'a, T> {
    #[inline(always)]
    fn values(&self) -> &[T] {
        match self {
            Self::Read(values) => values,
            Self::Change(values) | Self::Write(values) => values,
        }
    }

    /// How often memory is read or written.
    fn passes(&self) -> usize {
        if matches!(self, Self::Change(_)) { 2 } else { 1 }
    }

    fn cut(self, count: usize) -> Box<dyn Iterator<Item = Self> + 'a> {
        let len = (self.values().len() / count).max(1);
        match self {
            Self::Read(values) => Box::new(values.chunks(len).map(Self::Read)),
            Self::Change(values) => Box::new(values.chunks_mut(len).map(Self::Change)),
            Self::Write(values) => Box::new(values.chunks_mut(len).map(Self::Write)),
        }
    }

    #[inline(always)]
    fn stream(&mut self, tile: usize) {
        match self {
            Self::Read(values) => read(values, tile),
            Self::Change(values) => {
                let range = range(values.len(), tile);
                let nothing = black_box(0);
                for value in &mut values[range] {
                    *value = value.flip(nothing);
                }
            }
            Self::Write(values) => {
                let range = range(values.len(), tile);
                values[range].fill(T::ZERO);
            }
        }
    }
}

#[inline(always)]
fn range(len: usize, tile: usize) -> Range<usize> {
    len * tile / TILES..len * (tile + 1) / TILES
}

#[inline(always)]
fn read<T: Bits>(values: &[T], tile: usize) {
    let values = &values[range(values.len(), tile)];
    let mut all = T::ZERO;
    for &value in values {
        all = all.mix(value);
    }
    black_box(all);
}

/// Arithmetic that costs nothing.
trait Bits: Copy + Send + Sync + 'static {
    const ZERO: Self;
    fn flip(self, bits: u8) -> Self;
    fn mix(self, other: Self) -> Self;
}

macro_rules! bits {
    ($integer:ty) => {
        impl Bits for $integer {
            const ZERO: Self = 0;

            #[inline(always)]
            fn flip(self, bits: u8) -> Self {
                self ^ Self::from(bits)
            }

            #[inline(always)]
            fn mix(self, other: Self) -> Self {
                self ^ other
            }
        }
    };
}

bits!(u8);
bits!(u16);

impl Bits for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn flip(self, bits: u8) -> Self {
        Self::from_bits(self.to_bits() ^ u32::from(bits))
    }

    #[inline(always)]
    fn mix(self, other: Self) -> Self {
        Self::from_bits(self.to_bits() ^ other.to_bits())
    }
}
