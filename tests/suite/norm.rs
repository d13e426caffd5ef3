//! The norm of gradients: right, and the same bits everywhere.

#[cfg(target_arch = "x86_64")]
use crate::modes::{ODD_MODES, in_modes};
use crate::support::{exec, execs};
use adamant::{
    Element, Error, Exec, Grad, Group, Isa, Outcome, Sgd, StepOptions, Tensor, Threads,
    norm::{NormOrder, first_nonfinite, grad_norm, grad_norms},
    table::{RowGrads, RowScratch},
};
use half::{bf16, f16};

const SERIAL: Exec<'static> = Exec { isa: Some(Isa::Scalar), threads: Threads::Serial };

/// Slices of one type as gradients of any.
fn any<'a, E: Element>(grads: &[&'a [E]]) -> Vec<Grad<'a>> {
    grads.iter().map(|&grads| Grad::from(grads)).collect()
}

/// The norm of gradients of one type, with the given instruction set and threads.
fn grad_norm_with<E: Element>(exec: Exec<'_>, grads: &[&[E]]) -> Result<f64, Error> {
    grad_norms(NormOrder::Two, exec, &any(grads), &mut vec![0.0; grads.len()])
}

/// In one thread after the other, from outside of pools and in some.
fn everywhere(check: impl Fn(Exec<'static>) + Sync) {
    execs(false).chain(execs(true)).for_each(&check);
    #[cfg(feature = "rayon")]
    for threads in [1, 2, 7] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
        pool.install(|| execs(true).for_each(&check));
    }
}

#[test]
fn the_norm_has_the_same_bits_everywhere_and_is_right() {
    // Large enough to wake threads that sleep.
    let len = 600_001;
    let grads: Vec<f32> = (0..len).map(|i| (i as f32 * 0.37).sin() * 1e30).collect();
    let brain: Vec<bf16> = grads.iter().map(|&grad| bf16::from_f32(grad)).collect();
    let half: Vec<f16> = grads.iter().map(|&grad| f16::from_f32(grad * 1e-30)).collect();
    let truth =
        |grads: &mut dyn Iterator<Item = f64>| grads.map(|grad| grad * grad).sum::<f64>().sqrt();
    let near =
        |found: f64, truth: f64| assert!((found / truth - 1.0).abs() < 1e-12, "{found} {truth}");
    let parts: Vec<&[f32]> = grads.chunks(70_003).collect();
    let serial = SERIAL;
    let expected = grad_norm_with(serial, &[&grads]).expect("a norm");
    near(expected, truth(&mut grads.iter().map(|&grad| grad.into())));
    near(grad_norm(&parts).expect("a norm"), expected);
    near(grad_norm(&[&brain]).expect("a norm"), truth(&mut brain.iter().map(|grad| grad.to_f64())));
    near(grad_norm(&[&half]).expect("a norm"), truth(&mut half.iter().map(|grad| grad.to_f64())));
    for exec in execs(true) {
        let norm = |tensors: &[&[f32]]| grad_norm_with(exec, tensors).expect("a norm");
        let in_parts = grad_norm_with(serial, &parts).expect("a norm");
        assert_eq!((norm(&[&grads]), norm(&parts)), (expected, in_parts));
        #[cfg(feature = "rayon")]
        for threads in [1, 2, 7] {
            let pool =
                rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            assert_eq!(pool.install(|| norm(&[&grads])), expected);
        }
    }
}

#[test]
fn the_norm_of_numbers_whose_squares_overflow_or_vanish_is_right() {
    for (value, len) in [(1e300, 5000), (1e-300, 5000), (1e150, 3), (5e-324, 1)] {
        let found = grad_norm(&[&vec![value; len]]).expect("a norm");
        let expected = value * (len as f64).sqrt();
        assert!((found / expected - 1.0).abs() < 1e-12, "{value}: {found}");
    }
    assert_eq!(grad_norm::<f64>(&[]), Ok(0.0));
    assert_eq!(grad_norm(&[&[0.0_f64; 9]]), Ok(0.0));
}

#[test]
fn the_norm_is_not_finite_where_a_gradient_is_not() {
    for place in [0, 31, 4095, 4096, 9999] {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut grads = vec![1e-3; 10_000];
            grads[place] = bad;
            let single: Vec<f32> = grads.iter().map(|&grad| grad as f32).collect();
            let half: Vec<f16> = single.iter().map(|&grad| f16::from_f32(grad)).collect();
            assert!(!grad_norm(&[&grads]).expect("a norm").is_finite());
            assert!(!grad_norm(&[&single]).expect("a norm").is_finite());
            assert!(!grad_norm(&[&half]).expect("a norm").is_finite());
        }
    }
}

/// The gradients of six tensors, one for each way to pass them.
struct Model {
    single: Vec<f32>,
    brain: Vec<bf16>,
    half: Vec<f16>,
    single_to_zero: Vec<f32>,
    brain_to_zero: Vec<bf16>,
    half_to_zero: Vec<f16>,
}

impl Model {
    /// Gradients of up to `size`, or 1 in f16.
    fn new(lens: [usize; 6], size: f32) -> Self {
        let number = |i: usize| (i as f32 * 0.37).sin();
        let single = |len| (0..len).map(|i| number(i) * size).collect();
        let brain = |len| (0..len).map(|i| bf16::from_f32(number(i) * size)).collect();
        let half = |len| (0..len).map(|i| f16::from_f32(number(i) * size.min(1.0))).collect();
        Self {
            single: single(lens[0]),
            brain: brain(lens[1]),
            half: half(lens[2]),
            single_to_zero: single(lens[3]),
            brain_to_zero: brain(lens[4]),
            half_to_zero: half(lens[5]),
        }
    }

    fn norm(&mut self, exec: Exec<'_>) -> Result<f64, Error> {
        let grads = [
            Grad::from(&self.single),
            Grad::from(&self.brain),
            Grad::from(&self.half),
            Grad::zeroed(&mut self.single_to_zero),
            Grad::zeroed(&mut self.brain_to_zero),
            Grad::zeroed(&mut self.half_to_zero),
        ];
        norm_of_step(exec, grads)
    }

    fn widened(&self) -> [Vec<f32>; 6] {
        let brain = |grads: &[bf16]| grads.iter().map(|grad| grad.to_f32()).collect();
        let half = |grads: &[f16]| grads.iter().map(|grad| grad.to_f32()).collect();
        [
            self.single.clone(),
            brain(&self.brain),
            half(&self.half),
            self.single_to_zero.clone(),
            brain(&self.brain_to_zero),
            half(&self.half_to_zero),
        ]
    }
}

/// The norm that a step reports, whose parameters, all zero, stay so unless it is not left out.
fn norm_of_step<const N: usize>(exec: Exec<'_>, grads: [Grad<'_>; N]) -> Result<f64, Error> {
    let sgd = Sgd { lr: 1.0, ..Sgd::default() };
    let mut params = grads.each_ref().map(|grad| vec![bf16::ZERO; grad.len()]);
    let mut steps = [0; N];
    let mut tensors: Vec<_> = (grads.into_iter().zip(&mut params).zip(&mut steps))
        .map(|((grad, param), steps)| Tensor::new(param, grad, steps))
        .collect();
    let options = StepOptions { exec, skip_nonfinite: true, ..StepOptions::default() };
    let report = adamant::step(&mut [Group::new(&sgd, &mut tensors)], &options)?;
    drop(tensors);
    let norm = report.grad_norm.expect("a norm that was asked for");
    let outcome = if norm.is_finite() { Outcome::Taken } else { Outcome::LeftOut };
    assert_eq!((report.outcome, steps), (outcome, [u64::from(norm.is_finite()); N]));
    assert!(norm.is_finite() || params.iter().flatten().all(|&param| param == bf16::ZERO));
    Ok(norm)
}

#[test]
fn the_norm_of_gradients_of_several_types_is_right_and_has_the_same_bits_everywhere() {
    let (short, long) =
        ([1000, 255, 257, 0, 1, 4097], [140_001, 80_000, 66_006, 180_000, 33, 100_000]);
    // Of about one size, so that the order of the sum shows in its bits; and of squares beyond f32, or
    // below it.
    for (lens, size) in [(short, 1.0), (long, 1.0), (short, 1e30), (long, 1e30), (short, 1e-30)] {
        let model = || Model::new(lens, size);
        let widened = model().widened();
        let found = model().norm(SERIAL).expect("a norm");
        let squares = widened.iter().flatten().map(|&grad| f64::from(grad).powi(2));
        let truth = squares.sum::<f64>().sqrt();
        assert!((found / truth - 1.0).abs() < 1e-12, "{found} {truth}");
        // Widening is exact, and the sum has the same shape.
        assert_eq!(Ok(found), grad_norm_with(SERIAL, &widened.each_ref().map(Vec::as_slice)));
        everywhere(|exec| assert_eq!(model().norm(exec), Ok(found), "{exec:?}"));
    }
}

#[test]
fn the_norm_of_tensors_whose_types_are_equal_has_the_bits_of_that_of_slices() {
    for lens in [[0, 0, 0], [1, 4096, 4097], [10_000, 30_000, 12_345]] {
        let model = lens.map(|len| Model::new([len; 6], 1.0));
        let mut copy = lens.map(|len| Model::new([len; 6], 1.0));
        let mut of_tensors =
            |pick: fn(&mut Model) -> Grad<'_>| norm_of_step(SERIAL, copy.each_mut().map(pick));
        let single = grad_norm_with(SERIAL, &model.each_ref().map(|model| &model.single[..]));
        assert_eq!(of_tensors(|model| Grad::from(&model.single)), single);
        assert_eq!(of_tensors(|model| Grad::zeroed(&mut model.single)), single);
        let brain = grad_norm_with(SERIAL, &model.each_ref().map(|model| &model.brain[..]));
        assert_eq!(of_tensors(|model| Grad::from(&model.brain)), brain);
        assert_eq!(of_tensors(|model| Grad::zeroed(&mut model.brain)), brain);
        let half = grad_norm_with(SERIAL, &model.each_ref().map(|model| &model.half[..]));
        assert_eq!(of_tensors(|model| Grad::from(&model.half)), half);
        assert_eq!(of_tensors(|model| Grad::zeroed(&mut model.half)), half);
    }
    assert_eq!(norm_of_step(SERIAL, []), Ok(0.0));
}

#[test]
fn the_norm_of_several_types_is_not_finite_where_one_gradient_is_not() {
    let spoilt: [fn(&mut Model); 6] = [
        |model| model.single[7] = f32::NAN,
        |model| model.brain[4096] = bf16::INFINITY,
        |model| model.half[8999] = f16::NEG_INFINITY,
        |model| model.single_to_zero[0] = f32::INFINITY,
        |model| model.brain_to_zero[1] = bf16::NAN,
        |model| model.half_to_zero[31] = f16::NAN,
    ];
    for spoil in spoilt {
        let mut model = Model::new([9000; 6], 1e30);
        assert!(model.norm(SERIAL).expect("a norm").is_finite());
        spoil(&mut model);
        let norm = model.norm(SERIAL).expect("a norm");
        assert!(!norm.is_finite(), "{norm}");
    }
}

#[test]
fn a_norm_on_an_instruction_set_that_is_lacking_is_refused() {
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.is_available()) {
        let exec = exec(isa, true);
        let available = Isa::available();
        let expected = Error::IsaUnavailable { isa, available };
        assert_eq!(Model::new([3; 6], 1.0).norm(exec), Err(expected.clone()));
        assert_eq!(grad_norm_with(exec, &[&[1.0]]), Err(expected));
    }
}

const ORDERS: [NormOrder; 3] = [NormOrder::One, NormOrder::Two, NormOrder::Infinity];

/// The sum of squares in the documented order: a binary tree of blocks, and 32 sums in each block.
fn tree_of_blocks(grads: &[f64], order: NormOrder) -> f64 {
    let blocks = grads.len().div_ceil(4096);
    if blocks > 1 {
        let (left, right) = grads.split_at(blocks / 2 * 4096);
        return joined(tree_of_blocks(left, order), tree_of_blocks(right, order), order);
    }
    let mut sums = vec![0.0; 32];
    for (i, grad) in grads.iter().enumerate() {
        let term = if order == NormOrder::Two { grad * grad } else { grad.abs() };
        sums[i % 32] = joined(sums[i % 32], term, order);
    }
    while sums.len() > 1 {
        let (left, right) = sums.split_at(sums.len() / 2);
        sums = left.iter().zip(right).map(|(&left, &right)| joined(left, right, order)).collect();
    }
    sums[0]
}

fn joined(left: f64, right: f64, order: NormOrder) -> f64 {
    if order == NormOrder::Infinity { left.max(right) } else { left + right }
}

fn tree_of_tensors(tensors: &[Vec<f64>], order: NormOrder) -> f64 {
    match tensors {
        [] => 0.0,
        [tensor] => tree_of_blocks(tensor, order),
        _ => {
            let (left, right) = tensors.split_at(tensors.len() / 2);
            joined(tree_of_tensors(left, order), tree_of_tensors(right, order), order)
        }
    }
}

fn finished(sum: f64, order: NormOrder) -> f64 {
    if order == NormOrder::Two { sum.sqrt() } else { sum }
}

/// Lengths of the tensors of models.
fn models() -> Vec<Vec<usize>> {
    let mut small = vec![33; 5000];
    small[3] = 700_001;
    // Halved again and again, one tensor stays beside a large rest: a deep tree.
    let deep = (0..15).flat_map(|i| vec![1; 1 << i]).chain([1_000_000]).collect();
    vec![
        vec![],
        vec![0],
        vec![1, 0, 4096, 4097],
        // Serial in any case, just shared, and many pieces of one tensor.
        vec![100_000],
        vec![65_536, 500_000, 1],
        vec![4_000_003],
        small,
        deep,
    ]
}

#[test]
fn norms_of_all_orders_have_the_bits_of_the_tree_for_all_tensors_and_for_each() {
    for lens in models() {
        let number = |i: usize| (i as f32 * 0.37).sin();
        let tensors: Vec<Vec<f32>> =
            lens.iter().map(|&len| (len..2 * len).map(number).collect()).collect();
        let wide: Vec<Vec<f64>> =
            tensors.iter().map(|grads| grads.iter().map(|&grad| grad.into()).collect()).collect();
        let grads: Vec<&[f32]> = tensors.iter().map(Vec::as_slice).collect();
        for order in ORDERS {
            let all = finished(tree_of_tensors(&wide, order), order);
            let each: Vec<f64> =
                wide.iter().map(|grads| finished(tree_of_blocks(grads, order), order)).collect();
            let check = |exec| {
                let mut norms = vec![-1.0; lens.len()];
                assert_eq!(grad_norms(order, exec, &any(&grads), &mut norms), Ok(all), "{exec:?}");
                assert_eq!(norms, each, "{order:?}, {exec:?}");
                if order == NormOrder::Two {
                    assert_eq!(grad_norm_with(exec, &grads), Ok(all));
                }
                assert_eq!(first_nonfinite(exec, &any(&grads)), Ok(None));
            };
            // The trees of many tensors differ in threads alone.
            if lens.len() < 10 { everywhere(check) } else { execs(true).for_each(check) }
        }
    }
}

/// Compares each order with plain sums, in one type of gradients.
fn orders_are_right<E: Element + std::fmt::Debug>(from: fn(f64) -> E, to: fn(E) -> f64) {
    let grads: Vec<E> = (0..70_001).map(|i| from((f64::from(i) * 0.37).sin())).collect();
    let wide = || grads.iter().map(|&grad| to(grad).abs());
    for (order, expected) in [
        (NormOrder::One, wide().sum::<f64>()),
        (NormOrder::Two, wide().map(|grad| grad * grad).sum::<f64>().sqrt()),
        (NormOrder::Infinity, wide().fold(0.0, f64::max)),
    ] {
        everywhere(|exec| {
            let mut norms = [0.0];
            let found = grad_norms(order, exec, &any(&[&grads[..]]), &mut norms).expect("a norm");
            assert!((found / expected - 1.0).abs() < 1e-12, "{order:?}: {found} {expected}");
            assert_eq!(norms, [found]);
        });
    }
}

#[test]
fn norms_of_all_orders_are_right_in_every_type() {
    orders_are_right::<f32>(|grad| grad as f32, f64::from);
    orders_are_right::<f64>(|grad| grad, |grad| grad);
    orders_are_right::<bf16>(bf16::from_f64, bf16::to_f64);
    orders_are_right::<f16>(f16::from_f64, f16::to_f64);
}

/// Puts a number that is not finite into one of several tensors.
fn nonfinite_is_found<E: Element>(from: fn(f64) -> E) {
    let lens = [0, 5000, 9000, 7, 1000];
    for (tensor, place) in [(1, 0), (1, 4999), (2, 4096), (2, 8999), (3, 6), (4, 1)] {
        for bad in [f64::NAN, -f64::NAN, f64::NEG_INFINITY] {
            let mut tensors = lens.map(|len| vec![from(1e-3); len]);
            tensors[tensor][place] = from(bad);
            // A later one does not count.
            tensors[4][2] = from(f64::INFINITY);
            let grads = tensors.each_ref().map(Vec::as_slice);
            for exec in execs(false) {
                assert_eq!(first_nonfinite(exec, &any(&grads)), Ok(Some(tensor)));
                for order in ORDERS {
                    let mut norms = [0.0; 5];
                    let norm = grad_norms(order, exec, &any(&grads), &mut norms).expect("a norm");
                    assert!(!norm.is_finite(), "{order:?}: {norm}");
                    let is_finite = |(i, norm): (usize, &f64)| norm.is_finite() == (i != tensor);
                    assert!(norms[..4].iter().enumerate().all(is_finite), "{order:?}: {norms:?}");
                }
                let mut norms = [0.0; 5];
                let norm = grad_norms(NormOrder::Infinity, exec, &any(&grads), &mut norms);
                assert_eq!(norm.expect("a norm").is_nan(), bad.is_nan());
                assert_eq!(norms[tensor].is_nan(), bad.is_nan());
            }
        }
    }
}

#[test]
fn the_first_tensor_that_is_not_finite_is_found() {
    nonfinite_is_found(|grad| grad as f32);
    nonfinite_is_found(|grad| grad);
    nonfinite_is_found(bf16::from_f64);
    nonfinite_is_found(f16::from_f64);
}

#[test]
fn the_first_tensor_that_is_not_finite_is_found_by_many_threads() {
    let mut tensors = [vec![1.0_f32; 300_000], vec![1.0; 400_000], vec![1.0; 3]];
    tensors[2][1] = f32::NAN;
    for (expected, place) in [(2, None), (1, Some(399_999)), (0, Some(299_998))] {
        if let Some(place) = place {
            tensors[expected][place] = f32::INFINITY;
        }
        let grads = tensors.each_ref().map(Vec::as_slice);
        everywhere(|exec| assert_eq!(first_nonfinite(exec, &any(&grads)), Ok(Some(expected))));
    }
}

#[test]
fn each_tensor_has_its_norm_where_squares_of_some_overflow_or_vanish() {
    let (large, usual, small) = (vec![1e300; 5000], vec![1.0; 4], vec![1e-300; 3]);
    let mut norms = [0.0; 4];
    let grads: [&[f64]; 4] = [&large, &usual, &small, &[0.0; 3]];
    let norm = grad_norms(NormOrder::Two, SERIAL, &any(&grads), &mut norms).expect("a norm");
    let near = |found: f64, truth: f64| assert!((found / truth - 1.0).abs() < 1e-12, "{found}");
    near(norm, 5000_f64.sqrt() * 1e300);
    near(norms[0], norm);
    assert_eq!(norms[1], 2.0);
    near(norms[2], 3_f64.sqrt() * 1e-300);
    assert_eq!(norms[3], 0.0);
    let huge: [&[f64]; 2] = [&[f64::MAX; 2], &[1.0]];
    assert_eq!(grad_norms(NormOrder::One, SERIAL, &any(&huge), &mut norms[..2]), Ok(f64::INFINITY));
    assert_eq!(grad_norms(NormOrder::Infinity, SERIAL, &any(&huge), &mut norms[..2]), Ok(f64::MAX));
    assert_eq!(grad_norm_with(SERIAL, &huge), Ok(f64::INFINITY));
    assert_eq!(first_nonfinite(SERIAL, &any(&huge)), Ok(None));
}

#[test]
fn each_tensor_needs_a_place_for_its_norm() {
    let grads: [&[f32]; 2] = [&[1.0], &[2.0]];
    for len in [0, 1, 3] {
        let mut norms = vec![7.0; len];
        let error = Error::NormsMismatch { len, tensors: 2 };
        assert_eq!(grad_norms(NormOrder::Two, SERIAL, &any(&grads), &mut norms), Err(error));
        assert_eq!(norms, vec![7.0; len]);
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_norm_has_the_same_bits_with_subnormals_read_as_zero_and_other_rounding() {
    let grads: Vec<f32> = (1..=1_000_000).map(f32::from_bits).collect();
    let tensors: [&[f32]; 2] = [&grads, &grads[..77]];
    for exec in execs(false).chain(execs(true)) {
        let usual = grad_norm_with(exec, &tensors);
        for modes in ODD_MODES {
            let found = in_modes(modes, || grad_norm_with(exec, &tensors));
            assert_eq!(found, (usual.clone(), modes));
        }
    }
}

/// Rows in any order and with duplicates, in memory with gaps: the norm is that of their sums in
/// ascending order, with the same bits everywhere.
fn norms_of_rows<E: Element, F: Element + Default>(
    value: impl Fn(usize) -> E,
    add: impl Fn(F, E) -> F,
) {
    const ORDERS: [NormOrder; 3] = [NormOrder::One, NormOrder::Two, NormOrder::Infinity];
    for (rows, count, width) in
        [(1, 0, 3), (1, 1, 1), (9, 7, 5), (40, 100, 300), (5000, 4000, 64), (3, 5, 5000)]
    {
        let stride = width + 1;
        let listed: Vec<u32> = (0..count).map(|i| (i * 7919 % rows) as u32).collect();
        let values: Vec<E> = (0..count * stride).map(&value).collect();
        let mut sums = std::collections::BTreeMap::<u32, Vec<F>>::new();
        for (position, &row) in listed.iter().enumerate() {
            let sums = sums.entry(row).or_insert_with(|| vec![F::default(); width]);
            for (sum, &value) in sums.iter_mut().zip(&values[position * stride..]) {
                *sum = add(*sum, value);
            }
        }
        let sums: Vec<F> = sums.into_values().flatten().collect();
        let grads = RowGrads { rows: &listed, values: &values, width, stride };
        for order in ORDERS {
            let expected = grad_norms(order, SERIAL, &[Grad::from(&sums)], &mut [0.0]);
            let expected = expected.expect("a norm");
            everywhere(|exec| {
                let mut scratch = RowScratch::default();
                let mut sorted = grads.sort(rows, &mut scratch).expect("rows of the table");
                let found = sorted.grad_norm(order, exec).expect("a norm");
                assert_eq!(found.to_bits(), expected.to_bits(), "{count} by {width}, {order:?}");
            });
        }
    }
}

#[test]
fn the_norm_of_rows_is_that_of_their_sums_with_the_same_bits_everywhere() {
    let number = |i: usize| (i as f32 * 0.37).sin();
    norms_of_rows(number, |sum: f32, value: f32| sum + value);
    // Squares that overflow.
    norms_of_rows(|i| f64::from(number(i)) * 1e300, |sum: f64, value: f64| sum + value);
    norms_of_rows(|i| bf16::from_f32(number(i)), |sum: f32, value: bf16| sum + value.to_f32());
    norms_of_rows(|i| f16::from_f32(number(i)), |sum: f32, value: f16| sum + value.to_f32());
}

#[test]
fn the_norm_of_rows_on_a_set_that_this_cpu_lacks_is_refused() {
    let available = Isa::available();
    let lacking = Isa::ALL.into_iter().find(|isa| !available.contains(isa));
    let isa = lacking.expect("no CPU has both AVX2 and NEON");
    let mut scratch = RowScratch::default();
    let mut sorted = RowGrads::new(&[0_u32], &[1.0_f32], 1).sort(1, &mut scratch).expect("a row");
    let exec = Exec { isa: Some(isa), threads: Threads::Serial };
    let found = sorted.grad_norm(NormOrder::Two, exec);
    assert_eq!(found, Err(Error::IsaUnavailable { isa, available }));
}
