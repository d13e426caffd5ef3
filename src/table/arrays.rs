//! The parameters and moments of a table.

use core::fmt;

use super::{RowLayout, RowRule, RowScratch, SortedRows, typed::TypedTable};
use crate::{
    Error, Moment, Param, State, Storage,
    array::{BLOCK, Float, MomentArray, ParamArray},
    rule::{Arity, MOMENTS},
    state::Parts,
    tensor::Names,
};

/// A table of parameters, with its moments: rows of `width` elements, one after the other, all
/// borrowed.
///
/// [`State::table`](crate::State::table) makes a table whose moments adamant owns.
///
/// # Examples
///
/// ```
/// use adamant::{
///     Lion, StepOptions,
///     table::{RowGrads, RowOptimizer, RowScratch, Table},
/// };
///
/// let (mut param, mut exp_avg) = (vec![1.0_f32; 10 * 2], vec![0.0_f32; 10 * 2]);
/// let mut scratch = RowScratch::default();
/// for t in 1..=3 {
///     let table = Table::new(&mut param, 2).with_moments([(&mut exp_avg).into()]);
///     let grads = RowGrads::new(&[7_i64, 2], &[0.1_f32, 0.1, -0.2, -0.2], 2);
///     let sorted = grads.sort(10, &mut scratch)?;
///     let _ = Lion::default().step_rows_lazy_on(t, table, sorted, &StepOptions::default())?;
/// }
/// assert!(param[14] < 1.0 && param[4] > 1.0);
/// # Ok::<(), adamant::Error>(())
/// ```
pub struct Table<'a> {
    pub(super) param: Param<'a>,
    pub(super) moments: [Moment<'a>; MOMENTS],
    /// The number of moments that were passed.
    passed: usize,
    /// The names of the moments, if they are those of a state.
    names: Option<&'a Names>,
    pub(super) width: usize,
    pub(super) first: u64,
}

impl<'a> Table<'a> {
    /// Makes a table without moments, of rows of `width` parameters, which is at least 1.
    pub fn new(param: impl Into<Param<'a>>, width: usize) -> Self {
        Self {
            param: param.into(),
            moments: [(); MOMENTS].map(|()| Moment::none()),
            passed: 0,
            names: None,
            width,
            first: 0,
        }
    }

    /// Adds the moments, in the order of [`Rule::MOMENT_NAMES`](crate::rule::Rule::MOMENT_NAMES). A moment is as long
    /// as the parameters, or has one element for each row if it is the second moment of a
    /// [`RowWiseAdam`](crate::table::RowWiseAdam). Before the first step, all elements have the value of
    /// [`Rule::start`](crate::rule::Rule::start), which mostly is 0. A moment that the settings do not use is
    /// [`Moment::none`].
    pub fn with_moments(mut self, moments: impl IntoIterator<Item = Moment<'a>>) -> Self {
        for moment in moments {
            if let Some(place) = self.moments.get_mut(self.passed) {
                *place = moment;
            }
            self.passed += 1;
        }
        self
    }

    /// Sets the number of the table's first element among all elements of the model, on which random bits
    /// depend: see [`Tensor::with_first`](crate::Tensor::with_first). Without this method it is 0. If a model
    /// has several tables that are rounded at random, number them, so that each has bits of its own.
    pub fn with_first(mut self, first: u64) -> Self {
        self.first = first;
        self
    }

    /// The number of parameters in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The number of rows; 0 if the width is 0.
    pub fn rows(&self) -> usize {
        self.param.len().checked_div(self.width).unwrap_or(0)
    }

    /// The memory of a row.
    pub(super) fn bytes_of_row(&self) -> usize {
        let moments = self.moments.iter().map(Moment::bytes);
        let bytes = self.param.bytes() + moments.sum::<usize>();
        bytes.checked_div(self.rows()).unwrap_or(0)
    }

    pub(super) fn is_f64(&self) -> bool {
        matches!(self.param.0, ParamArray::F64(_))
    }

    /// Finds the mistakes in the arrays.
    pub(super) fn check(&self, moments: &RowLayout) -> Result<(), Error> {
        let (width, len) = (self.width, self.param.len());
        if let Some(of_state) = self.names {
            of_state.check(&moments.names, 0)?;
        }
        if width == 0 {
            return Err(Error::ZeroWidth);
        }
        if !len.is_multiple_of(width) {
            return Err(Error::TableShape { len, width });
        }
        let (passed, optimizer) = (self.passed, moments.count);
        if passed > optimizer {
            return Err(Error::TooManyMoments { tensor: 0, passed, optimizer });
        }
        self.check_param()?;
        let expected = moments.names().iter().zip(moments.widths);
        for (moment, (name, width)) in self.moments.iter().zip(expected) {
            self.check_moment(name, moment, width)?;
        }
        Ok(())
    }

    fn check_param(&self) -> Result<(), Error> {
        let expected = self.param.len();
        let (argument, len) = match &self.param.0 {
            ParamArray::F32AndBf16(_, copy) => ("copy of param", copy.len()),
            ParamArray::F32AndF16(_, copy) => ("copy of param", copy.len()),
            ParamArray::Halves(_, low) => ("low half of param", low.len()),
            _ => return Ok(()),
        };
        match len == expected {
            true => Ok(()),
            false => Err(Error::LengthMismatch { tensor: 0, argument, len, expected }),
        }
    }

    /// Finds the mistakes in a moment that has `moment_width` elements for each row.
    fn check_moment(
        &self,
        name: &'static str,
        moment: &Moment<'_>,
        moment_width: usize,
    ) -> Result<(), Error> {
        let (rows, width) = (self.rows(), self.width);
        let (len, expected) = (moment.len(), rows * moment_width);
        if len != expected {
            return Err(Error::MomentMismatch { moment: name, len, rows, width, expected });
        }
        if len == 0 {
            return match &moment.0 {
                MomentArray::Q8(_, scales) if !scales.is_empty() => {
                    let len = scales.len();
                    Err(Error::ScalesMismatch { tensor: 0, moment: name, len, expected: 0 })
                }
                _ => Ok(()),
            };
        }
        let found = moment.storage();
        if (found == Storage::F64) != self.is_f64() {
            let (argument, expected) = (name, self.param.storage());
            return Err(Error::TypeMismatch { tensor: 0, argument, found, expected });
        }
        if let MomentArray::Q8(codes, scales) = &moment.0 {
            if !moment_width.is_multiple_of(BLOCK) {
                return Err(Error::RowsInBlocks { moment: name, width });
            }
            let (len, expected) = (scales.len(), codes.len() / BLOCK);
            if len != expected {
                return Err(Error::ScalesMismatch { tensor: 0, moment: name, len, expected });
            }
        }
        Ok(())
    }

    /// Checks that the gradients fit the table, which has been checked.
    pub(super) fn check_grads(&self, grads: &SortedRows<'_>) -> Result<(), Error> {
        if grads.width != self.width {
            return Err(Error::WidthMismatch { width: grads.width, expected: self.width });
        }
        let (rows, expected) = (self.rows(), grads.rows);
        if rows != expected {
            return Err(Error::RowCountMismatch { rows, expected });
        }
        let found = grads.storage();
        if (found == Storage::F64) != self.is_f64() {
            let (argument, expected) = ("grad", self.param.storage());
            return Err(Error::TypeMismatch { tensor: 0, argument, found, expected });
        }
        Ok(())
    }

    /// The first array that is not simply an `F`, and its storage.
    pub(super) fn not_of<F: Float>(&self, moments: &RowLayout) -> Option<(&'static str, Storage)> {
        if F::param_of(&self.param.0).is_none() {
            return Some(("param", self.param.storage()));
        }
        let mut moments = self.moments.iter().zip(moments.names());
        let (moment, name) =
            moments.find(|(moment, _)| !moment.is_empty() && F::moment_of(&moment.0).is_none())?;
        Some((*name, moment.storage()))
    }

    /// Parameters and moments as slices; an array that is not of `F` is empty.
    pub(super) fn slices<F: Float>(self) -> (&'a mut [F], [&'a mut [F]; MOMENTS]) {
        let moments = self.moments.map(|moment| F::moment_mut_of(moment.0).unwrap_or_default());
        (F::param_mut_of(self.param.0).unwrap_or_default(), moments)
    }

    /// As [`slices`](Self::slices), of a rule.
    pub(super) fn typed<R: RowRule, F: Float>(self) -> TypedTable<'a, R, F> {
        let width = self.width;
        let (param, moments) = self.slices();
        let mut moments = moments.into_iter();
        let moments = R::RowMoments::from_fn(|_| moments.next().unwrap_or_default());
        TypedTable { param, moments, width }
    }
}

impl State {
    /// A table of these moments and the given parameters, in rows of `width`.
    pub fn table<'a>(&'a mut self, param: impl Into<Param<'a>>, width: usize) -> Table<'a> {
        self.table_parts(param, width).0
    }

    /// A table, its step count, and memory for sorting rows.
    pub(super) fn table_parts<'a>(
        &'a mut self,
        param: impl Into<Param<'a>>,
        width: usize,
    ) -> (Table<'a>, &'a mut u64, &'a mut RowScratch) {
        let Parts { moments, count, names, steps, first, scratch } = self.parts_mut();
        let names = Some(names);
        let (param, first) = (param.into(), first.unwrap_or(0));
        let table = Table { param, moments, passed: count, names, width, first };
        (table, steps, scratch)
    }
}

impl fmt::Debug for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("width", &self.width)
            .field("param", &self.param)
            .field("moments", &self.moments)
            .finish()
    }
}
