//! Catching up by the series is as accurate as dense steps: compared with dense steps in `f64`, its error is at most
//! 1.5 times that of dense steps in `f32`.

use crate::support::serial;
use adamant::{
    Adam, Epsilon, Optimizer, Outcome, StepOptions, Tensor,
    rule::Float,
    table::{CatchUp, DenseEquivalent, RowGrads, RowScratch, Table},
};
use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

/// The numbers of skipped steps.
const GAPS: [u64; 14] = [1, 2, 3, 4, 5, 8, 15, 40, 100, 300, 1000, 3000, 10_000, 100_000];

const WIDTH: usize = 256;

/// Parameters of several kinds, each with moments that an optimizer could have: p, m and v.
fn start(rows: usize) -> [Vec<f32>; 3] {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut columns = [(); 3].map(|()| vec![0.0; rows * WIDTH]);
    for i in 0..rows * WIDTH {
        let mut signed = || rng.random_range(-1.0..1.0_f32);
        let [param, share, scale] = [signed(), signed(), signed()];
        // Gradients of 1e-8 to 1e2.
        let size = 10_f32.powf(5.0 * scale - 3.0);
        let (m, v) = (share * size, size * size);
        let [param, m, v] = match i % 16 {
            0 => [0.0, m, v],
            1 => [1e-4 * param, m, v],
            2 => [param, 0.0, v],
            3 => [param, 0.0, 0.0],
            // Subnormal.
            4 => [param, 1e-40 * share, 1e-42],
            5 => [param, 1e-20 * share, 1e-38],
            _ => [param, m, v],
        };
        for (column, value) in columns.iter_mut().zip([param, m, v]) {
            column[i] = value;
        }
    }
    columns
}

fn of<F: Float>(columns: [Vec<f32>; 3]) -> [Vec<F>; 3] {
    columns.map(|column| column.into_iter().map(|x| F::from_f64(x.into())).collect())
}

/// Steps without gradients, as many as the longest gap.
struct Case {
    adam: Adam,
    /// The factor of the learning rate in a step.
    schedule: fn(u64) -> f64,
    /// The number of steps before.
    before: u64,
    last_gap: u64,
}

impl Case {
    /// Dense steps of all rows but the first ones.
    fn dense<F: Float>(adam: &Adam, t: u64, columns: &mut [Vec<F>; 3], first: usize) {
        let [param, m, v] = columns.each_mut().map(|column| &mut column[first * WIDTH..]);
        let grad = vec![F::default(); param.len()];
        let mut steps = t - 1;
        let tensor =
            Tensor::new(param, &grad, &mut steps).with_moments([F::moment(m), F::moment(v)]);
        let options = StepOptions { exec: serial(), ..StepOptions::default() };
        let report = adam.step_tensors(&mut [tensor], &options).expect("a valid step");
        assert_eq!(report.outcome, Outcome::Taken);
    }

    fn check(&self) {
        let gaps: Vec<_> = GAPS.into_iter().take_while(|&gap| gap <= self.last_gap).collect();
        let start = start(gaps.len());
        let [mut series, mut single] = [start.clone(), start.clone()];
        let mut double = of::<f64>(start.clone());
        let mut scratch = RowScratch::default();
        let mut waiting = DenseEquivalent::<f32>::new(gaps.len(), CatchUp::Series);
        waiting.set_step(self.before);

        let mut skipped = 0;
        for (row, &gap) in gaps.iter().enumerate() {
            while skipped < gap {
                skipped += 1;
                let t = self.before + skipped;
                let adam = Adam { lr: self.adam.lr * (self.schedule)(skipped), ..self.adam };
                // The rows before this one are done.
                Self::dense(&adam, t, &mut single, row);
                Self::dense(&adam, t, &mut double, row);
                let nothing = RowGrads::<u32, f32>::new(&[], &[], WIDTH);
                let nothing = nothing.sort(gaps.len(), &mut scratch).expect("no rows");
                let table = Self::table(&mut series);
                let options = StepOptions { exec: serial(), ..StepOptions::default() };
                let report =
                    adam.step_rows_dense_equivalent_on(table, nothing, &mut waiting, &options);
                assert!(report.is_ok());
            }
            waiting
                .catch_up_with(Self::table(&mut series), &[row], serial())
                .expect("a row of the table");

            for (column, name) in ["param", "exp_avg", "exp_avg_sq"].into_iter().enumerate() {
                let error = |found: &[Vec<f32>; 3]| {
                    let places = row * WIDTH..(row + 1) * WIDTH;
                    let errors = places.map(|i| {
                        let [start, found] = [start[column][i], found[column][i]].map(f64::from);
                        let truth = double[column][i];
                        // A parameter's error is a part of where it came from and how far it went; a
                        // moment's is one of the moment, unless that is subnormal.
                        let unit = match column {
                            0 => start.abs() + (truth - start).abs(),
                            _ => truth.abs(),
                        };
                        let unit = unit + f64::from(f32::MIN_POSITIVE);
                        ((found - truth) / unit).powi(2)
                    });
                    (errors.sum::<f64>() / WIDTH as f64).sqrt()
                };
                let (found, allowed) = (error(&series), 1.5 * error(&single));
                // 1e-9 is a hundredth of a rounding: where dense steps move nothing, they are exact.
                assert!(
                    found <= allowed + 1e-9,
                    "{name} after {gap} steps from {}: {found:e}, allowed {allowed:e}: {:?}",
                    self.before,
                    self.adam
                );
            }
        }
    }

    fn table(columns: &mut [Vec<f32>; 3]) -> Table<'_> {
        let [param, m, v] = columns;
        Table::new(param, WIDTH).with_moments([m.into(), v.into()])
    }
}

const SCHEDULES: [fn(u64) -> f64; 4] = [
    |_| 1.0,
    // Up and down, many times.
    |skipped| 0.5 + 0.5 * (skipped as f64 / 300.0).cos(),
    // From almost 0.
    |skipped| (skipped as f64 / 100.0).min(1.0),
    // By steps, and not at all for a while.
    |skipped| [1.0, 0.1, 0.0, 10.0][(skipped / 7 % 4) as usize],
];

#[test]
fn the_series_is_as_right_as_dense_steps_for_every_epsilon_and_schedule() {
    for (choice, eps) in [1e-12, 1e-10, 1e-8, 1e-5, 1e-3, 0.1, 1.0].into_iter().enumerate() {
        for epsilon in [Epsilon::Standard, Epsilon::Hat] {
            // Not all combinations, but all pairs.
            for (schedule, before) in SCHEDULES.into_iter().zip([0, 1000, 30, 100_000]) {
                let adam = if choice % 2 == 0 { Adam::default() } else { Adam::adamw() };
                let adam = Adam { eps, epsilon, ..adam };
                Case { adam, schedule, before, last_gap: 1000 }.check();
            }
        }
    }
}

#[test]
fn the_series_is_as_right_as_dense_steps_for_other_betas() {
    for (beta1, beta2) in [(0.0, 0.999), (0.5, 0.9), (0.9, 0.95), (0.95, 0.98), (0.8, 0.9999)] {
        for eps in [1e-8, 1e-3] {
            for before in [0, 1000] {
                let adam = Adam { beta1, beta2, eps, ..Adam::adamw() };
                Case { adam, schedule: SCHEDULES[1], before, last_gap: 300 }.check();
            }
        }
    }
}

#[test]
fn the_series_is_as_right_as_dense_steps_after_100_000_steps() {
    let adam = Adam { lr: 1e-2, ..Adam::adamw() };
    Case { adam, schedule: SCHEDULES[1], before: 5000, last_gap: 100_000 }.check();
}

/// Rows that no step has listed, and whose moments are 0, stay as they are, however small epsilon is: the denominator
/// is a subnormal number, or one over it overflows. Without an epsilon they become NaN, as in dense steps.
#[test]
fn rows_without_moments_stay_for_the_smallest_epsilons() {
    fn check<F: Float>(eps: f64, way: CatchUp) {
        let adam = Adam { eps, ..Adam::default() };
        let (mut param, mut m, mut v) =
            (vec![F::from_f64(1.0); WIDTH], vec![F::default(); WIDTH], vec![F::default(); WIDTH]);
        // A moment that the formula divides by much more than epsilon.
        (m[3], v[3]) = (F::from_f64(0.1), F::from_f64(0.04));
        let mut expected = [param.clone(), m.clone(), v.clone()];
        let mut waiting = DenseEquivalent::<F>::new(1, way);
        let mut scratch = RowScratch::default();
        for t in 1..=9 {
            Case::dense(&adam, t, &mut expected, 0);
            let table = Table::new(F::param(&mut param), WIDTH)
                .with_moments([&mut m, &mut v].map(|m| F::moment(m)));
            let nothing = RowGrads::<u32, F>::new(&[], &[], WIDTH);
            let nothing = nothing.sort(1, &mut scratch).expect("no rows");
            let options = StepOptions { exec: serial(), ..StepOptions::default() };
            let report = adam.step_rows_dense_equivalent_on(table, nothing, &mut waiting, &options);
            assert!(report.is_ok());
        }
        let table = Table::new(F::param(&mut param), WIDTH)
            .with_moments([&mut m, &mut v].map(|m| F::moment(m)));
        waiting.catch_up_all_with(table, serial()).expect("the table");
        for (i, (found, expected)) in param.iter().zip(&expected[0]).enumerate() {
            let [found, expected] = [found, expected].map(|param| param.to_f64());
            let is_same = found.is_nan() && expected.is_nan() || (found - expected).abs() < 1e-6;
            assert!(is_same, "eps {eps:e}, {way:?}, {i}: {found:?}, expected {expected:?}");
        }
    }
    for eps in [0.0, 1e-30, 1e-37, 5e-38, 1e-38, 1e-44, 1e-60, 1e-300, 1e-310, 5e-324] {
        for way in [CatchUp::Series, CatchUp::Replay] {
            check::<f32>(eps, way);
            check::<f64>(eps, way);
        }
    }
}
