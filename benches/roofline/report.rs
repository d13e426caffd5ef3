//! What was measured, as a table, as JSON and as a picture.

use std::{collections::BTreeMap, fmt, path::Path};

use adamant::Isa;
use plotters::prelude::*;
use serde::Serialize;

use crate::machine::Machine;

/// One case, measured.
#[derive(Clone, Serialize)]
pub struct Row {
    pub case: String,
    pub dtype: &'static str,
    pub isa: &'static str,
    pub elements: usize,
    pub threads: usize,
    pub ns_per_element: f64,
    pub bytes_per_element: f64,
    pub gb_per_s: f64,
    pub limit_ns_per_element: f64,
    pub fraction_of_limit: f64,
    pub speedup_over_compiler: Option<f64>,
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

impl Row {
    #[allow(clippy::too_many_arguments, reason = "the columns, in their order")]
    pub fn new(
        case: impl Into<String>,
        dtype: &'static str,
        isa: Isa,
        elements: usize,
        threads: usize,
        ns_per_element: f64,
        bytes_per_element: f64,
        limit_ns_per_element: f64,
        speedup_over_compiler: Option<f64>,
    ) -> Self {
        Self {
            case: case.into(),
            dtype,
            isa: isa.name(),
            elements,
            threads,
            ns_per_element,
            bytes_per_element,
            gb_per_s: bytes_per_element / ns_per_element,
            limit_ns_per_element,
            fraction_of_limit: limit_ns_per_element / ns_per_element,
            speedup_over_compiler,
            us_per_step: None,
            times_lazy: None,
            speedup_over_dense: None,
            times_f32_step: None,
            times_as_fast_as_f32_limit: None,
            times_unflushed: None,
            ns_per_call: None,
        }
    }

    pub fn heading() -> String {
        format!(
            "{:<36} {:<5} {:>9} {:>7} {:<6} {:>10} {:>6} {:>7} {:>10} {:>8} {:>9}",
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
            "x compiler"
        )
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<36} {:<5} {:>9} {:>7} {:<6} {:>10.4} {:>6.1} {:>7.1} {:>10.4} {:>8.3} {:>10}",
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
            self.speedup_over_compiler.map_or("-".into(), |times| format!("{times:.2}")),
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

/// `16 Ki` for 16,384.
fn elements(count: usize) -> String {
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
    /// Draws the fraction of the limit over the size, a line for each set, type and thread count.
    pub fn draw(&self, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let mut lines: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.case == "dense") {
            let line = lines.entry((row.dtype, row.threads, row.isa)).or_default();
            line.push((row.elements as f64, row.fraction_of_limit));
        }
        let sizes = lines.values().flatten().map(|point| point.0);
        let (least, most) = sizes.fold((f64::MAX, 2.0_f64), |(a, b), x| (a.min(x), b.max(x)));

        let root = SVGBackend::new(path, (960, 560)).into_drawing_area();
        root.fill(&WHITE)?;
        let title = format!("Adam: fraction of the machine's limit, {}", self.header.machine.cpu);
        let mut chart = ChartBuilder::on(&root)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(56)
            .build_cartesian_2d((least..most).log_scale().base(2.0), 0.0..1.2)?;
        chart
            .configure_mesh()
            .x_desc("elements")
            .y_desc("fraction of the limit (the slower of streaming and dividing)")
            .x_label_formatter(&|x| elements(x.round() as usize))
            .draw()?;
        for (index, ((dtype, threads, isa), points)) in lines.into_iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let width = if threads == 1 { 2 } else { 4 };
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(width)).point_size(3))?
                .label(format!("{isa}, {dtype}, threads: {threads}"))
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(width))
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
        root.present()?;
        Ok(())
    }
}

/// Okabe and Ito's colours, which colour-blind readers can tell apart.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
    RGBColor(150, 150, 150),
];
