//! Bad calls on rows: each gets the error that says what to mend, and nothing is written.

use adamant::{
    Adam, Error, Exec, Isa, Moment, Sgd, StepOptions, Threads,
    table::{
        CatchUp, DenseEquivalent, RowGrads, RowIndex, RowOptimizer, RowScratch, RowWiseAdam, Table,
    },
};

const EXEC: Exec<'static> = Exec { isa: Some(Isa::Scalar), threads: Threads::Serial };
const WAYS: [CatchUp; 2] = [CatchUp::Series, CatchUp::Replay];

/// The arguments of a step on rows of a table, as lengths and numbers.
#[derive(Clone, Debug)]
struct Call {
    adam: Adam,
    exec: Exec<'static>,
    options: StepOptions<'static>,
    t: u64,
    width: usize,
    param: usize,
    moments: [usize; 2],
    rows: Vec<i64>,
    grad_width: usize,
    stride: usize,
    values: usize,
}

/// A valid call: three gradients for ten rows of four, with a gap of one element after each but the last.
fn ok() -> Call {
    Call {
        adam: Adam::default(),
        exec: EXEC,
        options: StepOptions::default(),
        t: 5,
        width: 4,
        param: 40,
        moments: [40; 2],
        rows: vec![7, 2, 7],
        grad_width: 4,
        stride: 5,
        values: 14,
    }
}

impl Call {
    /// Passes a table and a gradient of these sizes; on an error, fails if the table has changed.
    #[track_caller]
    fn make<I: RowIndex>(
        &self,
        rows: &[I],
        call: impl FnOnce(Table<'_>, RowGrads<'_, I, f32>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let array = |len| (0..len).map(|i| i as f32).collect::<Vec<_>>();
        let before = [self.param, self.moments[0], self.moments[1]].map(array);
        let [mut param, mut m, mut v] = before.clone();
        let moments = [Moment::from(&mut m), Moment::from(&mut v)];
        let table = Table::new(&mut param, self.width).with_moments(moments);
        let values = array(self.values);
        let Self { grad_width: width, stride, .. } = *self;
        let found = call(table, RowGrads { rows, values: &values, width, stride });
        if found.is_err() {
            assert_eq!([param, m, v], before);
        }
        found
    }

    fn options(&self) -> StepOptions<'static> {
        StepOptions { exec: self.exec, ..self.options }
    }

    #[track_caller]
    fn lazy<I: RowIndex>(&self, rows: &[I]) -> Result<(), Error> {
        self.make(rows, |table, grads| {
            let (scratch, options) = (&mut RowScratch::default(), self.options());
            let sorted = grads.sort(table.rows(), scratch)?;
            self.adam.step_rows_lazy_on(self.t, table, sorted, &options).map(|_| ())
        })
    }

    #[track_caller]
    fn dense_equivalent<I: RowIndex>(&self, way: CatchUp, rows: &[I]) -> Result<(), Error> {
        let mut waiting = DenseEquivalent::<f32>::new(10, way);
        waiting.set_step(self.t - 1);
        let found = self.make(rows, |table, grads| {
            let (scratch, options) = (&mut RowScratch::default(), self.options());
            let sorted = grads.sort(table.rows(), scratch)?;
            let adam = self.adam;
            adam.step_rows_dense_equivalent_on(table, sorted, &mut waiting, &options).map(|_| ())
        });
        if found.is_err() {
            assert_eq!((waiting.step(), waiting.skipped(9)), (self.t - 1, Some(0)));
        }
        found
    }

    /// Fails unless all steps give the error and its message.
    #[track_caller]
    fn refused(&self, expected: Error, message: &str) {
        assert_eq!(expected.to_string(), message);
        assert_eq!(self.lazy(&self.rows), Err(expected.clone()));
        for way in WAYS {
            assert_eq!(self.dense_equivalent(way, &self.rows), Err(expected.clone()));
        }
    }

    /// Fails unless steps and catching up give the error and its message.
    #[track_caller]
    fn refused_by_all(&self, expected: Error, message: &str) {
        self.refused(expected.clone(), message);
        self.refused_by_catching_up(expected, message);
    }

    #[track_caller]
    fn refused_by_catching_up(&self, expected: Error, message: &str) {
        assert_eq!(expected.to_string(), message);
        let mut waiting = DenseEquivalent::<f32>::new(10, CatchUp::Series);
        let listed = self
            .make(&self.rows, |table, grads| waiting.catch_up_with(table, grads.rows, self.exec));
        assert_eq!(listed, Err(expected.clone()));
        let all = self.make(&self.rows, |table, _| waiting.catch_up_all_with(table, self.exec));
        assert_eq!(all, Err(expected));
    }
}

#[test]
fn a_valid_call_is_taken() {
    for ok in [ok(), Call { values: 15, ..ok() }, Call { rows: vec![], values: 0, ..ok() }] {
        assert_eq!(ok.lazy(&ok.rows), Ok(()));
        for way in WAYS {
            assert_eq!(ok.dense_equivalent(way, &ok.rows), Ok(()));
        }
    }
}

#[test]
fn a_table_whose_length_is_no_multiple_of_its_width_is_refused() {
    let message = "the width is 0, but a row has at least 1 parameter";
    Call { width: 0, grad_width: 0, ..ok() }.refused_by_all(Error::ZeroWidth, message);

    let error = Error::TableShape { len: 41, width: 4 };
    let message = "the table has 41 parameters, which is not a multiple of its width, 4";
    Call { param: 41, ..ok() }.refused_by_all(error, message);
}

#[test]
fn a_moment_of_another_length_is_refused_by_name() {
    for (moment, moments) in
        [("exp_avg", [39, 40]), ("exp_avg_sq", [40, 44]), ("exp_avg_sq", [40, 10])]
    {
        let len = moments.into_iter().find(|&len| len != 40).expect("one differs");
        let error = Error::MomentMismatch { moment, len, rows: 10, width: 4, expected: 40 };
        let message = format!("{moment} has {len} elements, but 10 rows of 4 parameters need 40");
        Call { moments, ..ok() }.refused_by_all(error, &message);
    }
}

/// A moment with one element for each row, and a moment that the settings do not use.
#[test]
fn a_row_wise_moment_with_an_element_for_each_parameter_is_refused() {
    let (param, mut moments, scratch) =
        (&mut [1.0_f32; 40], [[0.5_f32; 40]; 2], &mut RowScratch::default());
    let grads = RowGrads::new(&[7_u32], &[0.1_f32; 4], 4);
    let options = StepOptions { exec: EXEC, ..StepOptions::default() };
    let [m, v] = &mut moments;
    let table =
        Table::new(&mut param[..], 4).with_moments([Moment::from(&mut *m), Moment::from(&mut *v)]);
    let row_wise = RowWiseAdam(Adam::default());
    let sorted = grads.sort(10, scratch).expect("a row of the table");
    let found = row_wise.step_rows_lazy_on(1, table, sorted, &options);
    let message = "exp_avg_sq has 40 elements, but 10 rows of 4 parameters need 10";
    assert_eq!(found.expect_err("refused").to_string(), message);

    let table = Table::new(&mut param[..], 4).with_moments([Moment::from(&mut *m)]);
    let sorted = grads.sort(10, scratch).expect("a row of the table");
    let found = Sgd::default().step_rows_lazy_on(1, table, sorted, &options);
    let message = "momentum_buffer has 40 elements, but 10 rows of 4 parameters need 0";
    assert_eq!(found.expect_err("refused").to_string(), message);

    let passed = [Moment::from(&mut *m), Moment::from(&mut *v)];
    let table = Table::new(&mut param[..], 4).with_moments(passed);
    let sorted = grads.sort(10, scratch).expect("a row of the table");
    let found =
        Sgd { momentum: 0.5, ..Sgd::default() }.step_rows_lazy_on(1, table, sorted, &options);
    assert_eq!(found, Err(Error::TooManyMoments { tensor: 0, passed: 2, optimizer: 1 }));
    assert_eq!((*param, moments), ([1.0; 40], [[0.5; 40]; 2]));
}

#[test]
fn a_gradient_of_another_width_is_refused() {
    let error = Error::WidthMismatch { width: 5, expected: 4 };
    let message = "the gradient's rows are 5 wide, but those of the table are 4";
    Call { grad_width: 5, values: 15, ..ok() }.refused(error, message);
}

#[test]
fn rows_of_a_gradient_that_overlap_are_refused() {
    let error = Error::StrideTooSmall { stride: 3, width: 4 };
    let message = "the gradient's stride is 3, but its rows are 4 wide";
    Call { stride: 3, values: 9, ..ok() }.refused(error, message);
}

#[test]
fn values_of_another_length_than_the_indices_need_are_refused() {
    for len in [0, 13, 16] {
        let error = Error::ValuesMismatch { len, indices: 3, width: 4, stride: 5 };
        let message = format!("values has {len} elements, which does not fit 3 rows of 4, 5 apart");
        Call { values: len, ..ok() }.refused(error, &message);
    }
    let error = Error::ValuesMismatch { len: 1, indices: 0, width: 4, stride: 5 };
    let message = "values has 1 elements, which does not fit 0 rows of 4, 5 apart";
    Call { rows: vec![], values: 1, ..ok() }.refused(error, message);
    // More than memory can have.
    let stride = usize::MAX;
    let error = Error::ValuesMismatch { len: 14, indices: 3, width: 4, stride };
    let message = format!("values has 14 elements, which does not fit 3 rows of 4, {stride} apart");
    Call { stride, ..ok() }.refused(error, &message);
}

#[track_caller]
fn refuses_index<I: RowIndex>(row: I, valid: I) {
    let rows = [valid, row, row];
    let expected = Error::RowOutOfRange { position: 1, row: row.value(), rows: 10 };
    let message = format!("rows[1] is {row:?}, but the table has 10 rows, from 0 on");
    assert_eq!(expected.to_string(), message);
    assert_eq!(ok().lazy(&rows), Err(expected.clone()));
    for way in WAYS {
        assert_eq!(ok().dense_equivalent(way, &rows), Err(expected.clone()));
    }
    let mut waiting = DenseEquivalent::<f32>::new(10, CatchUp::Series);
    let found = ok().make(&rows, |table, grads| waiting.catch_up_with(table, grads.rows, EXEC));
    assert_eq!(found, Err(expected));
}

#[test]
fn an_index_that_is_not_in_the_table_is_refused_by_position() {
    for row in [10, 11, u32::MAX] {
        refuses_index(row, 9);
    }
    for row in [10, 1 << 32, u64::MAX] {
        refuses_index(row, 9);
    }
    refuses_index(usize::MAX, 9);
    for row in [10, -1, i32::MIN, i32::MAX] {
        refuses_index(row, 9);
    }
    for row in [10, -1, -1 << 32, i64::MIN, i64::MAX] {
        refuses_index(row, 9);
    }
}

#[test]
fn a_table_without_rows_has_no_index() {
    let empty = Call { param: 0, moments: [0; 2], rows: vec![0], values: 4, ..ok() };
    let error = Error::RowOutOfRange { position: 0, row: 0, rows: 0 };
    assert_eq!(empty.lazy(&empty.rows), Err(error));
    assert_eq!(Call { values: 0, ..empty }.lazy::<i64>(&[]), Ok(()));
}

#[test]
fn a_table_with_other_rows_than_catch_up_is_refused() {
    for rows in [9, 11] {
        let error = Error::RowCountMismatch { rows, expected: 10 };
        let message = format!(
            "the table has {rows} rows, but its gradient or its DenseEquivalent was made for 10"
        );
        let call = Call { param: 4 * rows, moments: [4 * rows; 2], ..ok() };
        assert_eq!(call.lazy(&call.rows), Ok(()));
        for way in WAYS {
            assert_eq!(call.dense_equivalent(way, &call.rows), Err(error.clone()));
        }
        call.refused_by_catching_up(error, &message);
    }
}

#[test]
fn hyper_parameters_out_of_range_are_refused() {
    let adam = Adam { beta2: 1.0, ..Adam::default() };
    let allowed = "at least 0 and less than 1";
    let error = Error::HyperParameter { name: "beta2", value: 1.0, allowed };
    Call { adam, ..ok() }
        .refused(error.clone(), "beta2 is 1, but must be at least 0 and less than 1");
    let row_wise = RowWiseAdam(adam);
    let (mut param, mut state) = ([1.0_f32; 40], row_wise.row_state(10, 4));
    let found = row_wise.step_rows_lazy(&mut param, RowGrads::new(&[7], &[0.1; 4], 4), &mut state);
    assert_eq!((found, param, state.steps()), (Err(error), [1.0; 40], 0));
}

#[test]
fn a_constant_that_the_type_cannot_hold_is_refused() {
    let adam = Adam { eps: 1e39, epsilon: adamant::Epsilon::Hat, ..Adam::default() };
    let error = Error::ConstantOverflow { value: 1e39, float: "f32" };
    let message = "the hyper-parameters make 1e39 a constant of the step, which f32 cannot hold";
    Call { adam, ..ok() }.refused(error, message);
}

/// What replay serves, and hyper-parameters next to them.
#[test]
fn hyper_parameters_that_the_series_does_not_serve_are_refused_by_it_alone() {
    let (adam, adamw) = (Adam::default(), Adam::adamw());
    let slowest = 0.995 * 0.999_f64.sqrt();
    let half = Adam { lr: 0.5, ..adamw };
    for (served, refused, message) in [
        (
            Adam { beta1: slowest.next_down(), ..adam },
            Adam { beta1: slowest, ..adam },
            &*format!("beta1 is {slowest}, but must be less than 0.995 sqrt(beta2)"),
        ),
        (
            Adam { beta1: 0.0, beta2: 5e-324, ..adam },
            Adam { beta1: 0.0, beta2: 0.0, ..adam },
            "beta1 is 0, but must be less than 0.995 sqrt(beta2)",
        ),
        (
            Adam { weight_decay: 0.1, decoupled_weight_decay: true, ..adam },
            Adam { weight_decay: 0.1, ..adam },
            "weight_decay is 0.1, but must be 0 or decoupled",
        ),
        (
            Adam { weight_decay: 2.0_f64.next_down(), ..half },
            Adam { weight_decay: 2.0, ..half },
            "weight_decay is 2, but must be less than 1 / lr",
        ),
    ] {
        let call = |adam| Call { adam, ..ok() };
        assert_eq!(call(served).dense_equivalent(CatchUp::Series, &ok().rows), Ok(()));
        let found = call(refused).dense_equivalent(CatchUp::Series, &ok().rows);
        let found = found.expect_err("refused").to_string();
        assert_eq!(found, format!("{message} for CatchUp::Series (CatchUp::Replay takes any)"));
        assert_eq!(call(refused).dense_equivalent(CatchUp::Replay, &ok().rows), Ok(()));
        assert_eq!(call(refused).lazy(&ok().rows), Ok(()));
    }
}

#[test]
fn an_instruction_set_that_this_cpu_lacks_is_refused() {
    let available = Isa::available();
    let lacking = Isa::ALL.into_iter().find(|isa| !available.contains(isa));
    let isa = lacking.expect("no CPU has both AVX2 and NEON");
    let error = Error::IsaUnavailable { isa, available };
    let message = error.to_string();
    assert!(message.starts_with(&format!("the instruction set {isa} is not available")));
    Call { exec: Exec { isa: Some(isa), threads: Threads::Rayon }, ..ok() }
        .refused_by_all(error, &message);
}

#[test]
fn step_zero_is_refused() {
    assert_eq!(Call { t: 0, ..ok() }.lazy(&ok().rows), Err(Error::ZeroStep));
}

/// The gradient of row 7 of a table of ten rows of four.
const GRADS: RowGrads<'_, u32, f32> =
    RowGrads { rows: &[7], values: &[0.1; 4], width: 4, stride: 4 };

#[test]
fn a_refused_step_is_not_counted_and_a_step_count_does_not_overflow() {
    let adam = Adam::default();
    let (mut param, mut state) = ([1.0_f32; 40], adam.row_state(10, 4));
    let narrow = RowGrads { values: &[0.1; 3], ..GRADS };
    assert!(adam.step_rows_lazy(&mut param, narrow, &mut state).is_err());
    assert_eq!((param, state.steps()), ([1.0; 40], 0));

    let mut other = adam.row_state(9, 4);
    let mismatch =
        Error::MomentMismatch { moment: "exp_avg", len: 36, rows: 10, width: 4, expected: 40 };
    assert_eq!(adam.step_rows_lazy(&mut param, GRADS, &mut other), Err(mismatch));

    state.set_steps(u64::MAX - 1);
    assert_eq!(adam.step_rows_lazy(&mut param, GRADS, &mut state), Ok(()));
    let before = param;
    let found = adam.step_rows_lazy(&mut param, GRADS, &mut state);
    assert_eq!((found, param, state.steps()), (Err(Error::StepOverflow), before, u64::MAX));
    let message = "the state has taken 18446744073709551615 steps and cannot count another";
    assert_eq!(Error::StepOverflow.to_string(), message);
}

/// Rows wait for as long as before, and catch up only with steps that were taken.
#[test]
fn rows_do_not_catch_up_with_a_refused_step() {
    for way in WAYS {
        let adam = Adam::default();
        let run = |refused: &[(Adam, RowGrads<'_, u32, f32>)]| {
            let (mut param, mut state) = ([1.0_f32; 40], adam.row_state(10, 4));
            let mut waiting = DenseEquivalent::<f32>::new(10, way);
            let mut step = |adam: Adam, grads: RowGrads<'_, u32, f32>| {
                let found =
                    adam.step_rows_dense_equivalent(&mut param, grads, &mut state, &mut waiting);
                assert_eq!(state.steps(), waiting.step());
                found
            };
            assert_eq!(step(adam, GRADS), Ok(()));
            for row in 0..6 {
                refused.iter().for_each(|&(adam, grads)| assert!(step(adam, grads).is_err()));
                assert_eq!(step(adam, RowGrads { rows: &[row], ..GRADS }), Ok(()));
            }
            assert_eq!((waiting.step(), waiting.skipped(7)), (7, Some(6)));
            assert_eq!(waiting.catch_up_all(state.table(&mut param, 4)), Ok(()));
            param.map(f32::to_bits)
        };
        let refused = [
            (Adam { beta1: 1.0, ..adam }, GRADS),
            (Adam { beta1: 0.5, ..adam }, RowGrads { rows: &[10], ..GRADS }),
            (adam, RowGrads { stride: 3, ..GRADS }),
        ];
        assert_eq!(run(&refused), run(&[]));
    }
}

#[test]
fn a_state_that_took_other_steps_than_its_rows_is_refused() {
    let adam = Adam::default();
    let (mut param, mut state) = ([1.0_f32; 40], adam.row_state(10, 4));
    let mut waiting = DenseEquivalent::<f32>::new(10, CatchUp::Replay);
    state.set_steps(1000);
    let found = adam.step_rows_dense_equivalent(&mut param, GRADS, &mut state, &mut waiting);
    let error = Error::StepMismatch { state: 1000, rows: 0 };
    assert_eq!(error.to_string(), "the state has taken 1000 steps, but its rows 0");
    assert_eq!((found, param), (Err(error), [1.0; 40]));
    assert_eq!((state.steps(), waiting.step()), (1000, 0));
}

#[test]
fn a_dense_equivalent_at_the_largest_step_count_refuses_another_step() {
    let adam = Adam::default();
    for way in WAYS {
        let (mut param, mut state) = ([1.0_f32; 40], adam.row_state(10, 4));
        let mut waiting = DenseEquivalent::<f32>::new(10, way);
        waiting.set_step(u64::MAX);
        state.set_steps(u64::MAX);
        let found = adam.step_rows_dense_equivalent(&mut param, GRADS, &mut state, &mut waiting);
        assert_eq!((found, param), (Err(Error::StepOverflow), [1.0; 40]));
        assert_eq!((waiting.step(), state.steps()), (u64::MAX, u64::MAX));
    }
}

#[test]
fn a_table_with_other_rows_than_its_gradient_was_sorted_for_is_refused() {
    let adam = Adam::default();
    let (mut param, mut state) = ([1.0_f32; 40], adam.row_state(10, 4));
    for rows in [9, 11] {
        let mut scratch = RowScratch::default();
        let sorted = GRADS.sort(rows, &mut scratch).expect("a row of such a table");
        let param = (&mut param).into();
        let found = adam.step_rows_lazy_with(param, sorted, &mut state, &StepOptions::default());
        assert_eq!(found, Err(Error::RowCountMismatch { rows: 10, expected: rows }));
    }
    assert_eq!((param, state.steps()), ([1.0; 40], 0));
}

#[test]
fn options_out_of_their_range_are_refused() {
    let refused = |options, name, value| {
        let call = Call { options, ..ok() };
        let mut found = vec![call.lazy(&call.rows)];
        found.extend(WAYS.map(|way| call.dense_equivalent(way, &call.rows)));
        for found in found {
            let Err(Error::Option { name: of_found, value: found, .. }) = found else {
                panic!("{found:?}");
            };
            assert_eq!((of_found, found), (name, value));
        }
    };
    let options = StepOptions::default();
    refused(StepOptions { grad_factor: 0.0, ..options }, "grad_factor", 0.0);
    refused(StepOptions { grad_factor: 1e-40, ..options }, "grad_factor", 1e-40);
    refused(StepOptions { max_norm: Some(-1.0), ..options }, "max_norm", -1.0);
    refused(StepOptions { grad_norm: Some(-1.0), ..options }, "grad_norm", -1.0);
    // Clipping makes the factor too small for f32.
    let clipped = StepOptions { max_norm: Some(1e-40), grad_norm: Some(1.0), ..options };
    refused(clipped, "grad_factor", adamant::norm::clip_factor(1.0, 1e-40));
}

#[test]
fn dense_equivalent_steps_that_flush_subnormals_are_refused() {
    let options = StepOptions { flush_subnormals: true, ..StepOptions::default() };
    let call = Call { options, ..ok() };
    assert_eq!(call.lazy(&call.rows), Ok(()));
    for way in WAYS {
        let found = call.dense_equivalent(way, &call.rows).expect_err("refused").to_string();
        let message = "flush_subnormals is 1, but must be false in dense-equivalent steps: rows that \
                       wait are not flushed";
        assert_eq!(found, message);
    }
}
