//! Tables, and what the reference makes of them.

use adamant::{StepOptions, reference, rule::Float, table::Table};

use super::{
    super::{Columns, RowsRule},
    Listed,
    listed::places,
};

/// A table with its moments, and how it is laid out.
#[derive(Clone, Debug)]
pub struct RowColumns<F> {
    pub width: usize,
    pub param: Vec<F>,
    pub moments: Vec<Vec<F>>,
}

impl<F: Float> RowColumns<F> {
    /// A table for a rule, each element the `value` of its column and place.
    pub fn new(
        rule: &dyn RowsRule<F>,
        rows: usize,
        width: usize,
        mut value: impl FnMut(usize, usize) -> F,
    ) -> Self {
        let mut column = |column, len| (0..len).map(|place| value(column, place)).collect();
        Self {
            width,
            param: column(0, rows * width),
            moments: (rule.moments_of_row(width).into_iter().zip(2..))
                .map(|((_, len), position)| column(position, rows * len))
                .collect(),
        }
    }

    pub fn rows(&self) -> usize {
        self.param.len() / self.width
    }

    pub fn table(&mut self) -> Table<'_> {
        let moments = self.moments.iter_mut().map(|moment| F::moment(moment));
        Table::new(F::param(&mut self.param), self.width).with_moments(moments)
    }

    /// The parameters and moments of a row.
    pub(super) fn row(&mut self, row: usize) -> (&mut [F], Vec<&mut [F]>) {
        let rows = self.rows();
        let moments = self.moments.iter_mut().map(|moment| {
            let width = moment.len() / rows;
            &mut moment[row * width..][..width]
        });
        (&mut self.param[row * self.width..][..self.width], moments.collect())
    }

    /// The gradients of the listed rows, each added up.
    pub fn sums(&self, listed: &Listed<F>) -> Vec<Vec<F>> {
        let Listed { rows, values, stride, .. } = listed;
        reference::sum_rows(&places(rows), values, self.width, *stride).into_values().collect()
    }

    /// Takes step `t` of the listed rows with the reference. Gradients are multiplied by `grad_factor`.
    pub fn reference(
        &mut self,
        rule: &dyn RowsRule<F>,
        t: u64,
        listed: &Listed<F>,
        options: &StepOptions<'_>,
    ) {
        let Listed { rows, values, stride, .. } = listed;
        let factor = F::from_f64(options.grad_factor);
        let smallest = F::from_f64(match size_of::<F>() {
            4 => f32::MIN_POSITIVE.into(),
            _ => f64::MIN_POSITIVE,
        });
        for (row, mut grad) in reference::sum_rows(&places(rows), values, self.width, *stride) {
            if options.grad_factor != 1.0 {
                grad.iter_mut().for_each(|grad| *grad = *grad * factor);
            }
            let (param, moments) = self.row(row);
            rule.follow_row(t, param, &grad, moments);
            if options.flush_subnormals {
                let (_, moments) = self.row(row);
                for value in moments.into_iter().flatten() {
                    if value.abs() < smallest {
                        *value = F::default();
                    }
                }
            }
        }
    }

    /// Fails at the first element whose bits differ; every NaN is like every other.
    #[track_caller]
    pub fn assert_same_bits(&self, expected: &Self, context: &dyn Fn() -> String) {
        let columns = |columns: &Self| Columns {
            param: columns.param.clone(),
            grad: vec![],
            moments: columns.moments.clone(),
        };
        columns(self).assert_same_bits(&columns(expected), context);
    }
}
