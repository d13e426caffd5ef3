//! How close a step comes to what this machine can do.
//!
//! ```text
//! cargo bench --bench roofline -- [--quick] [--json FILE] [--svg FILE]
//! ```
//!
//! The limit of each case is measured in the same run, in turn with the step: the slower of moving
//! the same bytes through the same arrays on the same threads, and of the square roots and divisions
//! alone. The last column is the speed-up over the loop that the compiler vectorises by itself.
//!
//! Cases: `dense` is Adam over one tensor, from inside the pool where there are several threads, and
//! `dense-outside` from a thread that is in none; `call` is Adam over 16 elements, `1000x1024` and
//! `gpt2` over many tensors; others are optimizers by name.
//!
//! `rows-lazy-64x4096` is a lazy step of Adam on 4,096 indices, a fifth of them duplicates, into a table
//! of 1 Mi rows of 64; `rows-rowwise` keeps one second moment a row, and `rows-dense-equivalent` catches
//! up by the series. Rows come fresh from memory, or with `-zipf` as words do; `-cached` is a small table;
//! `-huge` lies on huge pages, as [`Buffer`](adamant::Buffer) does. The limit is that of the same rows
//! once each, in order, with gradients that are summed already, trivial arithmetic and prefetches; the
//! elements are those of the gradient.
//!
//! Adam in mixed precision, computed in `f32`: `bf16-f32` and `f16-f32` have parameters and gradients of
//! 16 bits and moments in `f32`; `f32-bf16grad` has gradients alone in bf16, `split` parameters in two
//! halves, too, `bf16-moments` moments alone; `bf16` is all in bf16, rounded at random, and `q8` has
//! moments of 8 bits and the rest in `f32`. `tail` is all that follows a backward pass, in `f32`: the
//! norm of the gradients, and AdamW that clips and unscales them, writes a copy of the parameters in bf16
//! and leaves gradients of zero. `norm` is that norm alone. `flush` is a step in `f32` that makes
//! subnormal moments 0, compared with one on subnormal moments. The limit moves the same bytes through
//! the same arrays with trivial arithmetic, or divides; `tail` and `q8` are compared with a step in
//! `f32`, too, and `q8` with the limit of that step, in turn with the rest.

mod cases;
mod limits;
mod machine;
mod mixed;
mod report;
mod rows;
#[path = "../support/mod.rs"]
mod support;
mod timing;

use std::{error::Error, fs, path::PathBuf, time::Duration};

use adamant::{BuiltIn, Exec, Float, Isa, Rule};
use clap::Parser;

use cases::{Arrays, Case, ceilings};
use machine::Machine;
use mixed::MixedCase;
use report::{Ceiling, Header, Report, Row};
use rows::RowCase;
use support::{Division, ForEachOptimizer, for_each_optimizer};
use timing::Plan;

/// Measures optimizer steps against the limits of this machine.
#[derive(Parser)]
struct Options {
    /// Fewer cases and rounds: under a minute
    #[arg(long)]
    quick: bool,

    /// Only cases whose name contains this
    #[arg(long, value_name = "NAME", default_value = "")]
    case: String,

    /// Write header and rows into this JSON file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draw the fraction of the limit over the size into this SVG file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,

    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

impl Options {
    fn plan(&self) -> Plan {
        let (rounds, least) = if self.quick { (7, 2) } else { (21, 4) };
        Plan { rounds, least: Duration::from_millis(least) }
    }

    /// The cases of an optimizer; Adam, which is first and by the name `dense`, has more.
    fn cases(&self, name: &'static str) -> Vec<Case> {
        let is_adam = name == "dense";
        let sizes: &[usize] = match (self.quick, is_adam) {
            (true, true) => &[1 << 10, 16 << 10, 256 << 10, 1 << 20, 16 << 20],
            (true, false) => &[16 << 10, 4 << 20],
            (false, _) => &[1 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 16 << 20, 64 << 20],
        };
        let mut cases = vec![];
        cases.extend(is_adam.then(Case::call));
        cases.extend(sizes.iter().map(|&size| Case::optimizer(name, size)));
        cases.extend(is_adam.then(Case::thousand));
        cases.extend((is_adam && !self.quick).then(Case::gpt2));
        cases.retain(|case| case.name.contains(&self.case));
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
    let best = Isa::selected()?;
    let machine = Machine::detect(best);
    println!("{machine}");

    let header = Header { machine, ceilings: measure_ceilings(&options, best) };
    println!("\n{}", Row::heading());
    let mut measured = Measured { options: &options, best, rows: vec![] };
    for_each_optimizer(&mut measured);
    measured.rows();
    measured.mixed();
    let rows = measured.rows;

    let report = Report { header, rows };
    if let Some(path) = &options.json {
        fs::write(path, serde_json::to_string_pretty(&report)?)?;
    }
    if let Some(path) = &options.svg {
        report.draw(path)?;
    }
    Ok(())
}

/// On one thread, and on all of the pool where it has more.
fn thread_counts() -> impl Iterator<Item = bool> {
    [false, true].into_iter().filter(|&parallel| !parallel || rayon::current_num_threads() > 1)
}

fn measure_ceilings(options: &Options, best: Isa) -> Vec<Ceiling> {
    let elements = if options.quick { 16 << 20 } else { 64 << 20 };
    let mut found = vec![];
    for isa in options.isas("dense", best) {
        for parallel in thread_counts() {
            let threads = if parallel { rayon::current_num_threads() } else { 1 };
            let measure = || ceilings(isa, parallel, elements, options.plan());
            let (stream_gb_per_s, sqrt_and_div_ns) = inside(parallel, measure);
            let isa = isa.name();
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
                for parallel in thread_counts().filter(|parallel| !parallel || case.name != "call")
                {
                    let exec = Exec { isa, parallel };
                    self.add(inside(parallel, || arrays.measure(exec, division, plan)));
                }
                if case.name == "dense" && rayon::current_num_threads() > 1 {
                    let outside = arrays.measure(Exec { isa, parallel: true }, division, plan);
                    self.add(Row { case: "dense-outside".into(), ..outside });
                }
            }
        }
    }

    /// Tables of which a step touches some rows.
    fn rows(&mut self) {
        let plan = self.options.plan();
        for case in RowCase::all(self.options.quick) {
            if !case.name().contains(&self.options.case) {
                continue;
            }
            let mut arrays = rows::Arrays::new(case);
            for parallel in thread_counts() {
                let exec = Exec { isa: self.best, parallel };
                self.add(inside(parallel, || arrays.measure(exec, plan)));
            }
        }
    }

    /// Mixed precision.
    fn mixed(&mut self) {
        let plan = self.options.plan();
        for case in MixedCase::all(self.options.quick) {
            if !case.name().contains(&self.options.case) {
                continue;
            }
            let mut arrays = mixed::Arrays::new(case);
            for parallel in thread_counts() {
                let exec = Exec { isa: self.best, parallel };
                self.add(inside(parallel, || arrays.measure(exec, plan)));
            }
        }
    }

    fn add(&mut self, row: Row) {
        println!("{row}");
        self.rows.push(row);
    }
}

/// Runs in the pool, where steps on many threads are at home, or on a thread outside of it.
fn inside<T: Send>(parallel: bool, run: impl FnOnce() -> T + Send) -> T {
    if parallel { rayon::scope(|_| run()) } else { run() }
}
