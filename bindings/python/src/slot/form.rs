//! The entries that the state of a parameter must have.

use adamant::{AnyOptimizer, DynOptimizer, Q8, table::CatchUp};
use pyo3::{prelude::*, types::PyString};

use crate::memory::{Facts, Kind, Seen};

/// The purpose of an entry of a parameter's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The number of steps taken: `float32`, no dimensions.
    Step,
    Moment(usize),
    /// The codes of a moment of 8 bits.
    Codes(usize),
    Scales(usize),
    /// The parameter in `float32`.
    Master,
    /// The lower halves of a parameter whose upper ones are bfloat16.
    Low,
    /// ASGD's step size of the next step.
    Eta,
    /// ASGD's share of the next average.
    Mu,
    /// The product of NAdam's momenta.
    MuProduct,
}

/// How 16-bit parameters keep the bits that they cannot hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Master {
    #[default]
    None,
    Copy,
    Split,
}

/// The options of a group that decide what its states look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// The type of the moments if they are not of 8 bits; `f32` without.
    pub is_q8: bool,
    pub moments: Option<Kind>,
    pub master: Master,
    pub stochastic: bool,
    /// Whether sparse gradients have the results of dense ones, and how rows catch up.
    pub dense_equivalent: Option<CatchUp>,
}

/// The keys of a group's states, by what they are for.
pub struct Keys {
    step: Py<PyString>,
    moments: Vec<[Py<PyString>; 3]>,
    master: Py<PyString>,
    low: Py<PyString>,
    eta: Py<PyString>,
    mu: Py<PyString>,
    mu_product: Py<PyString>,
}

impl Keys {
    pub fn new(py: Python<'_>, optimizer: &AnyOptimizer) -> Self {
        let key = |name: &str| PyString::intern(py, name).unbind();
        let moments = (0..optimizer.moment_count()).map(|moment| {
            let name = optimizer.moment_name(moment);
            [key(name), key(&format!("{name}_codes")), key(&format!("{name}_scales"))]
        });
        Self {
            step: key("step"),
            moments: moments.collect(),
            master: key("master_param"),
            low: key("param_low"),
            eta: key("eta"),
            mu: key("mu"),
            mu_product: key("mu_product"),
        }
    }

    pub(super) fn of(&self, role: Role) -> &Py<PyString> {
        match role {
            Role::Step => &self.step,
            Role::Moment(moment) => &self.moments[moment][0],
            Role::Codes(moment) => &self.moments[moment][1],
            Role::Scales(moment) => &self.moments[moment][2],
            Role::Master => &self.master,
            Role::Low => &self.low,
            Role::Eta => &self.eta,
            Role::Mu => &self.mu,
            Role::MuProduct => &self.mu_product,
        }
    }
}

/// The entries that the state of a parameter must have, in the order in which it is kept.
pub fn roles(optimizer: &AnyOptimizer, form: Form, kind: Kind) -> Vec<Role> {
    let mut roles = Vec::new();
    let used: Vec<usize> = (0..optimizer.moment_count())
        .filter(|&moment| optimizer.moment_start(moment).is_some())
        .collect();
    let is_random = form.stochastic && matches!(kind, Kind::Bf16 | Kind::F16);
    // SGD without momentum has no state in PyTorch either.
    if !matches!(optimizer, AnyOptimizer::Sgd(_)) || !used.is_empty() || is_random {
        roles.push(Role::Step);
    }
    for moment in used {
        match form.is_q8 {
            true => roles.extend([Role::Codes(moment), Role::Scales(moment)]),
            false => roles.push(Role::Moment(moment)),
        }
    }
    match optimizer {
        AnyOptimizer::Asgd(_) => roles.extend([Role::Eta, Role::Mu]),
        AnyOptimizer::NAdam(_) => roles.push(Role::MuProduct),
        _ => {}
    }
    match (form.master, kind) {
        (Master::Copy, Kind::Bf16 | Kind::F16) => roles.push(Role::Master),
        (Master::Split, Kind::Bf16) => roles.push(Role::Low),
        _ => {}
    }
    roles
}

/// Checks an array of a state. The error says what is wrong with it.
pub(super) fn fits(role: Role, form: Form, param: &Facts, seen: &Seen<'_>) -> Result<(), String> {
    let (Some(kind), len) = (param.kind, param.len) else { return Err("has no parameter".into()) };
    let reals = len * kind.reals();
    let has_type = |wanted: &[Kind]| match wanted.contains(&seen.kind) {
        true => Ok(()),
        false => {
            let wanted = wanted.iter().map(Kind::to_string).collect::<Vec<_>>().join(" or ");
            Err(format!("is of {}, but must be of {wanted}", seen.kind))
        }
    };
    if !seen.is_cpu {
        return Err("is not on the CPU".into());
    }
    if !seen.is_dense() {
        return Err("does not fill its memory without gaps or overlaps".into());
    }
    if seen.is_freed() {
        return Err("has no memory".into());
    }
    let is_number = matches!(role, Role::Step | Role::Eta | Role::Mu | Role::MuProduct);
    if !is_number && !seen.is_aligned() {
        return Err("is not aligned: use a copy".into());
    }
    let is_like_param = if kind.is_complex() && !seen.kind.is_complex() {
        // The pairs are a last dimension.
        let (shape, strides) = (param.shape().iter(), param.strides().iter());
        let strides = strides.map(|stride| 2 * stride);
        seen.shape.iter().copied().eq(shape.copied().chain([2]))
            && (len == 0
                || seen
                    .strides
                    .iter()
                    .copied()
                    .zip(strides.chain([1]))
                    .zip(seen.shape)
                    .all(|((own, wanted), &size)| size == 1 || own == wanted))
    } else {
        param.has_order_of(seen)
    };
    let scales = Q8::scales(reals);
    match role {
        Role::Step | Role::Eta | Role::Mu | Role::MuProduct => {
            has_type(&[Kind::F32])?;
            if seen.len() != 1 {
                return Err(format!("has {} elements, not 1", seen.len()));
            }
            return Ok(());
        }
        Role::Scales(_) => {
            has_type(&[Kind::F32])?;
            if seen.shape != [scales as i64] {
                return Err(format!("has shape {:?}, not [{scales}]", seen.shape));
            }
            return Ok(());
        }
        Role::Moment(_) => match (kind, form.moments.unwrap_or(Kind::F32)) {
            (Kind::F64, _) => has_type(&[Kind::F64])?,
            (Kind::C128, _) => has_type(&[Kind::C128])?,
            (Kind::C64, Kind::F32) => has_type(&[Kind::C64])?,
            (_, wanted) => has_type(&[wanted])?,
        },
        Role::Codes(_) => has_type(&[Kind::U8])?,
        Role::Master => has_type(&[Kind::F32])?,
        Role::Low => has_type(&[Kind::I16])?,
    }
    if !is_like_param {
        return Err(format!("has shape {:?} and strides {:?}", seen.shape, seen.strides));
    }
    Ok(())
}
