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
const LOOK: Duration = Duration::from_millis(500);
const MISSED: u32 = 5;

/// Starts the thread that watches and the task that is watched. The process aborts at most
/// 3 s after the runtime stops running tasks.
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
