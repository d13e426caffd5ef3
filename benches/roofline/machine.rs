//! What machine this is.

use std::{fmt, fs, thread, time::Duration};

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

impl Machine {
    /// A name for files: `amd-epyc-family-25-model-17`.
    pub fn file_name(&self) -> String {
        let is_word = |c: char| c.is_ascii_alphanumeric();
        let words = self.cpu.split(|c| !is_word(c)).filter(|word| !word.is_empty());
        words.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("-")
    }

    /// Says so where other programs are running.
    pub fn warn(&self) {
        if let Some(busy) = busy_cores()
            && busy > 0.1
        {
            eprintln!(
                "warning: other programs keep {busy:.1} of {} cores busy; the numbers will be off",
                self.cores
            );
        }
    }
}

/// How many cores were busy for half a second in which this program slept, as far as the system tells.
///
/// The load average would count the build that came before.
fn busy_cores() -> Option<f64> {
    const TIME: Duration = Duration::from_millis(500);
    let before = busy_seconds()?;
    thread::sleep(TIME);
    Some((busy_seconds()? - before) / TIME.as_secs_f64())
}

/// Seconds that cores have been busy with user and system code, or taken by other virtual machines.
fn busy_seconds() -> Option<f64> {
    /// Fields of the first line, after the name: user, nice, system; idle and waiting; interrupts (two
    /// fields), stolen.
    const BUSY: [usize; 6] = [0, 1, 2, 5, 6, 7];
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let fields = stat.lines().next()?.split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.map_while(|field| field.parse().ok()).collect();
    let busy = BUSY.iter().filter_map(|&field| ticks.get(field));
    Some(busy.sum::<f64>() / TICKS_PER_SECOND)
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
