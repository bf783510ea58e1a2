//! What a stored blob is worth: the order in which blobs are given up. No I/O, no clock.
//!
//! Greedy-Dual-Size-Frequency (Cherkasova 1998). Every use adds `cost / size` to a blob's rank; what
//! is given up raises the floor from which new ranks start, so that old fame fades. The cost of a
//! miss is a round trip plus the bytes, so a small file is worth more per byte than a large one:
//! keeping all manifests costs next to nothing and is what makes a pull work in an outage.
//! The floor is a logical clock; the clock on the wall may jump without moving anything.

/// What one use of a very large blob adds.
const UNIT: u64 = 1 << 10;

/// Bytes that could be fetched in the time of one round trip: 100 ms at 10 MB/s.
const ROUND_TRIP: u64 = 1 << 20;

/// Uses beyond this add nothing: no amount of fame outlives the content's use for long.
pub(super) const MAX_USES: u32 = 1 << 12;

/// A place in the order: the lowest is given up first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank(u64);

impl Rank {
    /// As it was written down.
    pub(super) fn from_stored(value: u64) -> Self {
        Self(value)
    }

    /// For writing down.
    pub(super) fn stored(self) -> u64 {
        self.0
    }

    /// The rank of a blob of `allocated` bytes that is used for the `uses`th time.
    pub(super) fn after_use(floor: Self, uses: u32, allocated: u64) -> Self {
        let per_use = UNIT + UNIT * ROUND_TRIP / allocated.max(4096);
        Self(floor.0.saturating_add(u64::from(uses.clamp(1, MAX_USES)) * per_use))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_worth_more_for_small_files_and_more_uses_are_worth_more() {
        let floor = Rank(7);
        let rank = |uses, size| Rank::after_use(floor, uses, size);
        assert!(rank(1, 4096) > rank(100, 1 << 30), "a manifest outranks a popular layer");
        assert!(rank(2, 1 << 30) > rank(1, 1 << 30));
        assert!(rank(1, 100 << 20) > rank(1, 1 << 30));
        assert_eq!(rank(1, 0), rank(1, 4096), "an empty file does not divide by zero");
        assert_eq!(rank(u32::MAX, 1), rank(MAX_USES, 1));
        assert_eq!(Rank::after_use(Rank(u64::MAX), 1, 1), Rank(u64::MAX), "no overflow");
    }

    #[test]
    fn a_blob_that_was_used_often_long_ago_loses_to_one_that_is_used_now() {
        let old = Rank::after_use(Rank(0), 50, 1 << 30);
        let floor = Rank(60 * UNIT);
        assert!(Rank::after_use(floor, 1, 1 << 30) > old);
    }
}
