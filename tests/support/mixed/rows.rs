//! Tables in mixed precision.

use std::{collections::BTreeMap, ops::Range};

use adamant::{
    Error, Moment, Report, StepOptions, reference,
    table::{RowGrads, RowScratch, Table},
};
use half::{bf16, f16};

use super::{
    super::{AnyRule, DenseRule, RowsRule, guarded::Guarded},
    GradType, MixedColumns, MomentType, Types, check_norm, factor_of,
    outcome::plain_norm,
    outcome_of, param_of,
    store::Store,
};

/// Gradients of rows, as a call passes them.
pub enum RowValues {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
}

impl RowValues {
    /// Values rounded to a type.
    pub fn new(grad_type: GradType, values: &[f32]) -> Self {
        match grad_type {
            GradType::F32 => Self::F32(values.to_vec()),
            GradType::Bf16 => Self::Bf16(values.iter().copied().map(bf16::from_f32).collect()),
            GradType::F16 => Self::F16(values.iter().copied().map(f16::from_f32).collect()),
        }
    }

    /// The values as `f32`.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::F32(values) => values.clone(),
            Self::Bf16(values) => values.iter().map(|value| value.to_f32()).collect(),
            Self::F16(values) => values.iter().map(|value| value.to_f32()).collect(),
        }
    }
}

/// Listed rows, and a row of values for each.
pub struct MixedListed {
    pub rows: Vec<u32>,
    pub values: RowValues,
    /// The elements from the start of a row of values to the start of the next.
    pub stride: usize,
}

impl MixedListed {
    fn step(
        &self,
        rule: &dyn RowsRule<f32>,
        t: u64,
        table: Table<'_>,
        scratch: &mut RowScratch,
        options: &StepOptions<'_>,
    ) -> Result<Report, Error> {
        let (rows, width, stride) = (table.rows(), table.width(), self.stride);
        macro_rules! sorted {
            ($values:expr) => {
                RowGrads { rows: &self.rows, values: $values, width, stride }.sort(rows, scratch)
            };
        }
        let sorted = match &self.values {
            RowValues::F32(values) => sorted!(values),
            RowValues::Bf16(values) => sorted!(values),
            RowValues::F16(values) => sorted!(values),
        };
        rule.step_listed(t, table, sorted?, options)
    }
}

/// Fails unless steps on listed rows of a table, the first of which is `t`, give the bits of the reference.
#[track_caller]
pub fn check_rows<'a>(
    rule: &dyn AnyRule,
    t: u64,
    before: &MixedColumns,
    width: usize,
    steps: impl IntoIterator<Item = &'a MixedListed>,
    options: &StepOptions<'_>,
) {
    let (mut found, mut expected) = (before.clone(), before.clone());
    let mut scratch = RowScratch::default();
    for (listed, t) in steps.into_iter().zip(t..) {
        let places: Vec<usize> = listed.rows.iter().map(|&row| row as usize).collect();
        let sums = reference::sum_rows(&places, &listed.values.to_f32(), width, listed.stride);
        let grads = sums.values().flatten().copied().collect::<Vec<_>>();
        let report = match listed.step(rule, t, found.table(width), &mut scratch, options) {
            Ok(report) => report,
            Err(error) => {
                assert_factor_is_too_small(&error, options, plain_norm(&grads));
                // This step writes nothing, and ends the case.
                break;
            }
        };
        check_norm(&report, options, &grads);
        let factor = factor_of(options, report.grad_norm);
        assert_eq!(report.outcome, outcome_of(factor));
        if let Some(grad_factor) = factor {
            let options = StepOptions { grad_factor, ..*options };
            expected.reference_rows(rule, t, &sums, &options);
        }
    }
    let (rows, types) = (before.len() / width, before.types);
    let context = || format!("{rule:?}, {rows} by {width}, {types:?}, from {t}, {options:?}");
    found.assert_same_bits(&expected, &context);
    found.check_guards();
}

/// Fails unless a step was refused because clipping made the factor too small for `f32`.
#[track_caller]
fn assert_factor_is_too_small(error: &Error, options: &StepOptions<'_>, norm: f64) {
    let norm = options.grad_norm.unwrap_or(norm) * options.grad_factor;
    let factor = factor_of(options, Some(norm)).expect("a finite norm");
    let is_so = matches!(*error, Error::Option { name: "grad_factor", value, .. }
        if options.max_norm.is_some()
            && !(value as f32).is_normal()
            && (value - factor).abs() <= 1e-10 * factor);
    assert!(is_so, "{error}: a valid step, whose gradients are multiplied by {factor:e}");
}

impl Types {
    /// Whether 256 elements share a scale in one of the moments.
    pub fn has_blocks(&self) -> bool {
        self.moments.contains(&MomentType::Q8)
    }
}

impl MixedColumns {
    /// The arrays as a table.
    pub fn table(&mut self, width: usize) -> Table<'_> {
        let param = param_of(self.types, &mut self.param);
        let moments = self.moments.iter_mut().map(|moment| match moment {
            Store::F32(moment) => Moment::from(moment.get_mut()),
            Store::Bf16(moment) => Moment::from(moment.get_mut()),
            Store::F16(moment) => Moment::from(moment.get_mut()),
            Store::Q8(codes, scales) => Moment::q8(codes.get_mut(), scales.get_mut()),
            _ => unreachable!("no moment"),
        });
        Table::new(param, width).with_moments(moments).with_first(self.first)
    }

    /// Takes step `t` of the listed rows with the reference: each row is a tensor whose gradient is the row's sum.
    fn reference_rows(
        &mut self,
        rule: &dyn DenseRule<f32>,
        t: u64,
        sums: &BTreeMap<usize, Vec<f32>>,
        options: &StepOptions<'_>,
    ) {
        for (&row, sums) in sums {
            let elements = row * sums.len()..(row + 1) * sums.len();
            let mut of_row = Self {
                types: Types { grad: GradType::F32, to_zero: false, ..self.types },
                param: self.param.part(elements.clone(), 0),
                grad: Store::grad(GradType::F32, sums),
                moments: self
                    .moments
                    .iter()
                    .map(|moment| moment.part(elements.clone(), 0))
                    .collect(),
                first: self.first.wrapping_add(elements.start as u64),
                steps: t - 1,
            };
            of_row.reference(rule, options);
            put(&mut self.param, &elements, &of_row.param);
            for (moment, of_row) in self.moments.iter_mut().zip(&of_row.moments) {
                put(moment, &elements, of_row);
            }
        }
    }
}

/// Writes a part back to where it was taken from.
fn put(store: &mut Store, elements: &Range<usize>, part: &Store) {
    fn copy<T: Copy + PartialEq>(array: &mut Guarded<T>, range: &Range<usize>, part: &Guarded<T>) {
        // A moment that the rule does without is empty.
        if !part.get().is_empty() {
            array.get_mut()[range.clone()].copy_from_slice(part.get());
        }
    }
    let blocks = elements.start / 256..elements.end.div_ceil(256);
    match (store, part) {
        (Store::F32(array), Store::F32(part)) => copy(array, elements, part),
        (Store::F32AndBf16(array, half), Store::F32AndBf16(part, of_half)) => {
            copy(array, elements, part);
            copy(half, elements, of_half);
        }
        (Store::F32AndF16(array, half), Store::F32AndF16(part, of_half)) => {
            copy(array, elements, part);
            copy(half, elements, of_half);
        }
        (Store::Split(high, low), Store::Split(of_high, of_low)) => {
            copy(high, elements, of_high);
            copy(low, elements, of_low);
        }
        (Store::Bf16(array), Store::Bf16(part)) => copy(array, elements, part),
        (Store::F16(array), Store::F16(part)) => copy(array, elements, part),
        (Store::Q8(codes, scales), Store::Q8(of_codes, of_scales)) => {
            copy(codes, elements, of_codes);
            copy(scales, &blocks, of_scales);
        }
        _ => unreachable!("a part of another store"),
    }
}
