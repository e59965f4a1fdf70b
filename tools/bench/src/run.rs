//! All measurements, one after the other, until they are done or a signal comes.

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::report::{Outcome, Report};
use crate::{embedded, fleet, inbound, outbound, pure, windows};

/// Fills the report and says whether everything was measured.
pub(crate) async fn run(mut report: Report) -> ExitCode {
    let stopped = tokio::select! {
        () = measure(&mut report) => Ok(()),
        stop = stop_signal() => stop.and_then(|()| Err("stopped by a signal".into())),
    };
    report.attempt("run", stopped);
    report.finish()
}

async fn measure(report: &mut Report) {
    pure::measure(report);
    let embedded = embedded::measure(report).await;
    report.attempt("embedded", embedded);
    let on_servers = fleet::measure(report).await;
    report.attempt("kafka", on_servers);
    let outbound = outbound::measure(report).await;
    report.attempt("outbound", outbound);
    let inbound = inbound::measure(report).await;
    report.attempt("inbound", inbound);
    let windows = windows::measure(report).await;
    report.attempt("windows", windows);
}

/// Ends the children too: a signal alone would leave them behind.
async fn stop_signal() -> Outcome<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    Ok(())
}
