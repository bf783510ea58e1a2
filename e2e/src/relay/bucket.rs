//! A rate that several connections share.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// How much sleeping too long is made up for. Timers are exact to a millisecond or two.
const CATCH_UP: Duration = Duration::from_millis(5);

/// Hands out the right to carry bytes, one after the other.
pub(super) struct Bucket {
    bytes_per_second: u64,
    /// When all that was handed out has left.
    free: Mutex<Instant>,
}

impl Bucket {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, free: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` more have left at the given rate.
    pub(super) async fn take(&self, bytes: usize) {
        if self.bytes_per_second == u64::MAX {
            return;
        }
        let left = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let earliest = Instant::now().checked_sub(CATCH_UP).unwrap_or(*free);
            let nanoseconds = bytes as u64 * 1_000_000_000 / self.bytes_per_second;
            *free = (*free).max(earliest) + Duration::from_nanos(nanoseconds);
            *free
        };
        sleep_until(left).await;
    }
}
