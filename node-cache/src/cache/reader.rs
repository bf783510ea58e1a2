//! Bodies on their way to a client.

use std::{
    io,
    ops::Range,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Stream, stream};
use prometheus::{IntCounter, IntGauge};
use tokio::{sync::watch, time::timeout};

use super::{
    ByteRange, LOOK,
    bypass::{Passing, Rescue},
    download::{Downloads, Failure, Progress, Stage},
    recheck::Rechecks,
};
use crate::{
    oci::Digest,
    store::{Content, Store},
    upstream::Response,
};

/// A body that is shorter than announced: the connection is closed with FIN, and containerd asks
/// for the rest.
#[derive(Debug, thiserror::Error)]
#[error("the body ended early: {0}")]
pub struct Truncated(pub(super) String);

/// A body, piece by piece. Dropping it ends the client's part; a download goes on.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, Truncated>> + Send>>;

/// Counts the bodies being sent, because their buffers share one budget.
#[derive(Clone, Debug)]
pub struct OpenStreams {
    count: Arc<AtomicU64>,
    held: Arc<AtomicU64>,
    gauge: IntGauge,
}

/// All buffers together: `48 MiB / open streams`, 64 KiB to 1 MiB each. With one fixed size of
/// 1 MiB, 256 streams would need 256 MiB; with 4 KiB, a GiB costs 5 CPU seconds instead of 0.4.
const BUFFER_BUDGET: u64 = 48 << 20;
const BUFFER_MIN: u64 = 64 << 10;
const BUFFER_MAX: u64 = 1 << 20;
/// Slow clients keep what they were given while fewer streams were open. When so much is held,
/// everybody gets the least.
const HELD_BUDGET: u64 = 8 << 20;

impl OpenStreams {
    pub(super) fn new(gauge: IntGauge) -> Self {
        Self { count: Arc::default(), held: Arc::default(), gauge }
    }

    fn enter(&self) -> OpenStream {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.gauge.inc();
        OpenStream { streams: self.clone() }
    }
}

struct OpenStream {
    streams: OpenStreams,
}

impl OpenStream {
    /// A buffer for the next bytes, at most `wanted`.
    fn piece(&self, wanted: u64) -> Piece {
        let open = self.streams.count.load(Ordering::Relaxed).max(1);
        let free = HELD_BUDGET.saturating_sub(self.streams.held.load(Ordering::Relaxed));
        let size = (BUFFER_BUDGET / open).min(free).clamp(BUFFER_MIN, BUFFER_MAX).min(wanted);
        self.streams.held.fetch_add(size, Ordering::Relaxed);
        let bytes = vec![0; usize::try_from(size).unwrap_or(usize::MAX)];
        Piece { bytes, size, held: self.streams.held.clone() }
    }
}

/// Bytes of a body, counted as held until the client has taken them.
struct Piece {
    bytes: Vec<u8>,
    size: u64,
    held: Arc<AtomicU64>,
}

impl Piece {
    /// Reads from `offset`; shorter at the end of the file. Blocks.
    ///
    /// Before bytes go out that end at `end`, the file is looked at once more: what changed while it
    /// was being sent must not leave as a whole.
    fn read(mut self, content: &Content, offset: u64, end: u64) -> io::Result<Bytes> {
        let filled = content.read_into(offset, &mut self.bytes)?;
        if offset + filled as u64 == end && !content.is_unchanged() {
            return Err(io::Error::other("it was changed while it was being sent"));
        }
        self.bytes.truncate(filled);
        Ok(Bytes::from_owner(self))
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.held.fetch_sub(self.size, Ordering::Relaxed);
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.streams.count.fetch_sub(1, Ordering::Relaxed);
        self.streams.gauge.dec();
    }
}

/// What every body has with it.
pub(super) struct Delivery {
    stream: OpenStream,
    served: IntCounter,
}

impl Delivery {
    pub(super) fn new(streams: &OpenStreams, served: IntCounter) -> Self {
        Self { stream: streams.enter(), served }
    }

    /// Takes note of bytes that go out.
    pub(super) fn count(&self, bytes: usize) {
        self.served.inc_by(bytes as u64);
    }

    async fn read(&self, content: Content, offset: u64, end: u64) -> Result<Bytes, Truncated> {
        // Allocated here and not where it is read: allocators keep freed memory for the thread that
        // allocated it, and there may be many of those (512 clients: 6.4 GB and 4 CPU s/GiB, instead
        // of 0.26 GB and 0.9).
        let piece = self.stream.piece(end - offset);
        let task = tokio::task::spawn_blocking(move || piece.read(&content, offset, end));
        match timeout(LOOK, task).await {
            Ok(Ok(Ok(bytes))) if !bytes.is_empty() => {
                self.served.inc_by(bytes.len() as u64);
                Ok(bytes)
            }
            Ok(Ok(Ok(_))) => Err(Truncated("the stored file is shorter than it was".to_owned())),
            Ok(Ok(Err(error))) => {
                Err(Truncated(format!("the stored file cannot be read: {error}")))
            }
            Ok(Err(error)) => Err(Truncated(error.to_string())),
            Err(_) => Err(Truncated("the disk is silent".to_owned())),
        }
    }
}

/// Where a body says what it found out about its blob, for the requests after it.
pub(super) struct Notes {
    pub(super) store: Arc<Store>,
    pub(super) downloads: Arc<Downloads>,
    pub(super) rechecks: Arc<Rechecks>,
    pub(super) digest: Digest,
}

impl Notes {
    /// The body ended at `position` because nothing more came. What lies beyond is the upstream's
    /// for a while: three answers without progress would be the end of the pull.
    pub(super) fn ended_at(&self, position: u64) {
        self.downloads.note_silence(&self.digest, position);
    }

    /// The file could not be read at `position`: it is looked at as a whole before it is served
    /// again.
    fn unreadable_at(&self, position: u64) {
        self.store.distrust(&self.digest);
        self.ended_at(position);
    }
}

/// The bytes of a stored and trusted file of `total` bytes.
pub(super) fn stored(
    content: Content,
    range: ByteRange,
    total: u64,
    delivery: Delivery,
    notes: Notes,
) -> Body {
    let whole = range == ByteRange { start: 0, end: total };
    let state = (content, range, delivery, notes);
    Box::pin(stream::try_unfold(state, move |(content, range, delivery, notes)| async move {
        if range.start == range.end {
            return Ok(None);
        }
        let read = delivery.read(content.clone(), range.start, range.end).await;
        let bytes = read.inspect_err(|error| {
            tracing::error!(digest = %notes.digest, %error, "a stored blob cannot be read");
            notes.unreadable_at(range.start);
        })?;
        let rest = ByteRange { start: range.start + bytes.len() as u64, ..range };
        // Now, because nobody may ask for what comes after the last byte.
        if whole && rest.start == rest.end {
            notes.rechecks.sent(&notes.digest);
        }
        Ok(Some((bytes, (content, rest, delivery, notes))))
    }))
}

/// Bytes that are already in memory.
pub(super) fn buffered(bytes: Bytes, delivery: &Delivery) -> Body {
    delivery.served.inc_by(bytes.len() as u64);
    Box::pin(stream::iter((!bytes.is_empty()).then_some(Ok(bytes))))
}

/// Follows a download through `range`, which may end beyond the content. If no byte may be given
/// away for too long, the body ends early: containerd's own timeouts do not rescue a silent body. If
/// the disk fails, `rescue` goes on with the upstream's bytes.
pub(super) fn following(
    progress: watch::Receiver<Progress>,
    range: Range<u64>,
    rescue: Rescue,
    delivery: Delivery,
    notes: Notes,
) -> Body {
    let follower = Follower { progress, range, delivery, notes };
    let state = Following::Disk(follower, Box::new(rescue));
    Box::pin(stream::try_unfold(state, async |state| {
        let (mut follower, rescue) = match state {
            Following::Disk(follower, rescue) => (follower, rescue),
            Following::Upstream(mut passing) => {
                let bytes = passing.next().await?;
                return Ok(bytes.map(|bytes| (bytes, Following::Upstream(passing))));
            }
        };
        match follower.next(rescue.stall()).await {
            Ok(Some(bytes)) => Ok(Some((bytes, Following::Disk(follower, rescue)))),
            Ok(None) => Ok(None),
            Err(Interrupted::Ended(truncated)) => Err(truncated),
            Err(Interrupted::DiskFailed) => {
                let Follower { progress, range, delivery, notes } = follower;
                let now = progress.borrow().clone();
                let mut passing = rescue.take_over(range, now, delivery, notes).await?;
                let bytes = passing.next().await?;
                Ok(bytes.map(|bytes| (bytes, Following::Upstream(Box::new(passing)))))
            }
        }
    }))
}

/// Where a following body's bytes come from.
enum Following {
    Disk(Follower, Box<Rescue>),
    Upstream(Box<Passing>),
}

struct Follower {
    progress: watch::Receiver<Progress>,
    /// What is left to send.
    range: Range<u64>,
    delivery: Delivery,
    notes: Notes,
}

/// Why a follower cannot go on.
enum Interrupted {
    /// The body ends here.
    Ended(Truncated),
    /// The disk took no more bytes, or does not give them back.
    DiskFailed,
}

impl Follower {
    async fn next(&mut self, stall: Duration) -> Result<Option<Bytes>, Interrupted> {
        let (position, end) = (self.range.start, self.range.end);
        if position == end {
            return Ok(None);
        }
        let ended = |reason: String| Interrupted::Ended(Truncated(reason));
        let moved = self.progress.wait_for(|p| p.visible() > position || p.is_over());
        let (content, limit) = match timeout(stall, moved).await {
            Err(_) => {
                self.notes.ended_at(position);
                return Err(ended("the upstream is silent".to_owned()));
            }
            Ok(Err(_)) => return Err(ended("the download was dropped".to_owned())),
            Ok(Ok(now)) => match (&now.stage, now.visible()) {
                (_, visible) if visible > position => (now.content.clone(), visible),
                (Stage::Failed(Failure::Store { .. }), _) => return Err(Interrupted::DiskFailed),
                (Stage::Failed(failure), _) => return Err(ended(failure.to_string())),
                _ => return Ok(None),
            },
        };
        let Some(content) = content else {
            return Err(ended("there is no file".to_owned()));
        };
        let read = self.delivery.read(content, position, end.min(limit)).await;
        let bytes = read.map_err(|truncated| {
            self.notes.unreadable_at(position);
            Interrupted::Ended(truncated)
        })?;
        self.range.start += bytes.len() as u64;
        Ok(Some(bytes))
    }
}

/// Passes an upstream's own answer to a range on: `first`, then what comes, `len` bytes in all; not
/// verified and not stored.
pub(super) fn passing(
    response: Response,
    first: Bytes,
    len: u64,
    stall: Duration,
    fetched: IntCounter,
    delivery: Delivery,
    permit: tokio::sync::OwnedSemaphorePermit,
) -> Body {
    let state = (response, Some(first), len, delivery, permit);
    Box::pin(stream::try_unfold(
        (state, fetched),
        move |((mut response, mut first, len, delivery, permit), fetched)| async move {
            if len == 0 {
                return Ok(None);
            }
            let mut bytes = first.take().unwrap_or_default();
            if bytes.is_empty() {
                let chunk = timeout(stall, response.chunk()).await;
                let chunk = chunk.map_err(|_| Truncated("the upstream is silent".to_owned()))?;
                let Some(next) = chunk.map_err(|error| Truncated(error.to_string()))? else {
                    return Err(Truncated("the upstream's body ended early".to_owned()));
                };
                fetched.inc_by(next.len() as u64);
                bytes = next;
            }
            bytes.truncate(usize::try_from(len).unwrap_or(usize::MAX));
            delivery.served.inc_by(bytes.len() as u64);
            let rest = len - bytes.len() as u64;
            Ok(Some((bytes, ((response, None, rest, delivery, permit), fetched))))
        },
    ))
}
