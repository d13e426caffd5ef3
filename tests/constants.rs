//! The constants of steps, which rules and reference share, against 80 decimal digits
//! (`tests/constants/make.py`); and row-wise Adam's mean of squares.

use adamant::{
    AdEmaMix, Adam, NAdam, RAdam, reference::RowReference, rule::Rule, table::RowWiseAdam,
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
    row_wise: RowWise,
}

#[derive(Deserialize)]
struct Case {
    optimizer: String,
    settings: Vec<f64>,
    t: u64,
    constants: Vec<f64>,
}

#[derive(Deserialize)]
struct RowWise {
    beta2: f64,
    grads: Vec<Vec<f32>>,
    exp_avg_sq: Vec<f64>,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("constants/constants.json")).expect("valid vectors")
}

/// The constants that depend on the step, in the order of the vectors.
fn found(case: &Case) -> Vec<f64> {
    let (settings, t) = (&case.settings[..], case.t);
    match (case.optimizer.as_str(), settings) {
        ("adam", &[beta1, beta2]) => {
            Adam { beta1, beta2, ..Adam::default() }.constants(t)[4..6].to_vec()
        }
        ("nadam", &[beta1, beta2, momentum_decay]) => {
            let nadam = NAdam { lr: 1e-3, beta1, beta2, momentum_decay, ..NAdam::default() };
            nadam.constants(t)[4..7].to_vec()
        }
        ("radam", &[beta1, beta2]) => {
            RAdam { beta1, beta2, ..RAdam::default() }.constants(t)[4..6].to_vec()
        }
        ("ademamix", &[beta1, beta2, beta3, warmup]) => {
            let [alpha_warmup, beta3_warmup] = [warmup as u64; 2];
            let defaults = AdEmaMix::default();
            let rule = AdEmaMix { beta1, beta2, beta3, alpha_warmup, beta3_warmup, ..defaults };
            let constants = rule.constants(t);
            [&constants[3..4], &constants[6..9]].concat()
        }
        (name, settings) => panic!("{name} with {settings:?}"),
    }
}

#[test]
fn constants_of_steps_are_right_to_13_digits() {
    for case in vectors().cases {
        let found = found(&case);
        assert_eq!(found.len(), case.constants.len());
        // RAdam's length is a difference, which loses up to two digits before another formula takes over.
        let limit = if case.optimizer == "radam" { 1e-11 } else { 1e-13 };
        for (found, &expected) in found.iter().zip(&case.constants) {
            let error = (found - expected).abs();
            let Case { optimizer, settings, t, .. } = &case;
            assert!(
                error <= limit * expected.abs(),
                "{optimizer} {settings:?}, step {t}: {found:e}, expected {expected:e}"
            );
        }
    }
}

#[test]
fn row_wise_adam_keeps_the_mean_of_squares() {
    let RowWise { beta2, grads, exp_avg_sq } = vectors().row_wise;
    let rule = RowWiseAdam(Adam { beta2, ..Adam::default() });
    let mut param = vec![0.0_f64; grads[0].len()];
    let (mut m, mut v) = (param.clone(), [0.0_f64]);
    for (step, (grad, &expected)) in grads.iter().zip(&exp_avg_sq).enumerate() {
        let grad: Vec<f64> = grad.iter().map(|&grad| grad.into()).collect();
        rule.reference_row(step as u64 + 1, &mut param, &grad, [&mut m, &mut v]);
        assert!((v[0] / expected - 1.0).abs() < 1e-14, "{}, expected {expected}", v[0]);
    }
}
