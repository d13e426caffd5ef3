//! The random bits of rounding: uniform, and independent between moments, elements, tensors and steps.

use adamant::reference::random;

/// Bits of an element.
const BITS: u32 = 16;
const PARAMS: u32 = u32::MAX;

/// Fails unless pairs of numbers are spread evenly over the square: in 16 x 16 fields by the upper bits
/// and by the lower ones, by correlation, and where one of them is in a rare range.
#[track_caller]
fn check_pairs(name: &str, pairs: impl Fn(u64) -> [u32; 2]) {
    const COUNT: u64 = 1 << 20;
    let mut fields = [[[0_u32; 16]; 16]; 2];
    let (mut product, mut rare) = (0.0, [[0_u32; 2]; 2]);
    for element in 0..COUNT {
        let [a, b] = pairs(element);
        assert!(a < 1 << BITS && b < 1 << BITS);
        fields[0][(a >> (BITS - 4)) as usize][(b >> (BITS - 4)) as usize] += 1;
        fields[1][(a & 15) as usize][(b & 15) as usize] += 1;
        let centred = |number: u32| f64::from(number) / f64::from(1 << BITS) - 0.5;
        product += centred(a) * centred(b);
        // One number is rounded up once in 2^13 times, the other every second time: they must not depend on each other.
        for (rare, [one, other]) in rare.iter_mut().zip([[a, b], [b, a]]) {
            if one >= (1 << BITS) - (1 << (BITS - 13)) {
                rare[(other >> (BITS - 1)) as usize] += 1;
            }
        }
    }
    let expected = COUNT as f64 / 256.0;
    for fields in fields {
        let squares = fields.iter().flatten().map(|&found| (f64::from(found) - expected).powi(2));
        let chi_square = squares.sum::<f64>() / expected;
        // 255 degrees of freedom: six standard deviations, of 22.6.
        assert!((chi_square - 255.0).abs() < 136.0, "{name}: chi-square {chi_square}");
    }
    let correlation = 12.0 * product / COUNT as f64;
    assert!(correlation.abs() < 6.0 / (COUNT as f64).sqrt(), "{name}: correlation {correlation}");
    for rare in rare {
        // 128 of 2^20, 64 each way: six standard deviations, of 8.
        assert!(rare.iter().all(|&count| (16..112).contains(&count)), "{name}: rare {rare:?}");
    }
}

#[test]
fn two_arrays_are_rounded_by_independent_random() {
    for (seed, t) in [(0, 1), (0, 2), (7, 1000), (u64::MAX, 123_456)] {
        let arrays = [0, 1, 2, 3, PARAMS];
        for (place, a) in arrays.into_iter().enumerate() {
            for &b in &arrays[place + 1..] {
                let pair = |element| [random(seed, t, a, element), random(seed, t, b, element)];
                check_pairs(&format!("arrays {a} and {b} in step {t}"), pair);
            }
        }
    }
}

#[test]
fn neighbours_are_rounded_by_independent_random() {
    for array in [0, 1, PARAMS] {
        for distance in [1, 2, 8, 16, 64, 256, 1 << 32] {
            let pair =
                |element| [0, distance].map(|apart| random(3, 5, array, 77 + element + apart));
            check_pairs(&format!("array {array}, {distance} apart"), pair);
        }
    }
}

#[test]
fn neighbours_in_two_arrays_are_rounded_by_independent_bits() {
    for [a, b] in [[0, 1], [1, 0], [0, PARAMS], [1, PARAMS]] {
        let pair = |element| [random(3, 5, a, element), random(3, 5, b, element ^ 1)];
        check_pairs(&format!("array {a} and {b}, the other element of a pair"), pair);
    }
}

#[test]
fn steps_and_seeds_are_rounded_by_independent_random() {
    for array in [0, 1] {
        for t in [1, 1000] {
            let pair = |element| [t, t + 1].map(|t| random(0, t, array, element));
            check_pairs(&format!("array {array}, steps from {t}"), pair);
            let pair = |element| [0, 1].map(|seed| random(seed, t, array, element));
            check_pairs(&format!("array {array}, two seeds in step {t}"), pair);
        }
    }
    // One element in many steps.
    let pair = |step| [random(0, 1 + step, 0, 9), random(0, 1 + step, 1, 9)];
    check_pairs("moments of an element", pair);
    let pair = |step| [step, 1 + step].map(|step| random(0, 1 + step, 1, 9));
    check_pairs("an element in steps that follow each other", pair);
}

#[test]
fn tensors_with_numbers_of_their_own_are_rounded_by_independent_random() {
    for first in [1000, 4096, 65_536, (1 << 32) - 500, 1 << 40] {
        let pair = |element: u64| [random(0, 1, 1, element), random(0, 1, 1, first + element)];
        check_pairs(&format!("a tensor from {first} on"), pair);
        let pair = |element: u64| [random(0, 1, 0, element), random(0, 1, 1, first + element)];
        check_pairs(&format!("another moment of a tensor from {first} on"), pair);
    }
}
