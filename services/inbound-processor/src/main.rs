//! Webhook items in, events of the log out.

use std::process::ExitCode;

use connector_host::Backends;
use inbound_processor::Config;

fn main() -> ExitCode {
    connector_host::run("inbound-processor", Backends::Shared, Config::from, async |config, service| {
        inbound_processor::start(config, service);
        Ok(())
    })
}
