//! Gradients of some rows, with indices of any type.

use adamant::{
    Error,
    rule::Float,
    table::{RowGrads, RowIndex},
};

use super::{Misfit, RowColumns};

/// The type of a call's indices.
#[derive(Clone, Copy, Debug)]
pub enum IndexType {
    U32,
    U64,
    Usize,
    I32,
    I64,
}

impl IndexType {
    pub const ALL: [Self; 5] = [Self::U32, Self::U64, Self::Usize, Self::I32, Self::I64];

    /// The number of this type that is nearest to another.
    pub fn nearest(self, row: i128) -> i128 {
        let (least, most) = match self {
            Self::U32 => (0, u32::MAX.into()),
            Self::U64 => (0, u64::MAX.into()),
            Self::Usize => (0, usize::MAX as i128),
            Self::I32 => (i32::MIN.into(), i32::MAX.into()),
            Self::I64 => (i64::MIN.into(), i64::MAX.into()),
        };
        row.clamp(least, most)
    }
}

/// Code that runs with indices of any type. Returns the error if the call is refused.
pub(super) trait WithRows {
    fn run<I: RowIndex>(&mut self, rows: &[I]) -> Option<Error>;
}

pub(super) fn with_rows(
    index_type: IndexType,
    rows: &[i128],
    with: &mut impl WithRows,
) -> Option<Error> {
    macro_rules! as_type {
        ($index:ty) => {{
            let index = |&row| <$index>::try_from(row).expect("an index of the type");
            let rows: Vec<_> = rows.iter().map(index).collect();
            with.run(&rows)
        }};
    }
    match index_type {
        IndexType::U32 => as_type!(u32),
        IndexType::U64 => as_type!(u64),
        IndexType::Usize => as_type!(usize),
        IndexType::I32 => as_type!(i32),
        IndexType::I64 => as_type!(i64),
    }
}

/// A gradient of some rows, as a call passes it.
#[derive(Clone, Debug)]
pub struct Listed<F> {
    pub index_type: IndexType,
    /// Rows of the table, or any other numbers of the type.
    pub rows: Vec<i128>,
    pub values: Vec<F>,
    pub stride: usize,
}

impl<F: Float> Listed<F> {
    /// Makes the values by a function of their position.
    pub fn new(
        index_type: IndexType,
        rows: Vec<usize>,
        stride: usize,
        value: impl FnMut(usize) -> F,
    ) -> Self {
        let values = (0..rows.len() * stride).map(value).collect();
        let rows = rows.into_iter().map(|row| row as i128).collect();
        Self { index_type, rows, values, stride }
    }

    /// Whether all rows are in the table, and have values.
    pub(super) fn fits(&self, table: &RowColumns<F>) -> bool {
        let Self { rows, values, stride, .. } = self;
        let (count, width) = (rows.len(), table.width);
        let needed = count.saturating_sub(1).saturating_mul(*stride).saturating_add(width);
        let in_table = |row: &i128| (0..table.rows() as i128).contains(row);
        rows.iter().all(in_table) && *stride >= width && (count == 0 || values.len() >= needed)
    }

    pub(super) fn grads<'a, I: RowIndex>(
        &self,
        rows: &'a [I],
        values: &'a [F],
        width: usize,
        misfit: Option<Misfit>,
    ) -> RowGrads<'a, I, F> {
        let width = if let Some(Misfit::GradWidth(width)) = misfit { width } else { width };
        RowGrads { rows, values, width, stride: self.stride }
    }
}

/// Indices that are all in the table.
pub(super) fn places(rows: &[i128]) -> Vec<usize> {
    rows.iter().map(|&row| row as usize).collect()
}
