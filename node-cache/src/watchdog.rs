//! Ends a process whose runtime is stuck: to containerd a closed port costs milliseconds, one that
//! accepts and never answers costs 30 s per request or the whole pull.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Missed beats are counted, not time: a process that was stopped and continued, or a machine that
/// slept, must not be taken for a stuck one.
const BEAT: Duration = Duration::from_millis(250);
const LOOK: Duration = Duration::from_millis(450);
const MISSED: u32 = 5;

/// Starts the thread that watches and the task that is watched. The process aborts at most
/// 3 s (2.7 s, if the machine lets the thread run) after the runtime stops running tasks.
pub fn start() {
    let beats = Arc::new(AtomicU64::new(0));
    let watched = beats.clone();
    tokio::spawn(async move {
        loop {
            watched.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(BEAT).await;
        }
    });
    let spawned = thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
        let (mut seen, mut missed) = (0, 0);
        loop {
            thread::sleep(LOOK);
            let now = beats.load(Ordering::Relaxed);
            missed = if now == seen { missed + 1 } else { 0 };
            seen = now;
            if missed >= MISSED {
                // Without a word: the log may be what everything is stuck on.
                std::process::abort();
            }
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "there is no watchdog");
    }
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        io::{BufRead, BufReader, Read},
        os::unix::process::ExitStatusExt,
        process::{Child, Command, Stdio},
        time::Instant,
    };

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    /// Tells this very program, when a test runs it again, to be the one that is watched.
    const ROLE: &str = "LARDER_WATCHDOG_ROLE";

    /// Not a test of its own: what the others run.
    #[test]
    fn watched() {
        let Ok(role) = env::var(ROLE) else {
            return;
        };
        let mut workers = tokio::runtime::Builder::new_multi_thread();
        let runtime = workers.worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            start();
            tokio::time::sleep(Duration::from_secs(1)).await;
            println!("{role}");
            if role == "stuck" {
                for _ in 0..2 {
                    tokio::spawn(async { thread::sleep(Duration::from_mins(1)) });
                }
            }
            // Not a worker: it does not run the task that is watched.
            thread::sleep(Duration::from_mins(1));
        });
    }

    struct Watched(Child);

    impl Watched {
        /// Returns when the process has taken its role.
        fn run(role: &str) -> Self {
            let mut child = Command::new(env::current_exe().unwrap())
                .args(["--exact", "watchdog::tests::watched", "--nocapture"])
                .env(ROLE, role)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut output = BufReader::new(child.stdout.take().unwrap());
            let mut line = String::new();
            while !line.trim_end().ends_with(role) {
                line.clear();
                assert!(output.read_line(&mut line).unwrap() > 0, "it never was {role}");
            }
            // Its pipe stays open.
            thread::spawn(move || output.read_to_end(&mut Vec::new()));
            Self(child)
        }

        fn signal(&self, signal: Signal) {
            let id = Pid::from_raw(self.0.id().cast_signed()).unwrap();
            kill_process(id, signal).unwrap();
        }
    }

    impl Drop for Watched {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_process_whose_runtime_is_stuck_aborts_within_three_seconds() {
        let mut took = Vec::new();
        for _ in 0..3 {
            let mut stuck = Watched::run("stuck");
            let since = Instant::now();
            let status = stuck.0.wait().unwrap();
            assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()), "{status}");
            took.push(since.elapsed());
        }
        // The best: a busy machine may keep the thread that watches waiting.
        assert!(took.iter().min().unwrap() < &Duration::from_secs(3), "{took:?}");
    }

    #[test]
    fn a_process_that_was_stopped_and_goes_on_is_not_taken_for_stuck() {
        let mut well = Watched::run("well");
        well.signal(Signal::STOP);
        thread::sleep(Duration::from_secs(4));
        well.signal(Signal::CONT);
        thread::sleep(Duration::from_secs(1));
        assert_eq!(well.0.try_wait().unwrap(), None);
    }
}
