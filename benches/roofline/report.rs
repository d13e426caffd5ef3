//! What was measured, as a table and as JSON.

use std::fmt;

use serde::Serialize;

use crate::{limits::Place, machine::Machine, timing::Time};

/// One case, measured.
#[derive(Clone, Serialize)]
pub struct Row {
    pub case: String,
    pub dtype: &'static str,
    pub isa: &'static str,
    pub elements: usize,
    pub threads: usize,
    pub ns_per_element: f64,
    /// The middle half of the rounds lies within this share of the median.
    pub spread: f64,
    pub bytes_per_element: f64,
    pub gb_per_s: f64,
    pub limit_ns_per_element: f64,
    pub fraction_of_limit: f64,
    pub speedup_over_compiler: Option<f64>,
    pub speedup_over_plain: Option<f64>,
    /// Of tables: the time of a step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub us_per_step: Option<f64>,
    /// Of dense-equivalent steps: their time in lazy steps on the same rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times_lazy: Option<f64>,
    /// Of dense-equivalent steps: how many fit into a dense step over the whole table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speedup_over_dense: Option<f64>,
    /// Of steps in mixed precision that do more than a step in `f32`: their time in such steps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times_f32_step: Option<f64>,
    /// Of steps in mixed precision that are to beat the memory of a step in `f32`: how many fit into
    /// the limit of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times_as_fast_as_f32_limit: Option<f64>,
    /// Of steps that flush subnormal moments: how many fit into one that does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times_unflushed: Option<f64>,
    /// Of calls that have next to nothing to do: the time of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ns_per_call: Option<f64>,
}

/// What a row is made of; times are those of an element, in nanoseconds.
pub struct Measures {
    pub case: String,
    pub dtype: &'static str,
    pub place: Place,
    pub elements: usize,
    pub step: Time,
    pub bytes_per_element: f64,
    pub limit_ns_per_element: f64,
}

impl Row {
    pub fn new(measures: Measures) -> Self {
        let Measures { case, dtype, place, elements, step, .. } = measures;
        let Measures { bytes_per_element, limit_ns_per_element, .. } = measures;
        Self {
            case,
            dtype,
            isa: place.isa.name(),
            elements,
            threads: place.threads(),
            ns_per_element: step.median,
            spread: step.spread,
            bytes_per_element,
            gb_per_s: bytes_per_element / step.median,
            limit_ns_per_element,
            fraction_of_limit: limit_ns_per_element / step.median,
            speedup_over_compiler: None,
            speedup_over_plain: None,
            us_per_step: None,
            times_lazy: None,
            speedup_over_dense: None,
            times_f32_step: None,
            times_as_fast_as_f32_limit: None,
            times_unflushed: None,
            ns_per_call: None,
        }
    }

    /// The columns' names, and what they are.
    pub fn heading() -> String {
        let columns = [
            ("ns/element", "the time of a step for each element: the median of all rounds"),
            ("bytes", "that a step reads and writes for each element"),
            ("GB/s", "these bytes over that time"),
            ("limit ns", "the slower of two things, measured in the same run by code of its own:"),
            ("", "moving the same bytes; the square roots and divisions of the formula"),
            ("of limit", "the limit over the time: 1 is as fast as this machine can be"),
            ("x compiler", "the time of a plain loop over that of a step, on as many threads;"),
            ("", "the loop is built for any CPU of this kind"),
            (
                "x plain",
                "the same with a loop that is built for the instruction set, on one thread",
            ),
        ];
        let mut text = String::from("Columns:\n");
        for (name, what) in columns {
            text += &format!("  {name:<11} {what}\n");
        }
        text + &format!(
            "\n{:<36} {:<5} {:>9} {:>7} {:<6} {:>10} {:>6} {:>7} {:>10} {:>8} {:>10} {:>8}",
            "case",
            "type",
            "elements",
            "threads",
            "set",
            "ns/element",
            "bytes",
            "GB/s",
            "limit ns",
            "of limit",
            "x compiler",
            "x plain"
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<36} {:<5} {:>9} {:>7} {:<6} {:>10.4} {:>6.1} {:>7.1} {:>10.4} {:>8.3} {:>10} {:>8}",
            self.case,
            self.dtype,
            elements(self.elements),
            self.threads,
            self.isa,
            self.ns_per_element,
            self.bytes_per_element,
            self.gb_per_s,
            self.limit_ns_per_element,
            self.fraction_of_limit,
            times(self.speedup_over_compiler),
            times(self.speedup_over_plain),
        )?;
        if let Some(us) = self.us_per_step {
            write!(f, "  {us:.0} us a step")?;
        }
        if let Some(times) = self.times_lazy {
            write!(f, ", {times:.2} x lazy")?;
        }
        if let Some(times) = self.speedup_over_dense {
            write!(f, ", {times:.0} in a dense step")?;
        }
        if let Some(times) = self.times_f32_step {
            write!(f, "  {times:.2} x a step in f32")?;
        }
        if let Some(times) = self.times_as_fast_as_f32_limit {
            write!(f, ", {times:.2} in its limit")?;
        }
        if let Some(times) = self.times_unflushed {
            write!(f, "  {times:.2} in one with subnormals")?;
        }
        if let Some(ns) = self.ns_per_call {
            write!(f, "  {ns:.0} ns a call")?;
        }
        Ok(())
    }
}

fn times(times: Option<f64>) -> String {
    times.map_or("-".into(), |times| format!("{times:.2}"))
}

/// `16 Ki` for 16,384.
pub fn elements(count: usize) -> String {
    match count {
        _ if count >= 1 << 20 && count.is_multiple_of(1 << 20) => format!("{} Mi", count >> 20),
        _ if count >= 1 << 10 && count.is_multiple_of(1 << 10) => format!("{} Ki", count >> 10),
        _ => count.to_string(),
    }
}

/// Everything that one run found out.
#[derive(Serialize)]
pub struct Report {
    pub header: Header,
    pub rows: Vec<Row>,
}

#[derive(Serialize)]
pub struct Header {
    #[serde(flatten)]
    pub machine: Machine,
    pub ceilings: Vec<Ceiling>,
}

/// What an instruction set can do at most on a number of threads.
#[derive(Serialize)]
pub struct Ceiling {
    pub isa: &'static str,
    pub threads: usize,
    pub stream_gb_per_s: f64,
    pub sqrt_and_div_ns: f64,
}

impl fmt::Display for Ceiling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { isa, threads, stream_gb_per_s, sqrt_and_div_ns } = self;
        let threads = if *threads == 1 { "1 thread".into() } else { format!("{threads} threads") };
        write!(
            f,
            "ceiling  {isa:<6} {threads:<10} memory {stream_gb_per_s:6.1} GB/s, \
             square root and division {sqrt_and_div_ns:.4} ns (f32)"
        )
    }
}

impl Report {
    /// Says so where the times of many cases differ from round to round, and where a limit cannot be one.
    pub fn warn(&self) {
        let above_limit = |row: &&Row| {
            row.threads == 1 && row.spread < STEADY && row.fraction_of_limit > TOLERANCE
        };
        let above_limit: Vec<_> = self.rows.iter().filter(above_limit).collect();
        if let Some(first) = above_limit.first() {
            eprintln!(
                "\nwarning: {} rows of one thread are faster than their limit, such as {} over {} elements, {:.2} of \
                 it: the loops that the limit is measured by may be too slow on this machine",
                above_limit.len(),
                first.case,
                elements(first.elements),
                first.fraction_of_limit
            );
        }
        let unsteady = self.rows.iter().filter(|row| row.spread > STEADY).count();
        if 4 * unsteady > self.rows.len() {
            eprintln!(
                "\nwarning: in {unsteady} of {} rows the middle half of the rounds spreads over more than \
                 {:.0} % of the median: other work was running, and the numbers say little",
                self.rows.len(),
                100.0 * STEADY
            );
        }
    }
}

/// The spread of rounds on a quiet machine is below.
const STEADY: f64 = 0.1;

/// A step is at most so much faster than its limit by chance.
const TOLERANCE: f64 = 1.15;
