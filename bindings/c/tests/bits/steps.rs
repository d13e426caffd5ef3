//! Steps of tensors.

use super::*;

struct Dense;

impl Dense {
    /// Some steps on two tensors in one call, and on so many that their checks need memory.
    fn check(any: AnyOptimizer, element: adamant_type, zero_grad: bool) {
        let handle = Handle::of(any);
        let lens = [
            vec![],
            vec![1],
            vec![17, unless_miri(1000, 5)],
            vec![3; unless_miri(9, 2)],
            vec![1; unless_miri(300, 17)],
        ];
        for (isa, lens) in
            Isa::available().into_iter().flat_map(|isa| lens.iter().map(move |lens| (isa, lens)))
        {
            let mut rng = ChaCha8Rng::seed_from_u64(lens.len() as u64);
            let types = Types { zero_grad, ..Types::all(element) };
            let mut tensors: Vec<_> =
                lens.iter().map(|&len| Arrays::new(&any, &mut rng, types, len)).collect();
            let mut expected = tensors.clone();
            let steps = unless_miri(3, 2);
            for _ in 0..steps {
                let mut plain: Vec<_> = expected.iter_mut().map(Arrays::rust).collect();
                let report = any.step_tensors(&mut plain, &plain_options(isa));
                assert_eq!(report.expect("a valid step").outcome, Outcome::Taken);
                let c: Vec<_> = tensors.iter_mut().map(Arrays::c).collect();
                ok(step(&handle, &serial(isa), ptr::null(), &c));
            }
            assert_eq!(tensors, expected, "{any:?} on {isa}");
            assert!(tensors.iter().all(|tensor| tensor.steps == 1 + steps as u64));
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
    for name in AnyOptimizer::NAMES.iter().step_by(unless_miri(1, 3)) {
        let any = AnyOptimizer::new(name).expect("a name");
        let handle = Handle::new(name);
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut found = Arrays::new(&any, &mut rng, Types::all(ADAMANT_F32), unless_miri(100, 17));
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
        for (number, types) in Types::mixed().into_iter().enumerate().step_by(unless_miri(1, 41)) {
            // In Miri, one tensor has more than a block of 8 bits.
            let len = unless_miri(300, if number == 41 { 260 } else { 20 });
            let mut tensors = [len, 0, 5].map(|len| Arrays::new(&any, &mut rng, types, len));
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
            assert_same_report(&found, &report);
        }
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
    let names = || AnyOptimizer::NAMES.iter().step_by(unless_miri(1, 3));
    let all: Vec<AnyOptimizer> =
        names().map(|name| AnyOptimizer::new(name).expect("a name")).collect();
    let handles: Vec<_> = names().map(|name| Handle::new(name)).collect();
    let mixed = Types::mixed();
    let mut found: Vec<Vec<Arrays>> = (all.iter().enumerate())
        .map(|(number, any)| {
            let types =
                [Types::all(ADAMANT_F32), Types::all(ADAMANT_F64), mixed[7 * number % mixed.len()]];
            let tensors = types.into_iter().take(number % 4);
            tensors.map(|types| Arrays::new(any, &mut rng, types, unless_miri(300, 20))).collect()
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
    assert_same_report(&of_c, &report);
}

#[test]
fn a_step_that_is_left_out_counts_nothing_and_zeroes_gradients_unless_told() {
    let adam = Adam::adamw();
    let handle = Handle::of(adam);
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let types = Types { zero_grad: true, ..Types::all(ADAMANT_F32) };
    let mut found = Arrays::new(&adam, &mut rng, types, unless_miri(2000, 100));
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

/// The context of a task, which all threads pass.
struct Context(*mut c_void);

// SAFETY: the library says that any thread may pass it.
unsafe impl Sync for Context {}

impl Context {
    fn get(&self) -> *mut c_void {
        self.0
    }
}

/// Runs tasks in threads of their own, each with its number, and counts the calls.
unsafe extern "C" fn run_tasks(
    context: *mut c_void,
    tasks: usize,
    task: adamant_task,
    task_context: *mut c_void,
) {
    let task_context = &Context(task_context);
    thread::scope(|scope| {
        for number in 0..tasks {
            // SAFETY: what the library passed, while it waits.
            scope.spawn(move || unsafe { task(task_context.get(), number) });
        }
    });
    // SAFETY: a counter of the test.
    unsafe { *context.cast::<usize>() += 1 };
}

#[test]
fn pools_and_tasks_of_any_size_give_the_bits_of_rust() {
    // In Miri, calls are shared from fewer elements on.
    const LEN: usize = unless_miri(300_000, 150);
    let adam = Adam::adamw();
    let handle = Handle::of(adam);
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let before = Arrays::new(&adam, &mut rng, Types::all(ADAMANT_F32), LEN);
    let mut expected = before.clone();
    let report = adam.step_tensors(&mut [expected.rust()], &plain_options(Isa::detect()));
    assert_eq!(report.expect("a valid step").outcome, Outcome::Taken);
    for threads in [1, 2, 5].into_iter().take(unless_miri(3, 2)) {
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
        for (len, exec) in [16, LEN].into_iter().flat_map(|len| [(len, of_pool), (len, of_tasks)]) {
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

/// Many small tensors, in a thread with the stack size of musl.
#[test]
#[cfg_attr(miri, ignore = "Miri has no stack of this size")]
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
        // 32 KiB of it are for the thread and the test.
        let thread = thread::Builder::new().stack_size(96 << 10).spawn(run).expect("a thread");
        ok(thread.join().expect("a status"));
    }
}
