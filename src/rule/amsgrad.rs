use super::{adam::K, larger};
use crate::{
    Adam, Error,
    rule::{Count, Lanes, Rule},
    settings::{Setting, SettingValue, Settings, sealed::Sealed},
};

/// AMSGrad (Reddi, Kale and Kumar, 2018): [`Adam`] or AdamW that divides by the largest second
/// moment so far.
///
/// ```text
/// m, v as in Adam
/// w = max(w, v), NaN if either is
/// p as in Adam, with w for v
/// ```
///
/// PyTorch's `Adam(amsgrad=True)` and `AdamW(amsgrad=True)`. Moments: `exp_avg` (m), `exp_avg_sq` (v)
/// and `max_exp_avg_sq` (w).
///
/// A step moves 36 bytes a parameter in `f32`, and costs one square root and one division.
///
/// # Examples
///
/// ```
/// use adamant::{Adam, AmsGrad, Optimizer};
///
/// let amsgrad = AmsGrad(Adam { lr: 1e-2, ..Adam::adamw() });
/// let mut param = [1.0_f32];
/// let mut state = amsgrad.state(1);
/// amsgrad.step(&mut param, &[0.5], &mut state)?;
/// assert_eq!(state.moment("exp_avg_sq"), state.moment("max_exp_avg_sq"));
/// # Ok::<(), adamant::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AmsGrad(
    /// The hyper-parameters.
    pub Adam,
);

impl Sealed for AmsGrad {}

impl Settings for AmsGrad {
    const SETTINGS: &'static [Setting] = Adam::SETTINGS;

    fn get(&self, name: &str) -> Result<SettingValue<'static>, Error> {
        self.0.get(name)
    }

    fn set_value(&mut self, name: &str, value: SettingValue<'_>) -> Result<(), Error> {
        self.0.set_value(name, value)
    }

    #[inline]
    fn check_ranges(&self) -> Result<(), Error> {
        self.0.check_ranges()
    }
}

impl Rule for AmsGrad {
    type Moments = Count<3>;
    type Constants = Count<{ K::COUNT }>;
    const MOMENT_NAMES: [&'static str; 3] = ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"];

    #[inline(always)]
    fn holds_squares(&self, moment: usize) -> bool {
        moment > 0
    }

    #[inline(always)]
    fn specialise(self, mut run: impl FnMut(Self)) {
        self.0.specialise_decay(
            #[inline(always)]
            |adam| run(Self(adam)),
        );
    }

    fn check(&self) -> Result<(), Error> {
        self.0.check()
    }

    fn constants(&self, t: u64) -> [f64; K::COUNT] {
        self.0.constants(t)
    }

    #[inline(always)]
    fn update<L: Lanes>(
        &self,
        k: &[L; K::COUNT],
        param: L,
        grad: L,
        [m, v, w]: [L; 3],
    ) -> (L, [L; 3]) {
        let (Self(adam), k) = (self, &K::from(*k));
        let (param, grad) = adam.decay(k, param, grad);
        let [m, v] = adam.averages(k, grad, m, v);
        let w = larger(w, v);
        (adam.descend(k, param, grad, m, adam.denominator(k, w)), [m, v, w])
    }

    super::compiled_here!();
}
