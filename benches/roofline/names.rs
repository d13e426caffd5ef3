//! The names of the cases, and what they are.

/// Names, or how names begin, and what such a case is. The first row that fits counts.
const NAMES: &[(&str, &str)] = &[
    ("dense-outside", "Adam over one tensor, called on a thread that is in no pool"),
    ("dense", "Adam over one tensor; with several threads, called on one of the pool's"),
    (
        "call",
        "Adam over 16 elements, without options on the best instruction set: what a call costs",
    ),
    ("1000x1024", "Adam over 1,000 tensors of 1,024 elements in one call"),
    ("gpt2", "Adam over the 148 tensors of GPT-2 in one call"),
    (
        "rows-lazy",
        "a lazy step of Adam on listed rows of a table: WIDTHxINDICES, a fifth of the indices listed twice",
    ),
    (
        "rows-dense-equivalent",
        "the same rows, which first catch up by the series with the steps that they missed",
    ),
    ("rows-rowwise", "the same rows with one second moment for each"),
    ("bf16-f32", "parameters and gradients in bf16, moments in f32"),
    ("f16-f32", "parameters and gradients in f16, moments in f32"),
    ("f32-bf16grad", "gradients in bf16, the rest in f32"),
    ("split", "parameters in two halves of 16 bits, gradients in bf16, moments in f32"),
    ("bf16-moments", "moments in bf16, rounded at random, the rest in f32"),
    ("bf16", "everything in bf16, rounded at random"),
    ("q8", "moments of 8 bits, the rest in f32"),
    ("tail", "all after a backward pass: norm, clipping, AdamW, a copy in bf16, gradients zeroed"),
    ("flush", "a step in f32 that makes subnormal moments 0"),
    ("norm", "the norm of gradients in f32, and no step"),
];

/// What a case is, by its name.
pub fn explain(name: &str) -> &'static str {
    let found = NAMES.iter().find(|(known, _)| fits(known, name));
    found.map_or("this optimizer over one tensor", |(_, what)| what)
}

/// Whether a case goes by this name: `dense` is that of `dense-outside`, too, but not of `rows-dense-equivalent`.
pub fn fits(wanted: &str, name: &str) -> bool {
    match name.strip_prefix(wanted) {
        Some(rest) => wanted.is_empty() || rest.is_empty() || rest.starts_with('-'),
        None => false,
    }
}

/// What the parts of a name that may follow mean.
pub const PARTS: &str = "\
  -zipf       row k with a probability of 1 / (k + 1), as words come; else all rows have their turn
  -cached     a table of 2,048 rows, which lies in cache; else of 1 Mi rows (256 Ki with --quick)
  -huge       on huge pages, as `Buffer` has them";
