//! Where the built programs are.

use std::path::PathBuf;

/// The folder of the built programs, next to this test.
///
/// # Panics
/// When a program was not built: `make test` builds them first.
#[must_use]
pub fn programs() -> PathBuf {
    let this = std::env::current_exe().unwrap_or_default();
    let folder = this.parent().and_then(|deps| deps.parent()).map(PathBuf::from).unwrap_or_default();
    for name in ["connector", "cloud-api-simulator", "connectorctl", "outbound-sender"] {
        let there = folder.join(name).exists();
        assert!(there, "{name} is not built: run `make test`, or `cargo build --workspace --bins` first");
    }
    folder
}

/// The root of the repository.
#[must_use]
pub fn root() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
