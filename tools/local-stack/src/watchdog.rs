//! Ends a server when its parent is gone, however that happened.

use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A small shell that waits for the end of its standard input, whose other end only this process holds. Then it kills the
/// process named in the pid file and removes the folder, if it was given one.
#[derive(Debug)]
pub(crate) struct Watchdog(Child);

/// Signals sent to the whole process group (Ctrl-C) must not end the watchdog before its work is done.
const SCRIPT: &str = r#"trap "" INT TERM HUP
while read -r _; do :; done
[ -f "$1" ] && kill -9 "$(cat "$1")" 2>/dev/null
[ -n "$2" ] && rm -rf "$2"
exit 0"#;

impl Watchdog {
    /// Watches the process whose id stands in `pid_file`.
    pub(crate) fn start(pid_file: &Path, remove: Option<&Path>) -> io::Result<Self> {
        let child = Command::new("sh")
            .args(["-c", SCRIPT, "watchdog"])
            .arg(pid_file)
            .arg(remove.map(Path::as_os_str).unwrap_or_default())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // Closing its input is the order to do its work; waiting leaves no zombie and no half removed folder behind.
        drop(self.0.stdin.take());
        self.0.wait().ok();
    }
}
