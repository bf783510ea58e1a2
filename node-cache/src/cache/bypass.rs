//! Passing the upstream's bytes on without keeping them, when the disk is full or broken. Each
//! request has an upstream request of its own then.

use std::{ops::Range, time::Duration};

use bytes::Bytes;
use prometheus::IntCounter;
use tokio::time::{Instant, timeout_at};

use super::{
    BlobAnswer, Cache, Error, Place, RangeSpec,
    blob::{SMALL, resolve},
    blocking,
    download::Progress,
    fill::{Origin, Source},
    reader::{Body, Delivery, Notes, Truncated},
};
use crate::{
    metrics::Outcome,
    oci::{Digest, Hasher},
    store::Content,
};

/// What a body needs to go on with the upstream's bytes when the disk fails in the middle.
pub(super) struct Rescue {
    origin: Origin,
    fetched: IntCounter,
}

/// A body that is passed on, and the connection that it comes from.
pub(super) struct Passing {
    origin: Origin,
    fetched: IntCounter,
    source: Source,
    /// Next byte to be sent, and one past the last.
    range: Range<u64>,
    /// Length of the whole, if the upstream says it.
    total: Option<u64>,
    /// Has seen everything up to the position, if the body is the whole.
    hasher: Option<Hasher>,
    /// Held back: the last piece of a whole body goes out when the digest is right.
    held: Option<Bytes>,
    delivery: Delivery,
    notes: Notes,
}

impl Cache {
    /// Answers a request for a blob that cannot be stored.
    pub(super) async fn pass_by(
        &self,
        place: &Place,
        digest: &Digest,
        spec: Option<RangeSpec>,
        deadline: Instant,
    ) -> Result<BlobAnswer, Error> {
        // The length is not known yet where it is needed.
        let spec = match spec {
            Some(RangeSpec::Last(_)) => {
                let headers = self.ask_headers(place, digest, deadline).await?;
                resolve(spec, headers.total)?.map(|r| RangeSpec::Between(r.start, r.end - 1))
            }
            spec => spec,
        };
        let rescue = self.rescue(place, digest);
        let start = spec.and_then(RangeSpec::start).unwrap_or(0);
        let mut endpoint = 0;
        loop {
            let source = rescue.origin.connect(start, endpoint, deadline).await?;
            self.links.remember(place, digest);
            let (total, answered) = (source.total, source.response.endpoint);
            let range = resolve(spec, total)?;
            let end = range.map(|range| range.end).or(total).unwrap_or(u64::MAX);
            let whole = range.is_none_or(|range| start == 0 && Some(range.end) == total);
            let mut passing = Passing {
                origin: rescue.origin.clone(),
                fetched: rescue.fetched.clone(),
                source,
                range: start..end,
                total,
                hasher: whole.then(|| Hasher::new(digest.algorithm())),
                held: None,
                delivery: self.delivery(place),
                notes: self.notes(digest),
            };
            // Before the headers, because to the client it is silence; and a small body with the
            // wrong bytes is no answer yet.
            let small = total.is_some_and(|total| total <= SMALL);
            match timeout_at(deadline, passing.open(small)).await {
                Ok(Ok(first)) => {
                    let body = Some(passing.into_body(first));
                    return Ok(BlobAnswer { total, range, body, outcome: Outcome::PassThrough });
                }
                Ok(Err(_)) if endpoint == 0 => endpoint = answered + 1,
                Ok(Err(error)) => return Err(Error::unavailable(error.to_string())),
                Err(_) => return Err(Error::unavailable("the upstream sent nothing in time")),
            }
        }
    }

    /// What a body of `digest` does if the disk fails.
    pub(super) fn rescue(&self, place: &Place, digest: &Digest) -> Rescue {
        Rescue {
            origin: Origin { place: place.clone(), digest: digest.clone() },
            fetched: self.metrics.fetched(place.host()),
        }
    }
}

impl Rescue {
    /// How long a body may be silent.
    pub(super) fn stall(&self) -> Duration {
        self.origin.place.upstream.config().timeouts.stall
    }

    /// Goes on with a body that has sent everything before `range`. What came so far is hashed
    /// again from the file, because no whole body leaves that is not verified.
    pub(super) async fn take_over(
        self,
        range: Range<u64>,
        so_far: Progress,
        delivery: Delivery,
        notes: Notes,
    ) -> Result<Passing, Truncated> {
        let deadline = Instant::now() + self.stall();
        let whole = so_far.total.is_none_or(|total| range.end >= total);
        let hasher = match (whole, so_far.content) {
            (true, Some(content)) => {
                let position = range.start;
                let hasher = Hasher::new(self.origin.digest.algorithm());
                Some(hash_beginning(hasher, content, position).await?)
            }
            (true, None) if range.start == 0 => Some(Hasher::new(self.origin.digest.algorithm())),
            (true, None) => return Err(Truncated("the disk failed".to_owned())),
            (false, _) => None,
        };
        let source = self.origin.connect(range.start, 0, deadline).await;
        let source = source.map_err(|error| {
            notes.ended_at(range.start);
            Truncated(error.to_string())
        })?;
        let total = so_far.total.or(source.total);
        let range = range.start..range.end.min(total.unwrap_or(u64::MAX));
        let Self { origin, fetched } = self;
        Ok(Passing { origin, fetched, source, range, total, hasher, held: None, delivery, notes })
    }
}

async fn hash_beginning(
    mut hasher: Hasher,
    content: Content,
    length: u64,
) -> Result<Hasher, Truncated> {
    const STEP: u64 = 1 << 20;
    let reading = blocking(move || {
        let mut offset = 0;
        while offset < length {
            let step = usize::try_from(STEP.min(length - offset)).unwrap_or(usize::MAX);
            match content.read_at(offset, step) {
                Ok(bytes) if !bytes.is_empty() => {
                    hasher.update(&bytes);
                    offset += bytes.len() as u64;
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(hasher))
    });
    let begun = reading.await.ok().flatten();
    begun.ok_or_else(|| Truncated("the stored beginning cannot be read".to_owned()))
}

impl Passing {
    /// Everything of a small body, else the first piece.
    async fn open(&mut self, small: bool) -> Result<Bytes, Truncated> {
        let mut pieces = Vec::new();
        while let Some(bytes) = self.next().await? {
            pieces.push(bytes);
            if !small {
                break;
            }
        }
        Ok(match pieces.len() {
            1 => pieces.remove(0),
            _ => Bytes::from(pieces.concat()),
        })
    }

    fn into_body(self, first: Bytes) -> Body {
        let state = (Some(first), self);
        Box::pin(futures_util::stream::try_unfold(state, async |(first, mut passing)| {
            let bytes = match first {
                Some(bytes) if !bytes.is_empty() => Some(bytes),
                _ => passing.next().await?,
            };
            Ok(bytes.map(|bytes| (bytes, (None, passing))))
        }))
    }

    /// The next piece, `None` after the last. A connection that breaks or falls silent is replaced.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Truncated> {
        let silent_since = Instant::now();
        let mut fruitless = 0;
        while self.range.start < self.range.end {
            let half = silent_since + self.stall() * (fruitless.min(1) + 1) / 2;
            let problem = match timeout_at(half, self.source.response.chunk()).await {
                Ok(Ok(Some(bytes))) => {
                    if let Some(bytes) = self.receive(bytes)? {
                        return Ok(Some(bytes));
                    }
                    continue;
                }
                Ok(Ok(None)) if self.total.is_none() => {
                    self.range.end = self.range.start;
                    return self.finish(None);
                }
                Ok(Ok(None)) => "the upstream's body ended early".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "the upstream is silent".to_owned(),
            };
            let (position, total) = (self.range.start, self.total);
            let next = self.source.response.endpoint + usize::from(fruitless > 0);
            fruitless += 1;
            let give_up = silent_since + self.stall();
            let resumed = self.origin.resume(position, total, next, fruitless, give_up).await;
            let Ok(source) = resumed else {
                self.notes.ended_at(position);
                return Err(Truncated(problem));
            };
            self.source = source;
        }
        Ok(None)
    }

    /// Takes what came; returns what may go out.
    fn receive(&mut self, mut bytes: Bytes) -> Result<Option<Bytes>, Truncated> {
        self.fetched.inc_by(bytes.len() as u64);
        let skip = usize::try_from(self.source.skip).unwrap_or(usize::MAX).min(bytes.len());
        self.source.skip -= skip as u64;
        let mut bytes = bytes.split_off(skip);
        bytes.truncate(usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX));
        if bytes.is_empty() {
            return Ok(None);
        }
        self.range.start += bytes.len() as u64;
        let Some(hasher) = &mut self.hasher else {
            self.delivery.count(bytes.len());
            return Ok(Some(bytes));
        };
        hasher.update(&bytes);
        if self.range.start == self.range.end {
            return self.finish(Some(bytes));
        }
        if self.total.is_some() {
            self.delivery.count(bytes.len());
            return Ok(Some(bytes));
        }
        // Any piece may be the last one.
        let out = self.held.replace(bytes);
        self.delivery.count(out.as_ref().map_or(0, Bytes::len));
        Ok(out)
    }

    /// Everything came: the last piece goes out if the digest is right.
    fn finish(&mut self, last: Option<Bytes>) -> Result<Option<Bytes>, Truncated> {
        if let Some(hasher) = self.hasher.take()
            && hasher.finish() != self.origin.digest
        {
            tracing::warn!(digest = %self.origin.digest, "passed bytes are not what the digest says");
            let from = self.origin.place.host();
            return Err(Truncated(format!("the bytes from {from} are not what the digest says")));
        }
        let out = last.or_else(|| self.held.take());
        self.delivery.count(out.as_ref().map_or(0, Bytes::len));
        Ok(out)
    }

    fn stall(&self) -> Duration {
        self.origin.place.upstream.config().timeouts.stall
    }
}
