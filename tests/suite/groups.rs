//! One call with any groups has the results of a call for each tensor: the bits of the reference, whatever
//! the rules, types and step counts, and however the work is cut.

use std::rc::Rc;

use crate::{
    own::Own,
    support::{
        AnyRule, exec, execs,
        mixed::{GradType, MomentType, ParamType, Types},
        model::{AnyTensor, Model},
        serial,
    },
};
use adamant::{
    AdEmaMix, AdaGrad, AdaMax, Adadelta, Adam, Adopt, AmsGrad, Error, Exec, Grad, Group, Lion,
    NAdam, Optimizer, Outcome, RAdam, Report, RmsProp, Sgd, State, StepOptions, Storage,
};
use half::bf16;
use proptest::prelude::{ProptestConfig, any, prop, proptest};

/// Rules of all numbers of moments and constants, some of them twice in other settings.
fn rules() -> Vec<Rc<dyn AnyRule>> {
    let sgd = Sgd { lr: 0.1, ..Sgd::default() };
    vec![
        Rc::new(Adam::adamw()),
        Rc::new(Own { lr: 0.5 }),
        Rc::new(sgd),
        Rc::new(Adam { lr: 0.1, weight_decay: 0.1, ..Adam::default() }),
        Rc::new(Sgd { momentum: 0.9, nesterov: true, ..sgd }),
        Rc::new(AmsGrad(Adam::default())),
        Rc::new(RmsProp::default()),
        Rc::new(Own { lr: 0.25 }),
        Rc::new(RmsProp { momentum: 0.9, centered: true, ..RmsProp::default() }),
        Rc::new(Lion::default()),
        Rc::new(AdEmaMix { alpha_warmup: 5, beta3_warmup: 100, ..AdEmaMix::default() }),
        Rc::new(AdaGrad { initial_accumulator_value: 0.5, lr_decay: 0.1, ..AdaGrad::default() }),
        Rc::new(NAdam::default()),
        Rc::new(RAdam::default()),
        Rc::new(Adopt::default()),
        Rc::new(Adadelta::default()),
        Rc::new(AdaMax::default()),
    ]
}

/// The types of a tensor that a number chooses; `None` for `f64`. Any number is allowed.
fn types(number: usize) -> Option<Types> {
    let all_single = Types {
        param: ParamType::F32,
        grad: GradType::F32,
        to_zero: false,
        moments: [MomentType::F32; 4],
    };
    match number % 4 {
        0 => None,
        1 => Some(all_single),
        _ => Some(Types {
            param: ParamType::ALL[number / 4 % ParamType::ALL.len()],
            grad: GradType::ALL[number / 3 % GradType::ALL.len()],
            to_zero: number.is_multiple_of(3),
            moments: [0, 1, 2, 3]
                .map(|moment| MomentType::ALL[(number / 5 + moment) % MomentType::ALL.len()]),
        }),
    }
}

/// Step counts of tensors: equal ones side by side, and others.
const STEPS: [u64; 6] = [0, 0, 1, 7, 7, 100_000];

/// A group of tensors of some lengths. A number chooses everything else.
fn group(number: usize, lens: &[usize]) -> (Rc<dyn AnyRule>, Vec<AnyTensor>) {
    let rules = rules();
    let rule = Rc::clone(&rules[number % rules.len()]);
    let tensors = lens.iter().zip(13 * number..).map(|(&len, seed)| {
        // Runs of tensors of the same types, and of others.
        let types = types(seed / 2);
        rule.tensor(seed as u64 + 1, len, STEPS[seed / 3 % STEPS.len()], types)
    });
    let tensors = tensors.collect();
    (rule, tensors)
}

/// Every group with some lengths, begun anywhere in the list.
fn model(first: usize, lens: &[&[usize]]) -> Model {
    Model(lens.iter().zip(first..).map(|(lens, number)| group(number, lens)).collect())
}

/// The choices of a call.
fn choices(exec: Exec<'static>) -> [StepOptions<'static>; 6] {
    let plain = StepOptions { exec, ..StepOptions::default() };
    [
        plain,
        StepOptions { grad_factor: 0.37, flush_subnormals: true, seed: 9, ..plain },
        StepOptions { max_norm: Some(0.5), ..plain },
        StepOptions { skip_nonfinite: true, grad_factor: 2.0, ..plain },
        StepOptions { max_norm: Some(0.5), grad_norm: Some(3.0), flush_subnormals: true, ..plain },
        StepOptions { max_norm: Some(1e3), keep_grads: true, ..plain },
    ]
}

/// Around the blocks of 256 at which tensors are cut, with empty tensors and groups anywhere.
const LENS: [&[usize]; 9] = [
    &[],
    &[0, 0],
    &[1, 255, 0, 256, 257],
    &[],
    &[511, 512, 513],
    &[0, 3, 0],
    &[1000],
    &[5, 6, 7, 8, 300, 9],
    &[0],
];

#[test]
fn groups_of_any_rules_types_and_step_counts_have_the_bits_of_the_reference_for_each_tensor() {
    let mut outcomes = vec![];
    for exec in execs(false) {
        for first in 0..rules().len() {
            for options in choices(exec) {
                outcomes.extend(model(first, &LENS).check(2, &options));
            }
        }
    }
    for outcome in [None, Some(Outcome::Taken), Some(Outcome::LeftOut)] {
        assert!(outcomes.contains(&outcome), "no step was so: {outcome:?}");
    }
}

#[cfg(feature = "rayon")]
#[test]
fn every_thread_count_gives_the_reference_bits() {
    // Enough to be shared, in large tensors and in many.
    let long: [&[usize]; 5] =
        [&[40_001, 3, 0, 257], &[], &[30_000, 255], &[10_000; 7], &[1, 50_001]];
    for threads in [1, 2, 3, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        for exec in execs(true) {
            for (first, options) in choices(exec).into_iter().enumerate() {
                let model = || model(threads + 3 * first, &long);
                pool.install(|| model().check(1, &options));
                model().check(1, &options);
            }
        }
    }
}

#[test]
fn hundreds_of_small_tensors_have_the_bits_of_the_reference() {
    let lens: Vec<usize> = (0..700).map(|number| number * 37 % 150).collect();
    let halves = lens.split_at(300);
    for exec in execs(true) {
        model(0, &[&lens]).check(2, &StepOptions { exec, ..StepOptions::default() });
        for options in choices(exec) {
            model(3, &[halves.0, &[], halves.1]).check(2, &options);
        }
    }
    // Each its own group.
    let groups: Vec<_> = (0..300).map(|number| vec![number % 7]).collect();
    let groups: Vec<_> = groups.iter().map(Vec::as_slice).collect();
    model(0, &groups).check(
        2,
        &StepOptions { exec: exec(adamant::Isa::detect(), true), ..StepOptions::default() },
    );
}

proptest! {
    // A case that fails is printed, and becomes a test with a name.
    #![proptest_config(ProptestConfig {
        cases: 60, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// The work is cut at fixed parts of the sum of lengths, and so, with any lengths, anywhere.
    #[test]
    fn any_lengths_and_so_any_cuts_give_the_reference_bits(
        first in 0..100usize,
        lens in prop::collection::vec(prop::collection::vec(any::<u16>(), 0..6), 0..6),
        large: bool,
        choice in 0..6usize,
        isa in prop::sample::select(adamant::Isa::available()),
    ) {
        let most = if large { 20_000 } else { 600 };
        let lens: Vec<Vec<usize>> =
            lens.iter().map(|lens| lens.iter().map(|&len| usize::from(len) % most).collect()).collect();
        let lens: Vec<_> = lens.iter().map(Vec::as_slice).collect();
        model(first, &lens).check(1, &choices(exec(isa, true))[choice]);
    }
}

#[test]
fn a_call_without_tensors_is_valid() {
    for options in choices(serial()) {
        let report = |groups: &mut [Group<'_, '_>]| {
            let report = adamant::step(groups, &options).expect("a valid call");
            (report.outcome, report.grad_norm)
        };
        let norm = options.grad_norm.or(options.max_norm.map(|_| 0.0));
        let norm = norm.or(options.skip_nonfinite.then_some(0.0));
        assert_eq!(report(&mut []), (Outcome::Taken, norm));
        let (adam, lion) = (Adam::default(), Lion::default());
        let groups = &mut [Group::new(&adam, &mut []), Group::new(&lion, &mut [])];
        assert_eq!(report(groups), (Outcome::Taken, norm));
    }
}

/// Two groups in two types, of two tensors each, that have taken 0, 5, 7 and 9 steps.
#[derive(Clone)]
struct Four {
    params: [Vec<f32>; 2],
    doubles: [Vec<f64>; 2],
    grads: [Vec<f32>; 2],
    double_grads: [Vec<f64>; 2],
    states: [State; 4],
}

impl Four {
    fn new() -> Self {
        let (adam, lion) = (Adam::default(), Lion::default());
        let mut states = [
            adam.state(300),
            adam.state_in(Storage::Q8, 10),
            lion.state_in(Storage::F64, 4),
            lion.state_in(Storage::F64, 257),
        ];
        for (state, steps) in states.iter_mut().zip([0, 5, 7, 9]) {
            state.set_steps(steps);
        }
        Self {
            params: [vec![1.0; 300], vec![1.0; 10]],
            doubles: [vec![1.0; 4], vec![1.0; 257]],
            grads: [vec![0.5; 300], vec![0.5; 10]],
            double_grads: [vec![0.5; 4], vec![0.5; 257]],
            states,
        }
    }

    fn step_with(&mut self, adam: Adam, options: &StepOptions<'_>) -> Result<Report, Error> {
        let [first, second, third, fourth] = &mut self.states;
        let ([p0, p1], [p2, p3]) = (&mut self.params, &mut self.doubles);
        let ([g0, g1], [g2, g3]) = (&mut self.grads, &mut self.double_grads);
        let singles = &mut [first.tensor(p0, &*g0), second.tensor(p1, Grad::zeroed(g1))];
        let doubles = &mut [third.tensor(p2, &*g2), fourth.tensor(p3, Grad::zeroed(g3))];
        let lion = Lion::default();
        adamant::step(&mut [Group::new(&adam, singles), Group::new(&lion, doubles)], options)
    }

    fn step(&mut self, options: &StepOptions<'_>) -> Result<Report, Error> {
        self.step_with(Adam::default(), options)
    }

    fn counts(&self) -> [u64; 4] {
        self.states.each_ref().map(State::steps)
    }

    /// Fails unless a step is refused for a reason, and nothing is written or counted.
    #[track_caller]
    fn refuses(&mut self, adam: Adam, options: &StepOptions<'_>, expected: &Error) {
        let before = self.clone();
        let error = self.step_with(adam, options).expect_err("a wrong call");
        assert_eq!(error.to_string(), expected.to_string());
        assert_eq!(self.counts(), before.counts());
        assert_eq!((&self.params, &self.doubles), (&before.params, &before.doubles));
        let grads = (&self.grads, &self.double_grads);
        // NaN is not equal to itself.
        assert_eq!(format!("{grads:?}"), format!("{:?}", (&before.grads, &before.double_grads)));
        for (state, before) in self.states.iter().zip(&before.states) {
            assert!(state.moments().eq(before.moments()));
        }
    }
}

fn options() -> StepOptions<'static> {
    StepOptions { exec: serial(), ..StepOptions::default() }
}

#[test]
fn each_tensor_counts_its_own_steps() {
    let mut four = Four::new();
    for step in 1..4 {
        assert_eq!(four.step(&options()).expect("a valid step").outcome, Outcome::Taken);
        assert_eq!(four.counts(), [0, 5, 7, 9].map(|steps| steps + step));
    }
    // A step with others is a step, and one without is none.
    let (mut param, grad) = (vec![1.0_f32; 300], vec![0.5_f32; 300]);
    let adam = Adam::default();
    adam.step(&mut param, &grad, &mut four.states[0]).expect("a valid step");
    assert_eq!(four.counts(), [4, 8, 10, 12]);
    four.states[2].set_steps(u64::MAX - 1);
    assert_eq!(four.step(&options()).expect("a valid step").outcome, Outcome::Taken);
    assert_eq!(four.counts(), [5, 9, u64::MAX, 13]);
}

#[test]
fn a_step_that_is_left_out_is_counted_by_no_tensor() {
    for place in 0..4 {
        let mut four = Four::new();
        match place {
            0 | 1 => four.grads[place][3] = f32::NAN,
            _ => four.double_grads[place - 2][3] = f64::NEG_INFINITY,
        }
        let before = four.clone();
        let options = StepOptions { skip_nonfinite: true, ..options() };
        let report = four.step(&options).expect("a valid call");
        assert_eq!((report.outcome, four.counts()), (Outcome::LeftOut, [0, 5, 7, 9]));
        assert_eq!((&four.params, &four.doubles), (&before.params, &before.doubles));
        for (state, before) in four.states.iter().zip(&before.states) {
            assert!(state.moments().eq(before.moments()));
        }
        // Only gradients that are to be zeroed are zero.
        assert_eq!((&four.grads[1], &four.double_grads[1]), (&vec![0.0; 10], &vec![0.0; 257]));
        let kept = (&four.grads[0], &four.double_grads[0]);
        let expected = (&before.grads[0], &before.double_grads[0]);
        assert_eq!(format!("{kept:?}"), format!("{expected:?}"));
        // So the next step is taken, unless gradients that are not zeroed are not finite.
        let next = four.step(&options).expect("a valid call").outcome;
        assert_eq!(next, [Outcome::LeftOut, Outcome::Taken][place % 2]);
    }
}

#[test]
fn a_tensor_at_the_largest_step_count_has_its_call_refused() {
    for place in 0..4 {
        let mut four = Four::new();
        four.states[place].set_steps(u64::MAX);
        four.refuses(Adam::default(), &options(), &Error::StepOverflow);
        let leaves_out = StepOptions { grad_norm: Some(f64::NAN), ..options() };
        four.refuses(Adam::default(), &leaves_out, &Error::StepOverflow);
    }
}

#[test]
fn errors_count_tensors_through_all_groups_and_leave_all_of_them_as_they_were() {
    let adam = Adam::default();
    let (argument, expected) = ("grad", 257);
    let mut four = Four::new();
    four.double_grads[1].pop();
    let error = Error::LengthMismatch { tensor: 3, argument, len: 256, expected };
    four.refuses(adam, &options(), &error);

    let mut four = Four::new();
    four.states[2] = Lion::default().state(4);
    let (argument, found, expected) = ("exp_avg", Storage::F32, Storage::F64);
    let error = Error::TypeMismatch { tensor: 2, argument, found, expected };
    four.refuses(adam, &options(), &error);

    let mut four = Four::new();
    four.states[1] = Lion::default().state(10);
    let error = Error::StateMismatch { tensor: 1, found: "", expected: "exp_avg_sq" };
    four.refuses(adam, &options(), &error);

    let mut four = Four::new();
    let (name, value, allowed) = ("beta1", 1.0, "at least 0 and less than 1");
    let error = Error::HyperParameter { name, value, allowed };
    four.refuses(Adam { beta1: 1.0, ..adam }, &options(), &error);

    // f32 cannot hold it; a tensor in f64 could.
    let allowed = "a normal number over 0 in the type of the step, with clipping, too";
    let error = Error::Option { name: "grad_factor", value: 1e-40, allowed };
    four.refuses(adam, &StepOptions { grad_factor: 1e-40, ..options() }, &error);
}

/// The settings of a group hold for its tensors alone, and its constants for its steps.
#[test]
fn groups_of_one_optimizer_each_have_their_own_settings() {
    let decay = Adam { lr: 0.1, ..Adam::adamw() };
    let no_decay = Adam { weight_decay: 0.0, lr: 0.01, ..decay };
    let grads = vec![bf16::ONE; 100];
    let mut params = [(); 4].map(|()| vec![bf16::from_f32(3.0); 100]);
    let mut states = [(); 4].map(|()| decay.state(100));
    for _ in 0..3 {
        let ([p0, p1, p2, p3], [s0, s1, s2, s3]) = (params.each_mut(), states.each_mut());
        let (decayed, others) = (&mut [s0.tensor(p0, &grads)], &mut [s1.tensor(p1, &grads)]);
        let groups = &mut [Group::new(&decay, decayed), Group::new(&no_decay, others)];
        assert_eq!(adamant::step(groups, &options()).expect("valid").outcome, Outcome::Taken);
        decay.step(p2, &grads, s2).expect("a valid step");
        no_decay.step(p3, &grads, s3).expect("a valid step");
    }
    assert_eq!((&params[0], &params[1]), (&params[2], &params[3]));
    assert_ne!(params[0], params[1]);
}
