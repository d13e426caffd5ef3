//! What this machine can do at most: moving the bytes of a step, and its square roots and divisions.
//!
//! Code of its own, which shares nothing with the kernels that it judges.

mod divide;
mod stream;
mod sweep;

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use adamant::{Exec, Isa, Threads};

use crate::timing::{Plan, Time, time};

pub use divide::{DIVIDED, divider};
pub use stream::Stream;
use stream::{Loop, STEPS};
use sweep::Shape;

/// Where something runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub isa: Isa,
    /// On all threads of the pool, or on the calling one.
    pub parallel: bool,
}

impl Place {
    pub fn threads(self) -> usize {
        if self.parallel { rayon::current_num_threads() } else { 1 }
    }

    pub fn exec(self) -> Exec<'static> {
        let threads = if self.parallel { Threads::Rayon } else { Threads::Serial };
        Exec { isa: Some(self.isa), threads }
    }
}

/// How far ahead of the loop memory is asked for, in bytes of each array; 0 for not at all.
const AHEAD: [usize; 6] = [0, 256, 512, 1 << 10, 2 << 10, 4 << 10];

/// A loop that moves bytes, and into how many pieces threads cut its work.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    how: Loop,
    pieces: usize,
}

/// The two fastest ways to move some bytes. The limit is what the faster one takes in the end.
#[derive(Clone, Copy, Debug)]
pub struct Fastest([Way; 2]);

/// What a choice depends on.
type Key = (Place, Vec<Shape>, usize);

/// Choices that were made: other optimizers move the same bytes.
static CHOSEN: Mutex<BTreeMap<Key, Fastest>> = Mutex::new(BTreeMap::new());

impl Fastest {
    /// Tries all loops on these streams, which follow each other, unless that has been done before.
    pub fn of(streams: &[Stream<'_>], place: Place, plan: Plan) -> Self {
        let shapes = streams.iter().map(Stream::shape).collect();
        let elements = streams.iter().map(Stream::elements).max().unwrap_or(0);
        let key = (place, shapes, elements);
        let known = || CHOSEN.lock().ok()?.get(&key).copied();
        if let Some(found) = known() {
            return found;
        }
        let found = Self::choose(streams, elements, place, plan);
        if let Ok(mut chosen) = CHOSEN.lock() {
            chosen.insert(key, found);
        }
        found
    }

    fn choose(streams: &[Stream<'_>], elements: usize, place: Place, plan: Plan) -> Self {
        let loops: Vec<Loop> = STEPS
            .into_iter()
            .filter(|&registers| registers == 1 || Loop::step(place.isa, registers) <= elements)
            .flat_map(|registers| AHEAD.map(|ahead| Loop { registers, ahead }))
            .collect();
        let many = 4 * place.threads();
        let pieces = if place.parallel { many } else { 1 };
        let fastest = plan.fastest(loops.len(), |which, repetitions| {
            run(streams, place.isa, Way { how: loops[which], pieces }, repetitions)
        });
        let fastest = fastest.map(|which| loops[which]);
        if !place.parallel {
            return Self(fastest.map(|how| Way { how, pieces }));
        }
        // Little work is done sooner by fewer threads.
        let ways = [1, place.threads(), many].map(|pieces| Way { how: fastest[0], pieces });
        let best = plan.fastest(ways.len(), |which, repetitions| {
            run(streams, place.isa, ways[which], repetitions)
        });
        let pieces = ways[best[0]].pieces;
        Self(fastest.map(|how| Way { how, pieces }))
    }

    /// The time of one of both ways.
    pub fn run(
        self,
        which: usize,
        streams: &[Stream<'_>],
        isa: Isa,
        repetitions: usize,
    ) -> Duration {
        run(streams, isa, self.0[which], repetitions)
    }
}

fn run(streams: &[Stream<'_>], isa: Isa, way: Way, repetitions: usize) -> Duration {
    time(repetitions, || streams.iter().for_each(|stream| stream.run(isa, way.how, way.pieces)))
}

/// What memory and divider can do, for the report's header: gigabytes a second that stream through
/// arrays larger than the caches, as Adam's do, and nanoseconds for a square root and a division.
pub fn ceilings(place: Place, elements: usize, plan: Plan) -> (f64, f64) {
    let mut arrays: [_; 4] = std::array::from_fn(|_| aligned_vec::avec![0_f32; elements]);
    let [grad, change @ ..] = &mut arrays;
    let mut stream = Stream::new(elements);
    stream.read(grad);
    change.iter_mut().for_each(|array| stream.change(array));
    let streams = [stream];
    let fastest = Fastest::of(&streams, place, plan);
    let [first, second, division] = plan.times(|which, repetitions| match which {
        0 | 1 => fastest.run(which, &streams, place.isa, repetitions),
        _ => divider::<f32>(1, place, repetitions),
    });
    let stream = Time::median_of_faster(first, second);
    (28.0 * elements as f64 / stream, division.median / (DIVIDED * place.threads()) as f64)
}

impl Time {
    /// The median of the faster one.
    pub fn median_of_faster(a: Self, b: Self) -> f64 {
        a.median.min(b.median)
    }
}
