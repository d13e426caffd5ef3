//! Arrays that adamant owns: what they hold and where they lie.

mod support;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use adamant::{
    Adam, Buffer, BufferElement, Grad, Moment, Optimizer, Outcome, Param, Q8, StepOptions, Tensor,
    rule::Float,
};
use half::{bf16, f16};
use support::serial;

/// The system's allocator, which notes the largest memory that a thread asks it for.
struct Noting;

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

#[allow(unsafe_code, reason = "a global allocator can't be had without")]
// SAFETY: every call is passed on as it came.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.set(LARGEST.get().max(layout.size()));
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is the system allocator's.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static NOTING: Noting = Noting;

fn check<E: BufferElement + PartialEq>(zero: E, one: E) {
    // Small ones, and around the size from which they lie on huge pages.
    let huge = (2 << 20) / size_of::<E>();
    for len in [0, 1, 17, huge - 1, huge, huge + 1] {
        let mut buffer = Buffer::<E>::zeros(len);
        assert!(buffer.len() == len && buffer.iter().all(|&element| element == zero));
        let unit = if len >= huge { 2 << 20 } else { 64 };
        assert!(buffer.as_ptr().addr().is_multiple_of(unit), "{len} of {} bytes", size_of::<E>());
        if let Some(last) = buffer.last_mut() {
            *last = one;
            let mut copy = buffer.clone();
            assert!(copy.last() == Some(&one));
            copy.fill(zero);
            assert!(buffer.last() == Some(&one));
        }
    }
    assert_eq!(format!("{:?}", Buffer::<E>::zeros(2)), format!("{:?}", [zero; 2]));
}

#[test]
fn a_buffer_of_any_type_is_zeros_on_cache_lines_or_huge_pages() {
    check(0.0_f32, 1.0);
    check(0.0_f64, 1.0);
    check(bf16::ZERO, bf16::ONE);
    check(f16::ZERO, f16::ONE);
    check(0_u16, 1);
    check(0_u8, 1);
}

#[test]
fn code_that_is_generic_over_floats_has_buffers() {
    fn zeros<F: Float>(len: usize) -> Buffer<F> {
        Buffer::<F>::zeros(len)
    }
    assert_eq!((zeros::<f32>(3).to_vec(), zeros::<f64>(1).to_vec()), (vec![0.0; 3], vec![0.0]));
}

#[test]
fn a_step_takes_arrays_of_buffers() {
    const LEN: usize = 1000;
    let (mut high, mut low) = (Buffer::zeros(LEN), Buffer::zeros(LEN));
    let (mut grad, mut m) = (Buffer::zeros(LEN), Buffer::<bf16>::zeros(LEN));
    let (mut codes, mut scales) = (Buffer::zeros(LEN), Buffer::zeros(Q8::scales(LEN)));
    grad.fill(f16::ONE);
    let mut steps = 0;
    let (param, zeroed) = (Param::from_halves(&mut high, &mut low), Grad::zeroed(&mut grad));
    let tensor = Tensor::new(param, zeroed, &mut steps)
        .with_moments([Moment::from(&mut m), Moment::q8(&mut codes, &mut scales)]);
    let options = StepOptions { exec: serial(), ..StepOptions::default() };
    let report = Adam::default().step_tensors(&mut [tensor], &options).expect("a valid step");
    assert_eq!((report.outcome, steps), (Outcome::Taken, 1));
    assert!(high.iter().all(|&high| high < bf16::ZERO));
    assert!(codes.iter().all(|&code| code > 200) && grad.iter().all(|&grad| grad == f16::ZERO));
}

const HUGE_PAGE: usize = 2 << 20;

#[test]
fn a_buffer_of_more_bytes_than_there_can_be_panics_and_asks_for_no_memory() {
    fn check<E: BufferElement>() {
        // Too many with the alignment; one too many; more than usize::MAX bytes; and a number of bytes that is small
        // modulo 2^64.
        let most = isize::MAX as usize / size_of::<E>();
        let aligned = most - (HUGE_PAGE / size_of::<E>()) + 2;
        let wrapped = (usize::MAX / size_of::<E>()).saturating_add(17);
        for len in [aligned, most, most + 1, usize::MAX, wrapped] {
            LARGEST.set(0);
            let panic = std::panic::catch_unwind(|| drop(Buffer::<E>::zeros(len)));
            // The backtrace of the panic allocates, too.
            assert!(LARGEST.get() < 1 << 30, "asked for {} bytes", LARGEST.get());
            let message = panic.expect_err("too large").downcast::<String>().expect("a message");
            let bytes = size_of::<E>();
            let expected = format!(
                "{len} elements of {bytes} bytes, aligned to {HUGE_PAGE}, are more than isize::MAX bytes"
            );
            assert_eq!(*message, expected);
        }
    }
    check::<f32>();
    check::<f64>();
    check::<bf16>();
    check::<u8>();
    LARGEST.set(0);
    assert!(
        std::panic::catch_unwind(|| drop(Buffer::<f32>::zeros(1 << (usize::BITS - 3)))).is_err()
    );
    assert!(std::panic::catch_unwind(|| drop(Adam::default().state(usize::MAX))).is_err());
    assert!(LARGEST.get() < 1 << 30, "asked for {} bytes", LARGEST.get());
}
