//! The rows, the settings and the mistakes of a call.

use adamant::{Adam, rule::Float};

use crate::{
    case::{Call, Mistake, Order, Place, Rule, What},
    decode::Effort,
    support::{
        Draw,
        rows::{Listed, Misfit, RowColumns},
    },
};

impl Call {
    /// None of a table that has none.
    pub(crate) fn rows(
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
    pub(crate) fn idle(&self, effort: Effort, elements: usize) -> usize {
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
    pub(crate) fn adam(&self, last: Adam, draw: &mut Draw) -> Adam {
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
    pub(crate) fn make<F: Float>(
        &self,
        listed: &mut Listed<F>,
        table: &RowColumns<F>,
    ) -> Option<Misfit> {
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
