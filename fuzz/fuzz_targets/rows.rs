//! Any step on rows gives the bits of the reference, or is refused for a reason and writes nothing.

#![no_main]

#[path = "../../tests/support/mod.rs"]
mod support;

mod decode;

use adamant::{
    Adam, BuiltIn, CatchUp, Float, Isa, RowWiseAdam, StepOptions,
    reference::{Reference, RowReference},
};
use decode::{
    Bits, Effort, FloatName, Numbers, StepCount, any_effort, any_isa, any_types, build_global_pool,
    in_pool, repeated,
};
use libfuzzer_sys::{
    arbitrary::{self, Arbitrary, Result, Unstructured},
    fuzz_target,
};
use support::{
    Columns, Draw, WithRule,
    mixed::{MixedColumns, MixedListed, RowValues, Types, check_rows},
    rows::{
        Event, IndexType, Listed, Misfit, RowColumns, check_dense_equivalent_or_refused,
        check_lazy_or_refused,
    },
    with_rule,
};

fuzz_target!(init: build_global_pool(), |case: Case<'_>| case.run());

/// What the fuzzer decides.
#[derive(Arbitrary, Debug)]
struct Case<'a> {
    /// The types of a table in mixed precision, for lazy steps of any optimizer.
    #[arbitrary(with = any_table_types)]
    types: Option<Types>,
    #[arbitrary(with = any_effort)]
    effort: Effort,
    update: Update,
    float: FloatName,
    start: StepCount,
    /// The table, see [`Self::rows`] and [`Self::width`].
    rows: (u8, u16),
    width: (u8, u16),
    numbers: Numbers,
    #[arbitrary(with = any_isa)]
    isa: Isa,
    parallel: bool,
    /// See [`in_pool`].
    pool: u8,
    offset: u8,
    options: OptionsDrawing,
    #[arbitrary(with = any_calls)]
    calls: Vec<Call>,
    /// Hyper-parameters, indices and elements.
    bits: Bits<'a>,
}

/// One time in four.
fn any_table_types(bytes: &mut Unstructured<'_>) -> Result<Option<Types>> {
    let is_mixed = bytes.arbitrary::<u8>()? < 64;
    Ok(if is_mixed { Some(Types { to_zero: false, ..any_types(bytes)? }) } else { None })
}

#[derive(Arbitrary, Debug)]
struct OptionsDrawing {
    scales: bool,
    clips: bool,
    skip_nonfinite: bool,
    flush_subnormals: bool,
    norm: Norm,
}

#[derive(Arbitrary, Debug)]
enum Norm {
    Unknown,
    Finite,
    Infinite,
    Nan,
}

/// Up to 15.
fn any_calls(bytes: &mut Unstructured<'_>) -> Result<Vec<Call>> {
    let count = bytes.int_in_range(0..=15)?;
    (0..count).map(|_| bytes.arbitrary()).collect()
}

#[derive(Arbitrary, Debug)]
enum Update {
    /// Of any optimizer, see [`with_rule`].
    Lazy(u8),
    RowWise,
    Series,
    Replay,
}

/// Each has everything; what it has no use for is left out.
#[derive(Arbitrary, Debug)]
struct Call {
    what: What,
    #[arbitrary(with = any_index_type)]
    index_type: IndexType,
    order: Order,
    /// How many rows it lists, see [`Self::count`].
    count: (u8, u16),
    /// Between rows of the gradient, and whether there is one after the last, too.
    gap: u8,
    closed: bool,
    #[arbitrary(with = any_mistake)]
    mistake: Option<Mistake>,
    /// The steps without any rows that follow, see [`Self::idle`].
    idle: (u8, u16),
}

/// Lazy updates are steps, whatever this says.
#[derive(Arbitrary, Debug)]
enum What {
    /// With the hyper-parameters of the step before.
    Step,
    /// With another learning rate and strength of weight decay.
    ScheduledStep,
    StepOf(Rule),
    CatchUp,
    CatchUpAll,
    SetStep(StepCount),
}

#[derive(Arbitrary, Debug)]
enum Rule {
    Adam,
    AdamW,
    Any,
    /// One that [`CatchUp::Series`] is likely to serve.
    Served,
}

#[derive(Arbitrary, Debug)]
enum Order {
    Any,
    Ascending,
    Descending,
    /// Few rows, many times.
    Few,
}

fn any_index_type(bytes: &mut Unstructured<'_>) -> Result<IndexType> {
    bytes.choose(&IndexType::ALL).copied()
}

/// A number that is another than it should be.
#[derive(Arbitrary, Debug)]
struct Mistake {
    place: Place,
    /// Which array or index.
    which: u16,
    #[arbitrary(with = any_distance)]
    by: i64,
}

#[derive(Arbitrary, Debug)]
enum Place {
    Width,
    GradWidth,
    Stride,
    Values,
    Array,
    Rows,
    Index,
}

/// The outermost stand for as far as possible.
fn any_distance(bytes: &mut Unstructured<'_>) -> Result<i64> {
    bytes.choose(&[-1, 1, -2, 2, -3, 5, -30, 60, i64::MIN, i64::MAX]).copied()
}

/// One time in eight.
fn any_mistake(bytes: &mut Unstructured<'_>) -> Result<Option<Mistake>> {
    Ok(if bytes.ratio(1, 8)? { Some(bytes.arbitrary()?) } else { None })
}

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

    /// Steps of a table in mixed precision. Nothing is wrong with them; `mixed` has calls with errors.
    fn mixed<R: BuiltIn>(&self, types: Types) {
        let mut bits = self.bits.words();
        let mut draw = Draw::new(&mut bits);
        let (rule, in_range) = (draw.rule::<R>(), draw.in_range);
        let options = self.options(&mut bits);
        let t = self.start.get().max(1);
        let is_finite = |t| rule.constants(t).as_ref().iter().all(|&k| (k as f32).is_finite());
        let has_options = options.grad_factor.is_normal()
            && options.grad_factor > 0.0
            && (options.grad_factor as f32).is_normal()
            && options.max_norm.is_none_or(|norm| norm > 0.0);
        let steps = t..t.saturating_add(self.calls.len() as u64);
        let fits = in_range && has_options && steps.clone().all(is_finite);
        if !fits || !self.isa.is_available() || steps.count() < self.calls.len() {
            return;
        }
        let (rows, width) = self.mixed_shape(&types);
        let before = self.mixed_table(&rule, rows * width, types, &mut bits);
        let listed: Vec<_> = self
            .calls
            .iter()
            .map(|call| self.mixed_listed(call, rows, width, types, &mut bits))
            .collect();
        check_rows(&rule, t, &before, width, &listed, &options);
    }

    /// Rows and width. Rows are whole blocks where moments are in 8 bits.
    fn mixed_shape(&self, types: &Types) -> (usize, usize) {
        if types.has_blocks() {
            let width = 256 * (1 + usize::from(self.width.1 % 3));
            (self.rows().min((1 << 13) / width), width)
        } else {
            (self.rows(), self.width())
        }
    }

    fn mixed_table<R: Reference>(
        &self,
        rule: &R,
        len: usize,
        types: Types,
        bits: &mut dyn FnMut() -> u64,
    ) -> MixedColumns {
        // Tables may begin just before the upper half of the elements' numbers changes.
        let first = (1_u64 << 32).wrapping_sub(bits() >> (self.offset % 64));
        let columns =
            Columns::new(rule, len, repeated(|column| self.numbers.element(column, bits())));
        let mut columns = MixedColumns::new(rule, &columns, types, first);
        if let Numbers::Raw = self.numbers {
            columns.overwrite(repeated(|_| bits()));
        }
        columns
    }

    fn mixed_listed(
        &self,
        call: &Call,
        rows: usize,
        width: usize,
        types: Types,
        bits: &mut dyn FnMut() -> u64,
    ) -> MixedListed {
        let stride = width + usize::from(call.gap % 4);
        let rows: Vec<u32> =
            call.rows(self.effort, rows, stride, bits).into_iter().map(|row| row as u32).collect();
        let mut value = repeated(|column| self.numbers.element(column, bits()));
        let values: Vec<f32> = (0..rows.len() * stride).map(|place| value(1, place)).collect();
        MixedListed { rows, values: RowValues::new(types.grad, &values), stride }
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

    fn options(&self, bits: &mut dyn FnMut() -> u64) -> StepOptions<'static> {
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

    fn offset(&self) -> usize {
        usize::from(self.offset % 64)
    }

    /// Mostly few; in large cases often enough to be cut for the threads of a pool, or even from outside
    /// of it.
    fn rows(&self) -> usize {
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
    fn width(&self) -> usize {
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

impl Call {
    /// None of a table that has none.
    fn rows(
        &self,
        effort: Effort,
        rows: usize,
        stride: usize,
        bits: &mut dyn FnMut() -> u64,
    ) -> Vec<usize> {
        let count = if rows == 0 { 0 } else { self.count(effort).min((1 << 18) / stride) };
        let any = (0..count).map(|_| bits() as usize);
        let mut listed: Vec<_> = match self.order {
            Order::Few => any.map(|bits| bits % rows.min(3)).collect(),
            _ => any.map(|bits| bits % rows).collect(),
        };
        match self.order {
            Order::Ascending => listed.sort_unstable(),
            Order::Descending => listed.sort_unstable_by(|a, b| b.cmp(a)),
            Order::Any | Order::Few => {}
        }
        listed
    }

    /// Mostly few; now and then enough for another way to sort them, and for several threads.
    fn count(&self, effort: Effort) -> usize {
        let (size, count) = self.count;
        usize::from(match (effort, size) {
            (Effort::Large, 64..96) => count % 2500,
            (Effort::Small, 64..66) => count % 600,
            _ => count % 12,
        })
    }

    /// Mostly none; now and then more than a history has, where `elements` are few.
    fn idle(&self, effort: Effort, elements: usize) -> usize {
        let (size, idle) = self.idle;
        let idle = usize::from(match (effort, size) {
            (Effort::Large, 64..96) => idle % 600,
            (Effort::Large, 128..136) => idle % 5000,
            (_, 32..64) => idle % 12,
            _ => 0,
        });
        idle.min((1 << 16) / elements.max(1))
    }
}

impl What {
    /// The hyper-parameters of this step.
    fn adam(&self, last: Adam, draw: &mut Draw) -> Adam {
        match self {
            Self::Step | Self::CatchUp | Self::CatchUpAll | Self::SetStep(_) => last,
            Self::ScheduledStep => {
                let weight_decay = if last.weight_decay == 0.0 { 0.0 } else { draw.share() };
                Adam { lr: draw.size(), weight_decay, ..last }
            }
            Self::StepOf(Rule::Adam) => Adam::default(),
            Self::StepOf(Rule::AdamW) => Adam::adamw(),
            Self::StepOf(Rule::Any) => draw.rule(),
            Self::StepOf(Rule::Served) => {
                let adam: Adam = draw.rule();
                let (beta1, beta2) = (adam.beta1.min(adam.beta2), adam.beta1.max(adam.beta2));
                Adam { beta1, beta2, decoupled_weight_decay: true, ..adam }
            }
        }
    }
}

impl Mistake {
    /// Makes it in the gradient, or returns it for the checker to make.
    fn make<F: Float>(&self, listed: &mut Listed<F>, table: &RowColumns<F>) -> Option<Misfit> {
        let which = usize::from(self.which);
        let other = |number: usize| number.saturating_add_signed(self.by as isize);
        match self.place {
            Place::Width => return Some(Misfit::Width(other(table.width))),
            Place::GradWidth => return Some(Misfit::GradWidth(other(table.width))),
            Place::Array => {
                let arrays: Vec<_> = [&table.param].into_iter().chain(&table.moments).collect();
                let array = which % arrays.len();
                return Some(Misfit::Len { array, len: other(arrays[array].len()) });
            }
            Place::Rows => return Some(Misfit::Rows(other(table.rows()).min(table.rows() + 60))),
            Place::Stride => listed.stride = other(listed.stride),
            Place::Values => {
                let len = listed.values.len();
                listed.values.resize(other(len).min(len + 60), F::default());
            }
            Place::Index => {
                // Before the first row, or after the last.
                let row = match self.by {
                    i64::MIN => i128::MIN,
                    i64::MAX => i128::MAX,
                    by if by < 0 => by.into(),
                    by => table.rows() as i128 - 1 + i128::from(by),
                };
                if let Some(index) = which.checked_rem(listed.rows.len()) {
                    listed.rows[index] = listed.index_type.nearest(row);
                }
            }
        }
        None
    }
}
