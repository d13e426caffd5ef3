//! Any step on rows gives the bits of the reference, or is refused for a reason and writes nothing.

#![no_main]

mod call;
mod case;
#[path = "../decode.rs"]
mod decode;
mod mixed;
#[path = "../../../tests/support/mod.rs"]
mod support;

use adamant::{
    Adam, StepOptions,
    reference::RowReference,
    rule::{BuiltIn, Float},
    table::{CatchUp, RowWiseAdam},
};
use case::{Call, Case, Norm, OptionsDrawing, Update, What};
use decode::{Effort, FloatName, in_pool, repeated, start};
use libfuzzer_sys::fuzz_target;
use support::{
    Draw, WithRule,
    rows::{
        Event, Listed, Misfit, RowColumns, check_dense_equivalent_or_refused, check_lazy_or_refused,
    },
    with_rule,
};

fuzz_target!(init: start(), |case: Case<'_>| case.run());

impl WithRule for &Case<'_> {
    fn run<R: BuiltIn>(self) {
        match self.types {
            Some(types) => self.mixed::<R>(types),
            None => self.lazy(|draw| draw.rule::<R>()),
        }
    }
}

impl Case<'_> {
    fn run(&self) {
        in_pool(self.effort, self.pool, || match self.update {
            Update::Lazy(rule) => with_rule(rule, self),
            Update::RowWise => self.lazy(|draw| RowWiseAdam(draw.rule())),
            Update::Series => self.dense_equivalent(CatchUp::Series),
            Update::Replay => self.dense_equivalent(CatchUp::Replay),
        });
    }

    fn lazy<R: RowReference + std::fmt::Debug>(&self, draw: fn(&mut Draw) -> R) {
        let mut bits = self.bits.words();
        let rule = draw(&mut Draw::new(&mut bits));
        match self.float {
            FloatName::F32 => self.judge_lazy::<R, f32>(&rule, &mut bits),
            FloatName::F64 => self.judge_lazy::<R, f64>(&rule, &mut bits),
        }
    }

    fn judge_lazy<R: RowReference + std::fmt::Debug, F: Float>(
        &self,
        rule: &R,
        bits: &mut dyn FnMut() -> u64,
    ) {
        let before: RowColumns<F> = self.table(rule, bits);
        let steps: Vec<_> =
            self.calls.iter().map(|call| self.listed(call, &before, bits)).collect();
        let steps = steps.iter().map(|(listed, misfit)| (listed, *misfit));
        let options = self.options(bits);
        check_lazy_or_refused(rule, self.start.get(), &before, steps, options, self.offset());
    }

    fn dense_equivalent(&self, way: CatchUp) {
        match self.float {
            FloatName::F32 => self.judge_dense_equivalent::<f32>(way),
            FloatName::F64 => self.judge_dense_equivalent::<f64>(way),
        }
    }

    fn judge_dense_equivalent<F: Float>(&self, way: CatchUp) {
        let mut bits = self.bits.words();
        let before: RowColumns<F> = self.table(&Adam::default(), &mut bits);
        let (mut adam, mut events) = (Adam::default(), vec![]);
        for call in &self.calls {
            let (listed, misfit) = self.listed(call, &before, &mut bits);
            adam = call.what.adam(adam, &mut Draw::new(&mut bits));
            let event = match call.what {
                What::CatchUp => Event::CatchUp(call.index_type, listed.rows),
                What::CatchUpAll => Event::CatchUpAll,
                What::SetStep(step) => Event::SetStep(step.get()),
                What::Step | What::ScheduledStep | What::StepOf(_) => Event::Step(adam, listed),
            };
            events.push((event, misfit));
            let none = || Listed::new(call.index_type, vec![], before.width, |_| F::default());
            let idle = 0..call.idle(self.effort, before.param.len());
            events.extend(idle.map(|_| (Event::Step(adam, none()), None)));
        }
        let start = self.start.get();
        let events = events.iter().map(|(event, misfit)| (event, *misfit));
        let options = StepOptions { flush_subnormals: false, ..self.options(&mut bits) };
        check_dense_equivalent_or_refused(way, start, &before, events, options, self.offset());
    }

    pub(crate) fn options(&self, bits: &mut dyn FnMut() -> u64) -> StepOptions<'static> {
        let OptionsDrawing { scales, clips, skip_nonfinite, flush_subnormals, ref norm } =
            self.options;
        let mut draw = Draw::new(bits);
        StepOptions {
            exec: support::exec(self.isa, self.parallel),
            grad_factor: if scales { draw.finite().abs() } else { 1.0 },
            max_norm: clips.then(|| draw.size()),
            grad_norm: match norm {
                Norm::Unknown => None,
                Norm::Finite => Some(f64::MAX),
                Norm::Infinite => Some(f64::INFINITY),
                Norm::Nan => Some(f64::NAN),
            },
            skip_nonfinite,
            flush_subnormals,
            ..StepOptions::default()
        }
    }

    pub(crate) fn offset(&self) -> usize {
        usize::from(self.offset % 64)
    }

    /// Mostly few; in large cases often enough to be cut for the threads of a pool, or even from outside
    /// of it.
    pub(crate) fn rows(&self) -> usize {
        let (size, rows) = self.rows;
        let (rows, most) = match (self.effort, size) {
            (Effort::Large, 64..128) => (usize::from(rows % 700), 1 << 15),
            (Effort::Large, 128..140) => (usize::from(rows % 8000), 1 << 18),
            (Effort::Large, _) => (usize::from(rows % 40), 1 << 14),
            (Effort::Small, 64..72) => (usize::from(rows % 700), 1 << 11),
            (Effort::Small, _) => (usize::from(rows % 12), 1 << 11),
        };
        rows.min(most / self.width())
    }

    /// Now and then more than is added up at a time.
    pub(crate) fn width(&self) -> usize {
        let (size, width) = self.width;
        1 + usize::from(match size {
            64..66 => 900 + width % 1300,
            66..96 => width % 70,
            _ => width % 20,
        })
    }

    fn table<R: RowReference + std::fmt::Debug, F: Float>(
        &self,
        rule: &R,
        bits: &mut dyn FnMut() -> u64,
    ) -> RowColumns<F> {
        let element = |column| self.numbers.element(column, bits());
        RowColumns::new(rule, self.rows(), self.width(), repeated(element))
    }

    /// The gradient of a call, and what is wrong with the rest.
    fn listed<F: Float>(
        &self,
        call: &Call,
        table: &RowColumns<F>,
        bits: &mut dyn FnMut() -> u64,
    ) -> (Listed<F>, Option<Misfit>) {
        let width = table.width;
        let stride = width + usize::from(call.gap % 4);
        let rows = call.rows(self.effort, table.rows(), stride, bits);
        let mut value = repeated(|column| self.numbers.element(column, bits()));
        let mut listed = Listed::new(call.index_type, rows, stride, |place| value(1, place));
        if !call.closed && !listed.rows.is_empty() {
            listed.values.truncate(listed.values.len() - (stride - width));
        }
        let misfit = call.mistake.as_ref().and_then(|mistake| mistake.make(&mut listed, table));
        (listed, misfit)
    }
}
