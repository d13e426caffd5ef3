//! Mixed precision: the bits of the reference for every combination of types, and statistics of the rounding.

#[cfg(feature = "rayon")]
use crate::support::mixed::{Known, check_mixed_with};
use crate::support::{
    Columns, DenseRule, ForEachRule, Way, columns, execs, for_each_rule,
    mixed::{GradType, MixedColumns, MomentType, ParamType, Types, check_mixed, is_same},
    serial,
};
use adamant::{
    Adam, DynOptimizer, Exec, Grad, HalfElement, Moment, Optimizer, Outcome, Param, RmsProp,
    StepOptions, Tensor, reference, rule::BuiltIn,
};
use half::{bf16, f16};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

/// Lengths at which a tile or a block may go wrong.
const LENGTHS: [usize; 10] = [
    0, 1, 15, 17, // less than a block
    255, 256, 257, // around a block
    1023, 1025, 2600, // around a tile, and several
];

fn options() -> StepOptions<'static> {
    StepOptions { exec: serial(), ..StepOptions::default() }
}

/// A tensor of a rule, in some types.
fn mixed(rule: &dyn DynOptimizer, seed: u64, len: usize, types: Types) -> MixedColumns {
    let mut columns: Columns<f32> = columns(rule, seed, len, seed.is_multiple_of(3));
    if seed % 3 == 1 {
        // Numbers of similar size, as in a block of moments.
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
                    let third = MomentType::ALL[count % 4];
                    Types {
                        param,
                        grad,
                        to_zero: count % 2 == 0,
                        moments: [first, second, third, first],
                    }
                })
            })
        })
    })
}

#[test]
fn every_combination_of_types_gives_the_reference_bits() {
    for (seed, types) in every_types().enumerate() {
        let seed = seed as u64;
        let options = StepOptions {
            grad_factor: if seed.is_multiple_of(2) { 1.0 } else { 0.37 },
            // Steps with numbers that are not finite are left out by the norm.
            skip_nonfinite: seed.is_multiple_of(7),
            // No special numbers: they could make the factor too small for f32.
            max_norm: (seed % 6 == 1).then_some(0.5),
            seed,
            ..StepOptions::default()
        };
        for exec in execs(false) {
            // Common combinations of types have loops of their own, except when subnormal numbers are flushed.
            for (adam, flush_subnormals) in
                [(Adam::default(), seed.is_multiple_of(5)), (Adam::adamw(), false)]
            {
                let options = StepOptions { flush_subnormals, ..options };
                let mut before = mixed(&adam, seed, LENGTHS[seed as usize % LENGTHS.len()], types);
                if adam.weight_decay > 0.0 {
                    // They are not used either if the lower half of the elements' numbers overflows within the tensor.
                    before.first = seed;
                }
                let way = Way::whole(exec);
                check_mixed(&adam, 1 + seed..4 + seed, options, &[before], &way);
            }
        }
    }
}

/// The last element of each block then shares its random bits with the first one of the next.
#[test]
fn blocks_of_8_bits_that_begin_with_an_odd_element_give_the_reference_bits() {
    let adam = Adam::default();
    for (param, grad) in [
        (ParamType::F32, GradType::F32),
        (ParamType::F32, GradType::Bf16),
        (ParamType::Bf16Stochastic, GradType::Bf16),
    ] {
        let types = Types { param, grad, to_zero: false, moments: [MomentType::Q8; 4] };
        for exec in execs(false) {
            // Numbers of similar size, so that random bits decide about every code.
            let mut before = mixed(&adam, 1, 40 * 256, types);
            before.first = 12_345;
            check_mixed(&adam, 1..4, options(), &[before], &Way::whole(exec));
        }
    }
}

struct EveryRule;

impl EveryRule {
    fn check(rule: &dyn DenseRule<f32>) {
        for exec in execs(false) {
            for (seed, moment) in MomentType::ALL.into_iter().enumerate() {
                let (param, grad) = (ParamType::ALL[2 * seed + 1], GradType::ALL[seed % 3]);
                let types = Types { param, grad, to_zero: false, moments: [moment; 4] };
                let before = mixed(rule, seed as u64, 700, types);
                check_mixed(rule, 5..8, StepOptions::default(), &[before], &Way::whole(exec));
            }
        }
    }
}

impl ForEachRule for EveryRule {
    fn visit<R: BuiltIn>(&mut self, rule: R) {
        Self::check(&rule);
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
    let pools = [1, 2, 3, 7].map(|threads| {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool")
    });
    for (seed, moment) in MomentType::ALL.into_iter().enumerate() {
        let (param, grad) = (ParamType::ALL[seed + 4], GradType::ALL[seed % 3]);
        let types = Types { param, grad, to_zero: true, moments: [moment; 4] };
        let tensors: Vec<_> = [40_000, 3, 0, 10_001, 70_000]
            .iter()
            .map(|&len| mixed(&adam, seed as u64, len, types))
            .collect();
        for (cuts, offset) in [(vec![], 0), (vec![3, 300, 9_000, 9_000, 40_000], 3)] {
            let mut known = Known::default();
            for exec in execs(true) {
                let way = Way { cuts: cuts.clone(), offset, ..Way::whole(exec) };
                for skip_nonfinite in [false, true] {
                    let options = StepOptions { skip_nonfinite, ..StepOptions::default() };
                    for pool in &pools {
                        pool.install(|| {
                            check_mixed_with(&mut known, &adam, 9..12, options, &tensors, &way);
                        });
                    }
                }
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
            fn step<'a>(
                sgd: adamant::Sgd,
                exec: Exec<'_>,
                param: impl Into<Param<'a>>,
                zeros: &'a [f32],
            ) {
                let options = StepOptions { exec, ..StepOptions::default() };
                let mut steps = 0;
                let param: Param<'_> = param.into();
                let tensor = Tensor::new(param, zeros, &mut steps);
                let report = sgd.step_tensors(&mut [tensor], &options).expect("a valid step");
                assert_eq!(report.outcome, Outcome::Taken);
            }
            step(sgd, exec, &mut brain, &zeros);
            step(sgd, exec, &mut half, &zeros);
            for ((&bits, brain), half) in upper.iter().zip(&brain).zip(&half) {
                assert!(is_same(brain.to_f32(), bf16::from_bits(bits).to_f32()), "{bits:x}");
                assert!(is_same(half.to_f32(), f16::from_bits(bits).to_f32()), "{bits:x}");
            }
            for lower in [0, 1, 0x1000, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let bits = |upper: &u16| f32::from_bits(u32::from(*upper) << 16 | lower);
                let values: Vec<_> = upper.iter().map(bits).collect();
                let (mut master, mut copy) = (values.clone(), vec![bf16::ZERO; values.len()]);
                step(sgd, exec, Param::with_copy(&mut master, &mut copy), &zeros);
                let (mut master, mut half) = (values.clone(), vec![f16::ZERO; values.len()]);
                step(sgd, exec, Param::with_copy(&mut master, &mut half), &zeros);
                let (mut high, mut low): (Vec<_>, Vec<_>) =
                    values.iter().map(|&value| reference::split(value)).unzip();
                step(sgd, exec, Param::from_halves(&mut high, &mut low), &zeros);
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

/// The means of the second moment over many elements, before and after 3,000 steps of a gradient.
fn mean_squares(moment: MomentType, start: f32, grad: f32) -> [f64; 2] {
    // Enough for a mean that is right to 1 %: in 8 bits, each element is off by 10 % and more.
    let len = if moment == MomentType::Q8 { 8 << 10 } else { 1 << 10 };
    let adam = Adam { lr: 0.0, ..Adam::default() };
    let types = Types {
        param: ParamType::F32,
        grad: GradType::F32,
        to_zero: false,
        moments: [MomentType::F32, moment, moment, moment],
    };
    // Another element is the block's largest, since the largest is kept exactly.
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
    for _ in 1..=3000 {
        assert_eq!(tensor.step(&adam, &options()), Outcome::Taken);
    }
    [before, mean(&tensor)]
}

#[test]
fn moments_rounded_at_random_neither_stand_still_nor_drift() {
    let decayed = 0.999_f64.powi(3000);
    for moment in [MomentType::Bf16, MomentType::Q8] {
        let [_, grown] = mean_squares(moment, 0.0, 1.0);
        assert!((grown / (1.0 - decayed) - 1.0).abs() < 0.01, "{moment:?}: {grown}");
        // In 8 bits, 1 cannot be kept exactly in a block whose largest is 1.5.
        let [start, shrunk] = mean_squares(moment, 1.0, 0.0);
        assert!((shrunk / (start * decayed) - 1.0).abs() < 0.02, "{moment:?}: {shrunk}");
    }
}

#[test]
fn small_updates_of_16_bit_parameters_are_not_lost_on_average() {
    updates_add_up(bf16::ONE, bf16::to_f64, 2e-4);
    updates_add_up(f16::ONE, f16::to_f64, 1e-4);
}

fn updates_add_up<H: HalfElement>(one: H, number: fn(H) -> f64, error: f64) {
    let sgd = adamant::Sgd { lr: 1e-5, ..adamant::Sgd::default() };
    let (mut param, grad) = (vec![one; 16_384], vec![1.0_f32; 16_384]);
    let mut steps = 0;
    for _ in 1..=1000 {
        let tensor = Tensor::new(Param::stochastic(&mut param), &grad, &mut steps);
        let report = sgd.step_tensors(&mut [tensor], &options()).expect("a valid step");
        assert_eq!(report.outcome, Outcome::Taken);
    }
    let mean = param.iter().map(|&param| number(param)).sum::<f64>() / param.len() as f64;
    assert!((mean - 0.99).abs() < error, "{mean}");
}

#[test]
fn split_parameters_have_the_bits_of_f32_ones() {
    let adam = Adam::adamw();
    let types = |param| {
        let moments = [MomentType::F32; 4];
        Types { param, grad: GradType::Bf16, to_zero: false, moments }
    };
    let columns: Columns<f32> = columns(&adam, 3, 1000, false);
    let [mut split, mut whole] = [ParamType::Split, ParamType::F32]
        .map(|param| MixedColumns::new(&adam, &columns, types(param), 0));
    for _ in 1..100 {
        for tensor in [&mut split, &mut whole] {
            assert_eq!(tensor.step(&adam, &options()), Outcome::Taken);
        }
    }
    assert_eq!(split.values(&adam), whole.values(&adam));
}

#[test]
fn subnormal_moments_and_minus_zero_are_flushed_to_zero() {
    // With a beta of 0 the moment is the gradient; if it was before, its sign too.
    let adam = Adam { beta1: 0.0, ..Adam::default() };
    let grads = [1e-40, -1e-40, 0.0, -0.0, f32::MIN_POSITIVE, -f32::MIN_POSITIVE];
    for exec in execs(false) {
        for flush_subnormals in [false, true] {
            let (mut param, mut m, mut v) = ([1.0_f32; 6], grads, [0.0_f32; 6]);
            let mut steps = 0;
            let tensor = Tensor::new(&mut param, &grads, &mut steps)
                .with_moments([Moment::from(&mut m), Moment::from(&mut v)]);
            let options = StepOptions { exec, flush_subnormals, ..StepOptions::default() };
            let report = adam.step_tensors(&mut [tensor], &options).expect("a valid step");
            assert_eq!(report.outcome, Outcome::Taken);
            let flush =
                |grad| if flush_subnormals { reference::flush_subnormal(grad) } else { grad };
            assert_eq!(m.map(f32::to_bits), grads.map(|grad| flush(grad).to_bits()));
        }
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused_and_nothing_is_written() {
    let refused = |lens: [usize; 6], expected: &str| {
        let [param, copy, grad, m, codes, scales] = lens;
        let (mut param, mut copy) = (vec![1.0; param], vec![bf16::ONE; copy]);
        let mut grad = vec![f16::ONE; grad];
        let (mut m, mut codes) = (vec![bf16::ONE; m], vec![1; codes]);
        let mut scales = vec![1.0; scales];
        let mut steps = 4;
        let (param_and_copy, zeroed) =
            (Param::with_copy(&mut param, &mut copy), Grad::zeroed(&mut grad));
        let tensor = Tensor::new(param_and_copy, zeroed, &mut steps)
            .with_moments([Moment::from(&mut m), Moment::q8(&mut codes, &mut scales)]);
        let found = Adam::default().step_tensors(&mut [tensor], &options());
        assert_eq!(found.expect_err("misfits").to_string(), expected);
        assert_eq!(steps, 4);
        assert!(param.iter().all(|&param| param == 1.0) && m.iter().all(|&m| m == bf16::ONE));
        assert!(copy.iter().all(|&copy| copy == bf16::ONE) && codes.iter().all(|&code| code == 1));
        assert!(
            grad.iter().all(|&grad| grad == f16::ONE) && scales.iter().all(|&scale| scale == 1.0)
        );
    };
    let differs = |argument: &str, len| {
        format!("{argument} of tensor 0 has {len} elements, but must have 300")
    };
    refused([300, 299, 300, 300, 300, 2], &differs("copy of param", 299));
    refused([300, 300, 301, 300, 300, 2], &differs("grad", 301));
    refused([300, 300, 300, 0, 300, 2], &differs("exp_avg", 0));
    refused([300, 300, 300, 300, 256, 1], &differs("exp_avg_sq", 256));
    let expected = "exp_avg_sq of tensor 0 has 1 scales, but its codes need 2";
    refused([300, 300, 300, 300, 300, 1], expected);
}

#[test]
fn an_empty_moment_that_the_settings_do_not_use_may_be_of_any_type() {
    let (mut param, grad, mut square) = ([1.0_f32; 300], [1.0_f32; 300], [0.0_f32; 300]);
    for [second, third] in [
        [Moment::from(&mut [0.5_f64; 0][..]), Moment::none()],
        [Moment::from(&mut [bf16::ONE; 0][..]), Moment::q8(&mut [], &mut [])],
    ] {
        let mut steps = 0;
        let moments = [Moment::from(&mut square), second, third];
        let tensor = Tensor::new(&mut param, &grad, &mut steps).with_moments(moments);
        let report = RmsProp::default().step_tensors(&mut [tensor], &options());
        assert_eq!(report.expect("a valid step").outcome, Outcome::Taken);
    }
}

/// A regression with noisy gradients, 4,000 steps of AdamW with a learning rate that falls: the mean
/// loss over the last 1,000.
fn noisy_run(param: ParamType, grad: GradType, moment: MomentType) -> f64 {
    const LEN: usize = 1024;
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let target: Vec<f32> = (0..LEN).map(|_| rng.random_range(-1.0..1.0)).collect();
    let zeros = Columns::new(&Adam::default(), LEN, |_, _| 0.0);
    let types = Types { param, grad, to_zero: false, moments: [moment; 4] };
    let mut tensor = MixedColumns::new(&Adam::default(), &zeros, types, 0);
    let mut losses = 0.0;
    for t in 1..=4000 {
        let (found, _) = tensor.values(&Adam::default());
        let errors = found.iter().zip(&target).map(|(found, target)| found - target);
        // The noise of elements differs by a factor of up to 100.
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
        assert_eq!(tensor.step(&adam, &options()), Outcome::Taken);
    }
    losses / 1000.0
}

#[test]
fn a_noisy_run_in_half_and_quarter_precision_follows_one_in_f32() {
    let single = noisy_run(ParamType::F32, GradType::F32, MomentType::F32);
    assert!(single < 0.01, "{single}");
    // By how much the loss is larger with this seed; `docs/speed.md` has the mean of eight. The run has the same
    // bits everywhere but for `powf`, which may round otherwise on another system: hence the second number.
    for (param, grad, moment, more, apart) in [
        // Parameters with 8 bits of precision are never closer to the target than that.
        (ParamType::Bf16Stochastic, GradType::Bf16, MomentType::Bf16, 0.344, 0.01),
        (ParamType::F16Stochastic, GradType::F16, MomentType::F16, 0.002, 0.003),
        (ParamType::Split, GradType::Bf16, MomentType::Bf16, -0.001, 0.001),
        (ParamType::F32, GradType::F32, MomentType::Bf16, -0.001, 0.001),
        (ParamType::F32, GradType::F32, MomentType::Q8, 0.024, 0.002),
    ] {
        let found = noisy_run(param, grad, moment);
        println!("{param:?} {moment:?}: {found:.3e}, in f32 {single:.3e}");
        let found_more = found / single - 1.0;
        assert!(
            (found_more - more).abs() < apart,
            "{param:?} {moment:?}: {found_more}, not {more}"
        );
    }
}

/// Adam's loops for parameters with a copy zero the gradients themselves.
#[test]
fn gradients_of_parameters_with_a_copy_are_zeroed() {
    fn check<G: adamant::Element + Copy + PartialEq + std::fmt::Debug>(one: G, zero: G) {
        for adam in [Adam::default(), Adam::adamw()] {
            for len in [64, 300, 2600] {
                let (mut param, mut copy) = (vec![1.0; len], vec![bf16::ONE; len]);
                let mut grad = vec![one; len];
                let (mut m, mut v) = (vec![0.0_f32; len], vec![0.0_f32; len]);
                let mut steps = 0;
                let param_and_copy = Param::with_copy(&mut param, &mut copy);
                let tensor = Tensor::new(param_and_copy, Grad::zeroed(&mut grad), &mut steps)
                    .with_moments([Moment::from(&mut m), Moment::from(&mut v)]);
                let report = adam.step_tensors(&mut [tensor], &options());
                assert_eq!(report.expect("a valid step").outcome, Outcome::Taken);
                assert_eq!(grad, vec![zero; len]);
                assert!(m.iter().all(|&m| m > 0.0), "the step was taken");
            }
        }
    }
    check(1.0_f32, 0.0);
    check(bf16::ONE, bf16::ZERO);
}
