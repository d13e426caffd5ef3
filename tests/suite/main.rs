//! The tests that need no process of their own, in one program: what they share is compiled once, most of all the
//! references of all optimizers.

mod bits;
mod extremes;
mod golden;
mod groups;
mod mixed;
mod modes;
mod norm;
mod options;
mod own;
mod row_errors;
mod row_storages;
mod rows;
mod series;
mod state;
#[path = "../support/mod.rs"]
mod support;
