//! Customer service windows: opened, closing soon, expired.

use std::process::ExitCode;

use connector_host::Backends;
use window_timer::Config;

fn main() -> ExitCode {
    connector_host::run("window-timer", Backends::Shared, Config::from, async |config, service| {
        window_timer::start(config, service);
        Ok(())
    })
}
