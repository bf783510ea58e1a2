//! Whether a known tag may be served. No clock, no I/O.

use std::time::Duration;

use jiff::Timestamp;

use crate::{config::TagPolicy, oci::Tag, store::TagRecord};

/// What to do with a tag that is on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Serve it.
    Fresh,
    /// Ask the upstream; if it fails, serve it all the same.
    RevalidateOrStale,
    /// Ask the upstream; too old to be served without its word.
    Revalidate,
}

/// Decides by the age of the last check. A check that lies in the future (the clock was set back)
/// proves nothing about freshness, and is no reason to refuse either.
pub(super) fn freshness(
    record: &TagRecord,
    policy: &TagPolicy,
    tag: &Tag,
    now: Timestamp,
) -> Freshness {
    if policy.is_immutable(tag) {
        return Freshness::Fresh;
    }
    let age = Duration::try_from(now.duration_since(record.checked_at)).ok();
    match age {
        Some(age) if age < policy.refresh_interval => Freshness::Fresh,
        Some(age) if age > policy.stale_if_error => Freshness::Revalidate,
        Some(_) | None => Freshness::RevalidateOrStale,
    }
}

#[cfg(test)]
mod tests {
    use larder_crds::node;

    use super::*;
    use crate::{
        config::Globs,
        oci::{Algorithm, Digest},
    };

    fn policy(refresh: u64, stale: u64, immutable: &[&str]) -> TagPolicy {
        TagPolicy {
            refresh_interval: Duration::from_secs(refresh),
            stale_if_error: Duration::from_secs(stale),
            negative_ttl: node::Tags::default().negative_ttl.get(),
            immutable: Globs::compile(immutable.iter().map(|&p| p.to_owned()).collect()).unwrap(),
        }
    }

    #[test]
    fn the_age_of_the_last_check_decides() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let table = [
            (0, &policy(0, 60, &[]), Freshness::RevalidateOrStale),
            (5, &policy(10, 60, &[]), Freshness::Fresh),
            (10, &policy(10, 60, &[]), Freshness::RevalidateOrStale),
            (60, &policy(10, 60, &[]), Freshness::RevalidateOrStale),
            (61, &policy(10, 60, &[]), Freshness::Revalidate),
            (1_000_000, &policy(0, 60, &["v*"]), Freshness::Fresh),
            (1, &policy(0, 0, &[]), Freshness::Revalidate),
            // The clock jumped back by a year (F12).
            (-31_536_000, &policy(10, 60, &[]), Freshness::RevalidateOrStale),
        ];
        for (age, policy, expected) in table {
            let checked_at = Timestamp::from_second(now.as_second() - age).unwrap();
            let digest = Digest::of(Algorithm::Sha256, b"");
            let record = TagRecord { digest, checked_at, modified_at: checked_at };
            let tag = "v1".parse().unwrap();
            assert_eq!(freshness(&record, policy, &tag, now), expected, "age {age}");
        }
    }
}
