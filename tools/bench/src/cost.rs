//! What a process costs, as the kernel counts it.

use std::fs;
use std::time::Duration;

use crate::report::Outcome;

/// Clock ticks a second in `/proc/<pid>/stat`: 100 on every Linux that matters (`getconf CLK_TCK`).
const TICKS: u64 = 100;

/// `VmRSS`, in MB (10^6 bytes).
pub(crate) fn resident(pid: u32) -> Outcome<f64> {
    memory(pid, "VmRSS:")
}

/// The highest `VmRSS` so far (`VmHWM`), in MB.
pub(crate) fn peak(pid: u32) -> Outcome<f64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, name: &str) -> Outcome<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("the kernel does not tell this")?;
    let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kibibytes * 1024.0 / 1e6)
}

/// User and system time so far.
pub(crate) fn cpu(pid: u32) -> Outcome<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name of the program comes second, in parentheses, and may hold anything.
    let (_, rest) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| -> Outcome<u64> { Ok(fields.get(at).ok_or("a short stat")?.parse()?) };
    // utime and stime are fields 14 and 15, counted from 1 with pid and name.
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 1000 / TICKS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_a_size_and_uses_time() {
        let pid = std::process::id();
        let (now, most) = (resident(pid).expect("a size"), peak(pid).expect("a size"));
        assert!((1.0..1_000.0).contains(&now) && most + 1.0 >= now, "{now} {most}");
        let before = cpu(pid).expect("a time");
        let mut sum = 0_u64;
        while cpu(pid).expect("a time") == before {
            sum = (0..1_000_000).fold(sum, |sum, number: u64| sum.wrapping_mul(31).wrapping_add(number));
        }
        assert!(sum > 0);
    }
}
