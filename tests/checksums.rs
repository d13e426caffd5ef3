//! The bits of every optimizer in every type that is rounded to nearest, as checksums of what version 0.1
//! computed: a change of structure must not change a result. And checksums of random rounding, which must have the
//! same bits everywhere.

use adamant::{norm::grad_norm, rule::*, table::*, *};
use half::{bf16, f16};

const LEN: usize = 1007;
const STEPS: u64 = 4;
const WIDTH: usize = 19;
const ROWS: usize = LEN / WIDTH;

/// The finaliser of SplitMix64.
fn mix(x: u64) -> u64 {
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// A number of any of eight magnitudes, the same on every machine.
fn number(column: u64, index: usize) -> f64 {
    let bits = mix(column << 32 | index as u64);
    let unit = (bits >> 11) as f64 / (1_u64 << 53) as f64 * 2.0 - 1.0;
    unit * f64::powi(2.0, (bits & 7) as i32 - 4)
}

/// In two steps, since `f16::from_f64` rounds once on some CPUs and twice on others.
fn to_f16(number: f64) -> f16 {
    f16::from_f32(number as f32)
}

fn numbers<T>(column: u64, round: fn(f64) -> T) -> Vec<T> {
    (0..LEN).map(|index| round(number(column, index))).collect()
}

#[derive(Default)]
struct Checksum(u64);

impl Checksum {
    fn add(&mut self, bits: impl IntoIterator<Item = u64>) {
        for bits in bits {
            self.0 = mix(self.0 ^ bits).wrapping_add(0x9e37_79b9_7f4a_7c15);
        }
    }

    fn with_moments(mut self, state: &State) -> u64 {
        for (_, moment) in state.moments() {
            match moment {
                MomentRef::F32(moment) => self.add(moment.iter().map(|m| m.to_bits().into())),
                MomentRef::F64(moment) => self.add(moment.iter().map(|m| m.to_bits())),
                MomentRef::Bf16(moment) => self.add(moment.iter().map(|m| m.to_bits().into())),
                MomentRef::F16(moment) => self.add(moment.iter().map(|m| m.to_bits().into())),
                MomentRef::Q8(codes, scales) => {
                    self.add(codes.iter().map(|&code| code.into()));
                    self.add(scales.iter().map(|scale| scale.to_bits().into()));
                }
                other => panic!("no checksum of {other:?}"),
            }
        }
        self.0
    }
}

fn options(grad_factor: f64) -> StepOptions<'static> {
    StepOptions { grad_factor, ..StepOptions::default() }
}

/// Without options, for which small tensors have a short way, and with options in turn.
fn step<E: Element>(
    rule: &dyn DynOptimizer,
    t: u64,
    param: &mut [E],
    grad: &[E],
    state: &mut State,
) {
    if t.is_multiple_of(2) {
        let taken = rule.step_with(E::param(param), E::grad(grad), state, &options(1.0));
        assert_eq!(taken.expect("a step").outcome, Outcome::Taken);
    } else {
        rule.step(param, grad, state).expect("a step");
    }
}

fn in_f32(rule: &dyn DynOptimizer) -> u64 {
    let mut param = numbers(0, |number| number as f32);
    let mut state = rule.state(LEN);
    for t in 1..=STEPS {
        step(rule, t, &mut param, &numbers(t, |number| number as f32), &mut state);
    }
    let mut sum = Checksum::default();
    sum.add(param.iter().map(|param| param.to_bits().into()));
    sum.with_moments(&state)
}

fn in_f64(rule: &dyn DynOptimizer) -> u64 {
    let mut param = numbers(0, |number| number);
    let mut state = rule.state_in(Storage::F64, LEN);
    for t in 1..=STEPS {
        step(rule, t, &mut param, &numbers(t, |number| number), &mut state);
    }
    let mut sum = Checksum::default();
    sum.add(param.iter().map(|param| param.to_bits()));
    sum.with_moments(&state)
}

fn in_bf16(rule: &dyn DynOptimizer) -> u64 {
    let mut param = numbers(0, bf16::from_f64);
    let mut state = rule.state(LEN);
    for t in 1..=STEPS {
        let (param, grad) = (Param::from(&mut param), numbers(t, bf16::from_f64));
        let step = rule.step_with(param, Grad::from(&grad), &mut state, &options(0.3));
        assert_eq!(step.expect("a step").outcome, Outcome::Taken);
    }
    let mut sum = Checksum::default();
    sum.add(param.iter().map(|param| param.to_bits().into()));
    sum.with_moments(&state)
}

fn in_f16(rule: &dyn DynOptimizer) -> u64 {
    let mut param = numbers(0, to_f16);
    let mut state = rule.state(LEN);
    for t in 1..=STEPS {
        rule.step(&mut param, &numbers(t, to_f16), &mut state).expect("a step");
    }
    let mut sum = Checksum::default();
    sum.add(param.iter().map(|param| param.to_bits().into()));
    sum.with_moments(&state)
}

fn in_halves(rule: &dyn DynOptimizer) -> u64 {
    let (mut high, mut low) = (vec![bf16::ZERO; LEN], vec![0; LEN]);
    Param::split(&numbers(0, |number| number as f32), &mut high, &mut low).expect("equal lengths");
    let mut state = rule.state(LEN);
    for t in 1..=STEPS {
        let (param, grad) = (Param::from_halves(&mut high, &mut low), numbers(t, bf16::from_f64));
        let step = rule.step_with(param, Grad::from(&grad), &mut state, &options(1.0));
        assert_eq!(step.expect("a step").outcome, Outcome::Taken);
    }
    let mut sum = Checksum::default();
    sum.add(high.iter().map(|high| high.to_bits().into()));
    sum.add(low.iter().map(|&low| low.into()));
    sum.with_moments(&state)
}

fn with_copy(rule: &dyn DynOptimizer) -> u64 {
    let (mut param, mut copy) = (numbers(0, |number| number as f32), vec![bf16::ZERO; LEN]);
    let mut state = rule.state(LEN);
    for t in 1..=STEPS {
        let grad = numbers(t, |number| number as f32);
        let param = Param::with_copy(&mut param, &mut copy);
        let step = rule.step_with(param, Grad::from(&grad), &mut state, &options(0.3));
        assert_eq!(step.expect("a step").outcome, Outcome::Taken);
    }
    let mut sum = Checksum::default();
    sum.add(param.iter().map(|param| param.to_bits().into()));
    sum.add(copy.iter().map(|copy| copy.to_bits().into()));
    sum.with_moments(&state)
}

/// Some rows of a table, and their gradients.
fn listed(t: u64, count: usize) -> (Vec<u32>, Vec<f32>) {
    let row = |index| (mix(t << 32 | index) % ROWS as u64) as u32;
    let rows = (0..count as u64).map(row).collect();
    (rows, (0..count * WIDTH).map(|index| number(t, index) as f32).collect())
}

fn on_rows<R: RowRule>(rule: &R) -> u64 {
    let mut param = numbers(0, |number| number as f32);
    let mut state = rule.row_state(ROWS, WIDTH);
    for t in 1..=STEPS {
        let (rows, grads) = listed(t, 40);
        let grads = RowGrads::new(&rows, &grads, WIDTH);
        rule.step_rows_lazy(&mut param, grads, &mut state).expect("a step");
    }
    let mut sum = Checksum::default();
    sum.add(param.iter().map(|param| param.to_bits().into()));
    sum.with_moments(&state)
}

fn dense_equivalent(way: CatchUp) -> u64 {
    let adam = Adam { weight_decay: 0.1, ..Adam::adamw() };
    let mut param = numbers(0, |number| number as f32);
    let mut state = adam.row_state(ROWS, WIDTH);
    let mut waiting = DenseEquivalent::<f32>::new(ROWS, way);
    for t in 1..=60 {
        let (rows, grads) = listed(t, 4);
        let grads = RowGrads::new(&rows, &grads, WIDTH);
        adam.step_rows_dense_equivalent(&mut param, grads, &mut state, &mut waiting)
            .expect("a step");
    }
    let table = state.table(&mut param, WIDTH);
    waiting.catch_up_all(table).expect("the same table");
    let mut sum = Checksum::default();
    sum.add(param.iter().map(|param| param.to_bits().into()));
    sum.with_moments(&state)
}

#[track_caller]
fn check<R: Rule>(rule: R, expected: [u64; 7]) {
    let dense = [in_f32, in_f64, in_bf16, in_f16, in_halves, with_copy].map(|run| run(&rule));
    let found: Vec<u64> = dense.into_iter().chain([on_rows(&rule)]).collect();
    assert_eq!(found, expected, "f32, f64, bf16, f16, halves, copy, rows");
}

#[test]
fn sgd_has_the_bits_of_version_0_1() {
    check(
        Sgd { lr: 0.01, momentum: 0.9, nesterov: true, weight_decay: 0.1, ..Sgd::default() },
        [
            0x2765_83a8_a691_c2f0,
            0x8d54_16ca_3e59_03bf,
            0xffcd_1d21_f3aa_5b36,
            0x7286_f7c0_969f_d909,
            0x9eb1_d2c9_19d2_1261,
            0x9476_5232_6695_d805,
            0xe0ab_db38_8d58_a0a6,
        ],
    );
}

#[test]
fn adagrad_has_the_bits_of_version_0_1() {
    check(
        AdaGrad { weight_decay: 0.1, lr_decay: 0.1, ..AdaGrad::default() },
        [
            0xdfd5_d9ef_0bba_6079,
            0xabbb_2058_6531_e530,
            0x83b8_e2a5_1a70_1209,
            0xa327_fea1_8228_c39f,
            0xaa0c_d6b0_5858_7b8c,
            0xcba9_5038_1b1b_bcd6,
            0xe695_5389_3511_d56c,
        ],
    );
}

#[test]
fn adadelta_has_the_bits_of_version_0_1() {
    check(
        Adadelta { maximize: true, weight_decay: 0.1, ..Adadelta::default() },
        [
            0xa4b6_31d9_5ea1_9097,
            0x2196_75c2_9ea2_17f1,
            0xaefd_3a27_094c_4682,
            0x2d98_260f_ce76_ad9f,
            0x39a9_5cc3_3beb_0628,
            0x3118_75d2_1794_edfd,
            0xac91_6b6b_07a2_3b07,
        ],
    );
}

#[test]
fn rmsprop_has_the_bits_of_version_0_1() {
    check(
        RmsProp { centered: true, momentum: 0.9, weight_decay: 0.1, ..RmsProp::default() },
        [
            0x2cd5_3faf_43e8_2490,
            0x82fc_5fb3_daee_f9ee,
            0xe627_96f1_fbc8_aa07,
            0x56a2_e8b0_8572_c684,
            0x1b5c_14d8_c92e_40a1,
            0x6a31_05b6_4dd6_e5a5,
            0xf486_cb7f_9e66_403d,
        ],
    );
}

#[test]
fn adam_has_the_bits_of_version_0_1() {
    check(
        Adam { weight_decay: 0.1, ..Adam::default() },
        [
            0x031f_d8a2_c14c_24a0,
            0xf6f7_1d3b_a488_aa9f,
            0x0569_d0e0_2869_5916,
            0xdb44_fc00_65e8_fa40,
            0xdef7_c597_4e3b_45a5,
            0xa5f2_5caa_36c6_306d,
            0xa072_91c0_fc6d_3766,
        ],
    );
}

#[test]
fn adamw_has_the_bits_of_version_0_1() {
    check(
        Adam { cautious: true, epsilon: Epsilon::Hat, ..Adam::adamw() },
        [
            0x3192_3584_50c3_0a95,
            0xf0f7_3eb5_4442_a72c,
            0x50da_d624_5988_1da9,
            0x91f4_9440_b2cd_6004,
            0x9f42_08a8_f91e_1323,
            0x570f_d4f2_2ad0_acd8,
            0x403b_9154_0f1c_c062,
        ],
    );
}

#[test]
fn amsgrad_has_the_bits_of_version_0_1() {
    check(
        AmsGrad(Adam { maximize: true, ..Adam::adamw() }),
        [
            0x5fc7_649c_5b2d_7431,
            0xac93_2b28_9986_a84e,
            0xfc89_2aaa_1fdf_8629,
            0xb74f_f045_0158_17bc,
            0xdd56_4923_9309_0c91,
            0x3e75_0015_bb16_2363,
            0xd5d3_9e28_bae8_826a,
        ],
    );
}

#[test]
fn adamax_has_the_bits_of_version_0_1() {
    check(
        AdaMax { weight_decay: 0.1, ..AdaMax::default() },
        [
            0x23b8_812c_acf8_04b8,
            0xf82c_3755_4491_4066,
            0x7ba3_ba25_7572_9e89,
            0xbd3b_3123_bd92_07cb,
            0x3fe5_1e9a_8987_0506,
            0xfb30_4b08_766d_d363,
            0x5740_79e2_1817_ad54,
        ],
    );
}

#[test]
fn nadam_has_the_bits_of_version_0_1() {
    check(
        NAdam { weight_decay: 0.1, decoupled_weight_decay: true, ..NAdam::default() },
        [
            0x61db_f98e_9439_a7c9,
            0x5dbc_29bb_d4e1_fb56,
            0xf16a_8e7a_ae70_a4d0,
            0x0fc3_ad38_6a6f_f521,
            0xb08c_9900_b02f_f94f,
            0xe870_c3d2_241b_e21a,
            0xa997_52f9_856f_857d,
        ],
    );
}

#[test]
fn radam_has_the_bits_of_version_0_1() {
    check(
        RAdam { weight_decay: 0.1, ..RAdam::default() },
        [
            0x8cc6_58fa_1e47_463b,
            0x7bb1_6538_d805_51b1,
            0x0987_7be9_d29f_9078,
            0xde27_fb8b_3f4c_8b55,
            0x0f7a_d08e_630d_cf1c,
            0x66cf_553a_af6e_4eff,
            0x1395_461d_2e41_97fc,
        ],
    );
}

#[test]
fn lion_has_the_bits_of_version_0_1() {
    check(
        Lion { weight_decay: 0.1, ..Lion::default() },
        [
            0xd724_05c4_61b8_8228,
            0x8411_444a_5578_8e3c,
            0x3184_ba20_641a_b2d1,
            0x8540_ef5c_5e2e_bcdc,
            0x2cf7_8b99_8a48_fe69,
            0x88bb_8c04_7e96_87ef,
            0x4d38_4e9d_b0e7_d836,
        ],
    );
}

#[test]
fn adopt_has_the_bits_of_version_0_1() {
    check(
        Adopt { weight_decay: 0.1, decoupled_weight_decay: true, ..Adopt::default() },
        [
            0x17ae_19c3_db01_149a,
            0xb8c2_bd99_d1b3_fec3,
            0x8c7e_4352_5755_755e,
            0xafe2_c9c6_aff8_441c,
            0xa752_c58c_34db_1791,
            0x96be_a226_b2cb_9f5b,
            0x2b33_4dcc_cd42_aca9,
        ],
    );
}

#[test]
fn ademamix_has_the_bits_of_version_0_1() {
    check(
        AdEmaMix { weight_decay: 0.1, alpha_warmup: 5, beta3_warmup: 7, ..AdEmaMix::default() },
        [
            0x1b37_56a5_74d0_001a,
            0xb2ae_9e75_3a4e_0c57,
            0x3821_34a3_545e_70f6,
            0x2488_d5c1_6ecd_c52c,
            0xab1d_a63c_43b9_d714,
            0x9085_63d6_dd45_b7da,
            0x0060_e3c9_75af_ca50,
        ],
    );
}

#[test]
fn tables_have_the_bits_of_version_0_1() {
    assert_eq!(dense_equivalent(CatchUp::Series), 0xa13e_6c22_1387_86d5);
    assert_eq!(dense_equivalent(CatchUp::Replay), 0xd7d8_f2cc_0bbd_6f7b);
    assert_eq!(on_rows(&RowWiseAdam(Adam::adamw())), 0x160c_a87f_3532_f44c);
}

#[test]
fn norms_have_the_bits_of_version_0_1() {
    let grads: Vec<f32> = (0..50_000).map(|index| number(9, index) as f32).collect();
    let norm = grad_norm(&[&grads[..40_000], &grads[40_000..]]).expect("a norm");
    assert_eq!(norm.to_bits(), 0x407a_3421_b50e_e682);
}

/// Parameters in bf16, rounded at random like the moments.
fn at_random(rule: &dyn DynOptimizer, storage: Storage, first: u64) -> u64 {
    let mut param = numbers(0, bf16::from_f64);
    let mut state = rule.state_in(storage, LEN);
    state.set_first(first);
    for t in 1..=STEPS {
        let (param, grad) = (Param::stochastic(&mut param), numbers(t, bf16::from_f64));
        let step = rule.step_with(param, Grad::from(&grad), &mut state, &options(0.3));
        assert_eq!(step.expect("a step").outcome, Outcome::Taken);
    }
    let mut sum = Checksum::default();
    sum.add(param.iter().map(|param| param.to_bits().into()));
    sum.with_moments(&state)
}

#[test]
fn random_rounding_has_the_same_bits_everywhere() {
    let rules: [&dyn DynOptimizer; 2] = [&Adam::adamw(), &Adan::default()];
    let found = rules.map(|rule| {
        // The number of the first element is even, odd, and such that numbers pass 2^33.
        [0, 7, (1 << 33) - 500].map(|first| {
            [Storage::Bf16, Storage::F16, Storage::Q8]
                .map(|moments| at_random(rule, moments, first))
        })
    });
    let expected = [
        [
            [0xc6dc_9724_25b8_f7de, 0x4a65_ee63_9b2f_b959, 0xb16b_7267_ddea_1b2c],
            [0x7368_b5e3_e381_19a8, 0xa5cc_08ac_d18f_4e9d, 0xc16e_05ab_291a_ba38],
            [0xc2eb_d8af_3804_e734, 0x9177_d5bd_fe82_c0e4, 0x6725_33f9_d849_a5f9],
        ],
        [
            [0x8922_9830_5919_26a1, 0x2cf4_be5e_01fa_1677, 0x0a4d_3df8_3402_1f9a],
            [0x98f0_b957_7355_000f, 0x9c5e_d337_d7ae_f6fb, 0x001b_b0d1_6cc0_261b],
            [0xf224_8540_2a76_5ba1, 0x5271_a2f2_3958_2ef5, 0xba12_bbaf_2f45_c57a],
        ],
    ];
    assert_eq!(found, expected, "bf16, f16, 8 bits");
}
