//! The functions of C give the bits of Rust's: every optimizer, every combination of types, rows, norms
//! and conversions.

#[path = "hyper.rs"]
mod hyper;

use std::{ffi::CStr, fmt::Debug, mem, ptr, slice};

use adamant::{
    Adam, Arity, CatchUp, DenseEquivalent, Exec, Float, Grad, Isa, MixedOptimizer, MixedTensor,
    Moment, Optimizer, Outcome, Param, Pass, Q8, RowGrads, RowIndex, RowOptimizer, RowRule,
    RowScratch, RowWiseAdam, Rule, Sgd, Table, Tensor, clip_factor, grad_norm_on,
};
use half::{bf16, f16};
use hyper::{defaults, hyper_of};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{
    adamant_status::*,
    adamant_type::*,
    support::{ForEachRule, Specified, for_each_rule},
    *,
};

/// An array of any type, which C and Rust see alike.
#[derive(Clone, Debug, PartialEq)]
struct Memory {
    /// Eight bytes each, for their alignment.
    words: Vec<u64>,
    len: usize,
    element: adamant_type,
}

impl Memory {
    fn none() -> Self {
        Self { words: vec![], len: 0, element: ADAMANT_NONE }
    }

    /// Numbers of about 1; codes, indices and lower halves of any bits.
    fn random(rng: &mut ChaCha8Rng, element: adamant_type, len: usize, positive: bool) -> Self {
        let mut memory = Self { words: vec![0; len], len, element };
        let mut number = || {
            let number = rng.random_range(0.01..2.0_f64);
            if positive || rng.random() { number } else { -number }
        };
        match element {
            ADAMANT_NONE => return Self::none(),
            ADAMANT_F32 => memory.slice_mut().fill_with(|| number() as f32),
            ADAMANT_F64 => memory.slice_mut().fill_with(number),
            ADAMANT_BF16 => memory.slice_mut().fill_with(|| bf16::from_f64(number())),
            ADAMANT_F16 => memory.slice_mut().fill_with(|| f16::from_f64(number())),
            ADAMANT_Q8 => memory.slice_mut().fill_with(|| rng.random::<u8>()),
            ADAMANT_LOW16 => memory.slice_mut().fill_with(|| rng.random::<u16>()),
            _ => panic!("indices are given"),
        }
        memory
    }

    fn of<T: Copy>(values: &[T], element: adamant_type) -> Self {
        let mut memory = Self { words: vec![0; values.len()], len: values.len(), element };
        memory.slice_mut::<T>().copy_from_slice(values);
        memory
    }

    fn slice<T>(&self) -> &[T] {
        assert!(size_of::<T>() <= 8);
        // SAFETY: eight bytes for each element, of which any are valid for the types used here.
        unsafe { slice::from_raw_parts(self.words.as_ptr().cast(), self.len) }
    }

    fn slice_mut<T>(&mut self) -> &mut [T] {
        assert!(size_of::<T>() <= 8);
        // SAFETY: as above.
        unsafe { slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.len) }
    }

    fn array(&mut self) -> adamant_array {
        let data = self.words.as_mut_ptr().cast();
        adamant_array { data, len: self.len, r#type: self.element as u32 }
    }
}

/// The arrays of a tensor.
#[derive(Clone, Debug, PartialEq)]
struct Arrays {
    param: Memory,
    extra: Memory,
    grad: Memory,
    moments: Vec<Memory>,
    scales: Vec<Memory>,
    first: u64,
    zero_grad: bool,
    stochastic: bool,
}

/// The types of a tensor.
#[derive(Clone, Copy, Debug)]
struct Types {
    param: adamant_type,
    extra: adamant_type,
    stochastic: bool,
    grad: adamant_type,
    zero_grad: bool,
    moments: [adamant_type; 3],
}

impl Types {
    fn all(element: adamant_type) -> Self {
        Self {
            param: element,
            extra: ADAMANT_NONE,
            stochastic: false,
            grad: element,
            zero_grad: false,
            moments: [element; 3],
        }
    }

    fn mixed() -> Vec<Self> {
        let mut found = vec![];
        for (param, extra, stochastic) in [
            (ADAMANT_F32, ADAMANT_NONE, false),
            (ADAMANT_F32, ADAMANT_BF16, false),
            (ADAMANT_F32, ADAMANT_F16, false),
            (ADAMANT_BF16, ADAMANT_LOW16, false),
            (ADAMANT_BF16, ADAMANT_NONE, false),
            (ADAMANT_BF16, ADAMANT_NONE, true),
            (ADAMANT_F16, ADAMANT_NONE, false),
        ] {
            for grad in [ADAMANT_F32, ADAMANT_BF16, ADAMANT_F16] {
                const MOMENTS: [adamant_type; 3] = [ADAMANT_F32, ADAMANT_BF16, ADAMANT_Q8];
                for first in MOMENTS {
                    for second in MOMENTS {
                        let zero_grad = found.len() % 2 == 0;
                        let moments = [first, second, MOMENTS[found.len() % 3]];
                        found.push(Self { param, extra, stochastic, grad, zero_grad, moments });
                    }
                }
            }
        }
        found
    }
}

impl Arrays {
    fn new<R: Rule>(rule: &R, rng: &mut ChaCha8Rng, types: Types, len: usize) -> Self {
        let kept = |moment| moment < R::MOMENT_NAMES.as_ref().len() && rule.start(moment).is_some();
        let element =
            |moment: usize| if kept(moment) { types.moments[moment] } else { ADAMANT_NONE };
        let mut array = |element, len, positive| Memory::random(rng, element, len, positive);
        Self {
            param: array(types.param, len, false),
            extra: array(types.extra, len, false),
            grad: array(types.grad, len, false),
            moments: (0..3).map(|moment| array(element(moment), len, true)).collect(),
            scales: (0..3)
                .map(|moment| match element(moment) {
                    ADAMANT_Q8 => array(ADAMANT_F32, Q8::scales(len), true),
                    _ => Memory::none(),
                })
                .collect(),
            first: (1 << 32) - 10,
            zero_grad: types.zero_grad,
            stochastic: types.stochastic,
        }
    }

    fn c(&mut self) -> adamant_tensor {
        let mut moments = self.moments.iter_mut().map(Memory::array);
        let mut scales = self.scales.iter_mut().map(Memory::array);
        adamant_tensor {
            size: size_of::<adamant_tensor>(),
            param: self.param.array(),
            grad: self.grad.array(),
            moments: std::array::from_fn(|_| moments.next().expect("a moment")),
            param_extra: self.extra.array(),
            scales: std::array::from_fn(|_| scales.next().expect("scales")),
            first: self.first,
            zero_grad: self.zero_grad.into(),
            stochastic_param: self.stochastic.into(),
        }
    }

    fn plain<R: Rule, F: Float>(&mut self) -> Tensor<'_, R, F> {
        let mut moments = self.moments.iter_mut();
        Tensor {
            param: self.param.slice_mut(),
            grad: self.grad.slice(),
            moments: R::Moments::from_fn(|_| moments.next().expect("a moment").slice_mut()),
        }
    }

    fn mixed<R: Rule>(&mut self) -> MixedTensor<'_, R> {
        let (param, extra, grad) = (&mut self.param, &mut self.extra, &mut self.grad);
        let mut moments = self.moments.iter_mut().zip(&mut self.scales);
        MixedTensor {
            param: match (param.element, extra.element) {
                (ADAMANT_F32, ADAMANT_BF16) => {
                    Param::F32AndBf16(param.slice_mut(), extra.slice_mut())
                }
                (ADAMANT_F32, ADAMANT_F16) => {
                    Param::F32AndF16(param.slice_mut(), extra.slice_mut())
                }
                (ADAMANT_F32, _) => Param::F32(param.slice_mut()),
                (ADAMANT_BF16, ADAMANT_LOW16) => Param::Split(param.slice_mut(), extra.slice_mut()),
                (ADAMANT_BF16, _) if self.stochastic => Param::Bf16Stochastic(param.slice_mut()),
                (ADAMANT_BF16, _) => Param::Bf16(param.slice_mut()),
                _ => Param::F16(param.slice_mut()),
            },
            grad: match (grad.element, self.zero_grad) {
                (ADAMANT_F32, false) => Grad::F32(grad.slice()),
                (ADAMANT_BF16, false) => Grad::Bf16(grad.slice()),
                (_, false) => Grad::F16(grad.slice()),
                (ADAMANT_F32, true) => Grad::F32ToZero(grad.slice_mut()),
                (ADAMANT_BF16, true) => Grad::Bf16ToZero(grad.slice_mut()),
                (_, true) => Grad::F16ToZero(grad.slice_mut()),
            },
            moments: R::Moments::from_fn(|_| {
                let (moment, scales) = moments.next().expect("a moment");
                match moment.element {
                    ADAMANT_Q8 => Moment::Q8(moment.slice_mut(), scales.slice_mut()),
                    ADAMANT_BF16 => Moment::Bf16(moment.slice_mut()),
                    _ => Moment::F32(moment.slice_mut()),
                }
            }),
            first: self.first,
        }
    }
}

fn isa_of(isa: Isa) -> u32 {
    (match isa {
        Isa::Avx2 => adamant_isa::ADAMANT_ISA_AVX2,
        Isa::Avx512 => adamant_isa::ADAMANT_ISA_AVX512,
        Isa::Neon => adamant_isa::ADAMANT_ISA_NEON,
        _ => adamant_isa::ADAMANT_ISA_SCALAR,
    }) as u32
}

fn serial(isa: Isa) -> adamant_exec {
    let threads = adamant_threads::ADAMANT_THREADS_SERIAL as u32;
    let size = size_of::<adamant_exec>();
    adamant_exec { size, isa: isa_of(isa), threads, pool: ptr::null() }
}

fn message() -> String {
    // SAFETY: a text that lives until the next error.
    let text = unsafe { CStr::from_ptr(adamant_last_error()) };
    text.to_str().expect("UTF-8").to_owned()
}

#[track_caller]
fn ok(status: adamant_status) {
    assert_eq!(status, ADAMANT_OK, "{}", message());
}

fn step(
    hyper: &adamant_hyper,
    exec: &adamant_exec,
    t: u64,
    pass: *const adamant_pass,
    tensors: &[adamant_tensor],
) -> adamant_status {
    // SAFETY: structs of this version, and arrays that are alive.
    unsafe { adamant_step(hyper, exec, t, pass, tensors.as_ptr(), tensors.len()) }
}

struct Dense;

impl Dense {
    /// Three steps on two tensors at once, and on as many as need memory for their checks.
    fn check<R: BuiltIn, F: Float>(rule: &R, element: adamant_type) {
        let hyper = hyper_of(rule);
        for (isa, lens) in Isa::available().into_iter().flat_map(|isa| {
            [vec![], vec![1], vec![17, 1000], vec![3; 9], vec![1; 300]].map(|lens| (isa, lens))
        }) {
            let mut rng = ChaCha8Rng::seed_from_u64(lens.len() as u64);
            let mut tensors: Vec<_> = (lens.iter())
                .map(|&len| Arrays::new(rule, &mut rng, Types::all(element), len))
                .collect();
            let mut expected = tensors.clone();
            for t in 1..=3 {
                let mut plain: Vec<_> = expected.iter_mut().map(Arrays::plain::<R, F>).collect();
                let exec = Exec { isa, parallel: false };
                rule.step_many_on(exec, t, &mut plain).expect("a valid step");
                let c: Vec<_> = tensors.iter_mut().map(Arrays::c).collect();
                ok(step(&hyper, &serial(isa), t, ptr::null(), &c));
            }
            assert_eq!(tensors, expected, "{hyper:?} on {isa}");
        }
    }
}

impl ForEachRule for Dense {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        Self::check::<R, f32>(&rule, ADAMANT_F32);
        Self::check::<R, f64>(&rule, ADAMANT_F64);
    }
}

#[test]
fn dense_steps_of_every_optimizer_give_the_bits_of_rust() {
    for_each_rule(&mut Dense);
}

struct Mixed;

impl ForEachRule for Mixed {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        let hyper = hyper_of(&rule);
        let isa = Isa::detect();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (number, types) in Types::mixed().into_iter().enumerate() {
            let mut tensors = [300, 0, 5].map(|len| Arrays::new(&rule, &mut rng, types, len));
            let mut expected = tensors.clone();
            let pass = Pass {
                grad_factor: 0.5,
                grad_norm: (number % 3 == 0).then_some(1.0),
                flush_subnormals: number % 2 == 0,
                seed: number as u64,
            };
            let mut plain = expected.each_mut().map(Arrays::mixed::<R>);
            let outcome = rule.step_mixed(Exec { isa, parallel: false }, 2, pass, &mut plain);
            assert_eq!(outcome, Ok(Outcome::Taken));
            drop(plain);
            let pass = c_pass(pass);
            let c = tensors.each_mut().map(Arrays::c);
            ok(step(&hyper, &serial(isa), 2, &pass, &c));
            assert!(tensors == expected, "{hyper:?}, {types:?}");
        }
    }
}

fn c_pass(pass: Pass) -> adamant_pass {
    adamant_pass {
        size: size_of::<adamant_pass>(),
        grad_factor: pass.grad_factor,
        grad_norm: pass.grad_norm.unwrap_or(7.0),
        use_grad_norm: pass.grad_norm.is_some().into(),
        flush_subnormals: pass.flush_subnormals.into(),
        seed: pass.seed,
    }
}

#[test]
fn mixed_steps_of_every_optimizer_and_type_give_the_bits_of_rust() {
    for_each_rule(&mut Mixed);
}

/// Gradients in `f32` alone take the fast way where there is no pass, and the other where there is one.
#[test]
fn a_pass_over_tensors_in_f32_gives_the_bits_of_rust() {
    let adam = Adam::adamw();
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut found = Arrays::new(&adam, &mut rng, Types::all(ADAMANT_F32), 2000);
    let mut expected = found.clone();
    let pass = Pass { grad_factor: 0.25, ..Pass::default() };
    let exec = Exec { isa: Isa::detect(), parallel: true };
    let outcome = adam.step_mixed(exec, 1, pass, &mut [expected.mixed()]);
    assert_eq!(outcome, Ok(Outcome::Taken));
    let before = found.clone();
    let infinite = c_pass(Pass { grad_norm: Some(f64::INFINITY), ..pass });
    let exec = serial(Isa::detect());
    assert_eq!(step(&hyper_of(&adam), &exec, 1, &infinite, &[found.c()]), ADAMANT_LEFT_OUT);
    assert_eq!(found, before);
    ok(step(&hyper_of(&adam), &exec, 1, &c_pass(pass), &[found.c()]));
    assert_eq!(found, expected);
}

#[test]
fn pools_of_any_size_give_the_bits_of_rust() {
    let adam = Adam::adamw();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let before = Arrays::new(&adam, &mut rng, Types::all(ADAMANT_F32), 300_000);
    let mut expected = before.clone();
    let exec = Exec { isa: Isa::detect(), parallel: false };
    adam.step_many_on(exec, 1, &mut [expected.plain::<_, f32>()]).expect("a valid step");
    for threads in [1, 2, 5] {
        let mut pool = ptr::null_mut();
        // SAFETY: a handle that is freed below.
        ok(unsafe { adamant_pool_new(threads, &mut pool) });
        // SAFETY: a live handle.
        assert_eq!(unsafe { adamant_pool_threads(pool) }, threads);
        for len in [16, 300_000] {
            let mut found = before.clone();
            let whole = found.c();
            let short = |array: adamant_array| adamant_array { len: array.len.min(len), ..array };
            let tensor = adamant_tensor {
                param: short(whole.param),
                grad: short(whole.grad),
                moments: whole.moments.map(short),
                ..whole
            };
            let exec = adamant_exec {
                threads: adamant_threads::ADAMANT_THREADS_POOL as u32,
                pool,
                ..serial(Isa::detect())
            };
            ok(step(&hyper_of(&adam), &exec, 1, ptr::null(), &[tensor]));
            assert_eq!(found.param.slice::<f32>()[..len], expected.param.slice::<f32>()[..len]);
        }
        // SAFETY: used no more.
        unsafe { adamant_pool_free(pool) };
    }
}

/// The arrays of a table.
#[derive(Clone, Debug, PartialEq)]
struct Rows {
    width: usize,
    param: Memory,
    moments: Vec<Memory>,
}

const ROWS: usize = 50;

impl Rows {
    fn new<R: RowRule + 'static, F: Float>(rule: &R, element: adamant_type, width: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(width as u64);
        let state = rule.row_state::<F>(ROWS, width);
        let lens = state.moments();
        let mut moments: Vec<_> = (lens.as_ref().iter())
            .map(|moment| {
                let element = if moment.is_empty() { ADAMANT_NONE } else { element };
                Memory::random(&mut rng, element, moment.len(), true)
            })
            .collect();
        moments.resize(3, Memory::none());
        Self { width, param: Memory::random(&mut rng, element, ROWS * width, false), moments }
    }

    fn c(&mut self) -> adamant_table {
        let mut moments = self.moments.iter_mut().map(Memory::array);
        adamant_table {
            size: size_of::<adamant_table>(),
            width: self.width,
            param: self.param.array(),
            moments: std::array::from_fn(|_| moments.next().expect("a moment")),
        }
    }

    fn table<R: RowRule + 'static, F: Float>(&mut self) -> Table<'_, R, F> {
        let mut moments = self.moments.iter_mut();
        Table {
            param: self.param.slice_mut(),
            moments: R::RowMoments::from_fn(|_| moments.next().expect("a moment").slice_mut()),
            width: self.width,
        }
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

/// Lazy steps of a rule, with an index type.
fn check_lazy<R: RowRule + 'static, F: Float, I: RowIndex>(
    rule: &R,
    element: adamant_type,
    (of, index): (adamant_type, impl Fn(u8) -> I),
) {
    let hyper = hyper_of(rule);
    for width in [1, 17] {
        let mut found = Rows::new::<R, F>(rule, element, width);
        let mut expected = found.clone();
        let mut scratch = RowScratch::default();
        let mut handle = ptr::null_mut();
        // SAFETY: a handle that is freed below.
        ok(unsafe { adamant_row_scratch_new(&mut handle) });
        for (t, rows) in [(1, vec![7, 2, 7, 49]), (2, vec![]), (3, (0..50).rev().collect())] {
            let rows = rows.into_iter().map(&index).collect();
            let mut listed = Listed::new(rows, of, element, width);
            let exec = Exec { isa: Isa::detect(), parallel: false };
            rule.step_rows_lazy_on(exec, t, expected.table::<R, F>(), listed.rust(), &mut scratch)
                .expect("a valid step");
            let scratch = if t == 2 { ptr::null_mut() } else { handle };
            let (table, grads, exec) = (found.c(), listed.c(), serial(Isa::detect()));
            // SAFETY: structs of this version, and memory that is alive.
            ok(unsafe { adamant_step_rows_lazy(&hyper, &exec, t, &table, &grads, scratch) });
        }
        // SAFETY: used no more.
        unsafe { adamant_row_scratch_free(handle) };
        assert_eq!(found, expected, "{hyper:?}");
    }
}

struct Lazy;

impl Lazy {
    fn check<R: RowRule + 'static, F: Float>(rule: &R, element: adamant_type) {
        check_lazy::<R, F, u32>(rule, element, (ADAMANT_U32, u32::from));
        check_lazy::<R, F, u64>(rule, element, (ADAMANT_U64, u64::from));
        check_lazy::<R, F, i32>(rule, element, (ADAMANT_I32, i32::from));
        check_lazy::<R, F, i64>(rule, element, (ADAMANT_I64, i64::from));
    }
}

impl ForEachRule for Lazy {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        Self::check::<R, f32>(&rule, ADAMANT_F32);
        Self::check::<R, f64>(&rule, ADAMANT_F64);
    }
}

#[test]
fn lazy_steps_of_every_optimizer_give_the_bits_of_rust() {
    for_each_rule(&mut Lazy);
    Lazy::check::<_, f32>(&RowWiseAdam(Adam::adamw()), ADAMANT_F32);
    Lazy::check::<_, f64>(&RowWiseAdam(Adam::default()), ADAMANT_F64);
}

fn check_dense_equivalent<F: Float>(element: adamant_type, way: CatchUp) {
    let exec = Exec { isa: Isa::detect(), parallel: false };
    let c_exec = serial(exec.isa);
    let mut found = Rows::new::<_, F>(&Adam::default(), element, 9);
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
        for turn in 0..30 {
            let adam = Adam { lr: 1e-3 / f64::from(turn + 1), ..Adam::adamw() };
            let mut listed =
                Listed::new(vec![turn, 49 - turn, turn], ADAMANT_U32, element, found.width);
            adam.step_rows_dense_equivalent_on(
                exec,
                expected.table(),
                listed.rust::<F>(),
                &mut waiting,
            )
            .expect("a valid step");
            let (table, grads) = (found.c(), listed.c());
            let hyper = hyper_of(&adam);
            ok(adamant_step_rows_dense_equivalent(&hyper, &c_exec, &table, &grads, handle));
        }
        waiting.catch_up_on(exec, expected.table(), &[3_u32, 4]).expect("valid rows");
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
        ok(adamant_dense_equivalent_skipped(copy, 12, &mut skipped));
        assert_eq!((rows, step, Some(skipped)), (ROWS, waiting.step(), waiting.skipped(12)));
        waiting.catch_up_all_on(exec, expected.table()).expect("a table that fits");
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

fn check_norm<E: adamant::GradElement>(element: adamant_type) {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    for lens in [vec![], vec![10_000], vec![3, 0, 700], vec![5; 40]] {
        let mut grads: Vec<_> =
            lens.iter().map(|&len| Memory::random(&mut rng, element, len, false)).collect();
        let slices: Vec<&[E]> = grads.iter().map(Memory::slice).collect();
        let exec = Exec { isa: Isa::detect(), parallel: false };
        let expected = grad_norm_on(exec, &slices).expect("a norm");
        let arrays: Vec<_> = grads.iter_mut().map(Memory::array).collect();
        let mut norm = -1.0;
        let exec = serial(exec.isa);
        // SAFETY: structs of this version, and memory that is alive.
        ok(unsafe { adamant_grad_norm(&exec, arrays.as_ptr(), arrays.len(), &mut norm) });
        assert_eq!(norm.to_bits(), expected.to_bits());
        assert_eq!(adamant_clip_factor(norm, 0.5), clip_factor(norm, 0.5));
    }
}

#[test]
fn norms_have_the_bits_of_rust() {
    check_norm::<f32>(ADAMANT_F32);
    check_norm::<f64>(ADAMANT_F64);
    check_norm::<bf16>(ADAMANT_BF16);
    check_norm::<f16>(ADAMANT_F16);
}

#[test]
fn norms_of_arrays_of_different_types_have_the_bits_of_rust() {
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let mut random = |element, len| Memory::random(&mut rng, element, len, false);
    let mut single = random(ADAMANT_F32, 10_000);
    let mut brain = random(ADAMANT_BF16, 5_000);
    let mut half = random(ADAMANT_F16, 77);
    let tensor = |grad| MixedTensor::<Sgd> {
        param: Param::F32(&mut []),
        grad,
        moments: [Moment::F32(&mut [])],
        first: 0,
    };
    let tensors = [
        tensor(Grad::F32(single.slice())),
        tensor(Grad::Bf16(brain.slice())),
        tensor(Grad::F16(half.slice())),
    ];
    let exec = Exec { isa: Isa::detect(), parallel: false };
    let expected = MixedTensor::grad_norm(exec, &tensors).expect("a norm");
    let arrays = [single.array(), brain.array(), half.array()];
    let (exec, mut norm) = (serial(exec.isa), -1.0);
    // SAFETY: structs of this version, and memory that is alive.
    ok(unsafe { adamant_grad_norm(&exec, arrays.as_ptr(), arrays.len(), &mut norm) });
    assert_eq!(norm.to_bits(), expected.to_bits());
}

#[test]
fn conversions_to_8_bits_have_the_bits_of_rust() {
    for (number, format) in [Q8::Signed, Q8::Squares, Q8::Unsigned].into_iter().enumerate() {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut values = Memory::random(&mut rng, ADAMANT_F32, 600, format != Q8::Signed);
        assert_eq!(adamant_q8_scales(600), 3);
        let (mut codes, mut scales) = (vec![0; 600], vec![0.0; 3]);
        format.encode(values.slice(), &mut codes, &mut scales).expect("lengths that fit");
        let mut found_codes = Memory::of(&[0_u8; 600], ADAMANT_Q8);
        let mut found_scales = Memory::of(&[0.0_f32; 3], ADAMANT_F32);
        let (of_values, of_codes, of_scales) =
            (values.array(), found_codes.array(), found_scales.array());
        // SAFETY: memory that is alive.
        ok(unsafe { adamant_q8_encode(number as u32, &of_values, &of_codes, &of_scales) });
        assert_eq!((found_codes.slice(), found_scales.slice()), (&codes[..], &scales[..]));
        let mut expected = vec![0.0; 600];
        format.decode(&codes, &scales, &mut expected).expect("lengths that fit");
        // SAFETY: memory that is alive.
        ok(unsafe { adamant_q8_decode(number as u32, &of_codes, &of_scales, &of_values) });
        assert_eq!(values.slice::<f32>(), expected);
    }
}

#[test]
fn conversions_to_16_bits_have_the_bits_of_rust() {
    let all: Vec<u16> = (0..=u16::MAX).collect();
    let check = |element, to_f32: fn(u16) -> f32, from_f32: fn(f32) -> u16| {
        let mut narrow = Memory::of(&all, element);
        let mut wide = Memory::of(&vec![7.0_f32; all.len()], ADAMANT_F32);
        // SAFETY: memory that is alive.
        ok(unsafe { adamant_convert(&narrow.array(), &wide.array()) });
        let expected: Vec<u32> = all.iter().map(|&bits| to_f32(bits).to_bits()).collect();
        assert_eq!(wide.slice::<u32>(), expected);
        // And halfway between these, where ties are, and a little beside.
        for beside in [0, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001] {
            let values: Vec<f32> =
                expected.iter().map(|bits| f32::from_bits(bits.wrapping_add(beside))).collect();
            let mut wide = Memory::of(&values, ADAMANT_F32);
            // SAFETY: as above.
            ok(unsafe { adamant_convert(&wide.array(), &narrow.array()) });
            let expected: Vec<u16> = values.into_iter().map(from_f32).collect();
            assert_eq!(narrow.slice::<u16>(), expected);
        }
    };
    check(
        ADAMANT_BF16,
        |bits| bf16::from_bits(bits).to_f32(),
        |value| bf16::from_f32(value).to_bits(),
    );
    check(
        ADAMANT_F16,
        |bits| f16::from_bits(bits).to_f32(),
        |value| f16::from_f32(value).to_bits(),
    );
}

#[test]
fn halves_have_the_bits_of_rust() {
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let values: Vec<f32> = (0..10_000).map(|_| f32::from_bits(rng.random::<u32>())).collect();
    let (mut expected_high, mut expected_low) = (vec![bf16::ZERO; 10_000], vec![0; 10_000]);
    Param::split(&values, &mut expected_high, &mut expected_low).expect("lengths that fit");
    let mut found = Memory::of(&values, ADAMANT_F32);
    let mut high = Memory::of(&[0_u16; 10_000], ADAMANT_BF16);
    let mut low = Memory::of(&[0_u16; 10_000], ADAMANT_LOW16);
    // SAFETY: memory that is alive.
    ok(unsafe { adamant_split(&found.array(), &high.array(), &low.array()) });
    let bits: Vec<u16> = expected_high.iter().map(|high| high.to_bits()).collect();
    assert_eq!((high.slice::<u16>(), low.slice::<u16>()), (&bits[..], &expected_low[..]));
    // SAFETY: memory that is alive.
    ok(unsafe { adamant_join(&high.array(), &low.array(), &found.array()) });
    for (found, value) in found.slice::<f32>().iter().zip(values) {
        assert!(found.to_bits() == value.to_bits() || found.is_nan() && value.is_nan());
    }
}

/// Miri tells whether the first pointer outlives the second call.
#[test]
fn a_buffer_has_one_pointer_for_all_its_life() {
    for element in [ADAMANT_F32, ADAMANT_F64, ADAMANT_BF16, ADAMANT_Q8, ADAMANT_LOW16] {
        let mut buffer = ptr::null_mut();
        // SAFETY: a handle that is freed at the end, and memory of it.
        unsafe {
            ok(adamant_buffer_new(8, element as u32, &mut buffer));
            let first = adamant_buffer_data(buffer).cast::<u8>();
            let second = adamant_buffer_data(buffer).cast::<u8>();
            *first = 1;
            *second += 1;
            assert_eq!((first, *first), (second, 2));
            adamant_buffer_free(buffer);
        }
    }
}

/// What C says of moments, against the states that Rust makes.
struct Moments;

impl Moments {
    fn check<R: RowRule + 'static>(rule: &R, holds_squares: impl Fn(usize) -> Option<bool>) {
        let hyper = hyper_of(rule);
        let mut state = rule.row_state::<f64>(6, 300);
        let mut count = 0;
        // SAFETY: structs of this version, and memory that is alive; here and below.
        unsafe {
            ok(adamant_moment_count(&hyper, &mut count));
            assert_eq!(count, state.moments().as_ref().len());
            for (number, moment) in state.moments_mut().as_mut().iter_mut().enumerate() {
                let mut found = mem::zeroed::<adamant_moment>();
                let (size, element) = (size_of::<adamant_moment>(), ADAMANT_F64 as u32);
                ok(adamant_describe_moment(&hyper, number, element, 6, 300, &mut found, size));
                assert_eq!((found.size, found.len), (size, moment.len()));
                assert_eq!((found.bytes, found.scales), (8 * moment.len(), 0));
                if let Some(holds_squares) = holds_squares(number) {
                    assert_eq!(found.holds_squares == 1, holds_squares);
                }
                if moment.is_empty() {
                    continue;
                }
                assert_eq!(found.start, moment[0]);
                let mut filled = Memory::of(&vec![7.0_f64; moment.len()], ADAMANT_F64);
                ok(adamant_fill_moment(&hyper, number, &filled.array(), ptr::null()));
                assert_eq!(filled.slice::<f64>(), &moment[..]);
            }
        }
    }
}

impl ForEachRule for Moments {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        Self::check(&rule, |moment| Some(rule.holds_squares(moment)));
    }
}

#[test]
fn moments_are_described_and_filled_as_rust_makes_them() {
    for_each_rule(&mut Moments);
    Moments::check(&RowWiseAdam(Adam::default()), |_| None);
}

/// A sum that does not start from 0, in every type that a moment may have.
#[test]
fn a_moment_of_any_type_is_filled_with_its_start() {
    let adagrad = adamant::AdaGrad { initial_accumulator_value: 0.5, ..Default::default() };
    let hyper = hyper_of(&adagrad);
    let mut single = Memory::of(&[7.0_f32; 3], ADAMANT_F32);
    let mut brain = Memory::of(&[bf16::ZERO; 3], ADAMANT_BF16);
    let mut codes = Memory::of(&[0_u8; 300], ADAMANT_Q8);
    let mut scales = Memory::of(&[0.0_f32; 2], ADAMANT_F32);
    // SAFETY: structs of this version, and memory that is alive.
    unsafe {
        ok(adamant_fill_moment(&hyper, 0, &single.array(), ptr::null()));
        ok(adamant_fill_moment(&hyper, 0, &brain.array(), ptr::null()));
        ok(adamant_fill_moment(&hyper, 0, &codes.array(), &scales.array()));
    }
    assert_eq!(single.slice::<f32>(), [0.5; 3]);
    assert_eq!(brain.slice::<bf16>(), [bf16::from_f32(0.5); 3]);
    let mut values = [0.0; 300];
    Q8::Squares.decode(codes.slice(), scales.slice(), &mut values).expect("lengths that fit");
    assert!(values.iter().all(|value| (value - 0.5).abs() < 1e-6), "{values:?}");
}

#[test]
fn defaults_are_those_of_rust() {
    struct Defaults;
    impl ForEachRule for Defaults {
        fn visit<R: BuiltIn>(&mut self, rule: R) {
            let hyper = hyper_of(&rule);
            assert_eq!(hyper.size, size_of::<adamant_hyper>());
        }
    }
    for_each_rule(&mut Defaults);
    use adamant::{
        AdEmaMix, AdaGrad, AdaMax, Adadelta, Adopt, AmsGrad, Lion, NAdam, RAdam, RmsProp, Sgd,
    };
    use adamant_optimizer::*;
    assert_eq!(hyper_of(&Sgd::default()), defaults(ADAMANT_SGD));
    assert_eq!(hyper_of(&AdaGrad::default()), defaults(ADAMANT_ADAGRAD));
    assert_eq!(hyper_of(&Adadelta::default()), defaults(ADAMANT_ADADELTA));
    assert_eq!(hyper_of(&RmsProp::default()), defaults(ADAMANT_RMSPROP));
    assert_eq!(hyper_of(&Adam::default()), defaults(ADAMANT_ADAM));
    let adamw = adamant_hyper { optimizer: ADAMANT_ADAMW as u32, ..hyper_of(&Adam::adamw()) };
    assert_eq!(adamw, defaults(ADAMANT_ADAMW));
    assert_eq!(hyper_of(&AmsGrad::default()), defaults(ADAMANT_AMSGRAD));
    assert_eq!(hyper_of(&AdaMax::default()), defaults(ADAMANT_ADAMAX));
    assert_eq!(hyper_of(&NAdam::default()), defaults(ADAMANT_NADAM));
    assert_eq!(hyper_of(&RAdam::default()), defaults(ADAMANT_RADAM));
    assert_eq!(hyper_of(&Lion::default()), defaults(ADAMANT_LION));
    assert_eq!(hyper_of(&Adopt::default()), defaults(ADAMANT_ADOPT));
    assert_eq!(hyper_of(&AdEmaMix::default()), defaults(ADAMANT_ADEMAMIX));
    assert_eq!(hyper_of(&RowWiseAdam(Adam::default())), defaults(ADAMANT_ROW_WISE_ADAM));
}

#[test]
fn instruction_sets_are_those_of_rust() {
    assert_eq!(adamant_isa_detect(), isa_of(Isa::detect()));
    for isa in Isa::ALL {
        assert_eq!(adamant_isa_is_available(isa_of(isa)) == 1, isa.is_available());
        // SAFETY: a text that lives as long as the library.
        let name = unsafe { CStr::from_ptr(adamant_isa_name(isa_of(isa))) };
        assert_eq!(name.to_str(), Ok(isa.name()));
    }
    for unknown in [0, 5, u32::MAX] {
        assert_eq!(adamant_isa_is_available(unknown), 0);
        assert!(adamant_isa_name(unknown).is_null());
    }
    let mut selected = 0;
    // SAFETY: memory that is alive.
    match (unsafe { adamant_isa_selected(&mut selected) }, Isa::selected()) {
        (ADAMANT_OK, Ok(isa)) => assert_eq!(selected, isa_of(isa)),
        (found, expected) => assert!(found != ADAMANT_OK && expected.is_err()),
    }
}

#[test]
fn the_message_is_that_of_the_error() {
    let hyper = adamant_hyper { beta2: 1.0, ..defaults(adamant_optimizer::ADAMANT_ADAM) };
    let status = step(&hyper, &serial(Isa::Scalar), 1, ptr::null(), &[]);
    assert_eq!(status, ADAMANT_HYPER_PARAMETER);
    assert_eq!(message(), "beta2 is 1, but must be at least 0 and less than 1");
}

/// The version of the crate, in the library and in the committed header.
#[test]
fn the_version_is_that_of_the_crate() {
    // SAFETY: a text that lives as long as the library.
    let text = unsafe { CStr::from_ptr(adamant_version_string()) };
    assert_eq!(text.to_str(), Ok(env!("CARGO_PKG_VERSION")));
    let parts = [adamant_version() >> 16, adamant_version() >> 8 & 0xff, adamant_version() & 0xff];
    let header = include_str!("../include/adamant.h");
    for (name, part) in ["MAJOR", "MINOR", "PATCH"].into_iter().zip(parts) {
        assert!(header.contains(&format!("#define ADAMANT_VERSION_{name} {part}\n")), "{name}");
    }
}
