//! A good answer, and what a fault makes of it.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::fault::Fault;

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
    Close,
}

/// Where and how a body ends early. Offsets count from the start of what is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Fin(usize),
    Rst(usize),
    Hang(usize),
}

impl Stop {
    pub(super) fn at(self) -> usize {
        match self {
            Self::Fin(at) | Self::Rst(at) | Self::Hang(at) => at,
        }
    }
}

/// The speed of a body from some byte on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) from: usize,
    pub(super) step: usize,
    pub(super) every: Duration,
}

/// An answer in the making.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Bytes,
    /// Where in the object the body starts.
    pub(super) start: usize,
    pub(super) framing: Framing,
    pub(super) stop: Option<Stop>,
    pub(super) pace: Option<Pace>,
    pub(super) hang_before: bool,
    pub(super) endless: bool,
}

impl Reply {
    pub(super) fn new(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self {
            status,
            headers: vec![("Content-Type".to_owned(), content_type.to_owned())],
            start: 0,
            framing: Framing::Length(body.len()),
            body,
            stop: None,
            pace: None,
            hang_before: false,
            endless: false,
        }
    }

    pub(super) fn error(status: u16) -> Self {
        // What an upstream writes must not reach a client as it is.
        let body = r#"{"errors":[{"code":"UPSTREAM","message":"the upstream's own words"}]}"#;
        Self::new(status, "application/json", body)
    }

    pub(super) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.set(name, Some(value.into()));
        self
    }

    pub(super) fn set(&mut self, name: &str, value: Option<String>) {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.headers.extend(value.map(|value| (name.to_owned(), value)));
    }

    /// The answer to a request with `Range`; unsatisfiable ones get 416, odd ones everything.
    pub(super) fn cut_to(mut self, range: &str) -> Self {
        let total = self.body.len();
        let Some((first, last)) = satisfy(range, total) else {
            return self;
        };
        if first >= total {
            return Self::error(416).with("Content-Range", format!("bytes */{total}"));
        }
        self.status = 206;
        self.body = self.body.slice(first..=last);
        self.start = first;
        self.framing = Framing::Length(self.body.len());
        self.with("Content-Range", format!("bytes {first}-{last}/{total}"))
    }

    /// Applies one fault. `path` is the request's, `own` this origin's base URL.
    pub(super) fn suffer(&mut self, fault: Fault, path: &str, own: &str) {
        let offset = |at: usize| at.checked_sub(self.start).filter(|at| *at < self.body.len());
        match fault {
            Fault::FinAt(at) => self.stop = offset(at).map(Stop::Fin).or(self.stop),
            Fault::RstAt(at) => self.stop = offset(at).map(Stop::Rst).or(self.stop),
            Fault::HangAt(at) => self.stop = offset(at).map(Stop::Hang).or(self.stop),
            Fault::FlipAt(at) => {
                if let Some(at) = offset(at) {
                    let mut bytes = BytesMut::from(&*self.body);
                    bytes[at] ^= 0x40;
                    self.body = bytes.freeze();
                }
            }
            Fault::Promise(more) => {
                self.framing = Framing::Length(self.body.len() + more);
                self.stop = Some(Stop::Fin(self.body.len()));
            }
            Fault::Cut(less) => {
                self.body.truncate(self.body.len().saturating_sub(less));
                self.framing = Framing::Length(self.body.len());
            }
            Fault::Trailing(more) => {
                let mut bytes = BytesMut::from(&*self.body);
                bytes.resize(self.body.len() + more, b'!');
                self.body = bytes.freeze();
                self.stop = Some(Stop::Fin(self.body.len()));
            }
            Fault::NoLength => self.framing = Framing::Close,
            Fault::Chunked => self.framing = Framing::Chunked,
            Fault::HangBeforeHeaders => self.hang_before = true,
            Fault::Drip { from, step, every } => {
                let from = from.saturating_sub(self.start);
                self.pace = Some(Pace { from, step, every });
            }
            Fault::Status(status) => *self = Self::error(status),
            Fault::TooMany { retry_after } => {
                *self = Self::error(429).with("Retry-After", retry_after.to_string());
            }
            Fault::Header(name, value) => self.set(name, value.map(str::to_owned)),
            Fault::Content(content_type, body) => *self = Self::new(200, content_type, body),
            Fault::Endless => {
                *self = Self::new(200, super::OCI_MANIFEST, "");
                self.framing = Framing::Chunked;
                self.endless = true;
            }
            Fault::Redirect(to) => {
                let to = to.replace("{path}", path).replace("{own}", own);
                *self = Self::error(307).with("Location", to);
            }
            Fault::RedirectChain(hops) => {
                *self = Self::error(307).with("Location", format!("/hop/{}{path}", hops - 1));
            }
            Fault::Challenge(challenge) => {
                *self = Self::error(401).with("WWW-Authenticate", challenge);
            }
            Fault::RangeOfAnother if self.status == 206 => {
                let (start, length) = (self.start, self.body.len());
                let range = format!("bytes {start}-{}/{}", start + length - 1, start + length + 1);
                self.set("Content-Range", Some(range));
            }
            Fault::PartialUnasked | Fault::RangeFromZero => {
                self.status = 206;
                let range = format!("bytes 0-{}/{}", self.body.len() - 1, self.body.len());
                self.set("Content-Range", Some(range));
            }
            Fault::RangeCoded if self.status == 206 => {
                self.set("Content-Encoding", Some("gzip".to_owned()));
            }
            // Decided before the body was cut, or taken apart when the fault was taken.
            Fault::RangeIgnored | Fault::RangeOfAnother | Fault::RangeCoded | Fault::Flap(_) => {}
        }
    }
}

/// First and last byte of a single range. `first >= total` means that there is no such byte.
fn satisfy(range: &str, total: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    if first.is_empty() {
        let suffix: usize = last.parse().ok()?;
        return Some((total.saturating_sub(suffix), total.checked_sub(1)?));
    }
    let first = first.parse().ok()?;
    let end = total.saturating_sub(1);
    let last = if last.is_empty() { end } else { last.parse::<usize>().ok()?.min(end) };
    Some((first, last))
}
