//! What a load process has counted so far: one JSON line.

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Totals since the process started, latencies since the last report.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Counters {
    /// Seconds since the process started.
    pub(crate) seconds: f64,
    /// Bytes sent (client) or read on [`super::Purpose::Sink`] connections (server).
    pub(crate) bytes: u64,
    /// Bytes read on [`super::Purpose::Slow`] connections (server).
    pub(crate) slow_bytes: u64,
    /// Exchanges completed.
    pub(crate) requests: u64,
    /// Connections that ended otherwise than asked.
    pub(crate) errors: u64,
    /// Median latency of an exchange, in nanoseconds; 0 where none is measured.
    pub(crate) p50_ns: u64,
    /// 99th percentile of the latency.
    pub(crate) p99_ns: u64,
    /// 99.9th percentile of the latency.
    pub(crate) p999_ns: u64,
    /// How long it took until each connection had its first answer; 0 until then.
    pub(crate) served_ns: u64,
}

impl Counters {
    /// Exchanges a second since an earlier look.
    pub(crate) fn request_rate_since(&self, before: &Self) -> f64 {
        (self.requests - before.requests) as f64 / (self.seconds - before.seconds)
    }

    /// Bytes a second since an earlier look.
    pub(crate) fn byte_rate_since(&self, before: &Self) -> f64 {
        (self.bytes - before.bytes) as f64 / (self.seconds - before.seconds)
    }

    /// Failed connections since an earlier look.
    pub(crate) fn errors_since(&self, before: &Self) -> f64 {
        (self.errors - before.errors) as f64
    }

    /// One line without its end.
    pub(crate) fn to_json(self) -> String {
        json!({
            "seconds": self.seconds,
            "bytes": self.bytes,
            "slow_bytes": self.slow_bytes,
            "requests": self.requests,
            "errors": self.errors,
            "p50_ns": self.p50_ns,
            "p99_ns": self.p99_ns,
            "p999_ns": self.p999_ns,
            "served_ns": self.served_ns,
        })
        .to_string()
    }

    /// Parses a line that [`Self::to_json`] wrote.
    pub(crate) fn from_json(line: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(line).with_context(|| format!("not counters: {line}"))?;
        let count = |key: &str| value[key].as_u64().with_context(|| format!("counters without {key}"));
        Ok(Self {
            seconds: value["seconds"].as_f64().context("counters without seconds")?,
            bytes: count("bytes")?,
            slow_bytes: count("slow_bytes")?,
            requests: count("requests")?,
            errors: count("errors")?,
            p50_ns: count("p50_ns")?,
            p99_ns: count("p99_ns")?,
            p999_ns: count("p999_ns")?,
            served_ns: count("served_ns")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_parses_back() {
        let counters = Counters { seconds: 1.5, bytes: u64::MAX, requests: 7, p99_ns: 3, ..Counters::default() };
        assert_eq!(Counters::from_json(&counters.to_json()).unwrap(), counters);
    }
}
