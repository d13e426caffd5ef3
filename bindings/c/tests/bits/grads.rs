//! Norms and sums of gradients.

use super::*;

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
    for lens in [
        vec![],
        vec![unless_miri(10_000, 100)],
        vec![3, 0, unless_miri(700, 50)],
        vec![5; unless_miri(40, 17)],
        vec![1; unless_miri(300, 17)],
    ] {
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
    // Norms of no arrays may be anywhere.
    let (mut norm, nowhere) = (-1.0, ptr::without_provenance_mut(77));
    // SAFETY: as above; nothing is written to `nowhere`.
    ok(unsafe { adamant_grad_norms(2, &exec, ptr::null(), 0, nowhere, &mut norm) });
    assert_eq!(norm, 0.0);
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
    const LEN: usize = unless_miri(1000, 33);
    let mut rng = ChaCha8Rng::seed_from_u64(10);
    for (element, zero_grad) in [
        (ADAMANT_F32, false),
        (ADAMANT_BF16, false),
        (ADAMANT_F16, false),
        (ADAMANT_F32, true),
        (ADAMANT_BF16, true),
        (ADAMANT_F16, true),
    ] {
        let mut sums = Memory::random(&mut rng, ADAMANT_F32, LEN, false);
        let mut grad = Memory::random(&mut rng, element, LEN, false);
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
