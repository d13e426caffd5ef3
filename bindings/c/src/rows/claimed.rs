//! The arrays of a table and of the gradients of its rows: claimed, and as those of Rust.

use adamant::table::{RowGrads, RowIndex, RowScratch, SortedRows, Table};

use super::{
    super::{
        memory::{Claims, Element, Place, adamant_array, adamant_type},
        status::{Failure, adamant_status, refuse},
        step::{MOMENTS, adamant_tensor},
        versioned,
    },
    adamant_row_grads, adamant_table,
};

impl adamant_table {
    const NONE: Self = Self {
        size: size_of::<Self>(),
        width: 0,
        param: adamant_array::NONE,
        moments: [adamant_array::NONE; MOMENTS],
        param_extra: adamant_array::NONE,
        scales: [adamant_array::NONE; MOMENTS],
        first: 0,
        stochastic_param: 0,
        reserved: 0,
    };

    /// A copy of the caller's, its arrays claimed.
    ///
    /// # Safety
    ///
    /// As [`versioned::size_of_struct`].
    pub(in super::super) unsafe fn read(
        table: *const Self,
        claims: &mut Claims,
    ) -> Result<ClaimedTable, Failure> {
        // SAFETY: the same promise.
        let found = unsafe { versioned::read(table, "table", Self::NONE)? };
        let Self { width, param, moments, param_extra, scales, first, .. } = found;
        if found.reserved != 0 {
            refuse!(ADAMANT_UNKNOWN_VALUE, "reserved is {}, but must be 0", found.reserved);
        }
        let stochastic_param = found.stochastic_param;
        let tensor = adamant_tensor {
            param,
            moments,
            param_extra,
            scales,
            first,
            stochastic_param,
            ..adamant_tensor::NONE
        };
        let element = tensor.claim_params(claims, Place::of)?;
        tensor.claim_moments(claims, Place::of)?;
        Ok(ClaimedTable { tensor, element, width })
    }
}

/// A table whose arrays are claimed.
#[derive(Clone, Copy)]
pub(in super::super) struct ClaimedTable {
    /// The arrays.
    tensor: adamant_tensor,
    /// The type of the parameters.
    pub element: adamant_type,
    width: usize,
}

impl ClaimedTable {
    /// The number of rows. An error about the shape comes before errors about indices.
    pub(in super::super) fn rows(&self) -> Result<usize, adamant::Error> {
        let (len, width) = (self.tensor.param.len, self.width);
        match len.checked_rem(width) {
            None => Err(adamant::Error::ZeroWidth),
            Some(0) => Ok(len / width),
            Some(_) => Err(adamant::Error::TableShape { len, width }),
        }
    }

    /// As one of Rust's.
    ///
    /// # Safety
    ///
    /// The claims were found apart, and no other table of these arrays is alive.
    pub(in super::super) unsafe fn table<'a>(&self) -> Table<'a> {
        // SAFETY: the caller's promise.
        let (param, moments) = unsafe { (self.tensor.params(), self.tensor.moments()) };
        Table::new(param, self.width).with_moments(moments).with_first(self.tensor.first)
    }
}

/// Claims an array of indices; they are read.
pub(in super::super) fn claim_rows(
    rows: &adamant_array,
    claims: &mut Claims,
) -> Result<(), Failure> {
    use adamant_type::*;
    match claims.claim(rows, false, Place::of(&"rows"))? {
        ADAMANT_U32 | ADAMANT_U64 | ADAMANT_I32 | ADAMANT_I64 => Ok(()),
        ADAMANT_NONE if rows.len == 0 => Ok(()),
        other => refuse!(
            ADAMANT_TYPE_MISMATCH,
            "rows is {other:?}, but must be ADAMANT_U32, ADAMANT_U64, ADAMANT_I32 or ADAMANT_I64"
        ),
    }
}

/// Something to do with indices of any type.
pub(in super::super) trait WithRows<'a> {
    type Output;

    fn run<I: RowIndex>(self, rows: &'a [I]) -> Result<Self::Output, Failure>;
}

/// Runs with claimed indices.
///
/// # Safety
///
/// `rows` passed [`claim_rows`], and the claims were found apart.
pub(in super::super) unsafe fn with_rows<'a, W: WithRows<'a>>(
    rows: &adamant_array,
    with: W,
) -> Result<W::Output, Failure> {
    const U64: u32 = adamant_type::ADAMANT_U64 as u32;
    const I32: u32 = adamant_type::ADAMANT_I32 as u32;
    const I64: u32 = adamant_type::ADAMANT_I64 as u32;
    // SAFETY: the caller's promise; the types are those that were claimed.
    unsafe {
        match rows.r#type {
            U64 => with.run(rows.slice::<u64>()),
            I32 => with.run(rows.slice::<i32>()),
            I64 => with.run(rows.slice::<i64>()),
            _ => with.run(rows.slice::<u32>()),
        }
    }
}

impl adamant_row_grads {
    const NONE: Self = Self {
        size: size_of::<Self>(),
        width: 0,
        rows: adamant_array::NONE,
        values: adamant_array::NONE,
        stride: 0,
    };

    /// A copy of the caller's, its arrays claimed, with a stride.
    ///
    /// # Safety
    ///
    /// As [`versioned::size_of_struct`].
    pub(in super::super) unsafe fn read(
        grads: *const Self,
        claims: &mut Claims,
    ) -> Result<Self, Failure> {
        use adamant_type::*;
        // SAFETY: the same promise.
        let mut found = unsafe { versioned::read(grads, "grads", Self::NONE)? };
        claim_rows(&found.rows, claims)?;
        let place = Place::of(&"values");
        match claims.claim(&found.values, false, place)? {
            ADAMANT_NONE | ADAMANT_F32 | ADAMANT_F64 | ADAMANT_BF16 | ADAMANT_F16 => {}
            other => refuse!(
                ADAMANT_TYPE_MISMATCH,
                "values is {other:?}, which no gradients are kept in"
            ),
        }
        if found.stride == 0 {
            found.stride = found.width;
        }
        Ok(found)
    }

    /// The gradients, sorted for a table of `rows` rows whose parameters are of a type.
    ///
    /// # Safety
    ///
    /// The arrays were claimed, and the claims were found apart.
    pub(in super::super) unsafe fn sort<'a>(
        &self,
        param: adamant_type,
        rows: usize,
        scratch: &'a mut RowScratch,
    ) -> Result<SortedRows<'a>, Failure> {
        // SAFETY: the caller's promise.
        unsafe { with_rows(&self.rows, Sort { grads: *self, param, rows, scratch }) }
    }
}

struct Sort<'a> {
    grads: adamant_row_grads,
    param: adamant_type,
    rows: usize,
    scratch: &'a mut RowScratch,
}

impl<'a> WithRows<'a> for Sort<'a> {
    type Output = SortedRows<'a>;

    fn run<I: RowIndex>(self, indices: &'a [I]) -> Result<SortedRows<'a>, Failure> {
        const F32: u32 = adamant_type::ADAMANT_F32 as u32;
        const F64: u32 = adamant_type::ADAMANT_F64 as u32;
        const BF16: u32 = adamant_type::ADAMANT_BF16 as u32;
        const F16: u32 = adamant_type::ADAMANT_F16 as u32;
        match self.grads.values.r#type {
            F32 => self.values_of::<I, f32>(indices),
            F64 => self.values_of::<I, f64>(indices),
            BF16 => self.values_of::<I, half::bf16>(indices),
            F16 => self.values_of::<I, half::f16>(indices),
            // No values, which are of any type.
            _ if self.param == adamant_type::ADAMANT_F64 => self.values_of::<I, f64>(indices),
            _ => self.values_of::<I, f32>(indices),
        }
    }
}

impl<'a> Sort<'a> {
    fn values_of<I: RowIndex, E: adamant::Element + Element>(
        self,
        rows: &'a [I],
    ) -> Result<SortedRows<'a>, Failure> {
        let Self { grads: adamant_row_grads { values, width, stride, .. }, .. } = self;
        // SAFETY: the values were claimed with this type, and are apart from what is written.
        let values = unsafe { values.slice::<E>() };
        Ok(RowGrads { rows, values, width, stride }.sort(self.rows, self.scratch)?)
    }
}
