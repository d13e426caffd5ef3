//! Moments that adamant owns: what they begin with and where they lie.

use adamant::{AdaGrad, Adam, Optimizer, RmsProp};

#[test]
fn moments_begin_with_what_the_rule_says() {
    for len in [0, 1, 1000, 1024, 5000, 3_000_000] {
        assert!(Adam::default().state::<f64>(len).moments().iter().all(|m| m == &vec![0.0; len]));
        let adagrad = AdaGrad { initial_accumulator_value: 0.25, ..AdaGrad::default() };
        assert_eq!(adagrad.state::<f32>(len).moments(), [&vec![0.25; len][..]]);
    }
}

#[test]
fn moments_begin_on_cache_lines_and_large_ones_at_different_offsets_of_a_page() {
    for len in [1, 17, 1024, 1025, 600_000, 1 << 20] {
        let state =
            RmsProp { momentum: 0.9, centered: true, ..RmsProp::default() }.state::<f32>(len);
        let addresses = state.moments().map(|moment| moment.as_ptr().addr());
        assert!(addresses.iter().all(|address| address % 64 == 0), "{len}");
        if len >= 1024 {
            let mut offsets = addresses.map(|address| address % 4096 / 512);
            offsets.sort_unstable();
            assert!(offsets.windows(2).all(|pair| pair[0] < pair[1]), "{len}: {offsets:?}");
        }
    }
}

#[test]
fn a_clone_goes_on_by_itself() {
    let adam = Adam::default();
    let mut param = vec![1.0_f32; 2000];
    let mut state = adam.state(param.len());
    adam.step(&mut param, &vec![0.5; 2000], &mut state).expect("a valid step");
    let (mut other, mut other_param) = (state.clone(), param.clone());
    assert_eq!((other.step(), other.moments()), (1, state.moments()));
    adam.step(&mut param, &vec![-0.5; 2000], &mut state).expect("a valid step");
    assert_ne!(other.moments(), state.moments());
    adam.step(&mut other_param, &vec![-0.5; 2000], &mut other).expect("a valid step");
    assert_eq!((other_param, other.moments()), (param, state.moments()));
}

#[test]
fn a_moment_that_the_rule_does_without_takes_no_memory() {
    let plain = RmsProp::default().state::<f32>(1000);
    assert_eq!(plain.moments().map(<[f32]>::len), [1000, 0, 0]);
    let centered = RmsProp { centered: true, ..RmsProp::default() }.state::<f32>(1000);
    assert_eq!(centered.moments().map(<[f32]>::len), [1000, 1000, 0]);
}
