//! The list of all optimizers. Besides its own files, a new optimizer needs a row here.

use super::any::optimizers;
use crate::{reference::Reference, settings::Settings};

/// An optimizer of this crate, for functions that are generic over all of them: see [`AnyOptimizer::with`].
/// Sealed.
pub trait BuiltIn: Settings + Reference + Into<AnyOptimizer> {
    /// The names that [`AnyOptimizer::new`] takes for it, each with settings of its own. The first name
    /// has the default settings.
    const NAMES: &'static [&'static str];

    /// The number of square roots that a step takes for each element.
    const ROOTS: u32;

    /// The number of divisions that a step takes for each element.
    const QUOTIENTS: u32;
}

// In each row: the type; its origin; its names, each with its settings; the number of square roots and of
// divisions in a step.
optimizers! {
    Sgd, "momentum: Polyak 1964; Nesterov: Sutskever et al. 2013",
        { "sgd": Sgd::default() }, 0, 0;
    AdaGrad, "Duchi et al. 2011",
        { "adagrad": AdaGrad::default() }, 1, 1;
    Adadelta, "Zeiler 2012",
        { "adadelta": Adadelta::default() }, 1, 1;
    RmsProp, "Tieleman and Hinton 2012",
        { "rmsprop": RmsProp::default() }, 1, 1;
    Adam, "Kingma and Ba 2015; Loshchilov and Hutter 2019; cautious: Liang et al. 2024",
        { "adam": Adam::default(), "adamw": Adam::adamw() }, 1, 1;
    AmsGrad, "Reddi et al. 2018",
        { "amsgrad": AmsGrad::default() }, 1, 1;
    AdaMax, "Kingma and Ba 2015",
        { "adamax": AdaMax::default() }, 0, 1;
    NAdam, "Dozat 2016",
        { "nadam": NAdam::default() }, 1, 1;
    RAdam, "Liu et al. 2020",
        { "radam": RAdam::default() }, 1, 1;
    Lion, "Chen et al. 2023",
        { "lion": Lion::default() }, 0, 0;
    Adopt, "Taniguchi et al. 2024",
        { "adopt": Adopt::default() }, 1, 1;
    AdEmaMix, "Pagliardini et al. 2024",
        { "ademamix": AdEmaMix::default() }, 1, 1;
    AdaBelief, "Zhuang et al. 2020",
        { "adabelief": AdaBelief::default() }, 1, 1;
    Yogi, "Zaheer et al. 2018",
        { "yogi": Yogi::default() }, 1, 1;
    Adan, "Xie et al. 2022",
        { "adan": Adan::default() }, 1, 1;
    Rprop, "Riedmiller and Braun 1993",
        { "rprop": Rprop::default() }, 0, 0;
    Asgd, "Polyak and Juditsky 1992",
        { "asgd": Asgd::default() }, 0, 0;
    Ftrl, "FTRL-Proximal: McMahan et al. 2013",
        { "ftrl": Ftrl::default() }, 2, 1;
}
