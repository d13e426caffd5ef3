//! The cost of steps through the C library as it is installed, beside the same steps from Rust.
//!
//! ```text
//! cargo build --release -p adamant-capi
//! cargo run --release -p adamant-capi --features capi --example call -- [--quick] [LIBRARY]
//! ```
//!
//! `LIBRARY` is `target/release/libadamant.so` unless given. `call` is a step of Adam on 16 elements in
//! `f32`, of which most is checks; `f32` and `q8` are steps on 64 Ki elements, with moments in `f32` and in 8
//! bits; `many` is a call with 1,000 tensors of 1,024 elements, whose arrays follow each other, and `flat` one with a
//! tensor of as many elements; `apart` is a call with 148 tensors of 16 elements, whose arrays have gaps between them.
//! All are on the calling thread.

#![allow(missing_docs, reason = "of the functions of C, which are in the header")]

#[allow(dead_code, unused_imports, reason = "of the structs and numbers of C, some are used")]
#[path = "../src/lib.rs"]
mod capi;
#[allow(dead_code, reason = "the bench of the core uses all of it")]
#[path = "../../../benches/roofline/timing.rs"]
mod timing;

use std::{
    env,
    error::Error,
    ffi::c_char,
    hint::black_box,
    mem,
    path::{Path, PathBuf},
    ptr,
    time::Duration,
};

use adamant::{Adam, Exec, Moment, Optimizer, Outcome, Q8, StepOptions, Tensor, Threads};
use capi::{
    adamant_array, adamant_exec, adamant_group, adamant_optimizer, adamant_report, adamant_status,
    adamant_step_options, adamant_tensor, adamant_threads, adamant_type,
};
use libloading::{Library, library_filename};
use timing::{Plan, time};

type New = unsafe extern "C" fn(*const c_char, *mut *mut adamant_optimizer) -> adamant_status;
type Set = unsafe extern "C" fn(*mut adamant_optimizer, *const c_char, f64) -> adamant_status;
type Free = unsafe extern "C" fn(*mut adamant_optimizer);
type Step = unsafe extern "C" fn(
    *const adamant_group,
    usize,
    *const adamant_step_options,
    *const adamant_exec,
    *mut adamant_report,
) -> adamant_status;

/// The arrays of a tensor: moments in `f32`, or in 8 bits.
struct Arrays {
    param: Vec<f32>,
    grad: Vec<f32>,
    moments: [Vec<f32>; 2],
    codes: [Vec<u8>; 2],
    scales: [Vec<f32>; 2],
    /// Of each tensor, all of which have the same length.
    steps: Vec<u64>,
    /// The elements between an array and that of the next tensor.
    gap: usize,
}

impl Arrays {
    fn new(len: usize, tensors: usize, gap: usize) -> Result<Self, adamant::Error> {
        let len = len + tensors * gap;
        let moments = [vec![1e-4; len], vec![1e-4; len]];
        let mut codes = [vec![0; len], vec![0; len]];
        let mut scales = [(); 2].map(|()| vec![0.0; Q8::scales(len)]);
        for (moment, format) in [Q8::Signed, Q8::Squares].into_iter().enumerate() {
            format.encode(&moments[moment], &mut codes[moment], &mut scales[moment])?;
        }
        let (param, grad) = (vec![1.0; len], vec![0.01; len]);
        Ok(Self { param, grad, moments, codes, scales, steps: vec![0; tensors], gap })
    }

    /// The distance from a tensor's first element to the next tensor's; with moments in 8 bits, there is one tensor.
    fn stride(&self) -> usize {
        self.param.len() / self.steps.len()
    }

    fn c(&mut self, is_q8: bool) -> Vec<adamant_tensor> {
        fn array<T>(values: &mut [T], element: adamant_type) -> adamant_array {
            let (data, len) = (values.as_mut_ptr().cast(), values.len());
            adamant_array { data, len, r#type: element as u32 }
        }
        let f32s = |values: &mut [f32]| array(values, adamant_type::ADAMANT_F32);
        let (stride, count) = (self.stride(), self.steps.len());
        let tensor = |number| {
            let elements = number * stride..(number + 1) * stride - self.gap;
            // SAFETY: a struct of C that may be all zeros.
            let mut tensor = unsafe { mem::zeroed::<adamant_tensor>() };
            tensor.size = size_of::<adamant_tensor>();
            tensor.param = f32s(&mut self.param[elements.clone()]);
            tensor.grad = f32s(&mut self.grad[elements.clone()]);
            tensor.steps = &raw mut self.steps[number];
            for moment in 0..2 {
                if is_q8 {
                    tensor.moments[moment] =
                        array(&mut self.codes[moment], adamant_type::ADAMANT_Q8);
                    tensor.scales[moment] = f32s(&mut self.scales[moment]);
                } else {
                    tensor.moments[moment] = f32s(&mut self.moments[moment][elements.clone()]);
                }
            }
            tensor
        };
        (0..count).map(tensor).collect()
    }

    /// The only tensor.
    fn rust(&mut self, is_q8: bool) -> Tensor<'_> {
        let tensor = Tensor::new(&mut self.param, &self.grad, &mut self.steps[0]);
        if is_q8 {
            let ([m, v], [of_m, of_v]) = (&mut self.codes, &mut self.scales);
            tensor.with_moments([Moment::q8(m, of_m), Moment::q8(v, of_v)])
        } else {
            tensor.with_moments(self.moments.each_mut().map(Moment::from))
        }
    }

    /// All tensors, with moments in `f32`.
    fn many_rust(&mut self) -> Vec<Tensor<'_>> {
        fn arrays(all: &mut [f32], stride: usize, gap: usize) -> impl Iterator<Item = &mut [f32]> {
            all.chunks_mut(stride).map(move |array| &mut array[..stride - gap])
        }
        let (stride, gap) = (self.stride(), self.gap);
        let params = arrays(&mut self.param, stride, gap);
        let grads = arrays(&mut self.grad, stride, gap).map(|grad| &*grad);
        let [m, v] = self.moments.each_mut().map(|moment| arrays(moment, stride, gap));
        let arrays = params.zip(grads).zip(m.zip(v));
        let tensor = |(((param, grad), (m, v)), steps)| {
            Tensor::new(param, grad, steps).with_moments([Moment::from(m), Moment::from(v)])
        };
        arrays.zip(&mut self.steps).map(tensor).collect()
    }
}

/// Nanoseconds a call: through C, and from Rust.
fn measure(
    library: &Library,
    plan: Plan,
    len: usize,
    tensors: usize,
    gap: usize,
    is_q8: bool,
) -> Result<[f64; 2], Box<dyn Error>> {
    // SAFETY: the library is built of this crate, which declares them so.
    let (new, set, free, step) = unsafe {
        (
            library.get::<New>(c"adamant_optimizer_new")?,
            library.get::<Set>(c"adamant_optimizer_set")?,
            library.get::<Free>(c"adamant_optimizer_free")?,
            library.get::<Step>(c"adamant_step")?,
        )
    };
    let adam = Adam { lr: 1e-6, ..Adam::default() };
    let mut optimizer = ptr::null_mut();
    // SAFETY: texts, and a pointer to a pointer; the handle is freed at the end.
    unsafe {
        assert_eq!(new(c"adam".as_ptr(), &mut optimizer), adamant_status::ADAMANT_OK);
        assert_eq!(set(optimizer, c"lr".as_ptr(), adam.lr), adamant_status::ADAMANT_OK);
    }
    // SAFETY: a struct of C that may be all zeros.
    let mut exec = unsafe { mem::zeroed::<adamant_exec>() };
    exec.size = size_of::<adamant_exec>();
    exec.threads = adamant_threads::ADAMANT_THREADS_SERIAL as u32;
    let options = StepOptions {
        exec: Exec { isa: None, threads: Threads::Serial },
        ..StepOptions::default()
    };
    let mut arrays = Arrays::new(len, tensors, gap)?;
    let times = plan.times(|which, repetitions| match which {
        0 => {
            let structs = arrays.c(is_q8);
            let (size, tensor_count) = (size_of::<adamant_group>(), structs.len());
            let group = adamant_group { size, optimizer, tensors: structs.as_ptr(), tensor_count };
            time(repetitions, || {
                let groups = black_box(&group);
                // SAFETY: structs of this version; the arrays are alive, and nobody else's until it returns.
                let status = unsafe { step(groups, 1, ptr::null(), &exec, ptr::null_mut()) };
                assert_eq!(status, adamant_status::ADAMANT_OK);
            })
        }
        _ if tensors == 1 => time(repetitions, || {
            let tensors = &mut [black_box(arrays.rust(is_q8))];
            let report = adam.step_tensors(tensors, &options).expect("a valid step");
            assert_eq!(report.outcome, Outcome::Taken);
        }),
        _ => {
            let mut tensors = arrays.many_rust();
            time(repetitions, || {
                let tensors = black_box(&mut tensors);
                let report = adam.step_tensors(tensors, &options).expect("a valid step");
                assert_eq!(report.outcome, Outcome::Taken);
            })
        }
    });
    // SAFETY: used no more.
    unsafe { free(optimizer) };
    Ok(times.map(|time| time.median))
}

fn main() -> Result<(), Box<dyn Error>> {
    let (mut rounds, mut path) = (101, None);
    for argument in env::args().skip(1) {
        match argument.as_str() {
            "--quick" => rounds = 5,
            _ => path = Some(argument),
        }
    }
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/release");
    let path = path.map_or(built.join(library_filename("adamant")), PathBuf::from);
    // SAFETY: a library of this crate, which starts nothing when it is opened.
    let library = unsafe { Library::new(&path) }?;
    let plan = Plan { rounds, least: Duration::from_millis(5) };
    println!("{:<6} {:>9} {:>13} {:>13} {:>7}", "case", "elements", "C, ns", "Rust, ns", "ratio");
    for (case, len, tensors, gap, is_q8) in [
        ("call", 16, 1, 0, false),
        ("f32", 1 << 16, 1, 0, false),
        ("q8", 1 << 16, 1, 0, true),
        ("many", 1000 << 10, 1000, 0, false),
        ("flat", 1000 << 10, 1, 0, false),
        ("apart", 148 << 4, 148, 16, false),
    ] {
        let [c, rust] = measure(&library, plan, len, tensors, gap, is_q8)?;
        println!("{case:<6} {len:>9} {c:>13.1} {rust:>13.1} {:>7.2}", c / rust);
    }
    Ok(())
}
