//! The two halves of an `f32` parameter.

use adamant::{Error, Param};
use half::bf16;

/// Every upper half with some lower ones, and every lower half with some upper ones.
fn numbers_of_every_half() -> impl Iterator<Item = Vec<f32>> {
    let lower = [0, 1, 0x1234, 0x7fff, 0x8000, 0x8001, 0xffff];
    let upper =
        [0, 1, 0x007f, 0x0080, 0x3f80, 0x7f7f, 0x7f80, 0x7fbf, 0x7fff, 0x8000, 0xbf80, 0xff80];
    let number = |upper: u16, lower: u16| f32::from_bits(u32::from(upper) << 16 | u32::from(lower));
    let all_upper = lower
        .into_iter()
        .map(move |lower| (0..=u16::MAX).map(|upper| number(upper, lower)).collect());
    let all_lower = upper
        .into_iter()
        .map(move |upper| (0..=u16::MAX).map(|lower| number(upper, lower)).collect());
    // And a stride that is prime.
    let strided = (0..u32::MAX).step_by(65_537).map(f32::from_bits).collect();
    all_upper.chain(all_lower).chain([strided])
}

/// The bits of a number by the definition of its halves.
fn bits_of(high: bf16, low: u16) -> u32 {
    (i64::from(high.to_bits()) * (1 << 16) + i64::from(low.cast_signed())) as u32
}

#[test]
fn halves_are_the_nearest_bf16_and_the_rest_and_make_the_number_again() {
    for values in numbers_of_every_half() {
        let (mut high, mut low) = (vec![bf16::MAX; values.len()], vec![7; values.len()]);
        Param::split(&values, &mut high, &mut low).expect("equal lengths");
        let mut joined = vec![7.0; values.len()];
        Param::join(&high, &low, &mut joined).expect("equal lengths");
        for (((&value, &joined), &high), &low) in values.iter().zip(&joined).zip(&high).zip(&low) {
            let bits = value.to_bits();
            if value.is_nan() {
                let is_quiet = joined.is_nan() && joined.to_bits() & 0x40_0000 != 0;
                assert!(is_quiet && high.is_nan(), "{bits:x}: {:x}", joined.to_bits());
                continue;
            }
            assert_eq!((bits_of(high, low), joined.to_bits()), (bits, bits), "{high:?} {low:x}");
            let distance = |other: bf16| (other.to_f64() - f64::from(value)).abs();
            let nearest = bf16::from_f32(value);
            assert!(distance(high) == distance(nearest) || high == nearest, "{bits:x}");
        }
    }
}

/// The halves in a checkpoint may have any bits.
#[test]
fn any_halves_are_joined_by_their_definition() {
    for values in numbers_of_every_half() {
        let half = |shift: u32| values.iter().map(move |value| (value.to_bits() >> shift) as u16);
        let high: Vec<_> = half(16).map(bf16::from_bits).collect();
        let low: Vec<_> = half(0).collect();
        let mut joined = vec![0.0; values.len()];
        Param::join(&high, &low, &mut joined).expect("equal lengths");
        for ((&joined, &high), &low) in joined.iter().zip(&high).zip(&low) {
            assert_eq!(joined.to_bits(), bits_of(high, low), "{high:?} {low:x}");
        }
    }
}

#[test]
fn halves_of_another_length_are_refused_and_nothing_is_written() {
    for (high_len, low_len, argument, len) in [
        (2, 3, "high half of param", 2),
        (4, 3, "high half of param", 4),
        (3, 0, "low half of param", 0),
        (3, 4, "low half of param", 4),
    ] {
        let expected = Err(Error::LengthMismatch { tensor: 0, argument, len, expected: 3 });
        let (mut high, mut low) = (vec![bf16::ONE; high_len], vec![7; low_len]);
        let mut values = [2.5; 3];
        assert_eq!(Param::join(&high, &low, &mut values), expected);
        assert_eq!(Param::split(&values, &mut high, &mut low), expected);
        assert!(high.iter().all(|&high| high == bf16::ONE) && low.iter().all(|&low| low == 7));
        assert_eq!(values, [2.5; 3]);
    }
}
