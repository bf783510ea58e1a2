//! Downloads that failed a client a moment ago.
//!
//! containerd answers a body that ends early by asking us again for the rest, and gives the whole
//! pull up after three answers without progress. So for a while after such an end we answer 503 to
//! what lies beyond the bytes we hold, and containerd goes to the upstream.

use std::time::Duration;

use moka::sync::Cache;

use super::RangeSpec;
use crate::oci::Digest;

/// How a download failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Setback {
    /// Bytes that are still good.
    pub(super) held: u64,
    /// Endpoint to try next.
    pub(super) next_endpoint: usize,
}

/// The failures of the last 30 s.
#[derive(Debug)]
pub(super) struct Setbacks {
    recent: Cache<Digest, Setback>,
}

const MEMORY: Duration = Duration::from_secs(30);

impl Default for Setbacks {
    fn default() -> Self {
        Self { recent: Cache::builder().max_capacity(10_000).time_to_live(MEMORY).build() }
    }
}

impl Setbacks {
    pub(super) fn record(&self, digest: &Digest, setback: Setback) {
        self.recent.insert(digest.clone(), setback);
    }

    pub(super) fn clear(&self, digest: &Digest) {
        self.recent.invalidate(digest);
    }

    pub(super) fn get(&self, digest: &Digest) -> Option<Setback> {
        self.recent.get(digest)
    }
}

impl Setback {
    /// Whether a request should go elsewhere, given how far a new download has come. A request for
    /// the whole is always let in: it is the next attempt, and it gets good bytes.
    pub(super) fn turns_away(self, range: Option<RangeSpec>, frontier: u64) -> bool {
        match range.and_then(RangeSpec::start) {
            None | Some(0) => false,
            Some(start) => start >= self.held && frontier <= self.held,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_beyond_the_held_bytes_is_turned_away_until_the_download_moves() {
        let setback = Setback { held: 100, next_endpoint: 0 };
        let table = [
            (None, 0, false),
            (Some(RangeSpec::From(0)), 0, false),
            (Some(RangeSpec::From(50)), 0, false),
            (Some(RangeSpec::From(100)), 100, true),
            (Some(RangeSpec::Between(200, 300)), 100, true),
            (Some(RangeSpec::From(100)), 101, false),
            (Some(RangeSpec::Last(5)), 0, false),
        ];
        for (range, frontier, expected) in table {
            assert_eq!(setback.turns_away(range, frontier), expected, "{range:?} at {frontier}");
        }
    }
}
