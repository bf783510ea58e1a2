//! The combined log format, as both registries write it.

use anyhow::{Context, Result};

use crate::clients;

/// One answered request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `HEAD`, ...
    pub method: String,
    /// Without the query.
    pub path: String,
    /// Without the question mark; empty if there is none.
    pub query: String,
    /// HTTP status.
    pub status: u16,
    /// Bytes of the body.
    pub bytes: u64,
    /// `User-Agent`.
    pub user_agent: String,
}

impl Request {
    /// Whether it sent the body of this digest, whole or in part.
    pub fn sent(&self, digest: &str) -> bool {
        self.method == "GET"
            && matches!(self.status, 200 | 206)
            && self.path.ends_with(&format!("/{digest}"))
    }

    /// Whether one of the stories' clients sent it, past Larder.
    pub fn is_from_a_client(&self) -> bool {
        let clients = ["containerd/", "crane/", "skopeo/", clients::RAW_USER_AGENT];
        clients.iter().any(|client| self.user_agent.starts_with(client))
    }
}

/// All lines of a log. A last line without an end is still being written and left out.
pub(super) fn parse(text: &str) -> Result<Vec<Request>> {
    let complete = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
    complete
        .lines()
        .map(|line| request(line).with_context(|| format!("not an access log: {line}")))
        .collect()
}

/// `127.0.0.1 - - [TIME] "GET /v2/?a=b HTTP/1.1" 200 123 "" "containerd/2.4.2"`
fn request(line: &str) -> Option<Request> {
    let mut quoted = line.split('"');
    let (_, request, numbers) = (quoted.next()?, quoted.next()?, quoted.next()?);
    let (_, _, user_agent) = (quoted.next()?, quoted.next()?, quoted.next()?);
    let mut request = request.split(' ');
    let (method, target) = (request.next()?, request.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut numbers = numbers.split_whitespace();
    Some(Request {
        method: method.to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        status: numbers.next()?.parse().ok()?,
        bytes: numbers.next()?.parse().ok()?,
        user_agent: user_agent.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart_and_an_unfinished_one_waits() {
        let line = r#"127.0.0.1 - - [24/Nov/2026:06:58:08 +0000] "GET /v2/a/b/blobs/sha256:12?ns=x%3A1 HTTP/1.1" 206 3000785 "" "crane/0.22.1 go-containerregistry/v0.22.1""#;
        let requests = parse(&format!("{line}\n{line}")).unwrap();
        assert_eq!(requests.len(), 1);
        assert_eq!(
            requests[0],
            Request {
                method: "GET".to_owned(),
                path: "/v2/a/b/blobs/sha256:12".to_owned(),
                query: "ns=x%3A1".to_owned(),
                status: 206,
                bytes: 3_000_785,
                user_agent: "crane/0.22.1 go-containerregistry/v0.22.1".to_owned(),
            }
        );
        assert!(requests[0].sent("sha256:12") && !requests[0].sent("sha256:1"));
        assert!(parse("something else\n").is_err());
    }
}
