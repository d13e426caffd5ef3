//! What the benches share: the optimizers and what a step of each costs.

use adamant::{
    AdEmaMix, AdaGrad, AdaMax, Adadelta, Adam, Adopt, AmsGrad, Lion, NAdam, RAdam, RmsProp, Rule,
    Sgd,
};

/// What the divider has to do for each element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Division {
    Nothing,
    Quotient,
    RootAndQuotient,
}

/// Something to do with every optimizer.
pub trait ForEachOptimizer {
    fn visit<R: Rule>(&mut self, name: &'static str, rule: R, division: Division);
}

/// Visits Adam, under the name `dense`, and then the others; all with steps so small that the
/// parameters stay what they are.
pub fn for_each_optimizer(each: &mut impl ForEachOptimizer) {
    use Division::{Nothing, Quotient, RootAndQuotient};
    let lr = 1e-6;
    let adamw = Adam { lr, ..Adam::adamw() };
    let sgd = Sgd { lr, ..Sgd::default() };
    let rmsprop = RmsProp { lr, ..RmsProp::default() };
    each.visit("dense", Adam { lr, ..Adam::default() }, RootAndQuotient);
    each.visit("adamw", adamw, RootAndQuotient);
    each.visit("adamw-cautious", Adam { cautious: true, ..adamw }, RootAndQuotient);
    each.visit("amsgrad", AmsGrad(Adam { lr, ..Adam::default() }), RootAndQuotient);
    each.visit("adamax", AdaMax { lr, ..AdaMax::default() }, Quotient);
    each.visit("nadam", NAdam { lr, ..NAdam::default() }, RootAndQuotient);
    each.visit("radam", RAdam { lr, ..RAdam::default() }, RootAndQuotient);
    each.visit("adopt", Adopt { lr, ..Adopt::default() }, RootAndQuotient);
    each.visit("ademamix", AdEmaMix { lr, ..AdEmaMix::default() }, RootAndQuotient);
    each.visit("lion", Lion { lr, ..Lion::default() }, Nothing);
    each.visit("adagrad", AdaGrad { lr, ..AdaGrad::default() }, RootAndQuotient);
    each.visit("adadelta", Adadelta { lr, ..Adadelta::default() }, RootAndQuotient);
    each.visit("rmsprop", rmsprop, RootAndQuotient);
    let momentum = 0.9;
    each.visit("rmsprop-all", RmsProp { momentum, centered: true, ..rmsprop }, RootAndQuotient);
    each.visit("sgd", sgd, Nothing);
    each.visit("sgd-momentum", Sgd { momentum, ..sgd }, Nothing);
}
