//! The table at the end.

use std::{fmt, time::Duration};

/// One pod.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) step: &'static str,
    pub(crate) node: String,
    pub(crate) took: Duration,
    pub(crate) upstream: u64,
    pub(crate) cache: u64,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (took, upstream) = (self.took.as_secs_f64(), megabytes(self.upstream));
        let cache = megabytes(self.cache);
        write!(f, "{:<4} {:<16} {took:>7.2} s {upstream:>15} {cache:>16}", self.node, self.step)
    }
}

/// One row per pod.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }
}

/// By node; a pod without Larder is what the others of its node are compared with.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [node, step, took] = ["node", "pod", "starts in"];
        let [upstream, cache, ratio] = ["from upstream", "from the cache", "of direct"];
        writeln!(f, "{node:<4} {step:<16} {took:>9} {upstream:>15} {cache:>16} {ratio:>10}")?;
        writeln!(f, "{}", "-".repeat(75))?;
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by_key(|row| &row.node);
        for row in &rows {
            let direct = rows.iter().find(|other| other.node == row.node);
            let direct = direct.map_or(1.0, |row| row.took.as_secs_f64());
            writeln!(f, "{row} {:>8.2} x", row.took.as_secs_f64() / direct)?;
        }
        Ok(())
    }
}

/// `300.1 MB`
#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
pub(crate) fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
