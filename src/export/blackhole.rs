//! Accepts everything and keeps nothing, to measure what reading, encoding and committing cost by
//! themselves.

use super::{
    Outcome, Record, SinkError,
    sink::{Sink, SinkFuture, all},
};

/// See the module's page.
#[derive(Clone, Copy, Debug, Default)]
pub struct Blackhole;

impl Sink for Blackhole {
    fn check(&self) -> SinkFuture<'_, Result<(), SinkError>> {
        Box::pin(async { Ok(()) })
    }

    fn deliver<'a>(&'a self, records: &'a [Record]) -> SinkFuture<'a, Vec<Outcome>> {
        Box::pin(async { all(records, &Outcome::Delivered) })
    }
}
