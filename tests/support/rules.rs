//! Rules behind pointers. If the checks were compiled for each rule, the tests would take much longer to compile.

use std::fmt::Debug;

use adamant::{
    DynOptimizer, Error, Report, StepOptions,
    reference::{Reference, RowReference},
    rule::{Arity, Float, Many},
    table::{RowOptimizer, SortedRows, Table},
};

/// A rule, and its reference in `F`.
pub trait DenseRule<F>: DynOptimizer + Debug {
    /// Takes step `t` with the reference. There is a slice for each moment.
    fn follow(&self, t: u64, param: &mut [F], grad: &[F], moments: Vec<&mut [F]>);
}

impl<R: Reference + Debug, F: Float> DenseRule<F> for R {
    fn follow(&self, t: u64, param: &mut [F], grad: &[F], moments: Vec<&mut [F]>) {
        self.reference(t, param, grad, many::<R::Moments, _>(moments));
    }
}

/// A rule for rows of tables, and its reference in `F`.
pub trait RowsRule<F>: Debug + Sync {
    /// Takes step `t` of the listed rows.
    fn step_listed(
        &self,
        t: u64,
        table: Table<'_>,
        grads: SortedRows<'_>,
        options: &StepOptions<'_>,
    ) -> Result<Report, Error>;

    /// Takes step `t` of a row with the reference. There is a slice for each moment.
    fn follow_row(&self, t: u64, param: &mut [F], grad: &[F], moments: Vec<&mut [F]>);

    /// The name of each moment, and its number of elements for a row.
    fn moments_of_row(&self, width: usize) -> Vec<(&'static str, usize)>;

    /// The check of the settings.
    fn check_settings_of_rows(&self) -> Result<(), Error>;

    fn constants_of_rows(&self, t: u64) -> Vec<f64>;
}

impl<R: RowReference + Debug, F: Float> RowsRule<F> for R {
    fn step_listed(
        &self,
        t: u64,
        table: Table<'_>,
        grads: SortedRows<'_>,
        options: &StepOptions<'_>,
    ) -> Result<Report, Error> {
        self.step_rows_lazy_on(t, table, grads, options)
    }

    fn follow_row(&self, t: u64, param: &mut [F], grad: &[F], moments: Vec<&mut [F]>) {
        self.reference_row(t, param, grad, many::<R::RowMoments, _>(moments));
    }

    fn moments_of_row(&self, width: usize) -> Vec<(&'static str, usize)> {
        let names = R::ROW_MOMENT_NAMES.into_iter().enumerate();
        names.map(|(moment, name)| (name, self.moment_width(moment, width))).collect()
    }

    fn check_settings_of_rows(&self) -> Result<(), Error> {
        self.check_rule()
    }

    fn constants_of_rows(&self, t: u64) -> Vec<f64> {
        self.step_constants(t).as_ref().to_vec()
    }
}

/// A rule of which both are known, in both types.
pub trait AnyRule: DenseRule<f32> + DenseRule<f64> + RowsRule<f32> + RowsRule<f64> {}

impl<R: Reference + Debug> AnyRule for R {}

/// As many slices as an arity says.
fn many<A: Arity, F: Float>(slices: Vec<&mut [F]>) -> Many<A, &mut [F]> {
    let mut slices = slices.into_iter();
    A::from_fn(|_| slices.next().expect("a slice for each moment"))
}
