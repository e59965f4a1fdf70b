//! What was measured: the table, the file, and what went wrong.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde::Serialize;

/// The result of a measurement: its error is for people.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    AtLeast(f64),
    AtMost(f64),
}

/// The expectations by the beginning of a name. They stand here, in one place, so that a changed one is a visible decision.
const EXPECTED: &[(&str, Expected)] = &[
    ("embedded_append_per_s", Expected::AtLeast(100_000.0)),
    ("kafka_txn_ms_p50", Expected::AtMost(8.0)),
    ("end_to_end_ms_p50", Expected::AtMost(15.0)),
    ("end_to_end_ms_p99", Expected::AtMost(60.0)),
    ("redis_bytes_per_window", Expected::AtMost(126.0)),
    ("expiry_lateness_ms_p99_", Expected::AtMost(1_000.0)),
    // A million in a minute.
    ("expiries_per_s", Expected::AtLeast(16_700.0)),
    ("projection_rebuild_per_s", Expected::AtLeast(200_000.0)),
    ("heal_ms_p99", Expected::AtMost(5_000.0)),
    ("rss_idle_mb_", Expected::AtMost(25.0)),
    ("outbound_per_s_delay0", Expected::AtLeast(5_000.0)),
    ("outbound_per_s_delay100ms", Expected::AtLeast(3_000.0)),
    ("dispatch_overhead_ms_p50", Expected::AtMost(5.0)),
    ("dispatch_overhead_half_of_measured_ms_p50", Expected::AtMost(5.0)),
    ("webhook_ingest_share", Expected::AtLeast(70.0)),
    ("webhook_ingest_256_share", Expected::AtLeast(70.0)),
    ("webhook_ingest_items_share", Expected::AtLeast(70.0)),
    ("inbound_process_per_s", Expected::AtLeast(20_000.0)),
    // One second after the assignment, which itself is a matter of milliseconds in a new group.
    ("start_to_ready_ms", Expected::AtMost(1_500.0)),
];

/// One line of `results.json`.
#[derive(Clone, Debug, Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    note: String,
}

impl Figure {
    fn expected(&self) -> Option<Expected> {
        let of = |(name, _): &&(&str, Expected)| {
            if name.ends_with('_') { self.name.starts_with(name) } else { self.name == *name }
        };
        EXPECTED.iter().find(of).map(|(_, expected)| *expected)
    }
}

/// Collects figures and failures.
pub(crate) struct Report {
    only: Vec<String>,
    quick: bool,
    figures: Vec<Figure>,
    failures: Vec<String>,
}

impl Report {
    pub(crate) fn new(only: Vec<String>, quick: bool) -> Self {
        Self { only, quick, figures: Vec::new(), failures: Vec::new() }
    }

    /// Whether any figure with this beginning is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.starts_with(only) || only.starts_with(name))
    }

    /// Whether it has to be quick.
    pub(crate) const fn quick(&self) -> bool {
        self.quick
    }

    /// This long, or a fifth of it when it has to be quick.
    pub(crate) fn period(&self, full: Duration) -> Duration {
        if self.quick { full / 5 } else { full }
    }

    /// Keeps a figure and says it at once: some take their time.
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str, note: impl Into<String>) {
        let name = name.into();
        let value = round(value);
        eprintln!("  {name} {} {unit}", shown(value));
        self.figures.push(Figure { name, value, unit, note: note.into() });
    }

    /// The value of a measurement; a failure is kept for the end, and the others go on.
    pub(crate) fn attempt<T>(&mut self, what: &str, outcome: Outcome<T>) -> Option<T> {
        outcome.map_err(|error| self.failures.push(format!("{what}: {error}"))).ok()
    }

    /// Prints the table, writes the file. A failure when something could not be measured; a figure that falls short is none: it
    /// depends on the machine.
    pub(crate) fn finish(mut self) -> ExitCode {
        println!("{}", self.table());
        let written = self.write();
        if let Some(path) = self.attempt("results.json", written) {
            println!("written to {}", path.display());
        }
        for failure in &self.failures {
            eprintln!("not measured: {failure}");
        }
        if self.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn table(&self) -> String {
        let mut rows = vec![["figure", "value", "unit", "expected", "", "note"].map(str::to_owned)];
        for figure in &self.figures {
            let (expected, verdict) = match figure.expected() {
                Some(Expected::AtLeast(bound)) => (format!(">= {}", shown(bound)), figure.value >= bound),
                Some(Expected::AtMost(bound)) => (format!("<= {}", shown(bound)), figure.value <= bound),
                None => (String::new(), true),
            };
            let verdict = if verdict { "" } else { "short" };
            rows.push([
                figure.name.clone(),
                shown(figure.value),
                figure.unit.to_owned(),
                expected,
                verdict.to_owned(),
                figure.note.clone(),
            ]);
        }
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..5).map(width).collect();
        let line = |row: &[String; 6]| {
            let [name, value, unit, expected, verdict, note] = row;
            let [n, v, u, e, f] = [widths[0], widths[1], widths[2], widths[3], widths[4]];
            format!("{name:n$}  {value:>v$} {unit:u$}  {expected:e$} {verdict:f$}  {note}").trim_end().to_owned()
        };
        rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }

    fn write(&self) -> Outcome<PathBuf> {
        let path = folder()?.join("results.json");
        fs::write(&path, serde_json::to_string_pretty(&self.figures)? + "\n")?;
        Ok(path)
    }
}

/// Cargo's target folder: this program lies in `<target>/<profile>/`.
pub(crate) fn target() -> Outcome<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).ok_or("this program does not lie in a target folder")?;
    Ok(target.to_owned())
}

/// `<target>/bench`, made when it is not there.
pub(crate) fn folder() -> Outcome<PathBuf> {
    let folder = target()?.join("bench");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// File system and device of a folder, for figures that depend on it.
pub(crate) fn medium(folder: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mount = |line: &str| {
        let mut words = line.split(' ').map(str::to_owned);
        Some((words.next()?, words.next()?, words.next()?))
    };
    let all = mounts.lines().filter_map(mount).filter(|(_, at, _)| folder.starts_with(at));
    all.max_by_key(|(_, at, _)| at.len())
        .map_or_else(|| "unknown".to_owned(), |(what, _, kind)| format!("{kind} on {what}"))
}

/// The value below which this share (0 to 1) of the values lies. 0 for none.
pub(crate) fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a list"
    )]
    let at = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}

/// Milliseconds with their fraction.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Three digits behind the point are more than any of these measurements can tell.
fn round(value: f64) -> f64 {
    if value.abs() >= 1000.0 { value.round() } else { (value * 1000.0).round() / 1000.0 }
}

fn shown(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|share| percentile(&values, share)), [0.0, 50.0, 99.0, 100.0]);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }

    #[test]
    fn what_falls_short_is_marked_and_what_cannot_be_measured_fails_the_run() {
        let mut report = Report::new(vec![], false);
        report.add("kafka_txn_ms_p50", 9.0, "ms", "");
        report.add("rss_idle_mb_window-timer", 24.0, "MB", "");
        report.add("embedded_append_per_s", 1_234_567.0, "1/s", "fast");
        let table = report.table();
        let marked: Vec<bool> = table.lines().map(|line| line.contains("short")).collect();
        assert_eq!(marked, [false, true, false, false], "{table}");
        assert!(table.contains("1,234,567"), "{table}");
        assert!(report.attempt::<()>("kafka", Err("no java".into())).is_none());
        assert_eq!(report.failures, ["kafka: no java"]);
    }

    #[test]
    fn only_what_is_asked_for_is_measured() {
        let report = Report::new(vec!["end_to_end".to_owned(), "avro_decode_per_s".to_owned()], false);
        assert!(report.wants("end_to_end_ms") && report.wants("avro_decode_per_s"));
        assert!(!report.wants("avro_encode_per_s") && !report.wants("kafka_txn_ms"));
        assert!(Report::new(vec![], false).wants("anything"));
    }
}
