//! Cases that run many times, each time with another seed: how often, and what came of it.
//!
//! `cargo test` runs a short share of each. `make soak` sets `LARDER_SOAK` and runs them at full
//! length. One run again: `LARDER_SEED=<seed> LARDER_RUNS=1 cargo test --workspace <case>`.

use std::{
    env,
    fs::OpenOptions,
    io::{self, Write},
    ops::Range,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Result, bail};

/// How often a long case says how far it is.
const PROGRESS: Duration = Duration::from_secs(15);
/// More would bury the first ones.
const SHOWN: usize = 5;

/// One case under way.
#[derive(Debug)]
pub struct Soak {
    case: String,
    runs: usize,
    first: u64,
    done: usize,
    failures: Vec<String>,
    started: Instant,
    said: Instant,
    reported: bool,
}

impl Soak {
    /// A case that runs `short` times in `cargo test` and `full` times in `make soak`.
    ///
    /// The seeds of the short share are always the same; those of the full length begin with the
    /// time, so that every soak tries something new.
    pub fn of(case: &str, short: usize, full: usize) -> Self {
        let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let runs = number("LARDER_RUNS").and_then(|runs| usize::try_from(runs).ok());
        let runs = runs.unwrap_or(if Self::is_full() { full } else { short });
        let clock = || {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            since.map_or(1, |since| since.as_secs())
        };
        let first =
            number("LARDER_SEED").unwrap_or_else(|| if Self::is_full() { clock() } else { 1 });
        Self {
            case: case.to_owned(),
            runs,
            first,
            done: 0,
            failures: Vec::new(),
            started: Instant::now(),
            said: Instant::now(),
            reported: false,
        }
    }

    /// Whether `make soak` runs.
    pub fn is_full() -> bool {
        env::var_os("LARDER_SOAK").is_some()
    }

    /// The seeds, one a run.
    pub fn seeds(&self) -> Range<u64> {
        self.first..self.first + self.runs as u64
    }

    /// Notes how a run ended.
    pub fn note(&mut self, seed: u64, outcome: Result<()>) {
        self.done += 1;
        if let Err(error) = outcome {
            let failure = format!("{} with LARDER_SEED={seed}: {error:#}", self.case);
            say(&failure);
            self.failures.push(failure);
        }
        if Self::is_full() && self.said.elapsed() > PROGRESS {
            self.said = Instant::now();
            let (done, runs, failed) = (self.done, self.runs, self.failures.len());
            say(&format!("{}: {done} of {runs}, {failed} failed", self.case));
        }
    }

    /// Notes many runs at once, of which the caller kept count itself.
    pub fn note_all(&mut self, runs: usize) {
        self.done += runs;
    }

    /// Reports; an error if a run failed.
    pub fn end(mut self) -> Result<()> {
        self.report();
        let (failed, done) = (self.failures.len(), self.done);
        if failed > 0 {
            self.failures.truncate(SHOWN);
            bail!("{failed} of {done} runs failed; the first:\n{}", self.failures.join("\n"));
        }
        Ok(())
    }

    /// A line for the table that `make soak` prints.
    fn report(&mut self) {
        self.reported = true;
        let Some(path) = env::var_os("LARDER_SOAK_REPORT") else { return };
        let (case, done, failed) = (&self.case, self.done, self.failures.len());
        let seconds = self.started.elapsed().as_secs();
        let file = OpenOptions::new().create(true).append(true).open(path);
        let written =
            file.and_then(|mut file| writeln!(file, "{case}\t{done}\t{failed}\t{seconds}"));
        if let Err(error) = written {
            say(&format!("the report of {case} cannot be written: {error}"));
        }
    }
}

impl Drop for Soak {
    /// A case that does not come to its end has failed once more than it counted.
    fn drop(&mut self) {
        if !self.reported {
            self.failures.push("did not end".to_owned());
            self.report();
        }
    }
}

fn say(text: &str) {
    // safe to ignore: without a terminal there is nobody to tell
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn one_failed_run_fails_the_case_and_names_its_seed() {
        let mut soak = Soak::of("tried", 3, 3);
        let seeds: Vec<u64> = soak.seeds().collect();
        for seed in &seeds {
            let outcome = if *seed == seeds[1] { Err(anyhow!("broken")) } else { Ok(()) };
            soak.note(*seed, outcome);
        }
        let error = soak.end().unwrap_err().to_string();
        assert!(error.contains("1 of 3 runs failed"), "{error}");
        assert!(error.contains(&format!("LARDER_SEED={}: broken", seeds[1])), "{error}");
    }
}
