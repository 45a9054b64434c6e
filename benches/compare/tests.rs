//! Unit tests of the benchmark's parts: a bench without harness has no place for them.

// What only runs in the benchmark itself is not used here.
#![allow(dead_code)]

mod cases;
mod facts;
mod figures;
mod goals;
mod median;
mod node;
mod options;
mod page;
mod pattern;
mod peers;
mod plot;
mod postfix;
mod process;
mod procfs;
mod python;
mod report;
mod scrape;
mod smtp;
mod table;
