//! Memory for moments.

use super::*;

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

/// Compares the moments that C describes with the states that Rust makes.
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
        Self::check(&rule, &Handle::of(rule), |moment| rule.moment_format(moment));
    }
}

#[test]
fn moments_are_described_and_filled_as_rust_makes_them() {
    for_each_rule(&mut Moments);
    let adam = Adam::default();
    Moments::check(&RowWiseAdam(adam), &Handle::row_wise(adam), |moment| {
        adam.moment_format(moment)
    });
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
