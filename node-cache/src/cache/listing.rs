//! Tag lists and referrers: asked of the upstream every time, and passed on.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Cache, Error, ErrorKind, Place};
use crate::{
    oci::{Digest, Reference, Tag, manifest},
    upstream::{Request, Response, Target, UpstreamError},
};

/// A list and where its next page is.
#[derive(Clone, Debug)]
pub struct ListAnswer {
    /// JSON.
    pub body: Bytes,
    /// Query of the next page, without `?`; none on the last page.
    pub next: Option<String>,
    /// The filters that were applied to a referrers list.
    pub filters_applied: Option<String>,
}

/// Largest page that is passed on: some 100,000 tags, or 10,000 referrers.
const MAX_LIST: usize = 4 << 20;

impl Cache {
    /// `GET /v2/<name>/tags/list`. `query` is passed on; `name` is what the client calls the
    /// repository.
    pub async fn list_tags(
        &self,
        place: &Place,
        name: &str,
        query: String,
    ) -> Result<ListAnswer, Error> {
        #[derive(Deserialize)]
        struct TagList {
            tags: Option<Vec<String>>,
        }
        Self::check_policy(place)?;
        let target = Target::Tags(place.repository.clone(), query);
        let deadline = super::deadline();
        let response = self.ask_list(place, target, None, deadline).await?;
        let next = next_query(&response.headers);
        let body = self.read_list(place, response, deadline).await?;
        let list: TagList = serde_json::from_slice(&body)
            .map_err(|_| Error::unavailable("the upstream's answer is not a tag list"))?;
        let body = json!({"name": name, "tags": list.tags.unwrap_or_default()});
        Ok(ListAnswer { body: Bytes::from(body.to_string()), next, filters_applied: None })
    }

    /// `GET /v2/<name>/referrers/<digest>`. An upstream without that API is asked for the tag that
    /// the specification puts in its place ("Referrers Tag Schema"); if there is none, nothing
    /// refers to the digest.
    pub async fn referrers(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
        artifact_type: Option<&str>,
        query: String,
    ) -> Result<ListAnswer, Error> {
        Self::check_policy(place)?;
        let deadline = super::deadline();
        let target = Target::Referrers(place.repository.clone(), digest.clone(), query);
        let accept = Some(manifest::OCI_INDEX.to_owned());
        match self.ask_list(place, target, accept, deadline).await {
            Ok(response) => {
                let next = next_query(&response.headers);
                let filters_applied = response
                    .headers
                    .get("oci-filters-applied")
                    .and_then(|value| value.to_str().ok())
                    .map(str::to_owned);
                let body = self.read_list(place, response, deadline).await?;
                if is_index(&body) {
                    return Ok(ListAnswer { body, next, filters_applied });
                }
                Err(Error::unavailable("the upstream's list of referrers is no image index"))
            }
            Err(UpstreamError::NotFound { .. } | UpstreamError::MethodRefused { .. }) => {
                self.referrers_by_tag(place, digest, artifact_type, deadline).await
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn referrers_by_tag(
        self: &Arc<Self>,
        place: &Place,
        digest: &Digest,
        artifact_type: Option<&str>,
        deadline: Instant,
    ) -> Result<ListAnswer, Error> {
        let body = match fallback_tag(digest) {
            None => empty_index(),
            Some(tag) => {
                let identity = self.listing_identity(place).await;
                let reference = Reference::Tag(tag);
                let found = self.fetch_manifest_by_tag(place, reference, identity, deadline).await;
                match found {
                    Ok(found) if found.media_type == manifest::OCI_INDEX => found.bytes.clone(),
                    Ok(_) => empty_index(),
                    Err(error) if error.kind == ErrorKind::NotFound => empty_index(),
                    Err(error) => return Err(error),
                }
            }
        };
        let Some(wanted) = artifact_type else {
            return Ok(ListAnswer { body, next: None, filters_applied: None });
        };
        let filters_applied = Some("artifactType".to_owned());
        Ok(ListAnswer { body: filter_index(&body, wanted), next: None, filters_applied })
    }

    async fn ask_list(
        &self,
        place: &Place,
        target: Target,
        accept: Option<String>,
        deadline: Instant,
    ) -> Result<Response, UpstreamError> {
        let identity = self.listing_identity(place).await;
        let request = Request {
            method: Method::GET,
            target,
            accept,
            range: None,
            identity,
            first_endpoint: 0,
        };
        place.upstream.send(request, deadline).await
    }

    async fn read_list(
        &self,
        place: &Place,
        response: Response,
        deadline: Instant,
    ) -> Result<Bytes, Error> {
        let body = response.read_all(MAX_LIST, deadline).await?;
        self.metrics.fetched(place.host()).inc_by(body.len() as u64);
        Ok(body)
    }
}

/// `sha256-<hex>`: at most 32 characters of the algorithm and 64 of the encoded part.
fn fallback_tag(digest: &Digest) -> Option<Tag> {
    let hex = &digest.hex()[..64];
    format!("{}-{hex}", digest.algorithm().name()).parse().ok()
}

fn empty_index() -> Bytes {
    let index = json!({"schemaVersion": 2, "mediaType": manifest::OCI_INDEX, "manifests": []});
    Bytes::from(index.to_string())
}

fn is_index(body: &[u8]) -> bool {
    manifest::media_type(body, None).as_deref() == Ok(manifest::OCI_INDEX)
}

fn filter_index(body: &[u8], artifact_type: &str) -> Bytes {
    let Ok(mut index) = serde_json::from_slice::<Value>(body) else {
        return empty_index();
    };
    if let Some(manifests) = index.get_mut("manifests").and_then(Value::as_array_mut) {
        manifests.retain(|entry| {
            entry.get("artifactType").and_then(Value::as_str) == Some(artifact_type)
        });
    }
    Bytes::from(index.to_string())
}

/// The query of a `Link: <url>; rel="next"` header (RFC 8288). Only the query is taken: host and
/// path would lead past the cache.
fn next_query(headers: &HeaderMap) -> Option<String> {
    headers.get_all(header::LINK).iter().find_map(|link| next_link(link.to_str().ok()?))
}

fn next_link(link: &str) -> Option<String> {
    let (url, parameters) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = parameters.split(';').any(|parameter| {
        parameter.trim().split_once('=').is_some_and(|(name, value)| {
            name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "next"
        })
    });
    let (_, query) = url.split_once('?')?;
    let safe = query.bytes().all(|byte| byte.is_ascii_graphic() && !b"<>\"#".contains(&byte));
    (is_next && safe && query.len() <= 1024).then(|| query.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_taken_from_the_link_without_its_host() {
        let table = [
            ("</v2/x/tags/list?n=2&last=b>; rel=\"next\"", Some("n=2&last=b")),
            ("<https://other.example/v2/x/tags/list?last=b>; rel=next", Some("last=b")),
            ("</v2/x/tags/list?n=2>; rel=\"prev\"", None),
            ("</v2/x/tags/list>; rel=\"next\"", None),
            ("</v2/x?a=<b>>; rel=\"next\"", None),
            ("nonsense", None),
        ];
        for (link, expected) in table {
            let mut headers = HeaderMap::new();
            headers.insert(header::LINK, link.parse().unwrap());
            assert_eq!(next_query(&headers).as_deref(), expected, "{link}");
        }
    }

    #[test]
    fn a_filtered_index_keeps_only_the_wanted_artifact_type() {
        let body =
            br#"{"schemaVersion":2,"manifests":[{"artifactType":"a"},{"artifactType":"b"},{}]}"#;
        let filtered: Value = serde_json::from_slice(&filter_index(body, "b")).unwrap();
        assert_eq!(filtered["manifests"], json!([{"artifactType": "b"}]));
        assert!(is_index(&filter_index(b"broken", "b")));
    }
}
