//! Replays what PyTorch, TensorFlow and Keras compute (`tests/golden/make.py` made the vectors), and the algorithms
//! of papers in 50 digits (`paper.py`), on every instruction set, in `f64` and `f32`.
//!
//! `ADAMANT_GOLDEN_DIR` names another folder of such files. `ADAMANT_GOLDEN_WORDS` names a folder to
//! write the dense ones to, as the programs of `bindings/c/tests` read them.

use std::{collections::BTreeMap, env, fs, path::Path};

use crate::support::{Columns, execs};
use adamant::{
    Adam, AnyOptimizer, DynOptimizer, Exec, Optimizer, Outcome, StepOptions,
    rule::Float,
    settings::SettingValue::{self, Choice, Flag, Number},
    table::{CatchUp, DenseEquivalent, RowGrads, RowOptimizer, RowScratch, Table},
};
use serde::Deserialize;

/// One file: a run of an optimizer, in the names of the library that ran it.
#[derive(Deserialize)]
struct Golden {
    /// The name of the file.
    #[serde(skip)]
    name: String,
    optimizer: String,
    hyper: BTreeMap<String, serde_json::Value>,
    param: serde_json::Value,
    grads: serde_json::Value,
    /// The row indices of sparse gradients; dense runs have none.
    rows: Option<serde_json::Value>,
    /// The parameters after some of the steps.
    params: BTreeMap<u64, serde_json::Value>,
    /// The moments after the last step.
    state: BTreeMap<String, serde_json::Value>,
}

/// What a step on some rows does with the others.
#[derive(Clone, Copy, PartialEq)]
enum Rows {
    Lazy,
    DenseEquivalent,
}

/// The largest error that roundings may add up to, in units of the type's rounding error.
struct Tolerance {
    /// Of the way that a parameter went: a dozen roundings an update here, as many in the library,
    /// and those of the moments that went into it.
    way: f64,
    /// Of the largest value that a moment had on its way: three roundings a step, of which the last
    /// 40 have not faded, here and in the library.
    moment: f64,
}

const TOLERANCE: Tolerance = Tolerance { way: 160.0, moment: 2.0 * 3.0 * 40.0 };

/// The relative error of a library's own updates, where it computes in less than `f64`.
fn library_error(optimizer: &str) -> f64 {
    match optimizer {
        // The product of momenta is a float32 in PyTorch, and is subtracted from 1: a rounding a
        // step, of which those count that are made before the product is nothing beside 1.
        "NAdam" => 4.0 * f64::from(f32::EPSILON),
        // TensorFlow keeps the powers of the betas in float32, a rounding a step, and subtracts them
        // from 1: for beta2 = 1 - 2^-10 that is t 2^-24 beta2^t / (1 - beta2^t), less than 2^-14, of
        // which the root leaves half.
        "compat.v1.train.AdamOptimizer" => f64::powi(2.0, -15),
        // Keras rounds the weight decay to float32.
        "lion" => f64::from(f32::EPSILON) / 2.0,
        _ => 0.0,
    }
}

impl Golden {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let read =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Self { name, ..read }
    }

    /// Finds the optimizer and replays the run.
    fn replay(self) {
        let optimizer = self.optimizer();
        match (&*self.optimizer, optimizer) {
            ("SparseAdam", AnyOptimizer::Adam(adam)) => self.check_rows(adam, Rows::Lazy),
            ("compat.v1.train.AdamOptimizer", AnyOptimizer::Adam(adam)) => {
                self.check_rows(adam, Rows::DenseEquivalent);
            }
            _ => self.check(optimizer),
        }
    }

    /// The optimizer with the run's hyper-parameters, by their names. Others have their defaults.
    fn optimizer(&self) -> AnyOptimizer {
        let name = self.optimizer.to_lowercase();
        let amsgrad = self.hyper.get("amsgrad").is_some_and(|value| value == true);
        let (name, preset): (&str, &[(&str, SettingValue<'_>)]) = match &*name {
            "adam" if amsgrad => ("amsgrad", &[]),
            "adamw" if amsgrad => ("amsgrad", &[("decoupled_weight_decay", Flag(true))]),
            "adopt" => ("adopt", &[("decoupled_weight_decay", Flag(true))]),
            "c-adamw" => ("adamw", &[("cautious", Flag(true))]),
            "resourceapplyadam" | "sparseadam" | "compat.v1.train.adamoptimizer" => {
                ("adam", &[("epsilon", Choice("hat"))])
            }
            name => (name, &[]),
        };
        let mut optimizer = AnyOptimizer::new(name).unwrap_or_else(|error| panic!("{error}"));
        for &(name, value) in preset {
            optimizer.set(name, value).unwrap_or_else(|error| panic!("{error}"));
        }
        for (name, value) in self.hyper.iter().filter(|(name, _)| *name != "amsgrad") {
            let (names, values) = match value {
                serde_json::Value::Array(values) => (in_pair(name), &values[..]),
                _ => (vec![in_ours(name)], std::slice::from_ref(value)),
            };
            assert_eq!(names.len(), values.len(), "{name}");
            for (name, value) in names.into_iter().zip(values) {
                let value = match value.as_bool() {
                    Some(flag) => Flag(flag),
                    None => Number(value.as_f64().expect("a number")),
                };
                optimizer.set(name, value).unwrap_or_else(|error| panic!("{error}"));
            }
        }
        optimizer
    }

    /// The values of a moment after the last step, by our name or the library's; Keras's vectors come
    /// without the momentum.
    fn moment(&self, name: &str) -> Option<Vec<f64>> {
        let theirs = match (&*self.optimizer, name) {
            ("ResourceApplyAdam" | "compat.v1.train.AdamOptimizer", "exp_avg") => "m",
            ("ResourceApplyAdam" | "compat.v1.train.AdamOptimizer", "exp_avg_sq") => "v",
            _ => name,
        };
        self.state.get(theirs).map(numbers)
    }

    /// Replays the run on every instruction set and in both types.
    fn check(self, optimizer: AnyOptimizer) {
        assert!(self.rows.is_none(), "row-indexed gradients for {:?}", self.optimizer);
        for exec in execs(false) {
            self.check_with::<f64>(&optimizer, exec, Self::dense_step(&optimizer, exec));
            self.check_with::<f32>(&optimizer, exec, Self::dense_step(&optimizer, exec));
        }
        if let Some(folder) = env::var_os("ADAMANT_GOLDEN_WORDS") {
            let path = Path::new(&folder).join(&self.name);
            fs::write(path, self.words(&optimizer)).expect("a folder that can be written");
        }
    }

    /// The same for gradients of rows.
    fn check_rows(self, adam: Adam, meaning: Rows) {
        for exec in execs(false) {
            for way in [CatchUp::Series, CatchUp::Replay] {
                let step = self.row_step(adam, meaning, way, exec);
                self.check_with::<f64>(&adam, exec, step);
                let step = self.row_step(adam, meaning, way, exec);
                self.check_with::<f32>(&adam, exec, step);
            }
        }
    }

    /// The optimizer's name and its settings, each a name and a value, and the run in the order that
    /// `bindings/c/tests/cases.h` gives, as words of 64 bits in hexadecimal.
    fn words(&self, optimizer: &AnyOptimizer) -> String {
        let (param, grads) = (numbers(&self.param), self.grads.as_array().expect("arrays"));
        let moments = optimizer.moment_count();
        let mut words = vec![param.len() as u64, grads.len() as u64, moments as u64];
        words.push(library_error(&self.optimizer).to_bits());
        let put = |words: &mut Vec<u64>, numbers: Vec<f64>| {
            words.extend(numbers.into_iter().map(f64::to_bits));
        };
        put(&mut words, param);
        for (t, grad) in (1..).zip(grads) {
            put(&mut words, numbers(grad));
            words.push(self.params.contains_key(&t).into());
            put(&mut words, self.params.get(&t).map(numbers).unwrap_or_default());
        }
        for moment in 0..moments {
            let state = self.moment(optimizer.moment_name(moment));
            words.push(state.is_some().into());
            put(&mut words, state.unwrap_or_default());
        }
        let words: String = words.iter().map(|word| format!("{word:x}\n")).collect();
        let mut line = optimizer.name().to_owned();
        for setting in optimizer.settings() {
            let value = match optimizer.get(setting.name).expect("a setting") {
                Choice(name) => name.to_owned(),
                Flag(flag) => u8::from(flag).to_string(),
                number => number.to_string(),
            };
            line += &format!(" {} {value}", setting.name);
        }
        format!("{line}\n{words}")
    }

    fn dense_step<F: Float>(
        rule: &dyn DynOptimizer,
        exec: Exec<'static>,
    ) -> impl FnMut(u64, &mut Columns<F>, &serde_json::Value) {
        let mut steps = 0;
        let options = StepOptions { exec, ..StepOptions::default() };
        move |t, columns, grad| {
            columns.grad = floats(grad);
            let tensor = columns.tensor(&mut steps);
            let report = rule.step_tensors(&mut [tensor], &options).expect("a valid step");
            assert_eq!((report.outcome, steps), (Outcome::Taken, t));
        }
    }

    /// A step on the rows of a table. After a dense-equivalent step, all rows catch up if the run has the
    /// parameters of that step.
    fn row_step<F: Float>(
        &self,
        adam: Adam,
        meaning: Rows,
        way: CatchUp,
        exec: Exec<'static>,
    ) -> impl FnMut(u64, &mut Columns<F>, &serde_json::Value) {
        let width = self.param[0].as_array().expect("an array of rows").len();
        let rows = self.param.as_array().expect("an array of rows").len();
        let listed = self.rows.as_ref().expect("the rows of each step").clone();
        let mut scratch = RowScratch::default();
        let mut waiting = DenseEquivalent::<F>::new(rows, way);
        move |t, columns, grad| {
            let listed: Vec<u32> =
                numbers(&listed[t as usize - 1]).iter().map(|&row| row as u32).collect();
            let values: Vec<F> = floats(grad);
            let grads = RowGrads::new(&listed, &values, width);
            let grads = grads.sort(rows, &mut scratch).expect("rows of the table");
            let options = StepOptions { exec, ..StepOptions::default() };
            let report = match meaning {
                Rows::Lazy => adam.step_rows_lazy_on(t, table_of(columns, width), grads, &options),
                Rows::DenseEquivalent => adam.step_rows_dense_equivalent_on(
                    table_of(columns, width),
                    grads,
                    &mut waiting,
                    &options,
                ),
            };
            assert_eq!(report.map(|report| report.outcome), Ok(Outcome::Taken));
            if meaning == Rows::DenseEquivalent && self.params.contains_key(&t) {
                waiting.catch_up_all_with(table_of(columns, width), exec).expect("the table");
            }
        }
    }

    fn check_with<F: Float>(
        &self,
        rule: &dyn DynOptimizer,
        exec: Exec<'static>,
        mut step: impl FnMut(u64, &mut Columns<F>, &serde_json::Value),
    ) {
        let isa = exec.isa.expect("an instruction set");
        let unit = if size_of::<F>() == 4 { f32::EPSILON as f64 } else { f64::EPSILON } / 2.0;
        let grads = self.grads.as_array().expect("an array a step");
        let start = numbers(&self.param);
        let mut columns = Columns::<F>::new(rule, start.len(), |column, row| {
            F::from_f64(match column {
                0 => start[row],
                1 => 0.0,
                moment => rule.moment_start(moment - 2).expect("a moment that is kept"),
            })
        });
        // How far each parameter went, turns included, and how large each moment got.
        let mut way = vec![0.0; start.len()];
        let mut largest: Vec<_> =
            columns.moments.iter().map(|moment| vec![0.0_f64; moment.len()]).collect();
        for (t, grad) in (1..).zip(grads) {
            let before = columns.param.clone();
            step(t, &mut columns, grad);
            for ((way, now), before) in way.iter_mut().zip(&columns.param).zip(&before) {
                *way += (now.to_f64() - before.to_f64()).abs();
            }
            for (largest, now) in largest.iter_mut().flatten().zip(columns.moments.iter().flatten())
            {
                *largest = largest.max(now.to_f64().abs());
            }
            let Some(expected) = self.params.get(&t).map(numbers) else { continue };
            for (row, &expected) in expected.iter().enumerate() {
                // With weight decay a step rounds the parameter twice here, and in the library the
                // factor, the product and the difference.
                let stored = 6.0 * t as f64 * expected.abs().max(start[row].abs());
                let update = unit * TOLERANCE.way + library_error(&self.optimizer);
                let bound = update * way[row] + unit * stored;
                let found = columns.param[row].to_f64();
                assert!(
                    (found - expected).abs() <= bound,
                    "{} on {isa}, step {t}, parameter {row}: {found}, expected {expected}",
                    F::NAME
                );
            }
        }
        let last = self.params.keys().max().expect("parameters after some steps");
        assert_eq!(*last, grads.len() as u64, "the last step is not among those kept");
        let names = (0..rule.moment_count()).map(|moment| rule.moment_name(moment));
        let moments = names.zip(&columns.moments).zip(&largest);
        let mut compared = 0;
        for ((name, moment), largest_moment) in moments {
            let Some(expected) = self.moment(name) else {
                assert!(moment.is_empty() || self.state.is_empty(), "no {name}");
                continue;
            };
            assert!(!moment.is_empty(), "{name}: the library keeps it");
            compared += 1;
            for (row, &expected) in expected.iter().enumerate() {
                let found = moment[row].to_f64();
                let size = match name {
                    // FTRL adds the difference of two roots of the accumulator, by the parameter and
                    // over the learning rate: their roundings stay where the roots cancel.
                    "linear" => {
                        let lr = self.hyper["learning_rate"].as_f64().expect("a number");
                        largest[0][row].sqrt() / lr * (start[row].abs() + way[row])
                    }
                    _ => largest_moment[row],
                };
                assert!(
                    (found - expected).abs() <= TOLERANCE.moment * unit * size,
                    "{} on {isa}, {name} of {row}: {found}, expected {expected}",
                    F::NAME
                );
            }
        }
        assert_eq!(compared, self.state.len(), "moments of the library that nobody read");
    }
}

/// Our name of a library's hyper-parameter.
fn in_ours(name: &str) -> &str {
    match name {
        "learning_rate" => "lr",
        "beta_1" => "beta1",
        "beta_2" => "beta2",
        name => name,
    }
}

/// Our names of moments that a library keeps in one array.
fn in_pair(name: &str) -> Vec<&str> {
    match name {
        "betas" => vec!["beta1", "beta2"],
        "etas" => vec!["etaminus", "etaplus"],
        "step_sizes" => vec!["step_size_min", "step_size_max"],
        name => panic!("{name} is no array that is known"),
    }
}

/// The numbers of an array, or of arrays in an array.
fn numbers(array: &serde_json::Value) -> Vec<f64> {
    let values = array.as_array().expect("an array").iter();
    values
        .flat_map(|value| value.as_f64().map_or_else(|| numbers(value), |number| vec![number]))
        .collect()
}

fn floats<F: Float>(array: &serde_json::Value) -> Vec<F> {
    numbers(array).into_iter().map(F::from_f64).collect()
}

#[test]
fn kernels_agree_with_pytorch_tensorflow_and_keras() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let folder = env::var_os("ADAMANT_GOLDEN_DIR").unwrap_or(shipped.into());
    let mut checked = 0;
    let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for file in files {
        let path = file.expect("a directory entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        // If the file fails, its name stands before the message.
        println!("golden: {}", path.display());
        Golden::read(&path).replay();
        checked += 1;
    }
    println!("golden: {checked} checked");
    assert!(checked > 0, "no vectors in {}", folder.display());
}

/// The columns as a table.
fn table_of<F: Float>(columns: &mut Columns<F>, width: usize) -> Table<'_> {
    let moments = columns.moments.iter_mut().map(|moment| F::moment(moment));
    Table::new(F::param(&mut columns.param), width).with_moments(moments)
}
