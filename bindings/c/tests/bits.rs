//! The functions of C give the bits of Rust's: every optimizer, every combination of types, rows, norms
//! and conversions.

use std::{
    ffi::{CStr, CString, c_void},
    fmt::Debug,
    mem, ptr, slice, thread,
};

use adamant::{
    Adam, AnyOptimizer, BuiltIn, CatchUp, DenseEquivalent, DynOptimizer, Float, Grad, Group, Isa,
    Moment, MomentRef, NormOrder, Optimizer, Outcome, Param, Q8, RowGrads, RowIndex, RowOptimizer,
    RowRule, RowScratch, RowWiseAdam, SettingKind, SettingValue, StepOptions, Storage, Table,
    Tensor, clip_factor, grad_norms,
};
use half::{bf16, f16};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

use super::{
    adamant_status::*,
    adamant_type::*,
    support::{self, ForEachRule, for_each_rule},
    *,
};

/// An optimizer of C.
pub struct Handle(*mut adamant_optimizer);

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and used no more.
        unsafe { adamant_optimizer_free(self.0) };
    }
}

impl Handle {
    pub fn new(name: &str) -> Self {
        let (name, mut handle) = (CString::new(name).expect("a name"), ptr::null_mut());
        // SAFETY: a text, and a pointer to a pointer.
        ok(unsafe { adamant_optimizer_new(name.as_ptr(), &mut handle) });
        Self(handle)
    }

    /// With the settings of one of Rust's.
    fn of(optimizer: impl Into<AnyOptimizer>) -> Self {
        let optimizer = optimizer.into();
        Self::named(optimizer.name(), optimizer)
    }

    fn row_wise(adam: Adam) -> Self {
        Self::named("rowwise_adam", adam.into())
    }

    fn named(name: &str, optimizer: AnyOptimizer) -> Self {
        let handle = Self::new(name);
        for setting in optimizer.settings() {
            let value = optimizer.get(setting.name).expect("a setting");
            ok(handle.set(setting.name, value));
        }
        handle
    }

    fn set(&self, name: &str, value: SettingValue<'_>) -> adamant_status {
        let name = CString::new(name).expect("a name");
        let value = match value {
            SettingValue::Number(number) => number,
            SettingValue::Count(count) => count as f64,
            SettingValue::Flag(flag) => u8::from(flag).into(),
            SettingValue::Choice(choice) => {
                let choice = CString::new(choice).expect("a name");
                // SAFETY: a live handle, and texts.
                return unsafe {
                    adamant_optimizer_set_name(self.0, name.as_ptr(), choice.as_ptr())
                };
            }
            _ => panic!("a kind of setting that C does not have"),
        };
        // SAFETY: a live handle, and a text.
        unsafe { adamant_optimizer_set(self.0, name.as_ptr(), value) }
    }

    fn get(&self, name: &str) -> Result<SettingValue<'static>, adamant_status> {
        let (name, mut number, mut text) = (CString::new(name).expect("a name"), -1.0, ptr::null());
        // SAFETY: a live handle, a text, and pointers that may be written.
        unsafe {
            match adamant_optimizer_get(self.0, name.as_ptr(), &mut number) {
                ADAMANT_OK => return Ok(SettingValue::Number(number)),
                ADAMANT_WRONG_SETTING => {}
                other => return Err(other),
            }
            match adamant_optimizer_get_name(self.0, name.as_ptr(), &mut text) {
                ADAMANT_OK => Ok(SettingValue::Choice(text_of(text))),
                other => Err(other),
            }
        }
    }
}

/// A text of the library's.
fn text_of(text: *const core::ffi::c_char) -> &'static str {
    // SAFETY: a text that lives as long as the library.
    unsafe { CStr::from_ptr(text) }.to_str().expect("UTF-8")
}

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
    steps: u64,
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
    moments: [adamant_type; 4],
}

impl Types {
    fn all(element: adamant_type) -> Self {
        Self {
            param: element,
            extra: ADAMANT_NONE,
            stochastic: false,
            grad: element,
            zero_grad: false,
            moments: [element; 4],
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
            (ADAMANT_F16, ADAMANT_NONE, true),
        ] {
            for grad in [ADAMANT_F32, ADAMANT_BF16, ADAMANT_F16] {
                const MOMENTS: [adamant_type; 3] = [ADAMANT_F32, ADAMANT_BF16, ADAMANT_Q8];
                for first in MOMENTS {
                    for second in MOMENTS {
                        let zero_grad = found.len() % 2 == 0;
                        let third = MOMENTS[found.len() % 3];
                        let moments = [first, second, third, second];
                        found.push(Self { param, extra, stochastic, grad, zero_grad, moments });
                    }
                }
            }
        }
        found
    }
}

impl Arrays {
    fn new(optimizer: &dyn DynOptimizer, rng: &mut ChaCha8Rng, types: Types, len: usize) -> Self {
        let kept =
            |moment| moment < optimizer.moment_count() && optimizer.moment_start(moment).is_some();
        let element =
            |moment: usize| if kept(moment) { types.moments[moment] } else { ADAMANT_NONE };
        let mut array = |element, len, positive| Memory::random(rng, element, len, positive);
        Self {
            param: array(types.param, len, false),
            extra: array(types.extra, len, false),
            grad: array(types.grad, len, false),
            moments: (0..4).map(|moment| array(element(moment), len, true)).collect(),
            scales: (0..4)
                .map(|moment| match element(moment) {
                    ADAMANT_Q8 => array(ADAMANT_F32, Q8::scales(len), true),
                    _ => Memory::none(),
                })
                .collect(),
            steps: 1,
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
            steps: &raw mut self.steps,
            param_extra: self.extra.array(),
            scales: std::array::from_fn(|_| scales.next().expect("scales")),
            first: self.first,
            use_first: 1,
            reserved: 0,
            zero_grad: self.zero_grad.into(),
            stochastic_param: self.stochastic.into(),
        }
    }

    fn rust(&mut self) -> Tensor<'_> {
        let (param, extra, grad) = (&mut self.param, &mut self.extra, &mut self.grad);
        let param: Param<'_> = match (param.element, extra.element) {
            (ADAMANT_F32, ADAMANT_BF16) => {
                Param::with_copy::<bf16>(param.slice_mut(), extra.slice_mut())
            }
            (ADAMANT_F32, ADAMANT_F16) => {
                Param::with_copy::<f16>(param.slice_mut(), extra.slice_mut())
            }
            (ADAMANT_F32, _) => param.slice_mut::<f32>().into(),
            (ADAMANT_F64, _) => param.slice_mut::<f64>().into(),
            (ADAMANT_BF16, ADAMANT_LOW16) => {
                Param::from_halves(param.slice_mut(), extra.slice_mut())
            }
            (ADAMANT_BF16, _) if self.stochastic => Param::stochastic(param.slice_mut::<bf16>()),
            (ADAMANT_BF16, _) => param.slice_mut::<bf16>().into(),
            _ if self.stochastic => Param::stochastic(param.slice_mut::<f16>()),
            _ => param.slice_mut::<f16>().into(),
        };
        let grad: Grad<'_> = match (grad.element, self.zero_grad) {
            (ADAMANT_F32, false) => grad.slice::<f32>().into(),
            (ADAMANT_F64, false) => grad.slice::<f64>().into(),
            (ADAMANT_BF16, false) => grad.slice::<bf16>().into(),
            (_, false) => grad.slice::<f16>().into(),
            (ADAMANT_F32, true) => Grad::zeroed::<f32>(grad.slice_mut()),
            (ADAMANT_F64, true) => Grad::zeroed::<f64>(grad.slice_mut()),
            (ADAMANT_BF16, true) => Grad::zeroed::<bf16>(grad.slice_mut()),
            (_, true) => Grad::zeroed::<f16>(grad.slice_mut()),
        };
        let passed = self.moments.iter().rposition(|moment| moment.len > 0);
        let moments = self.moments.iter_mut().zip(&mut self.scales);
        let moments = moments.take(passed.map_or(0, |last| last + 1));
        let moments = moments.map(|(moment, scales)| match moment.element {
            ADAMANT_Q8 => Moment::q8(moment.slice_mut(), scales.slice_mut()),
            ADAMANT_BF16 => moment.slice_mut::<bf16>().into(),
            ADAMANT_F64 => moment.slice_mut::<f64>().into(),
            _ => moment.slice_mut::<f32>().into(),
        });
        Tensor::new(param, grad, &mut self.steps).with_moments(moments).with_first(self.first)
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
    adamant_exec { size, isa: isa_of(isa), threads, pool: ptr::null(), tasks: ptr::null() }
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

fn group(optimizer: &Handle, tensors: &[adamant_tensor]) -> adamant_group {
    let (size, optimizer) = (size_of::<adamant_group>(), optimizer.0);
    adamant_group { size, optimizer, tensors: tensors.as_ptr(), tensor_count: tensors.len() }
}

fn no_report() -> adamant_report {
    let size = size_of::<adamant_report>();
    adamant_report { size, outcome: 77, has_grad_norm: 77, grad_norm: 77.0 }
}

fn step(
    optimizer: &Handle,
    exec: &adamant_exec,
    options: *const adamant_step_options,
    tensors: &[adamant_tensor],
) -> adamant_status {
    // SAFETY: structs of this version, and arrays that are alive.
    unsafe { adamant_step(&group(optimizer, tensors), 1, options, exec, ptr::null_mut()) }
}

fn plain_options(isa: Isa) -> StepOptions<'static> {
    StepOptions { exec: support::exec(isa, false), ..StepOptions::default() }
}

struct Dense;

impl Dense {
    /// Three steps on two tensors at once, and on as many as need memory for their checks.
    fn check(any: AnyOptimizer, element: adamant_type, zero_grad: bool) {
        let handle = Handle::of(any);
        for (isa, lens) in Isa::available().into_iter().flat_map(|isa| {
            [vec![], vec![1], vec![17, 1000], vec![3; 9], vec![1; 300]].map(|lens| (isa, lens))
        }) {
            let mut rng = ChaCha8Rng::seed_from_u64(lens.len() as u64);
            let types = Types { zero_grad, ..Types::all(element) };
            let mut tensors: Vec<_> =
                lens.iter().map(|&len| Arrays::new(&any, &mut rng, types, len)).collect();
            let mut expected = tensors.clone();
            for _ in 0..3 {
                let mut plain: Vec<_> = expected.iter_mut().map(Arrays::rust).collect();
                let report = any.step_tensors(&mut plain, &plain_options(isa));
                assert_eq!(report.expect("a valid step").outcome, Outcome::Taken);
                let c: Vec<_> = tensors.iter_mut().map(Arrays::c).collect();
                ok(step(&handle, &serial(isa), ptr::null(), &c));
            }
            assert_eq!(tensors, expected, "{any:?} on {isa}");
            assert!(tensors.iter().all(|tensor| tensor.steps == 4));
        }
    }
}

impl ForEachRule for Dense {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        Self::check(rule.into(), ADAMANT_F32, false);
        Self::check(rule.into(), ADAMANT_F64, true);
    }
}

#[test]
fn dense_steps_of_every_optimizer_give_the_bits_of_rust() {
    for_each_rule(&mut Dense);
}

#[test]
fn dense_steps_of_every_name_give_the_bits_of_rust() {
    for name in AnyOptimizer::NAMES {
        let any = AnyOptimizer::new(name).expect("a name");
        let handle = Handle::new(name);
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut found = Arrays::new(&any, &mut rng, Types::all(ADAMANT_F32), 100);
        let mut expected = found.clone();
        let report = any.step_tensors(&mut [expected.rust()], &plain_options(Isa::detect()));
        assert_eq!(report.expect("a valid step").outcome, Outcome::Taken);
        ok(step(&handle, &serial(Isa::detect()), ptr::null(), &[found.c()]));
        assert_eq!(found, expected, "{name}");
    }
}

struct Mixed;

impl ForEachRule for Mixed {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        let any = rule.into();
        let handle = Handle::of(any);
        let isa = Isa::detect();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (number, types) in Types::mixed().into_iter().enumerate() {
            let mut tensors = [300, 0, 5].map(|len| Arrays::new(&any, &mut rng, types, len));
            let mut expected = tensors.clone();
            let options = StepOptions {
                grad_factor: 0.5,
                grad_norm: (number % 3 == 0).then_some(1.0),
                max_norm: (number % 5 == 0).then_some(0.25),
                skip_nonfinite: number % 7 == 0,
                flush_subnormals: number % 2 == 0,
                seed: number as u64,
                ..plain_options(isa)
            };
            let mut plain = expected.each_mut().map(Arrays::rust);
            let report = any.step_tensors(&mut plain, &options).expect("a valid step");
            let c = tensors.each_mut().map(Arrays::c);
            let mut found = no_report();
            let (groups, exec) = (group(&handle, &c), serial(isa));
            // SAFETY: structs of this version, and arrays that are alive.
            ok(unsafe { adamant_step(&groups, 1, &c_options(&options), &exec, &mut found) });
            assert!(tensors == expected, "{any:?}, {types:?}");
            let norm = (found.has_grad_norm == 1).then_some(found.grad_norm);
            assert_eq!((found.outcome, norm), (ADAMANT_OK as u32, report.grad_norm));
        }
    }
}

fn c_options(options: &StepOptions<'_>) -> adamant_step_options {
    adamant_step_options {
        size: size_of::<adamant_step_options>(),
        grad_factor: options.grad_factor,
        max_norm: options.max_norm.unwrap_or(0.0),
        grad_norm: options.grad_norm.unwrap_or(7.0),
        seed: options.seed,
        use_grad_norm: options.grad_norm.is_some().into(),
        skip_nonfinite: options.skip_nonfinite.into(),
        keep_grads: options.keep_grads.into(),
        flush_subnormals: options.flush_subnormals.into(),
    }
}

#[test]
fn mixed_steps_of_every_optimizer_and_type_give_the_bits_of_rust() {
    for_each_rule(&mut Mixed);
}

/// Every optimizer in one call, each with tensors of several types.
#[test]
fn groups_of_different_optimizers_and_types_give_the_bits_of_rust() {
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let all: Vec<AnyOptimizer> =
        AnyOptimizer::NAMES.iter().map(|name| AnyOptimizer::new(name).expect("a name")).collect();
    let handles: Vec<_> = AnyOptimizer::NAMES.iter().map(|name| Handle::new(name)).collect();
    let mixed = Types::mixed();
    let mut found: Vec<Vec<Arrays>> = (all.iter().enumerate())
        .map(|(number, any)| {
            let types =
                [Types::all(ADAMANT_F32), Types::all(ADAMANT_F64), mixed[7 * number % mixed.len()]];
            let tensors = types.into_iter().take(number % 4);
            tensors.map(|types| Arrays::new(any, &mut rng, types, 300)).collect()
        })
        .collect();
    let mut expected = found.clone();
    let options = StepOptions { max_norm: Some(0.5), seed: 3, ..plain_options(Isa::detect()) };
    let mut tensors: Vec<Vec<Tensor<'_>>> =
        expected.iter_mut().map(|group| group.iter_mut().map(Arrays::rust).collect()).collect();
    let mut groups: Vec<_> =
        all.iter().zip(&mut tensors).map(|(any, tensors)| Group::new(any, tensors)).collect();
    let report = adamant::step(&mut groups, &options).expect("a valid step");
    drop(groups);
    drop(tensors);

    let tensors: Vec<Vec<adamant_tensor>> =
        found.iter_mut().map(|group| group.iter_mut().map(Arrays::c).collect()).collect();
    let groups: Vec<_> =
        handles.iter().zip(&tensors).map(|(handle, tensors)| group(handle, tensors)).collect();
    let (exec, mut of_c) = (serial(Isa::detect()), no_report());
    // SAFETY: structs of this version, and arrays that are alive.
    ok(unsafe {
        adamant_step(groups.as_ptr(), groups.len(), &c_options(&options), &exec, &mut of_c)
    });
    assert_eq!(found, expected);
    assert_eq!((of_c.has_grad_norm, Some(of_c.grad_norm)), (1, report.grad_norm));
}

#[test]
fn a_step_that_is_left_out_counts_nothing_and_zeroes_gradients_unless_told() {
    let adam = Adam::adamw();
    let handle = Handle::of(adam);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let types = Types { zero_grad: true, ..Types::all(ADAMANT_F32) };
    let mut found = Arrays::new(&adam, &mut rng, types, 2000);
    let before = found.clone();
    let options = StepOptions { grad_norm: Some(f64::INFINITY), ..StepOptions::default() };
    let kept = c_options(&StepOptions { keep_grads: true, ..options });
    let exec = serial(Isa::detect());
    assert_eq!(step(&handle, &exec, &kept, &[found.c()]), ADAMANT_LEFT_OUT);
    assert_eq!(found, before);
    assert_eq!(step(&handle, &exec, &c_options(&options), &[found.c()]), ADAMANT_LEFT_OUT);
    assert!(found.grad.slice::<f32>().iter().all(|&grad| grad == 0.0));
    assert_eq!(Arrays { grad: before.grad.clone(), ..found }, before);
}

/// Runs tasks one after the other, each with its number, and counts the calls.
unsafe extern "C" fn run_tasks(
    context: *mut c_void,
    tasks: usize,
    task: adamant_task,
    task_context: *mut c_void,
) {
    let task_context = task_context.addr();
    thread::scope(|scope| {
        for number in 0..tasks {
            scope.spawn(move || {
                // SAFETY: what the library passed, while it waits.
                unsafe { task(ptr::with_exposed_provenance_mut(task_context), number) }
            });
        }
    });
    // SAFETY: a counter of the test.
    unsafe { *context.cast::<usize>() += 1 };
}

#[test]
fn pools_and_tasks_of_any_size_give_the_bits_of_rust() {
    let adam = Adam::adamw();
    let handle = Handle::of(adam);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let before = Arrays::new(&adam, &mut rng, Types::all(ADAMANT_F32), 300_000);
    let mut expected = before.clone();
    let report = adam.step_tensors(&mut [expected.rust()], &plain_options(Isa::detect()));
    assert_eq!(report.expect("a valid step").outcome, Outcome::Taken);
    for threads in [1, 2, 5] {
        let mut pool = ptr::null_mut();
        // SAFETY: a handle that is freed below.
        ok(unsafe { adamant_pool_new(threads, &mut pool) });
        // SAFETY: a live handle.
        assert_eq!(unsafe { adamant_pool_threads(pool) }, threads);
        let mut calls = 0_usize;
        let tasks = adamant_tasks {
            size: size_of::<adamant_tasks>(),
            run: Some(run_tasks),
            threads,
            context: (&raw mut calls).cast(),
        };
        let of_pool = adamant_exec {
            threads: adamant_threads::ADAMANT_THREADS_POOL as u32,
            pool,
            ..serial(Isa::detect())
        };
        let of_tasks = adamant_exec {
            threads: adamant_threads::ADAMANT_THREADS_TASKS as u32,
            tasks: &tasks,
            ..serial(Isa::detect())
        };
        for (len, exec) in
            [16, 300_000].into_iter().flat_map(|len| [(len, of_pool), (len, of_tasks)])
        {
            let mut found = before.clone();
            let whole = found.c();
            let short = |array: adamant_array| adamant_array { len: array.len.min(len), ..array };
            let tensor = adamant_tensor {
                param: short(whole.param),
                grad: short(whole.grad),
                moments: whole.moments.map(short),
                ..whole
            };
            ok(step(&handle, &exec, ptr::null(), &[tensor]));
            assert_eq!(found.param.slice::<f32>()[..len], expected.param.slice::<f32>()[..len]);
        }
        assert!(threads == 1 || calls > 0, "{calls}");
        // SAFETY: used no more.
        unsafe { adamant_pool_free(pool) };
    }
}

/// As many tensors as a model of many small ones has, in a thread of the stack that musl gives.
#[test]
fn a_call_of_256_tensors_takes_less_than_64_kib_of_stack() {
    let adam = Adam::adamw();
    let q8 = Types { moments: [ADAMANT_Q8; 4], ..Types::all(ADAMANT_F32) };
    for types in [Types::all(ADAMANT_F32), q8] {
        let run = move || {
            let handle = Handle::of(adam);
            let mut rng = ChaCha8Rng::seed_from_u64(9);
            let mut arrays: Vec<_> =
                (0..256).map(|_| Arrays::new(&adam, &mut rng, types, 300)).collect();
            let tensors: Vec<_> = arrays.iter_mut().map(Arrays::c).collect();
            let groups: Vec<_> = tensors.chunks(8).map(|some| group(&handle, some)).collect();
            let exec = serial(Isa::detect());
            // SAFETY: structs of this version, and arrays that are alive.
            unsafe {
                adamant_step(groups.as_ptr(), groups.len(), ptr::null(), &exec, ptr::null_mut())
            }
        };
        // Of it, 32 KiB are for the thread and the test.
        let thread = thread::Builder::new().stack_size(96 << 10).spawn(run).expect("a thread");
        ok(thread.join().expect("a status"));
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
    fn new<R: RowRule + 'static>(rule: &R, element: adamant_type, width: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(width as u64);
        let state = rule.row_state(ROWS, width);
        let mut moments: Vec<_> = (R::ROW_MOMENT_NAMES.as_ref().iter())
            .map(|name| match state.moment(name) {
                Some(moment) => Memory::random(&mut rng, element, moment.len(), true),
                None => Memory::none(),
            })
            .collect();
        moments.resize(4, Memory::none());
        Self { width, param: Memory::random(&mut rng, element, ROWS * width, false), moments }
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

    fn table<R: RowRule, F: Float>(&mut self) -> Table<'_> {
        let count = R::ROW_MOMENT_NAMES.as_ref().len();
        let moments = self.moments.iter_mut().take(count);
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

/// Lazy steps of a rule, with an index type.
fn check_lazy<R: RowRule + 'static, F: Float, I: RowIndex>(
    rule: &R,
    handle: &Handle,
    element: adamant_type,
    (of, index): (adamant_type, impl Fn(u8) -> I),
) {
    for width in [1, 17] {
        let mut found = Rows::new(rule, element, width);
        let mut expected = found.clone();
        let mut scratch = RowScratch::default();
        let mut kept = ptr::null_mut();
        // SAFETY: a handle that is freed below.
        ok(unsafe { adamant_row_scratch_new(&mut kept) });
        for (t, rows) in [(1, vec![7, 2, 7, 49]), (2, vec![]), (3, (0..50).rev().collect())] {
            let rows = rows.into_iter().map(&index).collect();
            let mut listed = Listed::new(rows, of, element, width);
            let max_norm = 0.5 * t as f64;
            let options = StepOptions {
                exec: support::serial(),
                grad_factor: 0.5,
                max_norm: Some(max_norm),
                ..StepOptions::default()
            };
            let mut sorted = listed.rust::<F>().sort(ROWS, &mut scratch).expect("valid rows");
            let norm = sorted.grad_norm(NormOrder::Two, options.exec).expect("a norm");
            let report = rule
                .step_rows_lazy_on(t, expected.table::<R, F>(), sorted, &options)
                .expect("a valid step");
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
            assert_eq!(report.grad_norm.map(f64::to_bits), Some(c_report.grad_norm.to_bits()));
        }
        // SAFETY: used no more.
        unsafe { adamant_row_scratch_free(kept) };
        assert_eq!(found, expected);
    }
}

struct Lazy;

impl Lazy {
    fn check<R: RowRule + 'static, F: Float>(rule: &R, handle: &Handle, element: adamant_type) {
        check_lazy::<R, F, u32>(rule, handle, element, (ADAMANT_U32, u32::from));
        check_lazy::<R, F, u64>(rule, handle, element, (ADAMANT_U64, u64::from));
        check_lazy::<R, F, i32>(rule, handle, element, (ADAMANT_I32, i32::from));
        check_lazy::<R, F, i64>(rule, handle, element, (ADAMANT_I64, i64::from));
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
    for adam in [Adam::adamw(), Adam::default()] {
        let handle = Handle::row_wise(adam);
        Lazy::check::<_, f32>(&RowWiseAdam(adam), &handle, ADAMANT_F32);
        Lazy::check::<_, f64>(&RowWiseAdam(adam), &handle, ADAMANT_F64);
    }
}

fn check_dense_equivalent<F: Float>(element: adamant_type, way: CatchUp) {
    let exec = support::serial();
    let c_exec = serial(Isa::detect());
    let mut found = Rows::new(&Adam::default(), element, 9);
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
            let mut scratch = RowScratch::default();
            let sorted = listed.rust::<F>().sort(ROWS, &mut scratch).expect("valid rows");
            let options = StepOptions { exec, max_norm: Some(0.5), ..StepOptions::default() };
            let table = expected.table::<Adam, F>();
            let report = adam
                .step_rows_dense_equivalent_on(table, sorted, &mut waiting, &options)
                .expect("a valid step");
            let (table, grads) = (found.c(), listed.c());
            let optimizer = Handle::of(adam);
            let options = c_options(&options);
            let mut c_report = no_report();
            ok(adamant_step_rows_dense_equivalent(
                optimizer.0,
                &table,
                &grads,
                handle,
                &options,
                &c_exec,
                &mut c_report,
            ));
            assert_eq!(report.grad_norm, Some(c_report.grad_norm));
        }
        waiting.catch_up_on(exec, expected.table::<Adam, F>(), &[3_u32, 4]).expect("valid rows");
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
        waiting.catch_up_all_on(exec, expected.table::<Adam, F>()).expect("a table that fits");
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

/// A gradient as Rust has it.
fn grad_of(memory: &Memory) -> Grad<'_> {
    match memory.element {
        ADAMANT_F32 => memory.slice::<f32>().into(),
        ADAMANT_F64 => memory.slice::<f64>().into(),
        ADAMANT_BF16 => memory.slice::<bf16>().into(),
        _ => memory.slice::<f16>().into(),
    }
}

#[test]
fn norms_of_arrays_of_any_types_have_the_bits_of_rust() {
    const TYPES: [adamant_type; 4] = [ADAMANT_F32, ADAMANT_F64, ADAMANT_BF16, ADAMANT_F16];
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let exec = serial(Isa::detect());
    for lens in [vec![], vec![10_000], vec![3, 0, 700], vec![5; 40], vec![1; 300]] {
        let mut grads: Vec<_> = (lens.iter().enumerate())
            .map(|(at, &len)| Memory::random(&mut rng, TYPES[(at + lens.len()) % 4], len, false))
            .collect();
        let arrays: Vec<_> = grads.iter_mut().map(Memory::array).collect();
        let expected: Vec<_> = grads.iter().map(grad_of).collect();
        for (order, number) in [(NormOrder::One, 1), (NormOrder::Two, 2), (NormOrder::Infinity, 3)]
        {
            let mut of_each = vec![0.0; lens.len()];
            let of_all = grad_norms(order, support::serial(), &expected, &mut of_each);
            let (mut norm, mut norms) = (-1.0, vec![-1.0; lens.len()]);
            for norms in [ptr::null_mut(), norms.as_mut_ptr()] {
                // SAFETY: structs of this version, and memory that is alive.
                ok(unsafe {
                    let (arrays, count) = (arrays.as_ptr(), arrays.len());
                    adamant_grad_norms(number, &exec, arrays, count, norms, &mut norm)
                });
                assert_eq!(Ok(norm), of_all);
            }
            assert_eq!(norms, of_each);
            assert_eq!(adamant_clip_factor(norm, 0.5), clip_factor(norm, 0.5));
        }
        let mut index = 77;
        // SAFETY: as above.
        ok(unsafe { adamant_first_nonfinite(&exec, arrays.as_ptr(), arrays.len(), &mut index) });
        assert_eq!(index, lens.len());
    }
    let (mut fine, mut bad) = (
        Memory::of(&[1.0_f32], ADAMANT_F32),
        Memory::of(&[bf16::ONE, bf16::NEG_INFINITY], ADAMANT_BF16),
    );
    let (arrays, mut index) = ([fine.array(), bad.array(), bad.array()], 77);
    // SAFETY: structs of this version, and memory that is alive.
    ok(unsafe { adamant_first_nonfinite(&exec, arrays.as_ptr(), 3, &mut index) });
    assert_eq!(index, 1);
}

#[test]
fn sums_of_gradients_have_the_bits_of_rust() {
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    for (element, zero_grad) in [
        (ADAMANT_F32, false),
        (ADAMANT_BF16, false),
        (ADAMANT_F16, false),
        (ADAMANT_F32, true),
        (ADAMANT_BF16, true),
        (ADAMANT_F16, true),
    ] {
        let mut sums = Memory::random(&mut rng, ADAMANT_F32, 1000, false);
        let mut grad = Memory::random(&mut rng, element, 1000, false);
        let mut expected = sums.clone();
        adamant::accumulate(expected.slice_mut(), grad_of(&grad), support::serial())
            .expect("lengths that fit");
        let before = grad.clone();
        let exec = serial(Isa::detect());
        // SAFETY: structs of this version, and memory that is alive.
        ok(unsafe { adamant_accumulate(&exec, &sums.array(), &grad.array(), zero_grad.into()) });
        assert_eq!(sums, expected);
        assert!(if zero_grad { grad.words.iter().all(|&word| word == 0) } else { grad == before });
    }
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
    fn check<R: RowRule + 'static>(rule: &R, handle: &Handle, format: impl Fn(usize) -> Q8) {
        let state = rule.row_state_in(Storage::F64, 6, 300);
        let (names, mut count) = (R::ROW_MOMENT_NAMES, 0);
        // SAFETY: structs of this version, and memory that is alive; here and below.
        unsafe {
            ok(adamant_moment_count(handle.0, &mut count));
            assert_eq!(count, names.as_ref().len());
            for (number, name) in names.as_ref().iter().enumerate() {
                let mut found = mem::zeroed::<adamant_moment>();
                let (size, element) = (size_of::<adamant_moment>(), ADAMANT_F64 as u32);
                ok(adamant_describe_moment(handle.0, number, element, 6, 300, &mut found, size));
                assert_eq!(text_of(found.name), *name);
                let formats = [Q8::Signed, Q8::Squares, Q8::Unsigned];
                assert_eq!(formats[found.q8_format as usize], format(number));
                let Some(MomentRef::F64(moment)) = state.moment(name) else {
                    assert_eq!((found.size, found.len, found.bytes), (size, 0, 0));
                    continue;
                };
                assert_eq!((found.size, found.len), (size, moment.len()));
                assert_eq!((found.bytes, found.scales), (8 * moment.len(), 0));
                assert_eq!(found.start, moment[0]);
                let mut filled = Memory::of(&vec![7.0_f64; moment.len()], ADAMANT_F64);
                ok(adamant_fill_moment(handle.0, number, &filled.array(), ptr::null()));
                assert_eq!(filled.slice::<f64>(), moment);
            }
        }
    }
}

impl ForEachRule for Moments {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        Self::check(&rule, &Handle::of(rule), |moment| Q8::of(&rule, moment));
    }
}

#[test]
fn moments_are_described_and_filled_as_rust_makes_them() {
    for_each_rule(&mut Moments);
    let adam = Adam::default();
    Moments::check(&RowWiseAdam(adam), &Handle::row_wise(adam), |moment| Q8::of(&adam, moment));
}

/// A sum that does not start from 0, in every type that a moment may have.
#[test]
fn a_moment_of_any_type_is_filled_with_its_start() {
    let adagrad = adamant::AdaGrad { initial_accumulator_value: 0.5, ..Default::default() };
    let handle = Handle::of(adagrad);
    let mut single = Memory::of(&[7.0_f32; 3], ADAMANT_F32);
    let mut brain = Memory::of(&[bf16::ZERO; 3], ADAMANT_BF16);
    let mut codes = Memory::of(&[0_u8; 300], ADAMANT_Q8);
    let mut scales = Memory::of(&[0.0_f32; 2], ADAMANT_F32);
    // SAFETY: structs of this version, and memory that is alive.
    unsafe {
        ok(adamant_fill_moment(handle.0, 0, &single.array(), ptr::null()));
        ok(adamant_fill_moment(handle.0, 0, &brain.array(), ptr::null()));
        ok(adamant_fill_moment(handle.0, 0, &codes.array(), &scales.array()));
    }
    assert_eq!(single.slice::<f32>(), [0.5; 3]);
    assert_eq!(brain.slice::<bf16>(), [bf16::from_f32(0.5); 3]);
    let mut values = [0.0; 300];
    Q8::Squares.decode(codes.slice(), scales.slice(), &mut values).expect("lengths that fit");
    assert!(values.iter().all(|value| (value - 0.5).abs() < 1e-6), "{values:?}");
}

/// All names, and each setting of each: what a binding needs for its interface.
#[test]
fn names_and_settings_are_listed_as_rust_has_them() {
    let names: Vec<_> = (0..)
        .map(|index| adamant_optimizer_name(index))
        .take_while(|name| !name.is_null())
        .map(text_of)
        .collect();
    let expected: Vec<_> = AnyOptimizer::NAMES.iter().copied().chain(["rowwise_adam"]).collect();
    assert_eq!(names, expected);
    for name in names {
        let handle = Handle::new(name);
        let rust = AnyOptimizer::new(if name == "rowwise_adam" { "adam" } else { name });
        let rust = rust.expect("a name");
        let mut count = 0;
        // SAFETY: a live handle, and memory that may be written; here and below.
        ok(unsafe { adamant_optimizer_setting_count(handle.0, &mut count) });
        assert_eq!(count, rust.settings().len());
        for (index, setting) in rust.settings().iter().enumerate() {
            // SAFETY: zeros are valid.
            let mut found = unsafe { mem::zeroed::<adamant_setting>() };
            let size = size_of::<adamant_setting>();
            // SAFETY: as above.
            ok(unsafe { adamant_optimizer_setting(handle.0, index, &mut found, size) });
            assert_eq!((found.size, text_of(found.name)), (size, setting.name));
            let (default, number, changed) = match rust.get(setting.name).expect("a setting") {
                SettingValue::Number(x) => {
                    (SettingValue::Number(x), x, SettingValue::Number(x + 0.25))
                }
                SettingValue::Count(x) => {
                    let x = x as f64;
                    (SettingValue::Number(x), x, SettingValue::Number(x + 5.0))
                }
                SettingValue::Flag(x) => {
                    let number = u8::from(x).into();
                    (SettingValue::Number(number), number, SettingValue::Number(1.0 - number))
                }
                SettingValue::Choice(choice) => {
                    assert_eq!(text_of(found.default_name), choice);
                    (SettingValue::Choice(choice), 0.0, SettingValue::Choice("hat"))
                }
                _ => panic!("a kind of setting that C does not have"),
            };
            assert_eq!(found.default_value, number, "{name}: {}", setting.name);
            let (kind, allowed) = match setting.kind {
                SettingKind::Number(_) => (0, setting.kind.to_string()),
                SettingKind::Count => (1, setting.kind.to_string()),
                SettingKind::Flag => (2, "0 or 1".into()),
                _ => (3, setting.kind.to_string()),
            };
            assert_eq!((found.kind, text_of(found.allowed)), (kind, &*allowed));
            assert_eq!(handle.get(setting.name), Ok(default));
            ok(handle.set(setting.name, changed));
            assert_eq!(handle.get(setting.name), Ok(changed));
        }
    }
}

#[test]
fn settings_that_there_are_not_are_refused_with_those_that_there_are() {
    let mut handle = ptr::null_mut();
    // SAFETY: a text, and a pointer to a pointer.
    let status = unsafe { adamant_optimizer_new(c"Adam".as_ptr(), &mut handle) };
    assert_eq!((status, handle.is_null()), (ADAMANT_UNKNOWN_OPTIMIZER, true));
    let names = AnyOptimizer::NAMES.join(", ");
    assert_eq!(message(), format!("\"Adam\" is no optimizer; known: {names}, rowwise_adam"));

    let adam = Handle::new("adam");
    let number = SettingValue::Number;
    assert_eq!(adam.set("beta3", number(0.5)), ADAMANT_UNKNOWN_SETTING);
    assert!(message().starts_with("Adam has no setting \"beta3\"; known: lr, beta1"));
    assert_eq!(adam.get("beta3"), Err(ADAMANT_UNKNOWN_SETTING));
    assert_eq!(adam.set("maximize", number(2.0)), ADAMANT_WRONG_SETTING);
    assert_eq!(message(), "maximize is 2, but must be 0 or 1");
    assert_eq!(adam.set("epsilon", number(1.0)), ADAMANT_WRONG_SETTING);
    assert_eq!(adam.set("lr", SettingValue::Choice("fast")), ADAMANT_WRONG_SETTING);
    ok(adam.set("lr", number(-1.0)));
    // SAFETY: a live handle.
    assert_eq!(unsafe { adamant_optimizer_check(adam.0) }, ADAMANT_HYPER_PARAMETER);
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
    let handle = Handle::of(Adam { beta2: 1.0, ..Adam::default() });
    let status = step(&handle, &serial(Isa::Scalar), ptr::null(), &[]);
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
