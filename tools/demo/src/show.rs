//! What a person at the terminal sees of a fleet, and what keeps it up.

use std::time::Duration;

use crate::fleet::{Fleet, FleetError};
use crate::settings::Settings;

/// Lets something run, and starts again whatever is killed meanwhile.
///
/// # Errors
/// When a program is missing.
pub async fn watched(something: impl Future<Output = usize>, fleet: &mut Fleet) -> Result<usize, FleetError> {
    tokio::pin!(something);
    loop {
        tokio::select! {
            done = &mut something => return Ok(done),
            () = tokio::time::sleep(Duration::from_millis(500)) => {
                for name in fleet.revive()? {
                    println!("   ({name} was killed; it is started again)");
                }
            }
        }
    }
}

/// Says where everything is, for a person who wants to look.
pub fn describe(fleet: &Fleet) {
    let settings: &Settings = fleet.settings();
    println!("\nWhere to look:");
    println!("  conversation API  {}   (Authorization: Bearer {})", settings.api_url(), settings.api_token());
    println!("  WhatsApp          {}/simulator/stats", settings.simulator_url());
    if let Some((kafka, redis)) = fleet.servers() {
        println!("  Kafka             {kafka}");
        println!("  Redis             {redis}");
    }
    println!("  process                    pid      health and metrics      log");
    for (name, pid, admin) in fleet.processes() {
        let pid = pid.map_or_else(String::new, |pid| pid.to_string());
        println!("  {name:<24} {pid:>7}    {admin:<22}  {}", fleet.log_of(name).display());
    }
    if let Some((kafka, _)) = fleet.servers() {
        println!("  The log as readable lines: KAFKA_BOOTSTRAP_SERVERS={kafka} target/debug/connectorctl log --follow");
        println!("  Kill any of them with kill -9: it is started again, and the story goes on.");
    }
}
