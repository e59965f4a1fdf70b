//! Meta's webhooks, durable before the 200.

use std::process::ExitCode;

use connector_host::Backends;
use webhook_receiver::Config;

fn main() -> ExitCode {
    connector_host::run("webhook-receiver", Backends::Shared, Config::from, async |config, service| {
        webhook_receiver::start(config, service).await?;
        Ok(())
    })
}
