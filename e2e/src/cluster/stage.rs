//! How long things took.

use std::{
    fmt,
    time::{Duration, Instant},
};

/// A clock that is read at the end of each stage.
#[derive(Clone, Debug)]
pub struct Stages {
    last: Instant,
    done: Vec<(String, Duration)>,
}

impl Default for Stages {
    fn default() -> Self {
        Self { last: Instant::now(), done: Vec::new() }
    }
}

impl Stages {
    /// The stage that began at the end of the one before is over.
    pub fn done(&mut self, name: &str) {
        let now = Instant::now();
        self.done.push((name.to_owned(), now - self.last));
        self.last = now;
    }
}

/// One line per stage, and their sum.
impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, took) in &self.done {
            writeln!(f, "{:7.2} s  {name}", took.as_secs_f64())?;
        }
        let sum: Duration = self.done.iter().map(|(_, took)| *took).sum();
        write!(f, "{:7.2} s  in all", sum.as_secs_f64())
    }
}
