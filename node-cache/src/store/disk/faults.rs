//! Faults of the disk, for tests: the Nth operation fails.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The Nth operation fails; those after it work again.
    Once(rustix::io::Errno),
    /// The Nth operation and all after it fail.
    FromThenOn(rustix::io::Errno),
    /// The Nth operation, if it is a write, takes a part of the bytes only.
    Short,
}

/// Counts the operations of one disk and makes one of them fail.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    passed: Arc<AtomicU64>,
    planned: Arc<Mutex<Option<(u64, Fault)>>>,
}

impl Faults {
    /// From now on operation `nth`, counted from 0, goes wrong.
    pub(crate) fn plan(&self, nth: u64, fault: Fault) {
        *self.planned.lock().unwrap_or_else(PoisonError::into_inner) = Some((nth, fault));
        self.passed.store(0, Ordering::SeqCst);
    }

    /// Nothing goes wrong any more.
    pub(crate) fn mend(&self) {
        *self.planned.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How many operations there were since the plan.
    pub(crate) fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    fn next(&self) -> Option<Fault> {
        let number = self.passed.fetch_add(1, Ordering::SeqCst);
        let planned = *self.planned.lock().unwrap_or_else(PoisonError::into_inner);
        planned.and_then(|(nth, fault)| match fault {
            Fault::FromThenOn(_) => (number >= nth).then_some(fault),
            Fault::Once(_) | Fault::Short => (number == nth).then_some(fault),
        })
    }

    pub(super) fn pass(&self) -> io::Result<()> {
        match self.next() {
            Some(Fault::Once(errno) | Fault::FromThenOn(errno)) => Err(errno.into()),
            Some(Fault::Short) | None => Ok(()),
        }
    }

    pub(super) fn pass_write(&self, len: usize) -> io::Result<usize> {
        match self.next() {
            Some(Fault::Once(errno) | Fault::FromThenOn(errno)) => Err(errno.into()),
            Some(Fault::Short) => Ok(len.div_ceil(2)),
            None => Ok(len),
        }
    }
}
