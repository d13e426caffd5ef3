//! Lazy steps of tables in mixed precision.

use adamant::{reference::Reference, rule::BuiltIn};

use crate::{
    case::{Call, Case},
    decode::{Numbers, repeated},
    support::{
        Columns, Draw,
        mixed::{MixedColumns, MixedListed, RowValues, Types, check_rows},
    },
};

impl Case<'_> {
    /// Steps of a table in mixed precision. Nothing is wrong with them; `mixed` has calls with errors.
    pub(crate) fn mixed<R: BuiltIn>(&self, types: Types) {
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
}
