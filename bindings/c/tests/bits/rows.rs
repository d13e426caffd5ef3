//! Steps of rows of tables.

use super::*;

/// The arrays of a table.
#[derive(Clone, Debug, PartialEq)]
struct Rows {
    width: usize,
    param: Memory,
    moments: Vec<Memory>,
    /// Of the rule; C has room for more.
    moment_count: usize,
}

const ROWS: usize = unless_miri(50, 8);
const LAST: u8 = ROWS as u8 - 1;

impl Rows {
    fn new<R: RowRule + 'static>(rule: &R, element: adamant_type, width: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(width as u64);
        let state = rule.row_state(ROWS, width);
        let mut moments: Vec<_> = (R::ROW_MOMENT_NAMES.as_ref().iter())
            .map(|name| match state.moment(name) {
                Some(moment) => Memory::random(&mut rng, element, moment.len(), true),
                None => Memory::none(),
            })
            .collect();
        let moment_count = moments.len();
        moments.resize(4, Memory::none());
        let param = Memory::random(&mut rng, element, ROWS * width, false);
        Self { width, param, moments, moment_count }
    }

    fn c(&mut self) -> adamant_table {
        let mut moments = self.moments.iter_mut().map(Memory::array);
        adamant_table {
            size: size_of::<adamant_table>(),
            width: self.width,
            param: self.param.array(),
            moments: std::array::from_fn(|_| moments.next().expect("a moment")),
            param_extra: Memory::none().array(),
            scales: std::array::from_fn(|_| Memory::none().array()),
            first: 0,
            stochastic_param: 0,
            reserved: 0,
        }
    }

    fn table<F: Float>(&mut self) -> Table<'_> {
        let moments = self.moments.iter_mut().take(self.moment_count);
        Table::new(F::param(self.param.slice_mut()), self.width)
            .with_moments(moments.map(|moment| F::moment(moment.slice_mut())))
    }
}

/// A gradient of some rows, duplicates among them, with gaps.
struct Listed<I> {
    rows: Vec<I>,
    indices: Memory,
    values: Memory,
    width: usize,
    stride: usize,
}

impl<I: RowIndex> Listed<I> {
    fn new(rows: Vec<I>, of: adamant_type, element: adamant_type, width: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(rows.len() as u64);
        let stride = width + 1;
        let indices = Memory::of(&rows, of);
        let values = Memory::random(&mut rng, element, rows.len() * stride, false);
        Self { rows, indices, values, width, stride }
    }

    fn c(&mut self) -> adamant_row_grads {
        adamant_row_grads {
            size: size_of::<adamant_row_grads>(),
            width: self.width,
            rows: self.indices.array(),
            values: self.values.array(),
            stride: self.stride,
        }
    }

    fn rust<F: Float>(&self) -> RowGrads<'_, I, F> {
        let (width, stride) = (self.width, self.stride);
        RowGrads { rows: &self.rows, values: self.values.slice(), width, stride }
    }
}

/// A lazy step of a rule in Rust, behind a pointer: if the check was compiled for each rule, it would take as long as
/// the rest of these tests.
type LazyStep<'a> =
    dyn Fn(u64, Table<'_>, SortedRows<'_>, &StepOptions<'_>) -> Result<Report, Error> + 'a;

/// Lazy steps of a rule, with an index type.
fn check_lazy<F: Float, I: RowIndex>(
    tables: &[Rows],
    step: &LazyStep<'_>,
    handle: &Handle,
    (of, index): (adamant_type, fn(u8) -> I),
) {
    for before in tables {
        let (width, element) = (before.width, before.param.element);
        let mut found = before.clone();
        let mut expected = found.clone();
        let mut scratch = RowScratch::default();
        let mut kept = ptr::null_mut();
        // SAFETY: a handle that is freed below.
        ok(unsafe { adamant_row_scratch_new(&mut kept) });
        for (t, rows) in [(1, vec![7, 2, 7, LAST]), (2, vec![]), (3, (0..=LAST).rev().collect())] {
            let rows = rows.into_iter().map(&index).collect();
            let mut listed = Listed::new(rows, of, element, width);
            let options = StepOptions {
                exec: support::serial(),
                grad_factor: 0.5,
                max_norm: (t != 2).then_some(0.5 * t as f64),
                ..StepOptions::default()
            };
            let mut sorted = listed.rust::<F>().sort(ROWS, &mut scratch).expect("valid rows");
            let norm = sorted.grad_norm(NormOrder::Two, options.exec).expect("a norm");
            let report = step(t, expected.table::<F>(), sorted, &options).expect("a valid step");
            let scratch = if t == 2 { ptr::null_mut() } else { kept };
            let (table, grads, exec) = (found.c(), listed.c(), serial(Isa::detect()));
            let (mut of_c, mut c_report) = (0.0, no_report());
            let options = c_options(&options);
            // SAFETY: structs of this version, and memory that is alive.
            unsafe {
                let two = adamant_norm_order::ADAMANT_NORM_TWO as u32;
                ok(adamant_row_grad_norm(two, ROWS, &grads, scratch, &exec, &mut of_c));
                ok(adamant_step_rows_lazy(
                    handle.0,
                    t,
                    &table,
                    &grads,
                    scratch,
                    &options,
                    &exec,
                    &mut c_report,
                ));
            }
            assert_eq!(of_c.to_bits(), norm.to_bits());
            assert_same_report(&c_report, &report);
        }
        // SAFETY: used no more.
        unsafe { adamant_row_scratch_free(kept) };
        assert_eq!(found, expected);
    }
}

struct Lazy;

impl Lazy {
    fn check<R: RowRule + 'static, F: Float>(rule: &R, handle: &Handle, element: adamant_type) {
        let widths = [1, unless_miri(17, 3)].into_iter().skip(unless_miri(0, 1));
        let tables: Vec<_> = widths.map(|width| Rows::new(rule, element, width)).collect();
        let step: &LazyStep<'_> =
            &|t, table, grads, options| rule.step_rows_lazy_on(t, table, grads, options);
        check_lazy::<F, u32>(&tables, step, handle, (ADAMANT_U32, u32::from));
        check_lazy::<F, i64>(&tables, step, handle, (ADAMANT_I64, i64::from));
        if !cfg!(miri) {
            check_lazy::<F, u64>(&tables, step, handle, (ADAMANT_U64, u64::from));
            check_lazy::<F, i32>(&tables, step, handle, (ADAMANT_I32, i32::from));
        }
    }
}

impl ForEachRule for Lazy {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        let handle = Handle::of(rule);
        Self::check::<R, f32>(&rule, &handle, ADAMANT_F32);
        Self::check::<R, f64>(&rule, &handle, ADAMANT_F64);
    }
}

#[test]
fn lazy_steps_of_every_optimizer_give_the_bits_of_rust() {
    for_each_rule(&mut Lazy);
    for adam in [Adam::adamw(), Adam::default()].into_iter().take(unless_miri(2, 1)) {
        let handle = Handle::row_wise(adam);
        Lazy::check::<_, f32>(&RowWiseAdam(adam), &handle, ADAMANT_F32);
        Lazy::check::<_, f64>(&RowWiseAdam(adam), &handle, ADAMANT_F64);
    }
}

fn check_dense_equivalent<F: Float>(element: adamant_type, way: CatchUp) {
    let exec = support::serial();
    let c_exec = serial(Isa::detect());
    let mut found = Rows::new(&Adam::default(), element, unless_miri(9, 2));
    let mut expected = found.clone();
    let mut waiting = DenseEquivalent::<F>::new(ROWS, way);
    let mut handle = ptr::null_mut();
    // SAFETY: structs of this version, memory that is alive, and handles that are freed below; here and
    // in the rest of the function.
    unsafe {
        ok(adamant_dense_equivalent_new(
            ROWS,
            element as u32,
            (way == CatchUp::Replay) as u32,
            &mut handle,
        ));
        waiting.set_step(70);
        ok(adamant_dense_equivalent_set_step(handle, 70));
        for turn in 0..unless_miri(30, 4) as u32 {
            let adam = Adam { lr: 1e-3 / f64::from(turn + 1), ..Adam::adamw() };
            let mut listed = Listed::new(
                vec![turn, u32::from(LAST) - turn, turn],
                ADAMANT_U32,
                element,
                found.width,
            );
            let mut scratch = RowScratch::default();
            let sorted = listed.rust::<F>().sort(ROWS, &mut scratch).expect("valid rows");
            // The norm of a gradient with a NaN, and none.
            let (norm, max_norm) = match turn {
                1 => (Some(f64::NAN), Some(0.5)),
                2 => (None, None),
                _ => (None, Some(0.5)),
            };
            let options = StepOptions { exec, max_norm, grad_norm: norm, ..StepOptions::default() };
            let table = expected.table::<F>();
            let report = adam
                .step_rows_dense_equivalent_on(table, sorted, &mut waiting, &options)
                .expect("a valid step");
            let (table, grads) = (found.c(), listed.c());
            let optimizer = Handle::of(adam);
            let options = c_options(&options);
            let mut c_report = no_report();
            let status = adamant_step_rows_dense_equivalent(
                optimizer.0,
                &table,
                &grads,
                handle,
                &options,
                &c_exec,
                &mut c_report,
            );
            assert_eq!(status as u32, c_report.outcome, "{}", message());
            assert_same_report(&c_report, &report);
        }
        waiting.catch_up_with(expected.table::<F>(), &[3_u32, 4], exec).expect("valid rows");
        let mut rows = Memory::of(&[3_u32, 4], ADAMANT_U32);
        let table = found.c();
        ok(adamant_dense_equivalent_catch_up(handle, &c_exec, &table, &rows.array()));
        assert_eq!(found, expected);

        let mut copy = ptr::null_mut();
        ok(adamant_dense_equivalent_clone(handle, &mut copy));
        adamant_dense_equivalent_free(handle);
        let (mut rows, mut step, mut skipped) = (0, 0, 0);
        ok(adamant_dense_equivalent_rows(copy, &mut rows));
        ok(adamant_dense_equivalent_step(copy, &mut step));
        ok(adamant_dense_equivalent_skipped(copy, 5, &mut skipped));
        assert_eq!((rows, step, Some(skipped)), (ROWS, waiting.step(), waiting.skipped(5)));
        waiting.catch_up_all_with(expected.table::<F>(), exec).expect("a table that fits");
        ok(adamant_dense_equivalent_catch_up_all(copy, &c_exec, &table));
        adamant_dense_equivalent_free(copy);
    }
    assert_eq!(found, expected);
}

#[test]
fn dense_equivalent_steps_give_the_bits_of_rust() {
    for way in [CatchUp::Series, CatchUp::Replay] {
        check_dense_equivalent::<f32>(ADAMANT_F32, way);
        check_dense_equivalent::<f64>(ADAMANT_F64, way);
    }
}
