//! Mixed precision: the bits of the reference for every combination of types, and what the rounding is
//! like.

mod support;

use adamant::{
    Adam, BuiltIn, Error, Exec, Grad, Isa, MixedOptimizer, MixedTensor, Moment, Outcome, Param,
    Pass, Q8, RmsProp, clip_factor, reference,
};
use half::{bf16, f16};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};
use support::{
    Columns, ForEachRule, Way, columns, for_each_rule,
    mixed::{GradType, MixedColumns, MomentType, ParamType, Types, check_mixed, is_same},
};

/// Lengths at which a tile or a block may go wrong.
const LENGTHS: [usize; 10] = [
    0, 1, 15, 17, // less than a block
    255, 256, 257, // around a block
    1023, 1025, 2600, // around a tile, and several
];

fn execs(parallel: bool) -> impl Iterator<Item = Exec> {
    Isa::available().into_iter().map(move |isa| Exec { isa, parallel })
}

/// A tensor of a rule, in some types.
fn mixed<R: BuiltIn>(rule: &R, seed: u64, len: usize, types: Types) -> MixedColumns {
    let mut columns: Columns<f32> = columns(rule, seed, len, seed.is_multiple_of(3));
    if seed % 3 == 1 {
        // Numbers alike in size, as a block of moments has them.
        for column in columns.moments.iter_mut().chain([&mut columns.param, &mut columns.grad]) {
            for (place, value) in column.iter_mut().enumerate() {
                *value = value.signum() * (0.001 + (place as f32 * 0.77).sin().abs());
            }
        }
        columns.moments.iter_mut().flatten().for_each(|value| *value = value.abs());
    }
    MixedColumns::new(rule, &columns, types, (1 << 32) - 700 + seed)
}

fn every_types() -> impl Iterator<Item = Types> {
    let mut count = 0;
    ParamType::ALL.into_iter().flat_map(move |param| {
        GradType::ALL.into_iter().flat_map(move |grad| {
            MomentType::ALL.into_iter().flat_map(move |first| {
                MomentType::ALL.into_iter().map(move |second| {
                    count += 1;
                    let third = MomentType::ALL[count % 3];
                    Types { param, grad, to_zero: count % 2 == 0, moments: [first, second, third] }
                })
            })
        })
    })
}

#[test]
fn every_combination_of_types_gives_the_reference_bits() {
    for (seed, types) in every_types().enumerate() {
        let seed = seed as u64;
        let pass = Pass {
            grad_factor: if seed.is_multiple_of(2) { 1.0 } else { 0.37 },
            flush_subnormals: seed.is_multiple_of(5),
            seed,
            ..Pass::default()
        };
        for exec in execs(false) {
            for adam in [Adam::default(), Adam::adamw()] {
                let before = mixed(&adam, seed, LENGTHS[seed as usize % LENGTHS.len()], types);
                let way = Way::whole(exec);
                check_mixed(&adam, 1 + seed..4 + seed, pass, &[before], &way);
            }
        }
    }
}

struct EveryRule;

impl ForEachRule for EveryRule {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        for exec in execs(false) {
            for (seed, moment) in MomentType::ALL.into_iter().enumerate() {
                let (param, grad) = (ParamType::ALL[2 * seed + 1], GradType::ALL[seed]);
                let types = Types { param, grad, to_zero: false, moments: [moment; 3] };
                let before = mixed(&rule, seed as u64, 700, types);
                check_mixed(&rule, 5..8, Pass::default(), &[before], &Way::whole(exec));
            }
        }
    }
}

#[test]
fn every_optimizer_gives_the_reference_bits() {
    for_each_rule(&mut EveryRule);
}

#[cfg(feature = "rayon")]
#[test]
fn every_thread_count_and_cut_gives_the_reference_bits() {
    let adam = Adam::adamw();
    for threads in [1, 2, 3, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        for exec in execs(true) {
            for (seed, moment) in MomentType::ALL.into_iter().enumerate() {
                let (param, grad) = (ParamType::ALL[seed + 3], GradType::ALL[seed]);
                let types = Types { param, grad, to_zero: true, moments: [moment; 3] };
                let tensors: Vec<_> = [40_000, 3, 0, 10_001, 70_000]
                    .iter()
                    .map(|&len| mixed(&adam, seed as u64, len, types))
                    .collect();
                let way = Way::whole(exec);
                pool.install(|| check_mixed(&adam, 9..12, Pass::default(), &tensors, &way));
            }
        }
    }
}

/// 65,536 numbers of 16 bits, there and back; those in between go to the nearest.
#[test]
fn every_number_of_16_bits_is_kept_and_numbers_between_are_rounded_to_nearest() {
    let sgd = adamant::Sgd { lr: 0.0, ..adamant::Sgd::default() };
    for exec in execs(false) {
        for upper in (0..=u16::MAX).collect::<Vec<_>>().chunks(4096) {
            // A step that changes nothing reads and writes each; from f32, it rounds.
            let mut brain: Vec<_> = upper.iter().map(|&bits| bf16::from_bits(bits)).collect();
            let mut half: Vec<_> = upper.iter().map(|&bits| f16::from_bits(bits)).collect();
            let zeros = vec![0.0; upper.len()];
            fn step(sgd: adamant::Sgd, exec: Exec, param: Param<'_>, zeros: &[f32]) {
                let grad = Grad::F32(zeros);
                let tensor = MixedTensor { param, grad, moments: [Moment::F32(&mut [])], first: 0 };
                let outcome = sgd.step_mixed(exec, 1, Pass::default(), &mut [tensor]);
                assert_eq!(outcome, Ok(Outcome::Taken));
            }
            step(sgd, exec, Param::Bf16(&mut brain), &zeros);
            step(sgd, exec, Param::F16(&mut half), &zeros);
            for ((&bits, brain), half) in upper.iter().zip(&brain).zip(&half) {
                assert!(is_same(brain.to_f32(), bf16::from_bits(bits).to_f32()), "{bits:x}");
                assert!(is_same(half.to_f32(), f16::from_bits(bits).to_f32()), "{bits:x}");
            }
            for lower in [0, 1, 0x1000, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let bits = |upper: &u16| f32::from_bits(u32::from(*upper) << 16 | lower);
                let values: Vec<_> = upper.iter().map(bits).collect();
                let (mut master, mut copy) = (values.clone(), vec![bf16::ZERO; values.len()]);
                step(sgd, exec, Param::F32AndBf16(&mut master, &mut copy), &zeros);
                let (mut master, mut half) = (values.clone(), vec![f16::ZERO; values.len()]);
                step(sgd, exec, Param::F32AndF16(&mut master, &mut half), &zeros);
                let (mut high, mut low): (Vec<_>, Vec<_>) =
                    values.iter().map(|&value| reference::split(value)).unzip();
                step(sgd, exec, Param::Split(&mut high, &mut low), &zeros);
                for (place, &value) in values.iter().enumerate() {
                    assert!(is_same(copy[place].to_f32(), bf16::from_f32(value).to_f32()));
                    assert!(is_same(half[place].to_f32(), f16::from_f32(value).to_f32()));
                    assert!(is_same(reference::join(high[place], low[place]), value), "{value}");
                    // The upper half is a nearest bf16, whichever way a tie goes.
                    let distance = |other: bf16| (other.to_f64() - f64::from(value)).abs();
                    let is_nearest = distance(high[place]) == distance(bf16::from_f32(value));
                    assert!(is_nearest || !bf16::from_f32(value).is_finite(), "{value}");
                }
            }
        }
    }
}

#[test]
fn every_code_of_8_bits_is_kept() {
    for format in [Q8::Signed, Q8::Squares] {
        let codes: Vec<u8> = (0..=255).collect();
        for scale in [1e-30, 1.0, 3.7] {
            let mut values = [0.0; 256];
            format.decode(&codes, &[scale], &mut values).expect("a block");
            for (&code, &value) in codes.iter().zip(&values) {
                let number = scale * reference::q8_number(format, code);
                assert!(is_same(value, number), "{format:?} {code}: {value}, {number}");
            }
            let (mut again, mut found) = ([0; 256], [0.0]);
            format.encode(&values, &mut again, &mut found).expect("a block");
            let mut decoded = [0.0; 256];
            format.decode(&again, &found, &mut decoded).expect("a block");
            for (&value, &decoded) in values.iter().zip(&decoded) {
                assert!((decoded - value).abs() <= 1e-5 * value.abs(), "{value}: {decoded}");
            }
        }
    }
}

#[test]
fn a_block_of_8_bits_with_a_number_that_is_not_finite_is_nan() {
    for format in [Q8::Signed, Q8::Squares] {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut values = [0.5; 300];
            values[7] = bad;
            let (mut codes, mut scales, mut decoded) = ([0; 300], [0.0; 2], [0.0; 300]);
            format.encode(&values, &mut codes, &mut scales).expect("two blocks");
            format.decode(&codes, &scales, &mut decoded).expect("two blocks");
            assert!(decoded[..256].iter().all(|value| value.is_nan()));
            assert!(decoded[256..].iter().all(|&value| (value - 0.5).abs() < 1e-6));
        }
    }
}

/// The means of the second moment over many elements, before and after 3,000 steps of a gradient.
fn mean_squares(moment: MomentType, start: f32, grad: f32) -> [f64; 2] {
    // Enough for the mean to be right to a percent: of 8 bits, each is off by tens.
    let len = if moment == MomentType::Q8 { 8 << 10 } else { 1 << 10 };
    let adam = Adam { lr: 0.0, ..Adam::default() };
    let types = Types {
        param: ParamType::F32,
        grad: GradType::F32,
        to_zero: false,
        moments: [MomentType::F32, moment, moment],
    };
    // The block's largest element is another one: a lone value would be kept exactly.
    let value = |column, place: usize| match (column, place.is_multiple_of(256)) {
        (1 | 3, true) => 1.5,
        (1, false) => grad,
        (3, false) => start,
        _ => 0.0,
    };
    let columns = Columns::new(&adam, len, value);
    let mut tensor = MixedColumns::new(&adam, &columns, types, 0);
    let mean = |tensor: &MixedColumns| {
        let (_, moments) = tensor.values(&adam);
        let others = moments[1].iter().enumerate().filter(|(place, _)| place % 256 != 0);
        let (count, sum) =
            others.fold((0, 0.0), |(count, sum), (_, &v)| (count + 1, sum + f64::from(v)));
        sum / f64::from(count)
    };
    let before = mean(&tensor);
    let exec = Exec { isa: Isa::detect(), parallel: false };
    for t in 1..=3000 {
        assert_eq!(tensor.step(&adam, exec, t, Pass::default()), Outcome::Taken);
    }
    [before, mean(&tensor)]
}

#[test]
fn moments_rounded_at_random_neither_stand_still_nor_drift() {
    let decayed = 0.999_f64.powi(3000);
    for moment in [MomentType::Bf16, MomentType::Q8] {
        let [_, grown] = mean_squares(moment, 0.0, 1.0);
        assert!((grown / (1.0 - decayed) - 1.0).abs() < 0.01, "{moment:?}: {grown}");
        // 8 bits hold no 1 beside a 1.5.
        let [start, shrunk] = mean_squares(moment, 1.0, 0.0);
        assert!((shrunk / (start * decayed) - 1.0).abs() < 0.02, "{moment:?}: {shrunk}");
    }
}

#[test]
fn small_updates_of_bf16_parameters_are_not_lost_on_average() {
    let sgd = adamant::Sgd { lr: 1e-5, ..adamant::Sgd::default() };
    let (mut param, grad) = (vec![bf16::ONE; 4096], vec![1.0; 4096]);
    for t in 1..=1000 {
        let (param, grad) = (Param::Bf16Stochastic(&mut param), Grad::F32(&grad));
        let tensor = MixedTensor { param, grad, moments: [Moment::F32(&mut [])], first: 0 };
        let exec = Exec { isa: Isa::detect(), parallel: false };
        assert_eq!(sgd.step_mixed(exec, t, Pass::default(), &mut [tensor]), Ok(Outcome::Taken));
    }
    let mean = param.iter().map(|param| param.to_f64()).sum::<f64>() / param.len() as f64;
    assert!((mean - 0.99).abs() < 2e-4, "{mean}");
}

#[test]
fn split_parameters_have_the_bits_of_f32_ones() {
    let adam = Adam::adamw();
    let types = |param| {
        let moments = [MomentType::F32; 3];
        Types { param, grad: GradType::Bf16, to_zero: false, moments }
    };
    let columns: Columns<f32> = columns(&adam, 3, 1000, false);
    let [mut split, mut whole] = [ParamType::Split, ParamType::F32]
        .map(|param| MixedColumns::new(&adam, &columns, types(param), 0));
    let exec = Exec { isa: Isa::detect(), parallel: false };
    for t in 1..100 {
        for tensor in [&mut split, &mut whole] {
            assert_eq!(tensor.step(&adam, exec, t, Pass::default()), Outcome::Taken);
        }
    }
    assert_eq!(split.values(&adam), whole.values(&adam));
}

#[test]
fn a_step_with_a_norm_that_is_not_finite_is_left_out() {
    let adam = Adam::default();
    for grad_norm in [f64::NAN, f64::INFINITY] {
        let (mut param, mut grad) = ([1.0; 5], [1.0, 2.0, f32::INFINITY, 4.0, 5.0]);
        let (mut m, mut v) = ([0.0; 5], [0.0; 5]);
        let tensor = MixedTensor::<Adam> {
            param: Param::F32(&mut param),
            grad: Grad::F32ToZero(&mut grad),
            moments: [Moment::F32(&mut m), Moment::F32(&mut v)],
            first: 0,
        };
        let grad_factor = clip_factor(grad_norm, 1.0);
        let pass = Pass { grad_norm: Some(grad_norm), grad_factor, ..Pass::default() };
        let exec = Exec { isa: Isa::detect(), parallel: false };
        assert_eq!(adam.step_mixed(exec, 1, pass, &mut [tensor]), Ok(Outcome::LeftOut));
        assert_eq!((param, m, v, grad[3]), ([1.0; 5], [0.0; 5], [0.0; 5], 4.0));
    }
}

#[test]
fn subnormal_moments_and_minus_zero_are_flushed_to_zero() {
    // With a beta of 0 the moment is the gradient; if it was before, its sign too.
    let adam = Adam { beta1: 0.0, ..Adam::default() };
    let grads = [1e-40, -1e-40, 0.0, -0.0, f32::MIN_POSITIVE, -f32::MIN_POSITIVE];
    for exec in execs(false) {
        for flush_subnormals in [false, true] {
            let (mut param, mut m, mut v) = ([1.0; 6], grads, [0.0; 6]);
            let tensor = MixedTensor::<Adam> {
                param: Param::F32(&mut param),
                grad: Grad::F32(&grads),
                moments: [Moment::F32(&mut m), Moment::F32(&mut v)],
                first: 0,
            };
            let pass = Pass { flush_subnormals, ..Pass::default() };
            assert_eq!(adam.step_mixed(exec, 1, pass, &mut [tensor]), Ok(Outcome::Taken));
            let flush =
                |grad| if flush_subnormals { reference::flush_subnormal(grad) } else { grad };
            assert_eq!(m.map(f32::to_bits), grads.map(|grad| flush(grad).to_bits()));
        }
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused_and_nothing_is_written() {
    let exec = Exec { isa: Isa::detect(), parallel: false };
    let refused = |lens: [usize; 6], expected: &str| {
        let [param, copy, grad, m, codes, scales] = lens;
        let (mut param, mut copy) = (vec![1.0; param], vec![bf16::ONE; copy]);
        let mut grad = vec![f16::ONE; grad];
        let (mut m, mut codes) = (vec![bf16::ONE; m], vec![1; codes]);
        let mut scales = vec![1.0; scales];
        let tensor = MixedTensor::<Adam> {
            param: Param::F32AndBf16(&mut param, &mut copy),
            grad: Grad::F16ToZero(&mut grad),
            moments: [Moment::Bf16(&mut m), Moment::Q8(&mut codes, &mut scales)],
            first: 0,
        };
        let found = Adam::default().step_mixed(exec, 1, Pass::default(), &mut [tensor]);
        assert_eq!(found.expect_err("misfits").to_string(), expected);
        assert!(param.iter().all(|&param| param == 1.0) && m.iter().all(|&m| m == bf16::ONE));
        assert!(copy.iter().all(|&copy| copy == bf16::ONE) && codes.iter().all(|&code| code == 1));
        assert!(
            grad.iter().all(|&grad| grad == f16::ONE) && scales.iter().all(|&scale| scale == 1.0)
        );
    };
    let differs = |argument: &str, len| {
        format!("{argument} of tensor 0 has {len} elements, but its param has 300")
    };
    refused([300, 299, 300, 300, 300, 2], &differs("copy of param", 299));
    refused([300, 300, 301, 300, 300, 2], &differs("grad", 301));
    refused([300, 300, 300, 0, 300, 2], &differs("exp_avg", 0));
    refused([300, 300, 300, 300, 256, 1], &differs("exp_avg_sq", 256));
    let expected = "exp_avg_sq of tensor 0 has 1 scales, but its codes need 2";
    refused([300, 300, 300, 300, 300, 1], expected);
}

#[test]
fn a_factor_that_is_not_finite_is_refused() {
    let exec = Exec { isa: Isa::detect(), parallel: false };
    for grad_factor in [f64::NAN, f64::INFINITY, 1e39] {
        let pass = Pass { grad_factor, ..Pass::default() };
        let error = Adam::default().step_mixed(exec, 1, pass, &mut []).expect_err("a bad factor");
        assert!(matches!(error, Error::HyperParameter { name: "grad_factor", .. }), "{error}");
    }
}

#[test]
fn a_moment_that_the_rule_does_without_may_be_of_any_type_if_empty() {
    let exec = Exec { isa: Isa::detect(), parallel: false };
    let (mut param, grad, mut square) = ([1.0; 300], [1.0; 300], [0.0; 300]);
    let tensor = MixedTensor::<RmsProp> {
        param: Param::F32(&mut param),
        grad: Grad::F32(&grad),
        moments: [Moment::F32(&mut square), Moment::Bf16(&mut []), Moment::Q8(&mut [], &mut [])],
        first: 0,
    };
    let outcome = RmsProp::default().step_mixed(exec, 1, Pass::default(), &mut [tensor]);
    assert_eq!(outcome, Ok(Outcome::Taken));
}

/// A regression with noisy gradients, 4,000 steps of AdamW with a learning rate that falls: the mean
/// loss over the last 1,000.
fn noisy_run(param: ParamType, grad: GradType, moment: MomentType) -> f64 {
    const LEN: usize = 1024;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let target: Vec<f32> = (0..LEN).map(|_| rng.random_range(-1.0..1.0)).collect();
    let zeros = Columns::new(&Adam::default(), LEN, |_, _| 0.0);
    let types = Types { param, grad, to_zero: false, moments: [moment; 3] };
    let mut tensor = MixedColumns::new(&Adam::default(), &zeros, types, 0);
    let exec = Exec { isa: Isa::detect(), parallel: false };
    let mut losses = 0.0;
    for t in 1..=4000 {
        let (found, _) = tensor.values(&Adam::default());
        let errors = found.iter().zip(&target).map(|(found, target)| found - target);
        // Elements differ in how noisy they are, by a hundred.
        let noise = |place: usize| 0.02 * 100_f32.powf(place as f32 / LEN as f32);
        let grads: Vec<f32> = (errors.clone().enumerate())
            .map(|(place, error)| error + noise(place) * rng.random_range(-1.0..1.0))
            .collect();
        if t > 3000 {
            losses += errors.map(|error| f64::from(error).powi(2)).sum::<f64>() / LEN as f64;
        }
        tensor.set_grad(&grads);
        let adam =
            Adam { lr: 1e-2 / (1.0 + t as f64 / 500.0), weight_decay: 1e-4, ..Adam::adamw() };
        assert_eq!(tensor.step(&adam, exec, t, Pass::default()), Outcome::Taken);
    }
    losses / 1000.0
}

#[test]
fn a_noisy_run_in_half_and_quarter_precision_follows_one_in_f32() {
    let single = noisy_run(ParamType::F32, GradType::F32, MomentType::F32);
    assert!(single < 0.01, "{single}");
    for (param, grad, moment, apart) in [
        // Parameters with 8 bits of precision are never closer to the target than that.
        (ParamType::Bf16Stochastic, GradType::Bf16, MomentType::Bf16, 0.5),
        (ParamType::Split, GradType::Bf16, MomentType::Bf16, 0.05),
        (ParamType::F32, GradType::F32, MomentType::Bf16, 0.05),
        (ParamType::F32, GradType::F32, MomentType::Q8, 0.05),
    ] {
        let found = noisy_run(param, grad, moment);
        println!("{param:?} {moment:?}: {found:.3e}, in f32 {single:.3e}");
        assert!((found / single - 1.0).abs() < apart, "{param:?} {moment:?}: {found}, {single}");
    }
}
