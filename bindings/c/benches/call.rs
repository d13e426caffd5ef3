//! The cost of a call through the C ABI, beside the same call from Rust.

use std::{hint::black_box, ptr};

use adamant::{
    Adam, Exec, Isa, Optimizer, Tensor,
    ffi::{
        adamant_array, adamant_exec, adamant_exec_init, adamant_hyper, adamant_hyper_init,
        adamant_optimizer, adamant_status, adamant_step, adamant_tensor, adamant_tensor_init,
        adamant_threads, adamant_type,
    },
};

use crate::{
    report::Row,
    timing::{Plan, time},
};

const ELEMENTS: usize = 16;

/// Steps Adam in `f32` on the calling thread; the limit is the call from Rust.
#[allow(unsafe_code, reason = "functions of C")]
pub fn measure(plan: Plan) -> Row {
    let adam = Adam { lr: 1e-6, ..Adam::default() };
    let exec = Exec { isa: Isa::detect(), parallel: false };
    let mut memory =
        [[1.0_f32; ELEMENTS], [0.01; ELEMENTS], [0.0001; ELEMENTS], [0.0001; ELEMENTS]];

    let (mut hyper, mut c_exec) = (zeroed::<adamant_hyper>(), zeroed::<adamant_exec>());
    let mut tensor = zeroed::<adamant_tensor>();
    let [param, grad, m, v] = memory.each_mut().map(|array| adamant_array {
        data: array.as_mut_ptr().cast(),
        len: ELEMENTS,
        r#type: adamant_type::ADAMANT_F32 as u32,
    });
    // SAFETY: as much memory as the sizes say.
    let inits = unsafe {
        [
            adamant_hyper_init(
                &mut hyper,
                size_of_val(&hyper),
                adamant_optimizer::ADAMANT_ADAM as u32,
            ),
            adamant_exec_init(&mut c_exec, size_of_val(&c_exec)),
            adamant_tensor_init(&mut tensor, size_of_val(&tensor)),
        ]
    };
    assert_eq!(inits, [adamant_status::ADAMANT_OK; 3]);
    hyper.lr = adam.lr;
    c_exec.threads = adamant_threads::ADAMANT_THREADS_SERIAL as u32;
    (tensor.param, tensor.grad, tensor.moments[0], tensor.moments[1]) = (param, grad, m, v);

    let mut t = 0;
    let [through_c, from_rust] = plan.medians(|which, repetitions| match which {
        0 => time(repetitions, || {
            t += 1;
            let tensors = black_box(&tensor);
            // SAFETY: structs of this version; the arrays are alive, and nobody else's until it returns.
            let status = unsafe { adamant_step(&hyper, &c_exec, t, ptr::null(), tensors, 1) };
            assert_eq!(status, adamant_status::ADAMANT_OK);
        }),
        _ => {
            let [param, grad, m, v] = &mut memory;
            time(repetitions, || {
                t += 1;
                let tensor = Tensor { param, grad, moments: [&mut m[..], &mut v[..]] };
                adam.step_many_on(exec, t, &mut [black_box(tensor)]).expect("a valid step");
            })
        }
    });
    let per_element = |nanoseconds: f64| nanoseconds / ELEMENTS as f64;
    let (name, (step, limit)) = ("call-c", (per_element(through_c), per_element(from_rust)));
    let row = Row::new(name, "f32", exec.isa, ELEMENTS, 1, step, 28.0, limit, None);
    Row { ns_per_call: Some(through_c), ..row }
}

/// A struct of C.
#[allow(unsafe_code, reason = "structs of C may be all zeros")]
fn zeroed<T>() -> T {
    // SAFETY: used for structs of integers, floats and pointers only.
    unsafe { std::mem::zeroed() }
}
