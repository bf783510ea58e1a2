//! Serving blobs.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

use super::{
    Body, ByteRange, Cache, Error, ErrorKind, Place, RangeSpec,
    download::{Download, Failure, Progress, Stage},
    looking,
    proof::{Kind, Proof},
    reader::{self, Delivery, Notes},
};
use crate::{metrics::Outcome, oci::Digest, store::Blob, upstream::Target};

/// Up to this size a body is verified before its first byte.
pub(super) const SMALL: u64 = 256 << 10;
/// After this long, streaming starts all the same.
const SMALL_PATIENCE: Duration = Duration::from_secs(5);
/// A range that starts further ahead of a download than this is fetched on the side.
const AHEAD: u64 = 8 << 20;

/// A blob, or a part of it.
pub struct BlobAnswer {
    /// Length of the whole, unless the upstream does not say.
    pub total: Option<u64>,
    /// The part that was asked for; the whole if none.
    pub range: Option<ByteRange>,
    /// None for `HEAD`.
    pub body: Option<Body>,
    /// How it came about.
    pub outcome: Outcome,
}

/// Whether the client wants the bytes or only to know about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Bytes(Option<RangeSpec>),
    Headers,
}

impl Cache {
    /// `GET` of a blob, or of one range of it.
    pub async fn blob(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
        range: Option<RangeSpec>,
    ) -> Result<BlobAnswer, Error> {
        self.answer_blob(place, digest, Wanted::Bytes(range)).await
    }

    /// `HEAD` of a blob. One that is not stored is not downloaded for it.
    pub async fn blob_headers(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
    ) -> Result<BlobAnswer, Error> {
        self.answer_blob(place, digest, Wanted::Headers).await
    }

    async fn answer_blob(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
        wanted: Wanted,
    ) -> Result<BlobAnswer, Error> {
        let deadline = super::deadline();
        Self::check_policy(place)?;
        let target = Target::Blob(place.repository.clone(), digest.clone());
        self.check_visibility(place, &target, deadline).await?;

        let stored = self.open_blob(digest).await;
        let linked = self.links.has(place, digest).await;
        let proof = if linked { Proof::Link } else { Proof::Missing };
        match (stored, wanted) {
            (Some(blob), wanted) => {
                self.prove(place, digest, Kind::Blob, proof, deadline).await?;
                self.serve_stored(place, digest, blob, wanted, deadline).await
            }
            (None, Wanted::Headers) => self.ask_headers(place, digest, deadline).await,
            (None, Wanted::Bytes(range)) => {
                self.serve_download(place, digest, range, proof, deadline).await
            }
        }
    }

    /// The stored blob. If the disk does not give it, the upstream may.
    async fn open_blob(&self, digest: &Digest) -> Option<Blob> {
        let wanted = digest.clone();
        let look = looking(&self.store, move |store| store.blob(&wanted)).await;
        look.unwrap_or_else(|error| {
            self.store_failed(&error);
            None
        })
    }

    async fn serve_stored(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
        blob: Blob,
        wanted: Wanted,
        deadline: Instant,
    ) -> Result<BlobAnswer, Error> {
        let total = blob.size;
        let Wanted::Bytes(spec) = wanted else {
            let total = Some(total);
            return Ok(BlobAnswer { total, range: None, body: None, outcome: Outcome::Hit });
        };
        let doubtful = spec.is_none() && self.rechecks.is_due(digest);
        if blob.trusted && !doubtful {
            let range = resolve(spec, Some(total))?;
            let bytes = range.unwrap_or(ByteRange { start: 0, end: total });
            if bytes.start == 0 {
                self.store.count_use(digest);
            }
            let (delivery, notes) = (self.delivery(place), self.notes(digest));
            let body = Some(reader::stored(blob.content, bytes, total, delivery, notes));
            return Ok(BlobAnswer { total: Some(total), range, body, outcome: Outcome::Hit });
        }
        if doubtful {
            blob.content.drop_cached();
        }
        // Hashed at 1.6 GB/s: most blobs are verified before their first byte, which also lets a
        // bad one be replaced without the client noticing.
        let verifying = self.downloads.verify(digest, blob);
        let mut progress = verifying.follow();
        let patience = deadline.min(Instant::now() + SMALL_PATIENCE);
        let bad = match timeout_at(patience, progress.wait_for(Progress::is_over)).await {
            Ok(Ok(now)) => matches!(now.stage, Stage::Failed(_)),
            // Not through with it yet: streaming starts all the same, with the last byte held back.
            _ => false,
        };
        if bad {
            let again = self.serve_download(place, digest, spec, Proof::Link, deadline);
            return Box::pin(again).await;
        }
        Self::wait_for_first_byte(&verifying, spec, deadline).await?;
        self.follow(place, digest, &verifying, spec, Outcome::Hit, deadline).await
    }

    async fn serve_download(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
        spec: Option<RangeSpec>,
        proof: Proof,
        deadline: Instant,
    ) -> Result<BlobAnswer, Error> {
        // A small body with the wrong bytes was not sent yet: the next endpoint may do better.
        let mut attempts = place.upstream.config().endpoints.len().max(2);
        let mut retry = true;
        loop {
            let in_time = Instant::now() < deadline;
            let under_way = self.downloads.current(digest);
            let frontier =
                under_way.as_ref().map_or(0, |download| download.follow().borrow().frontier);
            if let Some(setback) = self.downloads.setback(digest)
                && setback.turns_away(spec, frontier)
            {
                let message = "larder has only the beginning of this blob";
                return Err(Error::unavailable(message));
            }
            let (download, started) = self.downloads.join_or_start(place, digest);
            // After the join: whose download it is was decided there.
            let own = download.proves(place);
            if !own {
                self.prove(place, digest, Kind::Blob, proof, deadline).await?;
            }
            let outcome = if started { Outcome::Miss } else { Outcome::Joined };
            attempts = attempts.saturating_sub(1);
            let opened = match self.wait_until_open(&download, deadline).await {
                Ok(()) => Self::wait_for_first_byte(&download, spec, deadline).await,
                failed => failed,
            };
            match opened {
                // Another request's download was stored between our look at the store and here.
                Err(Failure::Stored) => {
                    let Some(blob) = self.open_blob(digest).await else {
                        continue;
                    };
                    let proof = if own { proof } else { Proof::Link };
                    self.prove(place, digest, Kind::Blob, proof, deadline).await?;
                    let wanted = Wanted::Bytes(spec);
                    return self.serve_stored(place, digest, blob, wanted, deadline).await;
                }
                // The disk does not take it: this request gets the upstream's bytes all the same.
                Err(Failure::Store { .. }) => {
                    return self.pass_by(place, digest, spec, deadline).await;
                }
                Err(Failure::Mismatch { .. }) if attempts > 0 && in_time => {}
                // It failed for somebody else's repository or registry; ours may be well.
                Err(_) if !own && in_time => {}
                // It was about to fail when this request joined it: it gets an attempt of its own.
                Err(Failure::Stalled { .. }) if !started && retry && in_time => {
                    retry = false;
                }
                Err(failure) => return Err(failure.into()),
                Ok(()) => {
                    return self.follow(place, digest, &download, spec, outcome, deadline).await;
                }
            }
        }
    }

    /// Waits until there is something to answer with: the length, and for a small body its
    /// verification.
    async fn wait_until_open(&self, download: &Download, deadline: Instant) -> Result<(), Failure> {
        let mut progress = download.follow();
        let opened = progress.wait_for(|now| !matches!(now.stage, Stage::Opening));
        match timeout_at(deadline, opened).await {
            Ok(Ok(now)) => {
                if let Stage::Failed(failure) = &now.stage {
                    return Err(failure.clone());
                }
                if now.total.is_some_and(|total| total > SMALL) {
                    return Ok(());
                }
            }
            _ => return Err(late()),
        }
        let patience = sleep_until(deadline.min(Instant::now() + SMALL_PATIENCE));
        tokio::select! {
            // Of unknown length: it may be small until it is not.
            over = progress.wait_for(|now| now.is_over() || now.frontier > SMALL) => match over {
                Ok(now) => match &now.stage {
                    Stage::Failed(failure) => Err(failure.clone()),
                    _ => Ok(()),
                },
                Err(_) => Err(late()),
            },
            () = patience => Ok(()),
        }
    }

    /// Waits for the first byte that is asked for. No headers without one: a body that ends before
    /// it costs containerd one of the few answers after which it gives the pull up, and a 503 does
    /// not. A range that will be fetched aside, or that lies outside, has nothing to wait for.
    async fn wait_for_first_byte(
        download: &Download,
        spec: Option<RangeSpec>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        let mut progress = download.follow();
        let (total, frontier) = snapshot(&progress);
        let Ok(range) = resolve(spec, total) else { return Ok(()) };
        let start = range.map_or(0, |range| range.start);
        if start > frontier + AHEAD && download.dials_out() {
            return Ok(());
        }
        let first = progress.wait_for(|now| now.visible() > start || now.is_over());
        match timeout_at(deadline, first).await {
            Ok(Ok(now)) => match &now.stage {
                Stage::Failed(failure) if now.visible() <= start => Err(failure.clone()),
                _ => Ok(()),
            },
            _ => Err(late()),
        }
    }

    async fn follow(
        &self,
        place: &Place,
        digest: &Digest,
        download: &Arc<Download>,
        spec: Option<RangeSpec>,
        outcome: Outcome,
        deadline: Instant,
    ) -> Result<BlobAnswer, Error> {
        let progress = download.follow();
        let (total, frontier) = snapshot(&progress);
        let range = resolve(spec, total)?;
        if let (Some(range), Some(total)) = (range, total)
            && range.start > frontier + AHEAD
            && download.dials_out()
            && !progress.borrow().is_over()
        {
            let wanted = (range, total);
            return self.fetch_aside(place, digest, download, wanted, deadline).await;
        }
        let start = range.map_or(0, |range| range.start);
        let end = range.map(|range| range.end).or(total);
        if start == 0 {
            self.store.count_use(digest);
        }
        let (delivery, notes) = (self.delivery(place), self.notes(digest));
        let rescue = self.rescue(place, digest);
        let body =
            reader::following(progress, start..end.unwrap_or(u64::MAX), rescue, delivery, notes);
        Ok(BlobAnswer { total, range, body: Some(body), outcome })
    }

    pub(super) fn notes(&self, digest: &Digest) -> Notes {
        Notes {
            store: self.store.clone(),
            downloads: self.downloads.clone(),
            rechecks: self.rechecks.clone(),
            digest: digest.clone(),
        }
    }

    pub(super) fn delivery(&self, place: &Place) -> Delivery {
        Delivery::new(&self.streams, self.metrics.served(place.host()))
    }

    /// A body of bytes in memory.
    pub fn buffered(&self, place: &Place, bytes: Bytes) -> Body {
        reader::buffered(bytes, &self.delivery(place))
    }
}

fn late() -> Failure {
    Failure::Stalled { from: "the upstream".to_owned(), reason: "nothing came in time".to_owned() }
}

fn snapshot(progress: &watch::Receiver<Progress>) -> (Option<u64>, u64) {
    let now = progress.borrow();
    (now.total, now.frontier)
}

/// The range in bytes. Of content whose length is unknown the whole is sent.
pub(super) fn resolve(
    spec: Option<RangeSpec>,
    total: Option<u64>,
) -> Result<Option<ByteRange>, Error> {
    let (Some(spec), Some(total)) = (spec, total) else {
        return Ok(None);
    };
    match spec.resolve(total) {
        Some(range) => Ok(Some(range)),
        None => Err(Error {
            kind: ErrorKind::Range(total),
            message: format!("the blob has {total} bytes"),
        }),
    }
}
