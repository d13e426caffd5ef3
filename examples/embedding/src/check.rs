//! How far the models are apart, and how far they may be.

use anyhow::{Result, ensure};

use crate::{
    model::{Gradient, Model},
    train::{Plan, Run, Trainee},
    way::Way,
};

/// The largest differences of a parameter between two models.
pub struct Differences {
    /// From dense steps, after training.
    pub lazy: f32,
    pub series: f32,
    pub replay: f32,
    /// Between the series and replay, when both are given the same gradients.
    pub series_alone: f32,
    /// The largest value of [`series_alone`](Self::series_alone) that rounding explains.
    pub rounding: f32,
}

impl Differences {
    /// `runs` are of [`Way::ALL`].
    pub fn new(plan: &Plan, runs: &[Run; 4], on_step: impl FnMut()) -> Result<Self> {
        let [lazy, series, replay, dense] = runs;
        let replayed = Way::Replay;
        let follower = Way::Series;
        Ok(Self {
            lazy: lazy.model.distance(&dense.model),
            series: series.model.distance(&dense.model),
            replay: replay.model.distance(&dense.model),
            series_alone: follow(plan, replayed, follower, on_step)?,
            rounding: rounding(plan, &dense.model),
        })
    }

    /// Checks what dense-equivalent steps promise.
    ///
    /// There is no bound on how far training by the series ends from training by dense steps. It
    /// feeds roundings back: the forward pass reads them, and where gradients are small Adam's division
    /// by their size makes them large. A dense run whose initial values differ in the last bit ends as
    /// far away. So the series is judged by its own roundings, where both models take the same steps.
    pub fn check(&self) -> Result<()> {
        let Self { replay, series_alone, rounding, .. } = *self;
        ensure!(replay == 0.0, "replay should have the bits of dense steps, and is {replay:e} off");
        ensure!(
            series_alone <= rounding,
            "the series is {series_alone:e} off, and rounding explains no more than {rounding:e}"
        );
        Ok(())
    }
}

/// Trains a model, steps another with the gradients of the first, and returns their distance.
fn follow(plan: &Plan, leader: Way, follower: Way, mut on_step: impl FnMut()) -> Result<f32> {
    let [mut leader, mut follower] = [leader, follower].map(|way| Trainee::new(way, plan));
    let mut gradient = Gradient::new(plan.width);
    for batch in plan.batches() {
        leader.before_reading(batch)?;
        leader.model.gradient(batch, &mut gradient);
        for trainee in [&mut leader, &mut follower] {
            trainee.step(batch, &gradient)?;
        }
        on_step();
    }
    leader.before_reading_all()?;
    follower.before_reading_all()?;
    Ok(leader.model.distance(&follower.model))
}

/// A step rounds a parameter by 2^-24 of it at most, in either model. Should all roundings of all steps
/// add up, they come to this. The moments are rounded too, but they decide over a step's length only,
/// which is a small part of the parameter.
fn rounding(plan: &Plan, model: &Model) -> f32 {
    f32::EPSILON * plan.steps() as f32 * model.largest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::small_plan;

    #[test]
    fn series_stays_within_rounding_where_lazy_steps_do_not() {
        let plan = small_plan();
        let distance = |way| follow(&plan, Way::Dense, way, || ()).unwrap();
        let bound = rounding(&plan, &Run::new(Way::Dense, &plan, || ()).unwrap().model);
        assert!(distance(Way::Series) <= bound);
        assert!(distance(Way::Lazy) > 100.0 * bound);
    }

    #[test]
    fn replay_has_the_bits_of_dense_steps() {
        let plan = small_plan();
        let model = |way| Run::new(way, &plan, || ()).unwrap().model;
        let replayed = model(Way::Replay);
        assert_eq!(replayed.distance(&model(Way::Dense)), 0.0);
    }
}
