//! Draws how nine optimizers walk: over Beale's function, through a long valley, off a saddle point,
//! and towards the least loss of a logistic regression.
//!
//! After the animations of Alec Radford, 2014, which show SGD, momentum, Nesterov's momentum,
//! AdaGrad, Adadelta and RMSProp; here Adam, AdaMax and Lion walk beside them. Every step is one of
//! this crate's own.
//!
//! ```text
//! cargo run --release --example trajectories -- --out DIR
//! ```
//!
//! Each problem becomes a picture, `NAME.svg`, and an animation, `NAME.gif`, in the folder, and a
//! table in the output. A path arrives where it comes within the stated distance to stay, for ten
//! steps at least and until its last. Every optimizer takes the learning rate that arrives first, of
//! a grid that all share. On the surfaces, rates that lead to a step over a stated length are out: a
//! few long jumps that end well owe more to luck than to the optimizer. So do not read the tables as
//! a ranking: another start, another grid, and another one wins.
//!
//! Momentum is 0.9, and everything else is default. The moons are random, from a fixed seed.

mod animation;
mod canvas;
mod clip;
mod contour;
mod look;
mod method;
mod moons;
mod race;
mod report;
mod scene;
mod surface;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Parser;
use plotters::prelude::{IntoDrawingArea, SVGBackend};

use animation::Animation;
use canvas::Canvas;
use method::MOMENTUM;
use moons::Moons;
use race::{GRID, Problem};
use scene::{HEIGHT, Mark, Scene, WIDTH};
use surface::{Goal, Surface};

/// Frames of an animation.
const FRAMES: usize = 100;

/// Hundredths of a second; the last frame stays longer.
const DELAY: u16 = 7;
const LAST_DELAY: u16 = 300;

/// Draws the paths of nine optimizers, as pictures and as animations.
#[derive(Parser)]
struct Options {
    /// The folder to write to; made if it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn main() -> Result<()> {
    let folder = Options::parse().out;
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut out = io::stdout().lock();
    report::print_key(&mut out)?;
    for surface in [surface::beale(), surface::long_valley(), surface::saddle_point()] {
        draw_surface(&surface, &folder, &mut out)?;
    }
    draw_moons(&folder, &mut out)
}

fn draw_surface(surface: &Surface, folder: &Path, out: &mut impl Write) -> Result<()> {
    let entries = race::race(surface)?;
    let (arrival, mark) = match surface.goal {
        Goal::Near { minimum, distance } => (
            format!("to come within {distance} of\nthe minimum and stay there"),
            Mark { name: "minimum", point: minimum, above: false },
        ),
        Goal::Leave { distance } => (
            format!("until |y| is over {distance}"),
            Mark { name: "saddle", point: [0.0, 0.0], above: false },
        ),
    };
    let start = Mark { name: "start", point: surface.start, above: true };
    let [x, y] = surface.start;
    let scene = Scene {
        title: surface.title.to_owned(),
        caption: vec![
            format!("Start ({x}, {y}). Momentum: {MOMENTUM}. Learning rates: of {GRID}, the one"),
            format!(
                "that arrives in fewest steps, none of them longer than {}.",
                surface.longest_step
            ),
        ],
        axes: ["x", "y"],
        view: surface.view,
        contours: surface
            .levels
            .iter()
            .flat_map(|&level| contour::lines(surface.value, surface.view, level))
            .collect(),
        marks: vec![mark, start],
        y_tick: scene::tick,
        arrival,
        entries: &entries,
    };
    publish(&scene, surface.file, surface.steps(), folder, out)
}

fn draw_moons(folder: &Path, out: &mut impl Write) -> Result<()> {
    let moons = Moons::new()?;
    let entries = race::race(&moons)?;
    let threshold = moons::DISTANCE.log10();
    let last = moons.steps() as f64;
    let scene = Scene {
        title: "Noisy moons: logistic regression".to_owned(),
        caption: vec![
            format!("Gradients of all {} samples. Momentum: {MOMENTUM}.", moons::SAMPLES),
            format!("Learning rates: of {GRID}, the one that arrives in fewest steps."),
        ],
        axes: ["step", "loss above the least (nats)"],
        view: [[0.0, last], [-6.0, 0.0]],
        contours: vec![vec![[0.0, threshold], [last, threshold]]],
        marks: Vec::new(),
        y_tick: |power| format!("1e{}", power.round()),
        arrival: format!(
            "to come within {} of\nthe least loss (the grey\nline) and stay there",
            moons::DISTANCE
        ),
        entries: &entries,
    };
    publish(&scene, "noisy-moons", moons.steps(), folder, out)
}

/// Prints the results, and writes the picture and the animation.
fn publish(
    scene: &Scene,
    name: &str,
    steps: usize,
    folder: &Path,
    out: &mut impl Write,
) -> Result<()> {
    report::print(out, scene)?;

    let path = folder.join(name).with_extension("svg");
    write_picture(scene, steps, &path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    writeln!(out, "wrote {}", path.display())?;

    let path = folder.join(name).with_extension("gif");
    write_animation(scene, steps, &path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(writeln!(out, "wrote {}\n", path.display())?)
}

fn write_picture(scene: &Scene, steps: usize, path: &Path) -> Result<()> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        scene.draw_background(&root)?;
        scene.draw_runs(&root, steps)?;
        root.present()?;
    }
    Ok(fs::write(path, svg)?)
}

fn write_animation(scene: &Scene, steps: usize, path: &Path) -> Result<()> {
    let file = BufWriter::new(File::create(path)?);
    let (width, height) = ((WIDTH / 2) as u16, (HEIGHT / 2) as u16);
    let mut animation = Animation::new(file, width, height, &scene::inks())?;

    let mut background = Canvas::new(WIDTH, HEIGHT);
    scene.draw_background(&(&mut background).into_drawing_area())?;
    for step in frames(steps) {
        let mut canvas = background.clone();
        let root = (&mut canvas).into_drawing_area();
        scene.draw_runs(&root, step)?;
        scene.draw_step(&root, step)?;
        drop(root);
        animation.push(&canvas.halved(), if step == steps { LAST_DELAY } else { DELAY })?;
    }
    animation.finish()
}

/// The steps to show, from 0 to the last: all at first, then ever fewer, for paths slow down.
fn frames(steps: usize) -> Vec<usize> {
    let mut shown = vec![0];
    let mut last = 0;
    for frame in 1..=FRAMES {
        let share = frame as f64 / FRAMES as f64;
        let wanted = (steps as f64 * share * share).round() as usize;
        if last < steps {
            last = wanted.clamp(last + 1, steps);
            shown.push(last);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_rise_to_the_last_step() {
        for steps in [1, 2, 50, 100, 101, 500] {
            let frames = frames(steps);
            assert_eq!((frames[0], frames.last()), (0, Some(&steps)));
            assert!(frames.windows(2).all(|pair| pair[0] < pair[1]), "{steps}: {frames:?}");
        }
    }
}
