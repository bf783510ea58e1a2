//! What the server writes to stderr.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::ChildStderr,
};

/// The lines of all processes that ran on one folder.
#[derive(Clone, Debug, Default)]
pub struct Log {
    lines: Arc<Mutex<Lines>>,
}

#[derive(Debug, Default)]
struct Lines {
    all: Vec<String>,
    current: usize,
}

impl Log {
    /// A new process begins here.
    pub(super) fn begin(&self) {
        let mut lines = self.lines.lock().unwrap();
        lines.current = lines.all.len();
    }

    pub(super) fn follow(&self, stderr: ChildStderr) {
        let lines = self.lines.clone();
        tokio::spawn(async move {
            let mut reader = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = reader.next_line().await {
                lines.lock().unwrap().all.push(line);
            }
        });
    }

    /// Pull and admin address of the current process, once it serves.
    pub(super) fn serving(&self) -> Option<(SocketAddr, SocketAddr)> {
        let lines = self.lines.lock().unwrap();
        lines.all[lines.current..].iter().find_map(|line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let fields = &line["fields"];
            let address = |key: &str| fields[key].as_str()?.parse().ok();
            (fields["message"] == "serving").then(|| Some((address("pull")?, address("admin")?)))?
        })
    }

    /// Everything of every process.
    pub fn text(&self) -> String {
        self.lines.lock().unwrap().all.join("\n")
    }

    /// The lines of the current process that contain `part`.
    pub fn lines_with(&self, part: &str) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        lines.all[lines.current..].iter().filter(|line| line.contains(part)).cloned().collect()
    }

    pub(super) fn tail(&self, count: usize) -> String {
        let lines = self.lines.lock().unwrap();
        lines.all[lines.all.len().saturating_sub(count)..].join("\n")
    }
}
