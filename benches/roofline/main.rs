//! How close a step comes to what this machine can do.
//!
//! ```text
//! cargo bench --bench roofline -- [--quick] [--case NAME] [--json FILE] [--svg FILE]
//! cargo bench --bench roofline -- --json benches/results/
//! cargo bench --bench roofline -- --draw benches/results/*.json --svg FILE
//! ```
//!
//! The limit of each case is measured in the same run, in turn with the step: the slower of moving
//! the same bytes through the same arrays on the same threads, and of the square roots and divisions
//! alone. It comes from loops of its own (`limits`): the bytes go through the fastest of 18 loops, with
//! one, two or four registers at a time, and memory asked for at six distances or not at all. A run
//! explains columns and cases where it prints them.
//!
//! For tables, the limit is that of the same rows once each, in order, with gradients that are summed
//! already, trivial arithmetic and prefetches; the elements are those of the gradient. `tail` and `q8` are
//! compared with a step in `f32`, too, and `q8` with the limit of that step, in turn with the rest;
//! `flush` is compared with a step on subnormal moments.

mod cases;
mod draw;
mod limits;
mod machine;
mod mixed;
mod names;
mod plain;
mod report;
mod rows;
#[path = "../support/mod.rs"]
mod support;
mod timing;

use std::{error::Error, fs, path::PathBuf, time::Duration};

use adamant::{
    Isa,
    rule::{BuiltIn, Float, Rule},
};
use clap::Parser;

use cases::{Arrays, Case};
use limits::{Place, ceilings};
use machine::Machine;
use mixed::MixedCase;
use report::{Ceiling, Header, Report, Row};
use rows::RowCase;
use support::{Division, ForEachOptimizer, for_each_optimizer};
use timing::Plan;

/// Measures optimizer steps against the limits of this machine.
#[derive(Parser)]
struct Options {
    /// Fewer cases and rounds: some minutes
    #[arg(long)]
    quick: bool,

    /// Only cases of this name, or whose name goes on with a hyphen
    #[arg(long, value_name = "NAME", default_value = "")]
    case: String,

    /// Write header and rows into this JSON file; in a folder, into a file named after the CPU
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draw the fraction of the limit over the size into this SVG file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Measure nothing: draw the runs in these JSON files into one picture, a line for each
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "svg")]
    draw: Vec<PathBuf>,

    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn plan(&self) -> Plan {
        let (rounds, least) = if self.quick { (7, 2) } else { (21, 4) };
        Plan { rounds, least: Duration::from_millis(least) }
    }

    /// Finds out before the run, and not after it, that a result cannot be written.
    fn check_folders(&self) -> Result<(), String> {
        for path in [&self.json, &self.svg].into_iter().flatten() {
            let ends_in_slash = path.as_os_str().as_encoded_bytes().ends_with(b"/");
            let folder = if ends_in_slash { Some(path.as_path()) } else { path.parent() };
            if let Some(folder) = folder
                && !folder.as_os_str().is_empty()
                && !folder.is_dir()
            {
                return Err(format!("there is no folder {}", folder.display()));
            }
        }
        Ok(())
    }

    fn wants(&self, name: &str) -> bool {
        names::fits(&self.case, name)
    }

    /// The cases of an optimizer; Adam, which is first and by the name `dense`, has more.
    fn cases(&self, name: &'static str) -> Vec<Case> {
        let is_adam = name == "dense";
        let sizes: &[usize] = match (self.quick, is_adam) {
            (true, true) => &[1 << 10, 16 << 10, 256 << 10, 1 << 20, 16 << 20],
            (true, false) => &[16 << 10, 4 << 20],
            (false, true) => &[
                1 << 10,
                4 << 10,
                16 << 10,
                64 << 10,
                256 << 10,
                512 << 10,
                1 << 20,
                4 << 20,
                16 << 20,
                64 << 20,
            ],
            (false, false) => &[16 << 10, 256 << 10, 4 << 20],
        };
        let mut cases = vec![];
        cases.extend(is_adam.then(Case::call));
        cases.extend(sizes.iter().map(|&size| Case::optimizer(name, size)));
        cases.extend(is_adam.then(Case::thousand));
        cases.extend((is_adam && !self.quick).then(Case::gpt2));
        cases.retain(|case| self.wants(case.name));
        cases
    }

    /// All sets for Adam, and the best alone for the others or if in a hurry.
    fn isas(&self, name: &'static str, best: Isa) -> Vec<Isa> {
        let all = name == "dense" && !self.quick;
        Isa::available().into_iter().filter(|&isa| all || isa == best).collect()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    if let (false, Some(svg)) = (options.draw.is_empty(), &options.svg) {
        let runs: Result<Vec<_>, _> =
            options.draw.iter().map(|path| draw::Run::read(path)).collect();
        return draw::compare(&runs?, svg);
    }
    options.check_folders()?;

    let best = Isa::selected()?;
    let machine = Machine::detect(best);
    println!("{machine}");
    machine.warn();

    let header = Header { machine, ceilings: measure_ceilings(&options, best) };
    println!("\n{}", Row::heading());
    let mut measured = Measured { options: &options, best, rows: vec![], explained: "" };
    for_each_optimizer(&mut measured);
    measured.rows();
    measured.mixed();
    let report = Report { header, rows: measured.rows };
    if report.rows.is_empty() {
        return Err(format!("there is no case by the name {}", options.case).into());
    }
    report.warn();

    let json = serde_json::to_string_pretty(&report)?;
    if let Some(path) = &options.json {
        let path = match path.is_dir() {
            true => path.join(format!("{}.json", report.header.machine.file_name())),
            false => path.clone(),
        };
        fs::write(path, &json)?;
    }
    if let Some(path) = &options.svg {
        serde_json::from_str::<draw::Run>(&json)?.draw(path)?;
    }
    Ok(())
}

/// On one thread, and on all of the pool where it has more.
fn places(isa: Isa) -> impl Iterator<Item = Place> {
    let places = [false, true].map(|parallel| Place { isa, parallel });
    places.into_iter().filter(|place| !place.parallel || place.threads() > 1)
}

fn measure_ceilings(options: &Options, best: Isa) -> Vec<Ceiling> {
    let elements = if options.quick { 16 << 20 } else { 64 << 20 };
    let mut found = vec![];
    for isa in options.isas("dense", best) {
        for place in places(isa) {
            let measure = || ceilings(place, elements, options.plan());
            let (stream_gb_per_s, sqrt_and_div_ns) = inside(place, measure);
            let (isa, threads) = (isa.name(), place.threads());
            let ceiling = Ceiling { isa, threads, stream_gb_per_s, sqrt_and_div_ns };
            println!("{ceiling}");
            found.push(ceiling);
        }
    }
    found
}

/// The rows so far.
struct Measured<'a> {
    options: &'a Options,
    best: Isa,
    rows: Vec<Row>,
    /// What was said of the last row's case.
    explained: &'static str,
}

impl ForEachOptimizer for Measured<'_> {
    fn visit<R: BuiltIn>(&mut self, name: &'static str, rule: R, division: Division) {
        self.measure::<R, f32>(name, rule, division);
        // In a hurry, the other optimizers are like Adam.
        if name == "dense" || !self.options.quick {
            self.measure::<R, f64>(name, rule, division);
        }
    }
}

impl Measured<'_> {
    fn measure<R: Rule, F: Float>(&mut self, name: &'static str, rule: R, division: Division) {
        let plan = self.options.plan();
        for case in self.options.cases(name) {
            let mut arrays = Arrays::<R, F>::new(rule, case.clone());
            for isa in self.options.isas(name, self.best) {
                let on_threads = |place: &Place| !place.parallel || case.name != "call";
                for place in places(isa).filter(on_threads) {
                    let mut row = inside(place, || arrays.measure(place, division, plan));
                    if case.name == "call" {
                        row.ns_per_call = Some(row.ns_per_element * row.elements as f64);
                    }
                    self.add(row);
                }
                let place = Place { isa, parallel: true };
                if case.name == "dense" && place.threads() > 1 {
                    let outside = arrays.measure(place, division, plan);
                    self.add(Row { case: "dense-outside".into(), ..outside });
                }
            }
        }
    }

    /// Tables of which a step touches some rows.
    fn rows(&mut self) {
        let plan = self.options.plan();
        for case in RowCase::all(self.options.quick) {
            if !self.options.wants(&case.name()) {
                continue;
            }
            let mut arrays = rows::Arrays::new(case);
            for place in places(self.best) {
                self.add(inside(place, || arrays.measure(place, plan)));
            }
        }
    }

    /// Mixed precision.
    fn mixed(&mut self) {
        let plan = self.options.plan();
        for case in MixedCase::all(self.options.quick) {
            if !self.options.wants(case.name()) {
                continue;
            }
            let mut arrays = mixed::Arrays::new(case);
            for place in places(self.best) {
                self.add(inside(place, || arrays.measure(place, plan)));
            }
        }
    }

    fn add(&mut self, row: Row) {
        let what = names::explain(&row.case);
        if what != self.explained {
            println!("\n{}: {what}", row.case);
            if row.case.starts_with("rows") && !self.explained.contains("listed") {
                println!("{}", names::PARTS);
            }
            self.explained = what;
        }
        println!("{row}");
        self.rows.push(row);
    }
}

/// Runs in the pool, where steps on many threads are at home, or on a thread outside of it.
fn inside<T: Send>(place: Place, run: impl FnOnce() -> T + Send) -> T {
    if place.parallel { rayon::scope(|_| run()) } else { run() }
}
