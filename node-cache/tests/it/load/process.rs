//! What the kernel says about a process.

use std::{fs, time::Duration};

/// A running process, by its id.
#[derive(Clone, Copy, Debug)]
pub struct Process(pub u32);

impl Process {
    fn status(self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Resident memory in KiB, mapped files included.
    pub fn rss(self) -> u64 {
        self.status("VmRSS")
    }

    /// The most that [`Process::rss`] ever was.
    pub fn peak_rss(self) -> u64 {
        self.status("VmHWM")
    }

    pub fn threads(self) -> u64 {
        self.status("Threads")
    }

    /// Processor time since [`Process::cpu`] was `before`.
    pub fn cpu_since(self, before: Duration) -> Duration {
        self.cpu().saturating_sub(before)
    }

    /// Processor time so far.
    pub fn cpu(self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap();
        // The second field, the name, may have spaces; user and system time are 14 and 15.
        let rest = stat.rsplit_once(')').unwrap().1;
        let times = rest.split_whitespace().skip(11).take(2);
        let ticks: u64 = times.map(|field| field.parse::<u64>().unwrap()).sum();
        // Linux shows 100 a second on every architecture.
        Duration::from_millis(ticks * 10)
    }
}
