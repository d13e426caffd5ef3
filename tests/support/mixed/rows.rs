//! Tables in mixed precision.

use std::{collections::BTreeMap, ops::Range};

use adamant::{Moment, StepOptions, Table, reference::Reference};
use half::{bf16, f16};

use super::{super::guarded::Guarded, GradType, MixedColumns, Types, param_of, store::Store};

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

    /// What the reference makes of rows in step `t`: each is a tensor whose gradient is the row's sum.
    pub fn reference_rows<R: Reference>(
        &mut self,
        rule: &R,
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
