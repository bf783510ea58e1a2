//! Ranges far ahead of a download, fetched on the side.

use bytes::Bytes;
use http::{Method, StatusCode};
use prometheus::IntCounter;
use tokio::time::{Instant, timeout_at};

use super::{BlobAnswer, ByteRange, Cache, Error, Place, download::Download, reader};
use crate::{
    config::Identity,
    metrics::Outcome,
    oci::Digest,
    upstream::{Request, Response, Target},
};

impl Cache {
    /// Answers `range` by an upstream range of its own.
    pub(super) async fn fetch_aside(
        &self,
        place: &Place,
        digest: &Digest,
        download: &Download,
        (range, total): (ByteRange, u64),
        deadline: Instant,
    ) -> Result<BlobAnswer, Error> {
        let Ok(permit) = download.side_ranges.clone().try_acquire_owned() else {
            let message = "larder already fetches four ranges of this blob on the side";
            return Err(Error::unavailable(message));
        };
        let request = Request {
            method: Method::GET,
            target: Target::Blob(place.repository.clone(), digest.clone()),
            accept: None,
            range: Some((range.start, Some(range.end - 1))),
            identity: Identity::Configured,
            first_endpoint: 0,
        };
        let mut response = place.upstream.send(request, deadline).await?;
        let skip = bytes_before(&response, range, total)?;
        let fetched = self.metrics.fetched(place.host());
        // Before the headers, because to the client it is silence.
        let first = skip_bytes(&mut response, skip, &fetched, deadline).await?;
        let stall = place.upstream.config().timeouts.stall;
        let len = range.end - range.start;
        let delivery = self.delivery(place);
        let body = reader::passing(response, first, len, stall, fetched, delivery, permit);
        let (total, range, body) = (Some(total), Some(range), Some(body));
        Ok(BlobAnswer { total, range, body, outcome: Outcome::PassThrough })
    }
}

/// How many bytes of the answer come before the range: all of them, if the upstream ignored it.
fn bytes_before(response: &Response, range: ByteRange, total: u64) -> Result<u64, Error> {
    if response.status == StatusCode::PARTIAL_CONTENT {
        return match response.content_range() {
            Some(found) if found.start == range.start && found.total == Some(total) => Ok(0),
            _ => Err(Error::unavailable("the upstream sent another range than asked for")),
        };
    }
    match response.content_length() {
        Some(length) if length != total => {
            Err(Error::unavailable("the upstream's blob has another length"))
        }
        _ => Ok(range.start),
    }
}

/// Throws `skip` bytes away and returns what came with the last of them.
async fn skip_bytes(
    response: &mut Response,
    mut skip: u64,
    fetched: &IntCounter,
    deadline: Instant,
) -> Result<Bytes, Error> {
    while skip > 0 {
        let late = |_| Error::unavailable("the upstream ignores ranges and is too slow to skip");
        let chunk = timeout_at(deadline, response.chunk()).await.map_err(late)?;
        let Some(mut bytes) = chunk? else {
            return Err(Error::unavailable("the upstream's body ended before the range"));
        };
        fetched.inc_by(bytes.len() as u64);
        let drop = usize::try_from(skip).unwrap_or(usize::MAX).min(bytes.len());
        let rest = bytes.split_off(drop);
        skip -= drop as u64;
        if skip == 0 {
            return Ok(rest);
        }
    }
    Ok(Bytes::new())
}
