//! Every service in one process.

use std::process::ExitCode;

use connector::Config;
use connector_host::Backends;

fn main() -> ExitCode {
    connector_host::run("connector", Backends::Any, Config::from, connector::start)
}
