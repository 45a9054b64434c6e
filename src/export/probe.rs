//! Asks once whether a sink could take a record: for `mailrace doctor`.

use tokio::time::timeout;

use super::{ErrorClass, ExportOptions, SinkError, plane::make_sink};

/// Connects to the sink of an exporter as the exporter itself would before its first batch, waits
/// for its `timeout` at most, and sends no record. Blocks.
///
/// # Errors
/// Why the exporter would not deliver at this time.
pub fn probe(options: &ExportOptions) -> Result<(), SinkError> {
    let failed = |error: &dyn std::fmt::Display| SinkError::new(ErrorClass::Other, error);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(&error))?;
    let outcome = runtime.block_on(async {
        let sink = make_sink(options)?;
        match timeout(options.timeout, sink.check()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let seconds = options.timeout.as_secs_f32();
                let text = format!("no answer within {seconds} s");
                Err(SinkError::new(ErrorClass::Timeout, text))
            }
        }
    });
    // Clients of sinks keep tasks of their own, which must not hold the command up.
    runtime.shutdown_background();
    outcome
}
