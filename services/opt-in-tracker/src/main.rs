//! Consent, contacts and enablement: into the log and into the gate.

use std::process::ExitCode;

use connector_host::Backends;
use opt_in_tracker::Config;

fn main() -> ExitCode {
    connector_host::run("opt-in-tracker", Backends::Shared, Config::from, async |config, service| {
        opt_in_tracker::start(config, service);
        Ok(())
    })
}
