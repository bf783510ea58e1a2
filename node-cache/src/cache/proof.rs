//! Proofs that a repository has a digest.

use http::Method;
use tokio::time::Instant;

use super::{BlobAnswer, Cache, Error, Place};
use crate::{
    config::Identity,
    metrics::Outcome,
    oci::{Digest, Reference, manifest},
    upstream::{Request, Target, UpstreamError},
};

/// Whether the repository is known to have the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    Link,
    Missing,
}

/// What content is asked for as: registries keep the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Blob,
    Manifest,
}

impl Cache {
    /// A stored blob is served under a repository only after the upstream said once that the
    /// repository has it: storage is shared, entitlement is not (T8).
    pub(super) async fn prove(
        &self,
        place: &Place,
        digest: &Digest,
        kind: Kind,
        proof: Proof,
        deadline: Instant,
    ) -> Result<(), Error> {
        if proof == Proof::Link {
            return Ok(());
        }
        let repository = place.repository.clone();
        let target = match kind {
            Kind::Blob => Target::Blob(repository, digest.clone()),
            Kind::Manifest => Target::Manifest(repository, Reference::Digest(digest.clone())),
        };
        self.head(place, target, deadline).await?;
        self.links.add(place, digest);
        Ok(())
    }

    /// Whether the upstream has it, and how long it says it is.
    async fn head(
        &self,
        place: &Place,
        target: Target,
        deadline: Instant,
    ) -> Result<Option<u64>, UpstreamError> {
        let accept = matches!(target, Target::Manifest(..)).then(|| manifest::ACCEPT.to_owned());
        let request = Request {
            method: Method::HEAD,
            target,
            accept,
            range: None,
            identity: Identity::Configured,
            first_endpoint: 0,
        };
        let response = match place.upstream.send(request.clone(), deadline).await {
            // Some registries answer only GET: its headers say the same, the body is dropped.
            Err(UpstreamError::MethodRefused { .. }) => {
                let request = Request { method: Method::GET, ..request };
                place.upstream.send(request, deadline).await?
            }
            response => response?,
        };
        Ok(response.content_length())
    }

    pub(super) async fn ask_headers(
        &self,
        place: &Place,
        digest: &Digest,
        deadline: Instant,
    ) -> Result<BlobAnswer, Error> {
        let target = Target::Blob(place.repository.clone(), digest.clone());
        let total = self.head(place, target, deadline).await?;
        self.links.add(place, digest);
        Ok(BlobAnswer { total, range: None, body: None, outcome: Outcome::PassThrough })
    }
}
