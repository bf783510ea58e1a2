//! The table at the end.

use std::{fmt, time::Duration};

use anyhow::Result;

use crate::{kitchen::Bytes, say};

/// One row per step. The first one is what the others are compared with.
pub(crate) struct Table {
    title: &'static str,
    rows: Vec<(&'static str, Duration, Bytes)>,
}

impl Table {
    pub(crate) fn of(title: &'static str) -> Self {
        Self { title, rows: Vec::new() }
    }

    /// Adds a step and says how it went.
    pub(crate) fn add(&mut self, step: &'static str, took: Duration, bytes: Bytes) -> Result<()> {
        let Bytes { upstream, cache } = bytes;
        self.rows.push((step, took, bytes));
        let seconds = took.as_secs_f64();
        let (upstream, cache) = (megabytes(upstream), megabytes(cache));
        say(&format!("  {seconds:.2} s; {upstream} over the line, {cache} from Larder"))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads = [self.title, "seconds", "from upstream", "from the cache", "of direct"];
        let [step, seconds, upstream, cache, ratio] = heads;
        writeln!(f, "{step:<38} {seconds:>8} {upstream:>14} {cache:>15} {ratio:>10}")?;
        writeln!(f, "{}", "-".repeat(89))?;
        let direct = self.rows.first().map_or(1.0, |(_, took, _)| took.as_secs_f64());
        for (step, took, bytes) in &self.rows {
            let took = took.as_secs_f64();
            let (upstream, cache) = (megabytes(bytes.upstream), megabytes(bytes.cache));
            let ratio = format!("{:.2} x", took / direct);
            writeln!(f, "{step:<38} {took:>8.2} {upstream:>14} {cache:>15} {ratio:>10}")?;
        }
        Ok(())
    }
}

/// `300.1 MB`
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
