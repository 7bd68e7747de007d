//! Cycles of the whole system, or of one CPU, by `perf stat`.

use std::process::Command;
use std::time::Duration;

/// Cycles a second of all CPUs together while `window` passes; `None` where this host can't count cycles (the window
/// then passes all the same).
pub(crate) fn cycles_per_second(window: Duration, countable: bool) -> Option<f64> {
    count(&["-a"], window, countable)
}

/// Cycles a second of one CPU while `window` passes.
pub(crate) fn core_cycles_per_second(cpu: usize, window: Duration, countable: bool) -> Option<f64> {
    count(&["-C", &cpu.to_string()], window, countable)
}

fn count(what: &[&str], window: Duration, countable: bool) -> Option<f64> {
    if !countable {
        std::thread::sleep(window);
        return None;
    }
    let output = Command::new("perf")
        .arg("stat")
        .args(what)
        .args(["-x", ",", "-e", "cycles,duration_time", "--", "sleep"])
        .arg(format!("{:.3}", window.as_secs_f64()))
        .output()
        .ok()?;
    parse(&String::from_utf8_lossy(&output.stderr))
}

/// Whether `perf` is there and this host has a cycle counter (many virtual machines have none).
pub(crate) fn countable() -> bool {
    cycles_per_second(Duration::from_millis(50), true).is_some()
}

fn parse(csv: &str) -> Option<f64> {
    let count = |event: &str| {
        csv.lines().find_map(|line| {
            let mut fields = line.split(',');
            let value = fields.next()?.parse::<f64>().ok()?;
            (fields.nth(1)? == event).then_some(value)
        })
    };
    Some(count("cycles")? / (count("duration_time")? / 1e9))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_counter_is_none() {
        let csv = "<not supported>,,cycles,0,100.00,,\n202597713,ns,duration_time,202597713,100.00,,\n";
        assert_eq!(parse(csv), None);
    }

    #[test]
    fn cycles_over_time() {
        let csv = "3000,,cycles,400,100.00,,\n1500000000,ns,duration_time,1500000000,100.00,,\n";
        assert_eq!(parse(csv), Some(2000.0));
    }
}
