//! Making room: the bounds of the store, and what is given up to stay within them.

use std::time::{Duration, Instant};

use larder_crds::{ByteSize, node::MinFree};

use super::{Store, StoreError, disk::Room, ledger::Victim};

/// How much a store may occupy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Upper bound of allocated bytes, unfinished downloads and all small files included.
    pub capacity: ByteSize,
    /// What the file system keeps free.
    pub min_free: MinFree,
}

impl Limits {
    fn floor(self, room: Room) -> u64 {
        match self.min_free {
            // A percentage first: the product of a size and 99 fits as long as disks are smaller
            // than 180 PB.
            MinFree::Percent(percent) => room.size.saturating_mul(u64::from(percent)) / 100,
            MinFree::Bytes(bytes) => bytes.bytes(),
        }
    }

    /// Kept for tags, links, folders and counters, whose growth is only estimated between two walks.
    fn headroom(self) -> u64 {
        (self.capacity.bytes() / 128).max(4 << 20)
    }
}

/// How long a download waits for the files to be added up after a start: 100,000 took 0.9 s from a
/// cold disk. It is passed through if that takes longer.
const ACCOUNTED_WITHIN: Duration = Duration::from_secs(3);

impl Store {
    /// Changes the bounds while running; the next [`Store::keep_floor`] enforces smaller ones.
    pub fn set_limits(&self, limits: Limits) {
        *self.limits() = limits;
    }

    /// Waits until all files are accounted for.
    pub(super) fn wait_until_accounted(&self) -> Result<(), StoreError> {
        let (accounted, changed) = &self.accounted;
        let accounted = accounted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let waited = changed.wait_timeout_while(accounted, ACCOUNTED_WITHIN, |done| !*done);
        let (done, _) = waited.unwrap_or_else(std::sync::PoisonError::into_inner);
        if *done {
            return Ok(());
        }
        let reason = "the files of the store are still being added up";
        Err(StoreError::Full { needed: 0, reason })
    }

    /// Sees to it that `bytes` more may be allocated. The caller holds the admission and books them
    /// before it lets go.
    pub(super) fn make_room(&self, bytes: u64, room: Room) -> Result<(), StoreError> {
        let short = self.shortage(bytes, room);
        if short == 0 {
            return Ok(());
        }
        let limits = *self.limits();
        if bytes > limits.capacity.bytes().saturating_sub(limits.headroom()) {
            let reason = "it is larger than storage.capacity";
            return Err(StoreError::Full { needed: bytes, reason });
        }
        // What is kept for inspection goes before anything of use.
        self.trim_quarantine(0)?;
        let short = self.shortage(bytes, self.disk.room(self.layout.root())?);
        let (victims, freed) = self.ledger.lock().victims(short, Instant::now());
        if freed < short || (victims.is_empty() && !room.inodes_left) {
            let reason = if freed == 0 {
                "the rest is being read or was within the last minute, or is not the store's"
            } else {
                "what may be given up is not enough for storage.capacity and storage.minFree"
            };
            return Err(StoreError::Full { needed: bytes, reason });
        }
        if self.give_up(&victims)? < short {
            let reason = "what was to be given up is being read";
            return Err(StoreError::Full { needed: bytes, reason });
        }
        Ok(())
    }

    /// Gives up what is beyond the bounds, because they became smaller or because others filled the
    /// disk; as much as may go, if not all.
    pub fn keep_floor(&self) -> Result<(), StoreError> {
        self.check_writable()?;
        let _admitted = self.admission();
        let short = self.shortage(0, self.disk.room(self.layout.root())?);
        if short == 0 {
            return Ok(());
        }
        self.trim_quarantine(0)?;
        let short = self.shortage(0, self.disk.room(self.layout.root())?);
        let (victims, _) = self.ledger.lock().victims(short, Instant::now());
        let freed = self.give_up(&victims)?;
        if freed > 0 {
            tracing::info!(short, freed, "gave up stored blobs to stay within the bounds");
        }
        Ok(())
    }

    /// By how much the bounds would be exceeded with `bytes` more.
    fn shortage(&self, bytes: u64, room: Room) -> u64 {
        let limits = *self.limits();
        let ledger = self.ledger.lock();
        let unused_headroom = limits.headroom().saturating_sub(ledger.metadata());
        let used = ledger.used() + unused_headroom;
        let in_flight = ledger.in_flight();
        drop(ledger);
        let over = (used + bytes).saturating_sub(limits.capacity.bytes());
        let below = (limits.floor(room) + bytes + in_flight).saturating_sub(room.free);
        // One file more needs one file less.
        over.max(below).max(u64::from(!room.inodes_left))
    }

    /// Removes the victims that nobody has opened meanwhile; returns the bytes that became free.
    pub(super) fn give_up(&self, victims: &[Victim]) -> Result<u64, StoreError> {
        let mut freed = 0;
        for victim in victims {
            let mut ledger = self.ledger.lock();
            if !ledger.leave(victim) {
                continue;
            }
            let before = ledger.used();
            drop(ledger);
            let path = match victim {
                Victim::Partial(digest) => self.layout.partial(digest),
                Victim::Blob(digest) => self.layout.blob(digest),
            };
            let removed = self.disk.remove(&path);
            let mut ledger = self.ledger.lock();
            ledger.left(victim, removed.is_ok());
            freed += before.saturating_sub(ledger.used());
            drop(ledger);
            removed?;
            self.evicted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(freed)
    }
}
