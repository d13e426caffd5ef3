//! Arrays that adamant owns: what they hold and where they lie.

use adamant::{
    Adam, Buffer, BufferElement, Exec, Float, Grad, Isa, MixedOptimizer, MixedTensor, Moment,
    Outcome, Param, Pass, Q8,
};
use half::{bf16, f16};

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
    let (mut grad, mut m) = (Buffer::zeros(LEN), Buffer::zeros(LEN));
    let (mut codes, mut scales) = (Buffer::zeros(LEN), Buffer::zeros(Q8::scales(LEN)));
    grad.fill(f16::ONE);
    let tensor = MixedTensor::<Adam> {
        param: Param::Split(&mut high, &mut low),
        grad: Grad::F16ToZero(&mut grad),
        moments: [Moment::Bf16(&mut m), Moment::Q8(&mut codes, &mut scales)],
        first: 0,
    };
    let exec = Exec { isa: Isa::detect(), parallel: false };
    let outcome = Adam::default().step_mixed(exec, 1, Pass::default(), &mut [tensor]);
    assert_eq!(outcome, Ok(Outcome::Taken));
    assert!(high.iter().all(|&high| high < bf16::ZERO));
    assert!(codes.iter().all(|&code| code > 200) && grad.iter().all(|&grad| grad == f16::ZERO));
}
