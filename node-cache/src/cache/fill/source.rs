//! Where a download's bytes come from: an upstream's answer, positioned at the frontier.

use std::time::Duration;

use http::{Method, StatusCode};
use tokio::time::{Instant, sleep};

use crate::{
    cache::{Place, download::Failure},
    config::Identity,
    oci::Digest,
    upstream::{Request, Response, Target, UpstreamError},
};

/// Attempts in a row that bring no new byte, before the download is given up.
const FRUITLESS: u32 = 4;
/// Pause before the second and later attempts in a row.
const PAUSE: Duration = Duration::from_millis(200);

/// An upstream's answer, positioned at the frontier.
pub(in crate::cache) struct Source {
    pub(in crate::cache) response: Response,
    pub(in crate::cache) total: Option<u64>,
    /// Bytes to throw away first: the upstream ignored the range.
    pub(in crate::cache) skip: u64,
}

/// A blob at its upstream.
#[derive(Clone, Debug)]
pub(in crate::cache) struct Origin {
    pub(in crate::cache) place: Place,
    pub(in crate::cache) digest: Digest,
}

impl Origin {
    /// Asks for the bytes from `from` on.
    pub(in crate::cache) async fn connect(
        &self,
        from: u64,
        endpoint: usize,
        deadline: Instant,
    ) -> Result<Source, UpstreamError> {
        match self.ask(from, endpoint, deadline).await {
            // What is held is as long as the whole, or longer: the last byte decides which.
            Err(UpstreamError::RangeNotSatisfiable { .. }) if from > 0 => {
                self.ask(0, endpoint, deadline).await.map(|source| Source { skip: from, ..source })
            }
            result => result,
        }
    }

    async fn ask(
        &self,
        from: u64,
        endpoint: usize,
        deadline: Instant,
    ) -> Result<Source, UpstreamError> {
        let request = |range| Request {
            method: Method::GET,
            target: Target::Blob(self.place.repository.clone(), self.digest.clone()),
            accept: None,
            range,
            identity: Identity::Configured,
            first_endpoint: endpoint,
        };
        let ranged = (from > 0).then_some((from, None));
        let response = self.place.upstream.send(request(ranged), deadline).await?;
        if response.status == StatusCode::PARTIAL_CONTENT {
            match response.content_range() {
                Some(range) if range.start == from => {
                    return Ok(Source { total: range.total, skip: 0, response });
                }
                // It sends another range than it was asked for: take the whole and skip.
                _ => {
                    drop(response);
                    let response = self.place.upstream.send(request(None), deadline).await?;
                    return Ok(Source { total: response.content_length(), skip: from, response });
                }
            }
        }
        Ok(Source { total: response.content_length(), skip: from, response })
    }

    /// Replaces a broken connection, before `deadline`.
    /// `Err(None)` means that no endpoint could take over in time.
    pub(in crate::cache) async fn resume(
        &self,
        frontier: u64,
        total: Option<u64>,
        first: usize,
        mut fruitless: u32,
        deadline: Instant,
    ) -> Result<Source, Option<Failure>> {
        let mut endpoint = first;
        loop {
            if fruitless >= FRUITLESS || Instant::now() >= deadline {
                return Err(None);
            }
            if fruitless > 0 {
                sleep(PAUSE * fruitless).await;
            }
            match self.connect(frontier, endpoint, deadline).await {
                // One that does not say its length may be right; the digest decides.
                Ok(source) if total.is_none() || source.total.is_none_or(|t| Some(t) == total) => {
                    return Ok(source);
                }
                Ok(_) => tracing::warn!(digest = %self.digest, "an endpoint has another length"),
                Err(UpstreamError::Unavailable { .. }) => {}
                // A mirror that never had it may stand before the endpoint that has.
                Err(_) if self.place.upstream.config().endpoints.len() > 1 => {}
                Err(error) => return Err(Some(error.into())),
            }
            endpoint += 1;
            fruitless += 1;
        }
    }
}
