//! The faults that a call on rows can have, and the error of each.

use adamant::{
    Adam, Error, Exec, Isa, StepOptions,
    rule::Float,
    table::{RowGrads, RowIndex},
};

use super::super::{RowsRule, mixed::factor_of};

/// A wrong number in a call.
#[derive(Clone, Copy, Debug)]
pub enum Misfit {
    /// The width of the table.
    Width(usize),
    /// The width of the gradient.
    GradWidth(usize),
    /// The length of an array of the table: parameters, moments. The position is taken modulo the number of arrays.
    /// A length beyond the guards is reduced to theirs.
    Len { array: usize, len: usize },
    /// The number of rows of the table.
    Rows(usize),
}

/// The errors that a call may return; none if the call is valid.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<Error>);

impl Faults {
    pub(super) fn add(&mut self, wrong: bool, error: Error) {
        if wrong {
            self.0.push(error);
        }
    }

    pub(super) fn of_exec(&mut self, exec: Exec<'_>) {
        let Some(isa) = exec.isa else { return };
        let available = Isa::available();
        self.add(!available.contains(&isa), Error::IsaUnavailable { isa, available });
    }

    /// `norm` is the one that the report would have.
    pub(super) fn of_options<F: Float>(&mut self, options: &StepOptions<'_>, norm: Option<f64>) {
        self.of_exec(options.exec);
        let StepOptions { grad_factor, max_norm, grad_norm, .. } = *options;
        let mut refuse = |wrong, name, value| {
            self.add(wrong, Error::Option { name, value, allowed: "something else" });
        };
        refuse(!(grad_factor.is_normal() && grad_factor > 0.0), "grad_factor", grad_factor);
        let max_norm = max_norm.unwrap_or(1.0);
        refuse(max_norm.is_nan() || max_norm <= 0.0, "max_norm", max_norm);
        let grad_norm = grad_norm.unwrap_or(0.0);
        refuse(grad_norm < 0.0, "grad_norm", grad_norm);
        let factor = factor_of(options, norm).unwrap_or(grad_factor);
        let is_normal =
            if size_of::<F>() == 4 { (factor as f32).is_normal() } else { factor.is_normal() };
        refuse(!is_normal, "grad_factor", factor);
    }

    pub(super) fn of_rule<F: Float>(&mut self, rule: &dyn RowsRule<F>, t: u64) {
        self.add(t == 0, Error::ZeroStep);
        if let Err(error) = rule.check_settings_of_rows() {
            self.0.push(error);
            return;
        }
        for value in rule.constants_of_rows(t.max(1)) {
            let overflow = !F::from_f64(value).is_finite();
            self.add(overflow, Error::ConstantOverflow { value, float: F::NAME });
        }
    }

    /// The settings that [`CatchUp::Series`](adamant::table::CatchUp::Series) does not support.
    pub(super) fn of_series(&mut self, adam: &Adam) {
        let refused =
            |name, value| Error::HyperParameter { name, value, allowed: "something else" };
        let Adam { lr, beta1, beta2, weight_decay, .. } = *adam;
        self.add(beta1 >= 0.995 * beta2.sqrt(), refused("beta1", beta1));
        let coupled = weight_decay != 0.0 && !adam.decoupled_weight_decay;
        self.add(coupled || lr * weight_decay >= 1.0, refused("weight_decay", weight_decay));
    }

    /// The width, and the lengths of the parameters and moments.
    pub(super) fn of_table<F>(
        &mut self,
        rule: &dyn RowsRule<F>,
        (width, lens): &(usize, Vec<usize>),
    ) {
        let (width, len) = (*width, lens[0]);
        self.add(width == 0, Error::ZeroWidth);
        if width == 0 || !len.is_multiple_of(width) {
            return self.add(width > 0, Error::TableShape { len, width });
        }
        let rows = len / width;
        for ((moment, of_row), &len) in rule.moments_of_row(width).into_iter().zip(&lens[1..]) {
            let expected = rows * of_row;
            let error = Error::MomentMismatch { moment, len, rows, width, expected };
            self.add(len != expected, error);
        }
    }

    pub(super) fn of_row_count(&mut self, rows: usize, expected: usize) {
        self.add(rows != expected, Error::RowCountMismatch { rows, expected });
    }

    pub(super) fn of_grads<I: RowIndex, F: Float>(
        &mut self,
        grads: &RowGrads<'_, I, F>,
        expected: usize,
    ) {
        let RowGrads { width, stride, .. } = *grads;
        let (len, indices) = (grads.values.len(), grads.rows.len());
        self.add(width == 0, Error::ZeroWidth);
        self.add(width != expected, Error::WidthMismatch { width, expected });
        self.add(stride < width, Error::StrideTooSmall { stride, width });
        // All rows, with or without the gap after the last one.
        let most = stride as u128 * indices as u128;
        let least = if indices == 0 { 0 } else { most - stride as u128 + width as u128 };
        let fits = (least..=most).contains(&(len as u128));
        self.add(!fits, Error::ValuesMismatch { len, indices, width, stride });
    }

    pub(super) fn of_indices<I: RowIndex>(&mut self, listed: &[I], rows: usize) {
        let outside = |row: &I| !(0..rows as i128).contains(&row.value());
        if let Some(position) = listed.iter().position(outside) {
            let row = listed[position].value();
            self.0.push(Error::RowOutOfRange { position, row, rows });
        }
    }

    /// Fails unless a call with faults was refused for one of them, and a valid call was taken. Returns the error.
    #[track_caller]
    pub(super) fn judge(&self, found: Result<(), Error>) -> Option<Error> {
        match &found {
            Ok(()) => assert!(self.0.is_empty(), "not refused: {:?}", self.0),
            Err(error) => {
                let deserved = self.0.iter().any(|fault| is_like(error, fault));
                assert!(deserved, "refused: {error}; expected {:?}", self.0);
            }
        }
        found.err()
    }
}

/// Whether two errors are the same. The words for what is allowed may differ.
fn is_like(a: &Error, b: &Error) -> bool {
    use Error::{HyperParameter, Option};
    match (a, b) {
        (Option { name: a, value: x, .. }, Option { name: b, value: y, .. }) => {
            a == b && x.to_bits() == y.to_bits()
        }
        (HyperParameter { name: a, value: x, .. }, HyperParameter { name: b, value: y, .. }) => {
            a == b && x.to_bits() == y.to_bits()
        }
        // NaN is not equal to itself, but its text is.
        _ => a.to_string() == b.to_string(),
    }
}
