//! Conversions to numbers of 8 and 16 bits.

use super::*;

#[test]
fn conversions_to_8_bits_have_the_bits_of_rust() {
    // Two whole blocks and a part of one, or in Miri one and a part.
    const LEN: usize = unless_miri(600, 260);
    const SCALES: usize = LEN.div_ceil(256);
    let formats = [Q8::Signed, Q8::Squares, Q8::Unsigned];
    for (number, format) in formats.into_iter().enumerate().take(unless_miri(3, 1)) {
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        let mut values = Memory::random(&mut rng, ADAMANT_F32, LEN, format != Q8::Signed);
        assert_eq!(adamant_q8_scales(LEN), SCALES);
        let (mut codes, mut scales) = (vec![0; LEN], vec![0.0; SCALES]);
        format.encode(values.slice(), &mut codes, &mut scales).expect("lengths that fit");
        let mut found_codes = Memory::of(&[0_u8; LEN], ADAMANT_Q8);
        let mut found_scales = Memory::of(&[0.0_f32; SCALES], ADAMANT_F32);
        let (of_values, of_codes, of_scales) =
            (values.array(), found_codes.array(), found_scales.array());
        // SAFETY: memory that is alive.
        ok(unsafe { adamant_q8_encode(number as u32, &of_values, &of_codes, &of_scales) });
        assert_eq!((found_codes.slice(), found_scales.slice()), (&codes[..], &scales[..]));
        let mut expected = vec![0.0; LEN];
        format.decode(&codes, &scales, &mut expected).expect("lengths that fit");
        // SAFETY: memory that is alive.
        ok(unsafe { adamant_q8_decode(number as u32, &of_codes, &of_scales, &of_values) });
        assert_eq!(values.slice::<f32>(), expected);
    }
}

#[test]
fn conversions_to_16_bits_have_the_bits_of_rust() {
    let all: Vec<u16> = (0..=u16::MAX).step_by(unless_miri(1, 1021)).collect();
    let check = |element, to_f32: fn(u16) -> f32, from_f32: fn(f32) -> u16| {
        let mut narrow = Memory::of(&all, element);
        let mut wide = Memory::of(&vec![7.0_f32; all.len()], ADAMANT_F32);
        // SAFETY: memory that is alive.
        ok(unsafe { adamant_convert(&narrow.array(), &wide.array()) });
        let expected: Vec<u32> = all.iter().map(|&bits| to_f32(bits).to_bits()).collect();
        assert_eq!(wide.slice::<u32>(), expected);
        // And the numbers halfway between these, which are ties, and their neighbours.
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
    const LEN: usize = unless_miri(10_000, 65);
    let mut rng = ChaCha8Rng::seed_from_u64(6);
    let values: Vec<f32> = (0..LEN).map(|_| f32::from_bits(rng.random::<u32>())).collect();
    let (mut expected_high, mut expected_low) = (vec![bf16::ZERO; LEN], vec![0; LEN]);
    Param::split(&values, &mut expected_high, &mut expected_low).expect("lengths that fit");
    let mut found = Memory::of(&values, ADAMANT_F32);
    let mut high = Memory::of(&[0_u16; LEN], ADAMANT_BF16);
    let mut low = Memory::of(&[0_u16; LEN], ADAMANT_LOW16);
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
