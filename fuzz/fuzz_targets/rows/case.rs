//! What the fuzzer decides.

use adamant::Isa;
use libfuzzer_sys::arbitrary::{self, Arbitrary, Result, Unstructured};

use crate::{
    decode::{Bits, Effort, FloatName, Numbers, StepCount, any_effort, any_isa, any_types},
    support::{mixed::Types, rows::IndexType},
};

/// A table and calls with it.
#[derive(Arbitrary, Debug)]
pub(crate) struct Case<'a> {
    /// The types of a table in mixed precision, for lazy steps of any optimizer.
    #[arbitrary(with = any_table_types)]
    pub types: Option<Types>,
    #[arbitrary(with = any_effort)]
    pub effort: Effort,
    pub update: Update,
    pub float: FloatName,
    pub start: StepCount,
    /// The table, see [`Self::rows`] and [`Self::width`].
    pub rows: (u8, u16),
    pub width: (u8, u16),
    pub numbers: Numbers,
    #[arbitrary(with = any_isa)]
    pub isa: Isa,
    pub parallel: bool,
    /// See [`in_pool`].
    pub pool: u8,
    pub offset: u8,
    pub options: OptionsDrawing,
    #[arbitrary(with = any_calls)]
    pub calls: Vec<Call>,
    /// Hyper-parameters, indices and elements.
    pub bits: Bits<'a>,
}

/// One time in four.
fn any_table_types(bytes: &mut Unstructured<'_>) -> Result<Option<Types>> {
    let is_mixed = bytes.arbitrary::<u8>()? < 64;
    Ok(if is_mixed { Some(Types { to_zero: false, ..any_types(bytes)? }) } else { None })
}

#[derive(Arbitrary, Debug)]
pub(crate) struct OptionsDrawing {
    pub scales: bool,
    pub clips: bool,
    pub skip_nonfinite: bool,
    pub flush_subnormals: bool,
    pub norm: Norm,
}

#[derive(Arbitrary, Debug)]
pub(crate) enum Norm {
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
pub(crate) enum Update {
    /// Of any optimizer, see [`with_rule`].
    Lazy(u8),
    RowWise,
    Series,
    Replay,
}

/// Each has everything; what it has no use for is left out.
#[derive(Arbitrary, Debug)]
pub(crate) struct Call {
    pub what: What,
    #[arbitrary(with = any_index_type)]
    pub index_type: IndexType,
    pub order: Order,
    /// How many rows it lists, see [`Self::count`].
    pub count: (u8, u16),
    /// Between rows of the gradient, and whether there is one after the last, too.
    pub gap: u8,
    pub closed: bool,
    #[arbitrary(with = any_mistake)]
    pub mistake: Option<Mistake>,
    /// The steps without any rows that follow, see [`Self::idle`].
    pub idle: (u8, u16),
}

/// Lazy updates are steps, whatever this says.
#[derive(Arbitrary, Debug)]
pub(crate) enum What {
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
pub(crate) enum Rule {
    Adam,
    AdamW,
    Any,
    /// One that [`CatchUp::Series`] is likely to serve.
    Served,
}

#[derive(Arbitrary, Debug)]
pub(crate) enum Order {
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
pub(crate) struct Mistake {
    pub place: Place,
    /// Which array or index.
    pub which: u16,
    #[arbitrary(with = any_distance)]
    pub by: i64,
}

#[derive(Arbitrary, Debug)]
pub(crate) enum Place {
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
