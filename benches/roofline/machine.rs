//! What machine this is.

use std::{fmt, fs, thread};

use adamant::Isa;
use serde::Serialize;

/// The CPU, as far as the system tells.
#[derive(Serialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    /// Level and kind, and size, of each cache that the first core can use.
    pub caches: Vec<String>,
    pub isas: Vec<&'static str>,
    pub isa: &'static str,
    pub target: String,
}

impl Machine {
    pub fn detect(isa: Isa) -> Self {
        Self {
            cpu: cpu().unwrap_or_else(|| "unknown CPU".into()),
            cores: thread::available_parallelism().map_or(1, usize::from),
            caches: caches(),
            isas: Isa::available().into_iter().map(Isa::name).collect(),
            isa: isa.name(),
            target: format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let caches = if self.caches.is_empty() { "unknown".into() } else { self.caches.join(", ") };
        writeln!(f, "CPU      {}, {} cores, {}", self.cpu, self.cores, self.target)?;
        writeln!(f, "caches   {caches}")?;
        write!(f, "sets     {} (best: {})", self.isas.join(", "), self.isa)
    }
}

fn cpu() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let name = field("model name").or_else(|| field("CPU part"))?;
    match (field("cpu family"), field("model")) {
        (Some(family), Some(model)) => Some(format!("{name} (family {family}, model {model})")),
        _ => Some(name),
    }
}

fn caches() -> Vec<String> {
    let read = |index: usize, file: &str| {
        let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}");
        fs::read_to_string(path).map(|text| text.trim().to_owned()).ok()
    };
    let cache = |index| {
        let kind = match read(index, "type")?.as_str() {
            "Data" => "d",
            "Instruction" => "i",
            _ => "",
        };
        Some(format!("L{}{kind} {}", read(index, "level")?, read(index, "size")?))
    };
    (0..).map_while(cache).collect()
}
