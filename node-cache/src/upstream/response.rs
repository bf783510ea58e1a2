//! An upstream's answer and its body.

use bytes::{Bytes, BytesMut};
use http::{
    HeaderMap, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, TRANSFER_ENCODING},
};
use tokio::time::{Instant, timeout_at};

use crate::oci::Digest;

/// An upstream's answer: 200 or 206, headers read, body not.
#[derive(Debug)]
pub struct Response {
    /// 200 or 206.
    pub status: StatusCode,
    /// As received.
    pub headers: HeaderMap,
    /// Index of the endpoint that answered.
    pub endpoint: usize,
    body: reqwest::Response,
}

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection broke or the framing is wrong.
    #[error("the upstream's body broke off")]
    Broken(#[source] reqwest::Error),
    /// More came than the caller allows.
    #[error("the upstream's body is larger than {limit} bytes")]
    TooLarge {
        /// The allowed size.
        limit: usize,
    },
    /// The deadline passed.
    #[error("the upstream's body was not complete in time")]
    TimedOut,
}

/// A `Content-Range` of a 206 (RFC 9110 section 14.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// First byte.
    pub start: u64,
    /// Last byte, inclusive; not before `start`.
    pub end: u64,
    /// Size of the whole content, beyond `end`; `None` if the upstream does not know it.
    pub total: Option<u64>,
}

impl ContentRange {
    /// Reads `bytes 0-9/100` or `bytes 0-9/*`.
    pub fn parse(text: &str) -> Option<Self> {
        let (unit, rest) = text.trim().split_once(' ')?;
        if !unit.eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (range, total) = rest.trim().split_once('/')?;
        let (start, end) = range.split_once('-')?;
        let total = match total {
            "*" => None,
            total => Some(number(total)?),
        };
        let (start, end) = (number(start)?, number(end)?);
        let valid = start <= end && total.is_none_or(|total| end < total);
        valid.then_some(Self { start, end, total })
    }
}

/// Digits only: `str::parse` would take a plus sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl Response {
    pub(super) fn new(endpoint: usize, mut body: reqwest::Response) -> Self {
        let headers = std::mem::take(body.headers_mut());
        Self { status: body.status(), headers, endpoint, body }
    }

    /// The next piece of the body, `None` at its end. Cancel safe.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, BodyError> {
        chunk(&mut self.body).await
    }

    /// The whole body, if it is at most `limit` bytes and complete before `deadline`. Empty for an
    /// answer to `HEAD`.
    pub async fn read_all(self, limit: usize, deadline: Instant) -> Result<Bytes, BodyError> {
        read_body(self.body, limit, deadline).await
    }

    /// `Content-Length`: of the body, or for `HEAD` of the body that `GET` would have. `None` if
    /// there is none, it is not a number, or the body is chunked.
    pub fn content_length(&self) -> Option<u64> {
        if self.headers.contains_key(TRANSFER_ENCODING) {
            return None;
        }
        number(self.headers.get(CONTENT_LENGTH)?.to_str().ok()?)
    }

    /// `Docker-Content-Digest`, if it is one.
    pub fn content_digest(&self) -> Option<Digest> {
        self.headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
    }

    /// `Content-Range`, if it is one.
    pub fn content_range(&self) -> Option<ContentRange> {
        ContentRange::parse(self.headers.get(CONTENT_RANGE)?.to_str().ok()?)
    }
}

async fn chunk(body: &mut reqwest::Response) -> Result<Option<Bytes>, BodyError> {
    // The URL of a redirected body is signed, and errors are logged.
    body.chunk().await.map_err(|error| BodyError::Broken(error.without_url()))
}

/// The rest of a body within bounds.
pub(super) async fn read_body(
    mut body: reqwest::Response,
    limit: usize,
    deadline: Instant,
) -> Result<Bytes, BodyError> {
    let read = async {
        let mut whole = BytesMut::new();
        while let Some(piece) = chunk(&mut body).await? {
            if piece.len() > limit - whole.len() {
                return Err(BodyError::TooLarge { limit });
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    };
    timeout_at(deadline, read).await.unwrap_or(Err(BodyError::TimedOut))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn content_ranges_are_read() {
        let range = |start, end, total| Some(ContentRange { start, end, total });
        for (text, expected) in [
            ("bytes 0-9/100", range(0, 9, Some(100))),
            ("bytes 99-99/100", range(99, 99, Some(100))),
            ("Bytes 5-6/*", range(5, 6, None)),
            ("bytes  0-0/1 ", range(0, 0, Some(1))),
            ("bytes 9-0/100", None),
            ("bytes 0-100/100", None),
            ("bytes */100", None),
            ("bytes 0-9", None),
            ("bytes=0-9/100", None),
            ("bytes +0-9/100", None),
            ("bytes 0-9/18446744073709551616", None),
            ("bytes -9/100", None),
            ("items 0-9/100", None),
            ("", None),
        ] {
            assert_eq!(ContentRange::parse(text), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(start in 0..1_u64 << 62, length in 1..1_u64 << 61, more in 1..1_u64 << 61) {
            let (end, total) = (start + length - 1, start + length + more);
            let read = ContentRange::parse(&format!("bytes {start}-{end}/{total}"));
            prop_assert_eq!(read, Some(ContentRange { start, end, total: Some(total) }));
        }
    }
}
