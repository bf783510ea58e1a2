//! Whether the disk is worth trying. No I/O.
//!
//! A disk that fails or hangs costs each request time before it goes to the upstream all the same.
//! So after a few failures it is left alone for a while.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{StoreError, error::Class};

/// A read-only file system stays that way for longer than this, and a look costs nothing.
const READ_ONLY: Duration = Duration::from_secs(10);
/// After [`STRIKES`] failed writes in a row.
const FAILING: Duration = Duration::from_secs(30);
/// One failed write may be one bad file.
const STRIKES: u32 = 3;
/// After an operation that did not come back. Another one hangs for 5 s, and a thread with it.
const SILENT: Duration = Duration::from_secs(10);
/// How long the store counts as full after something did not fit.
const FULL: Duration = Duration::from_mins(1);

/// The state of a store, for reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreState {
    /// All is well.
    Ready,
    /// Its files are still being added up; nothing new is stored for a moment.
    Accounting,
    /// Something did not fit within the last minute and was passed through.
    Full,
    /// The file system takes no writes; what is stored is served.
    ReadOnly,
    /// Writes fail, or the disk does not answer; everything is passed through.
    Failing,
    /// Another process has the folder; what is stored is served.
    Locked,
}

impl StoreState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Ready, Self::Accounting, Self::Full, Self::ReadOnly, Self::Failing, Self::Locked];

    /// As in `/report`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Accounting => "Accounting",
            Self::Full => "Full",
            Self::ReadOnly => "ReadOnly",
            Self::Failing => "Failing",
            Self::Locked => "Locked",
        }
    }
}

#[derive(Debug, Default)]
struct Marks {
    strikes: u32,
    silent_until: Option<Instant>,
    read_only_until: Option<Instant>,
    failing_until: Option<Instant>,
    full_until: Option<Instant>,
}

/// What the last operations told about the disk.
#[derive(Debug, Default)]
pub(super) struct Health {
    marks: Mutex<Marks>,
}

impl Health {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of how a write ended.
    pub(super) fn wrote<T>(&self, result: &Result<T, StoreError>, now: Instant) {
        let mut marks = self.marks();
        let Err(error) = result else {
            marks.strikes = 0;
            marks.read_only_until = None;
            marks.failing_until = None;
            return;
        };
        match error.class() {
            Class::Full => marks.full_until = Some(now + FULL),
            Class::ReadOnly => marks.read_only_until = Some(now + READ_ONLY),
            Class::Silent => marks.silent_until = Some(now + SILENT),
            Class::Failed => {
                marks.strikes += 1;
                if marks.strikes >= STRIKES {
                    marks.failing_until = Some(now + FAILING);
                }
            }
            Class::Refused => {}
        }
    }

    /// An operation did not come back in time.
    pub(super) fn fell_silent(&self, now: Instant) {
        self.marks().silent_until = Some(now + SILENT);
    }

    /// Whether a read is worth trying.
    pub(super) fn may_read(&self, now: Instant) -> bool {
        !is_ahead(self.marks().silent_until, now)
    }

    /// Whether a write is worth trying.
    pub(super) fn may_write(&self, now: Instant) -> bool {
        let marks = self.marks();
        let closed = [marks.silent_until, marks.read_only_until, marks.failing_until];
        !closed.into_iter().any(|until| is_ahead(until, now))
    }

    /// For reports.
    pub(super) fn state(&self, now: Instant) -> StoreState {
        let marks = self.marks();
        if is_ahead(marks.silent_until, now) || is_ahead(marks.failing_until, now) {
            StoreState::Failing
        } else if is_ahead(marks.read_only_until, now) {
            StoreState::ReadOnly
        } else if is_ahead(marks.full_until, now) {
            StoreState::Full
        } else {
            StoreState::Ready
        }
    }
}

fn is_ahead(until: Option<Instant>, now: Instant) -> bool {
    until.is_some_and(|until| until > now)
}

#[cfg(test)]
mod tests {
    use std::{io, path::PathBuf};

    use super::*;

    fn failed(errno: rustix::io::Errno) -> Result<(), StoreError> {
        let cause = io::Error::from(errno);
        Err(StoreError::Io { action: "cannot write", path: PathBuf::from("x"), cause })
    }

    #[test]
    fn f03_three_failed_writes_in_a_row_close_the_store_for_half_a_minute() {
        let (health, now) = (Health::default(), Instant::now());
        let io = failed(rustix::io::Errno::IO);
        health.wrote(&io, now);
        health.wrote(&io, now);
        assert!(health.may_write(now), "two may be two bad files");
        health.wrote::<()>(&Ok(()), now);
        health.wrote(&io, now);
        health.wrote(&io, now);
        assert!(health.may_write(now), "a success in between starts the count anew");
        health.wrote(&io, now);
        assert!(!health.may_write(now) && health.may_read(now));
        assert_eq!(health.state(now), StoreState::Failing);
        let later = now + FAILING;
        assert!(health.may_write(later));
        health.wrote(&io, later);
        assert!(!health.may_write(later), "one more is enough while none succeeded");
    }

    #[test]
    fn f06_a_read_only_disk_is_read_and_tried_again_after_ten_seconds() {
        let (health, now) = (Health::default(), Instant::now());
        health.wrote(&failed(rustix::io::Errno::ROFS), now);
        assert!(!health.may_write(now) && health.may_read(now));
        assert_eq!(health.state(now), StoreState::ReadOnly);
        assert!(health.may_write(now + READ_ONLY));
        health.wrote::<()>(&Ok(()), now);
        assert_eq!(health.state(now), StoreState::Ready);
    }

    #[test]
    fn f04_a_full_disk_is_reported_and_tried_again_with_the_next_request() {
        let (health, now) = (Health::default(), Instant::now());
        health.wrote(&failed(rustix::io::Errno::NOSPC), now);
        assert!(health.may_write(now));
        assert_eq!(health.state(now), StoreState::Full);
        assert_eq!(health.state(now + FULL), StoreState::Ready);
    }

    #[test]
    fn f22_a_silent_disk_is_not_even_read() {
        let (health, now) = (Health::default(), Instant::now());
        health.fell_silent(now);
        assert!(!health.may_read(now) && !health.may_write(now));
        assert!(health.may_read(now + SILENT));
    }
}
