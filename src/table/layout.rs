//! The moments of a table, whatever the optimizer.

use super::RowRule;
use crate::{optimizer::check_counts, rule::MOMENTS};

/// The moments that an optimizer keeps for rows of some width. It is of no optimizer's type: what checks a table is
/// compiled once, and not for each optimizer.
pub(crate) struct RowLayout {
    pub(super) count: usize,
    /// Empty behind the last moment.
    pub(super) names: [&'static str; MOMENTS],
    /// How many elements each moment has for a row; 0 if the settings do not use it.
    pub(super) widths: [usize; MOMENTS],
}

impl RowLayout {
    pub(super) fn of<R: RowRule>(rule: &R, width: usize) -> Self {
        const { check_counts::<R::RowMoments, R::RowConstants>() }
        let (mut names, mut widths) = ([""; MOMENTS], [0; MOMENTS]);
        let all = R::ROW_MOMENT_NAMES;
        for (moment, &name) in all.as_ref().iter().enumerate() {
            names[moment] = name;
            widths[moment] = rule.moment_width(moment, width);
        }
        Self { count: all.as_ref().len(), names, widths }
    }

    pub(super) fn names(&self) -> &[&'static str] {
        &self.names[..self.count]
    }
}
