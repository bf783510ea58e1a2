//! What the store holds, who reads it, and what goes first when space is needed. No I/O.

mod pins;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use super::{
    trust::Stamp,
    worth::{MAX_USES, Rank},
};
use crate::oci::{Algorithm, Digest};
pub(super) use pins::{Pin, SharedLedger};

/// Nothing is given up that was read within this time: a pull in pieces, or one that resumes, must
/// find what it began with.
pub(super) const GRACE: Duration = Duration::from_mins(1);

/// One stored blob.
#[derive(Clone, Debug)]
struct Entry {
    allocated: u64,
    /// How the file looked when it was verified; none if it has to be hashed first.
    stamp: Option<Stamp>,
    uses: u32,
    rank: Rank,
    last_read: Option<Instant>,
    /// Number of the walk, or of the insertion, that last saw it.
    seen: u64,
}

/// An unfinished download.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    booked: u64,
    touched: Instant,
}

/// What is written down about a blob for the next process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BlobRecord {
    pub(super) stamp: Option<Stamp>,
    pub(super) uses: u32,
    pub(super) rank: Rank,
}

/// What is to be removed to make room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Victim {
    Partial(Digest),
    Blob(Digest),
}

/// The accounts. All sizes are allocated bytes.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    blobs: HashMap<Digest, Entry>,
    order: BTreeSet<(Rank, Digest)>,
    partials: HashMap<Digest, Unfinished>,
    pins: HashMap<Digest, u32>,
    /// Sum over `blobs` and `partials`.
    used: u64,
    /// Quarantine.
    quarantine: u64,
    /// Tags, links, folders, counters.
    metadata: u64,
    /// Being written, and in none of the above yet.
    in_flight: u64,
    /// The rank of what was given up last.
    floor: Rank,
    changed: HashSet<Digest>,
    generation: u64,
    condemned: HashSet<Digest>,
    /// Being removed from the disk at this moment.
    leaving: HashSet<Digest>,
}

impl Ledger {
    /// Everything: blobs, unfinished downloads with what they have reserved, quarantine, tags, links.
    pub(super) fn used(&self) -> u64 {
        self.used + self.quarantine + self.metadata + self.in_flight
    }

    pub(super) fn metadata(&self) -> u64 {
        self.metadata
    }

    /// Bytes that may not have arrived on the disk yet.
    pub(super) fn in_flight(&self) -> u64 {
        self.in_flight
    }

    pub(super) fn blobs(&self) -> u64 {
        self.blobs.len() as u64
    }

    pub(super) fn set_quarantine(&mut self, bytes: u64) {
        self.quarantine = bytes;
    }

    pub(super) fn add_metadata(&mut self, bytes: u64) {
        self.metadata += bytes;
    }

    pub(super) fn set_metadata(&mut self, bytes: u64) {
        self.metadata = bytes;
    }

    /// Bytes that are about to be written; taken back with [`Self::land`].
    pub(super) fn take_off(&mut self, bytes: u64) {
        self.in_flight += bytes;
    }

    pub(super) fn land(&mut self, bytes: u64) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }

    /// A blob is there: just verified (`stamp`), or found.
    pub(super) fn insert(
        &mut self,
        digest: &Digest,
        allocated: u64,
        record: BlobRecord,
        now: Option<Instant>,
    ) {
        self.remove(digest);
        let uses = record.uses.clamp(1, MAX_USES);
        let rank = match record.rank {
            rank if rank == Rank::default() => Rank::after_use(self.floor, uses, allocated),
            rank => rank,
        };
        self.generation += 1;
        let seen = self.generation;
        let stamp = record.stamp;
        let entry = Entry { allocated, stamp, uses, rank, last_read: now, seen };
        self.blobs.insert(digest.clone(), entry);
        self.order.insert((rank, digest.clone()));
        self.used += allocated;
        self.changed.insert(digest.clone());
        self.condemned.remove(digest);
    }

    /// The blob is gone.
    pub(super) fn remove(&mut self, digest: &Digest) {
        if let Some(entry) = self.blobs.remove(digest) {
            self.order.remove(&(entry.rank, digest.clone()));
            self.used -= entry.allocated;
            self.changed.insert(digest.clone());
        }
    }

    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.blobs.contains_key(digest)
    }

    /// Counts one use.
    pub(super) fn use_once(&mut self, digest: &Digest, now: Instant) {
        let floor = self.floor;
        let Some(entry) = self.blobs.get_mut(digest) else {
            return;
        };
        self.order.remove(&(entry.rank, digest.clone()));
        entry.uses = entry.uses.saturating_add(1).min(MAX_USES);
        entry.rank = Rank::after_use(floor, entry.uses, entry.allocated);
        entry.last_read = Some(now);
        self.order.insert((entry.rank, digest.clone()));
        self.changed.insert(digest.clone());
    }

    pub(super) fn stamp(&self, digest: &Digest) -> Option<Stamp> {
        self.blobs.get(digest)?.stamp
    }

    pub(super) fn set_stamp(&mut self, digest: &Digest, stamp: Option<Stamp>) {
        if let Some(entry) = self.blobs.get_mut(digest)
            && entry.stamp != stamp
        {
            entry.stamp = stamp;
            self.changed.insert(digest.clone());
        }
    }

    /// From now on the file counts as absent, until another one takes its place: it is bad, and
    /// the disk does not let it be moved away.
    pub(super) fn condemn(&mut self, digest: &Digest) {
        self.condemned.insert(digest.clone());
    }

    /// Whether a file under this name is not to be used.
    pub(super) fn is_barred(&self, digest: &Digest) -> bool {
        self.condemned.contains(digest) || self.leaving.contains(digest)
    }

    /// What an unfinished download occupies; 0 if there is none.
    pub(super) fn booked(&self, digest: &Digest) -> u64 {
        self.partials.get(digest).map_or(0, |partial| partial.booked)
    }

    pub(super) fn book(&mut self, digest: &Digest, bytes: u64, now: Instant) {
        let old = self.partials.insert(digest.clone(), Unfinished { booked: bytes, touched: now });
        self.used = self.used - old.map_or(0, |old| old.booked) + bytes;
    }

    pub(super) fn unbook(&mut self, digest: &Digest) {
        if let Some(partial) = self.partials.remove(digest) {
            self.used -= partial.booked;
        }
    }

    /// Of the unfinished downloads that nobody is at, only these have a file.
    pub(super) fn keep_partials(&mut self, algorithm: Algorithm, found: &HashSet<Digest>) {
        let gone: Vec<_> = self
            .partials
            .keys()
            .filter(|digest| digest.algorithm() == algorithm && !found.contains(*digest))
            .filter(|digest| !self.pins.contains_key(*digest))
            .cloned()
            .collect();
        for digest in gone {
            self.unbook(&digest);
        }
    }

    /// What must go so that `needed` bytes become free: unfinished downloads that nobody is at, then
    /// blobs by rank, nothing that is open or was read within [`GRACE`]. Also returns how many bytes
    /// that frees, which may be less.
    pub(super) fn victims(&self, needed: u64, now: Instant) -> (Vec<Victim>, u64) {
        let quiet = |at: Instant| now.saturating_duration_since(at) >= GRACE;
        let free = |digest: &Digest| !self.pins.contains_key(digest);
        let mut victims = Vec::new();
        let mut freed = 0;
        let mut idle: Vec<_> = self
            .partials
            .iter()
            .filter(|(digest, partial)| free(digest) && quiet(partial.touched))
            .collect();
        idle.sort_by_key(|(_, partial)| partial.touched);
        let idle =
            idle.into_iter().map(|(d, partial)| (Victim::Partial(d.clone()), partial.booked));
        let blobs = self.order.iter().filter_map(|(_, digest)| {
            let entry = self.blobs.get(digest)?;
            let gone = free(digest) && entry.last_read.is_none_or(quiet);
            gone.then(|| (Victim::Blob(digest.clone()), entry.allocated))
        });
        for (victim, bytes) in idle.chain(blobs) {
            if freed >= needed {
                break;
            }
            freed += bytes;
            victims.push(victim);
        }
        (victims, freed)
    }

    /// Unfinished downloads that nobody was at for `age`.
    pub(super) fn idle_partials(&self, age: Duration, now: Instant) -> Vec<Digest> {
        let idle = |(digest, partial): &(&Digest, &Unfinished)| {
            !self.pins.contains_key(*digest)
                && now.saturating_duration_since(partial.touched) >= age
        };
        self.partials.iter().filter(idle).map(|(digest, _)| digest.clone()).collect()
    }

    /// Whether the victim may still be removed. From then on nobody opens it, until [`Self::left`].
    pub(super) fn leave(&mut self, victim: &Victim) -> bool {
        let (Victim::Partial(digest) | Victim::Blob(digest)) = victim;
        !self.pins.contains_key(digest) && self.leaving.insert(digest.clone())
    }

    /// The victim's file is removed, or (`gone` is false) could not be.
    pub(super) fn left(&mut self, victim: &Victim, gone: bool) {
        let (Victim::Partial(digest) | Victim::Blob(digest)) = victim;
        self.leaving.remove(digest);
        if !gone {
            return;
        }
        match victim {
            Victim::Partial(digest) => self.unbook(digest),
            Victim::Blob(digest) => {
                if let Some(entry) = self.blobs.get(digest) {
                    self.floor = self.floor.max(entry.rank);
                }
                self.remove(digest);
            }
        }
    }

    /// What has changed since the last call, for writing down; `None` for what is gone.
    pub(super) fn take_changes(&mut self) -> Vec<(Digest, Option<BlobRecord>)> {
        let record =
            |entry: &Entry| BlobRecord { stamp: entry.stamp, uses: entry.uses, rank: entry.rank };
        let changed = std::mem::take(&mut self.changed);
        changed
            .into_iter()
            .map(|digest| {
                let record = self.blobs.get(&digest).map(record);
                (digest, record)
            })
            .collect()
    }

    /// These could not be written down.
    pub(super) fn put_back(&mut self, changes: impl IntoIterator<Item = Digest>) {
        self.changed.extend(changes);
    }

    /// Begins a walk over the files.
    pub(super) fn begin_walk(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// The walk saw this file. `record` is what was written down about it, if anything.
    pub(super) fn saw(
        &mut self,
        digest: &Digest,
        allocated: u64,
        record: Option<BlobRecord>,
        read: Option<Instant>,
    ) {
        self.generation += 1;
        let seen = self.generation;
        if let Some(entry) = self.blobs.get_mut(digest) {
            self.used = self.used - entry.allocated + allocated;
            entry.allocated = allocated;
            entry.seen = seen;
            return;
        }
        self.insert(digest, allocated, record.unwrap_or_default(), read);
        if record.is_some() {
            // It is written down already, with the time of its last use.
            self.changed.remove(digest);
        }
    }

    /// Ends a walk: what it should have seen and did not is gone.
    pub(super) fn end_walk(&mut self, walk: u64) {
        let gone: Vec<_> = self
            .blobs
            .iter()
            .filter(|(_, entry)| entry.seen < walk)
            .map(|(digest, _)| digest.clone())
            .collect();
        for digest in gone {
            self.remove(&digest);
        }
        // Where ranks start is what was given up last, which was below all that is left.
        let lowest = self.order.first().map_or(Rank::default(), |(rank, _)| *rank);
        if self.floor == Rank::default() {
            self.floor = lowest;
        }
    }

    /// Every stored blob after `from`, at most `limit`, in the order of digests.
    pub(super) fn after(&self, from: Option<&Digest>, limit: usize) -> Vec<Digest> {
        let mut digests: Vec<_> =
            self.blobs.keys().filter(|digest| from.is_none_or(|from| *digest > from)).collect();
        digests.sort_unstable();
        digests.into_iter().take(limit).cloned().collect()
    }

    fn pin(&mut self, digest: &Digest) {
        *self.pins.entry(digest.clone()).or_insert(0) += 1;
    }

    fn unpin(&mut self, digest: &Digest, now: Instant) {
        if let Some(entry) = self.blobs.get_mut(digest) {
            entry.last_read = Some(now);
        }
        if let Some(partial) = self.partials.get_mut(digest) {
            partial.touched = now;
        }
        if let Some(count) = self.pins.get_mut(digest) {
            *count -= 1;
            if *count == 0 {
                self.pins.remove(digest);
            }
        }
    }
}

#[cfg(test)]
impl Ledger {
    /// As if nothing had been read for longer than [`GRACE`].
    pub(super) fn age_everything(&mut self) {
        let Some(before) = Instant::now().checked_sub(GRACE) else {
            return;
        };
        for entry in self.blobs.values_mut() {
            entry.last_read = None;
        }
        for partial in self.partials.values_mut() {
            partial.touched = before;
        }
    }
}

#[cfg(test)]
mod tests;
