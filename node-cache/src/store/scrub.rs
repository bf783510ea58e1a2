//! Looking for damage that shows in no file's ctime: a disk that forgets.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::Store;
use crate::oci::Digest;

/// A slow walk that reads every stored blob at least once in each period and moves aside what is not what its
/// name says.
#[derive(Debug)]
pub struct Scrub {
    store: Arc<Store>,
    period: Duration,
    stop: CancellationToken,
}

/// What a scrub found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scrubbed {
    /// This blob was damaged and is in quarantine; it will be fetched again.
    Damaged(Digest),
    /// Everything was read once.
    Pass {
        /// Blobs that were read.
        blobs: u64,
    },
}

/// The part of `budget` after which `read` of `total` bytes are due.
fn share(budget: Duration, read: u64, total: u64) -> Duration {
    let nanos = budget.as_nanos() * u128::from(read.min(total)) / u128::from(total.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Digests that are taken from the ledger at once.
const BATCH: usize = 256;

/// A pass takes at least this long.
const BREATH: Duration = Duration::from_secs(1);

impl Scrub {
    /// Reads everything once in `period`, until `stop`. From one look at a blob to the next passes
    /// less than that.
    pub fn new(store: Arc<Store>, period: Duration, stop: CancellationToken) -> Self {
        Self { store, period, stop }
    }

    /// Runs until it is stopped. Blocks: give it a thread. A pass that a restart interrupted goes on
    /// where it was.
    pub fn run(&self, found: &mut dyn FnMut(Scrubbed)) {
        // Nine tenths: one that is late here and there, or has more to read than when it began, is
        // over in time. The next one follows at once, so that no blob waits for longer than that.
        let budget = self.period * 9 / 10;
        while !self.stop.is_cancelled() {
            let started = Instant::now();
            let resumed = self.store.scrubbed().is_some();
            let blobs = self.pass(started, budget, found);
            if self.stop.is_cancelled() {
                return;
            }
            found(Scrubbed::Pass { blobs });
            // What is not there to be read takes no time, but a pass does, unless it is the rest of
            // one.
            let least = if resumed { BREATH } else { budget.max(BREATH) };
            self.pause_until(started + least);
        }
    }

    fn pass(&self, started: Instant, budget: Duration, found: &mut dyn FnMut(Scrubbed)) -> u64 {
        let total = self.store.measure().used.max(1);
        let (mut read, mut blobs) = (0_u64, 0);
        loop {
            let cursor = self.store.scrubbed().clone();
            let batch = self.store.ledger.lock().after(cursor.as_ref(), BATCH);
            if batch.is_empty() {
                *self.store.scrubbed() = None;
                return blobs;
            }
            for digest in batch {
                let mut pace = |bytes| {
                    read += bytes;
                    self.pause_until(started + share(budget, read, total));
                    !self.stop.is_cancelled()
                };
                match self.store.is_intact(&digest, &mut pace) {
                    Ok(Some(true)) => blobs += 1,
                    Ok(Some(false)) => {
                        blobs += 1;
                        let moved = self.store.quarantine_blob(&digest);
                        if let Err(error) = moved {
                            tracing::error!(%digest, %error, "quarantine failed");
                        }
                        found(Scrubbed::Damaged(digest.clone()));
                    }
                    Ok(None) => {}
                    // The disk is not there to be read; the next pass may find it.
                    Err(_) => self.pause_until(Instant::now() + BREATH),
                }
                if self.stop.is_cancelled() {
                    return blobs;
                }
                *self.store.scrubbed() = Some(digest);
            }
        }
    }

    /// In short steps: it is a plain thread, which nothing wakes up.
    fn pause_until(&self, until: Instant) {
        const STEP: Duration = Duration::from_millis(200);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.stop.is_cancelled() {
                return;
            }
            std::thread::sleep(left.min(STEP));
        }
    }
}
