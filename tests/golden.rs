//! Replays what PyTorch and TensorFlow compute (`tests/golden/make.py` made the vectors) on every
//! instruction set, in `f64` and `f32`.
//!
//! `ADAMANT_GOLDEN_DIR` names another folder of such files.

mod support;

use std::{collections::BTreeMap, env, fs, path::Path};

use adamant::{Adam, Epsilon, Exec, Float, Isa, Optimizer, Rule};
use serde::Deserialize;
use support::Columns;

/// Optimizers that vectors exist for and adamant does not have yet. Their files are skipped; a
/// name that is neither here nor in [`Golden::replay`] is an error.
const NOT_YET: [&str; 11] = [
    "Adadelta",
    "Adagrad",
    "Adam with amsgrad",
    "AdamW with amsgrad",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "SGD",
    "lion",
    "rows",
];

/// One file: a run of an optimizer, in the names of the library that ran it.
#[derive(Deserialize)]
struct Golden {
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

/// What the roundings on the way may add up to, in units of the type's rounding error.
struct Tolerance {
    /// Of the way that a parameter went: a dozen roundings an update here, as many in the library,
    /// and those of the moments that went into it.
    way: f64,
    /// Of the largest value that a moment had on its way: three roundings a step, of which the last
    /// 40 have not faded, here and in the library.
    moment: f64,
}

const TOLERANCE: Tolerance = Tolerance { way: 160.0, moment: 2.0 * 3.0 * 40.0 };

impl Golden {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    fn name(&self) -> String {
        match (&self.rows, self.hyper.get("amsgrad")) {
            (Some(_), _) => "rows".into(),
            (None, Some(amsgrad)) if amsgrad == true => format!("{} with amsgrad", self.optimizer),
            _ => self.optimizer.clone(),
        }
    }

    /// Finds the optimizer and replays the run; false if it is one that adamant lacks.
    fn replay(mut self) -> bool {
        let name = self.name();
        match &*name {
            "Adam" => {
                let adam = Adam { maximize: self.flag("maximize"), ..self.adam() };
                self.check(adam, ["exp_avg", "exp_avg_sq"]);
            }
            "AdamW" => {
                let adam = Adam { decoupled_weight_decay: true, ..self.adam() };
                self.check(adam, ["exp_avg", "exp_avg_sq"]);
            }
            "ResourceApplyAdam" => {
                let adam = Adam { epsilon: Epsilon::Hat, ..self.adam() };
                self.check(adam, ["m", "v"]);
            }
            _ if NOT_YET.contains(&&*name) => return false,
            _ => panic!("no optimizer is known by the name {name:?}"),
        }
        true
    }

    fn adam(&mut self) -> Adam {
        let betas = self.hyper.remove("betas").expect("betas");
        let [beta1, beta2] = [0, 1].map(|beta| betas[beta].as_f64().expect("a number"));
        let (lr, eps) = (self.number("lr"), self.number("eps"));
        let weight_decay =
            if self.hyper.contains_key("weight_decay") { self.number("weight_decay") } else { 0.0 };
        Adam { lr, beta1, beta2, eps, weight_decay, ..Adam::default() }
    }

    fn number(&mut self, name: &str) -> f64 {
        let value = self.hyper.remove(name).unwrap_or_else(|| panic!("no {name}"));
        value.as_f64().unwrap_or_else(|| panic!("{name} is no number"))
    }

    fn flag(&mut self, name: &str) -> bool {
        self.hyper.remove(name).is_some_and(|value| value == true)
    }

    /// Replays the run on every instruction set and in both types. `states` are the library's names
    /// of the moments.
    fn check<R: Rule>(self, rule: R, states: impl IntoIterator<Item = &'static str> + Clone) {
        assert!(self.hyper.is_empty(), "hyper-parameters that nobody read: {:?}", self.hyper);
        for isa in Isa::available() {
            self.check_on::<R, f64>(&rule, isa, states.clone());
            self.check_on::<R, f32>(&rule, isa, states.clone());
        }
    }

    fn check_on<R: Rule, F: Float>(
        &self,
        rule: &R,
        isa: Isa,
        states: impl IntoIterator<Item = &'static str>,
    ) {
        let unit = if size_of::<F>() == 4 { f32::EPSILON as f64 } else { f64::EPSILON } / 2.0;
        let grads = self.grads.as_array().expect("an array a step");
        let start = numbers(&self.param);
        let mut columns = Columns::<F>::new::<R>(start.len(), |column, row| {
            F::from_f64(if column == 0 { start[row] } else { 0.0 })
        });
        // How far each parameter went, turns included, and how large each moment got.
        let mut way = vec![0.0; start.len()];
        let mut largest = vec![vec![0.0_f64; start.len()]; columns.moments.len()];
        for (t, grad) in (1..).zip(grads) {
            let before = columns.param.clone();
            columns.grad = numbers(grad).into_iter().map(F::from_f64).collect();
            let exec = Exec { isa, parallel: false };
            rule.step_many_on(exec, t, &mut [columns.tensor()]).expect("a valid step");
            for ((way, now), before) in way.iter_mut().zip(&columns.param).zip(&before) {
                *way += (now.to_f64() - before.to_f64()).abs();
            }
            for (largest, now) in largest.iter_mut().flatten().zip(columns.moments.iter().flatten())
            {
                *largest = largest.max(now.to_f64().abs());
            }
            let Some(expected) = self.params.get(&t).map(numbers) else { continue };
            for (row, &expected) in expected.iter().enumerate() {
                // Each step rounds the parameter once here, and once or twice in the library.
                let stored = 2.0 * t as f64 * expected.abs().max(start[row].abs());
                let bound = unit * (TOLERANCE.way * way[row] + stored);
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
        for ((name, moment), largest) in states.into_iter().zip(&columns.moments).zip(&largest) {
            let expected = numbers(self.state.get(name).unwrap_or_else(|| panic!("no {name}")));
            for (row, &expected) in expected.iter().enumerate() {
                let found = moment[row].to_f64();
                assert!(
                    (found - expected).abs() <= TOLERANCE.moment * unit * largest[row],
                    "{} on {isa}, {name} of {row}: {found}, expected {expected}",
                    F::NAME
                );
            }
        }
    }
}

fn numbers(array: &serde_json::Value) -> Vec<f64> {
    let numbers = array.as_array().expect("an array");
    numbers.iter().map(|number| number.as_f64().expect("a number")).collect()
}

#[test]
fn kernels_agree_with_pytorch_and_tensorflow() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let folder = env::var_os("ADAMANT_GOLDEN_DIR").unwrap_or(shipped.into());
    let (mut checked, mut skipped) = (0, 0);
    let files = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    for file in files {
        let path = file.expect("a directory entry").path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        // The name stands before whatever fails in the file.
        println!("golden: {}", path.display());
        if Golden::read(&path).replay() {
            checked += 1;
        } else {
            println!("golden: skipped, not built yet");
            skipped += 1;
        }
    }
    println!("golden: {checked} checked, {skipped} skipped");
    assert!(checked > 0, "no vectors in {}", folder.display());
}
