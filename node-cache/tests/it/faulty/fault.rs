//! What can go wrong, and for which requests.

use std::time::Duration;

use bytes::Bytes;

/// For as long as nobody heals it.
pub const ALWAYS: usize = usize::MAX;

/// One way in which an upstream misbehaves. Offsets count from the start of the object, also when
/// only a range of it is sent.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection is closed in an orderly way before this byte.
    FinAt(usize),
    /// The connection is reset before this byte.
    RstAt(usize),
    /// Nothing more comes from this byte on, and the connection stays open.
    HangAt(usize),
    /// This byte is wrong.
    FlipAt(usize),
    /// `Content-Length` promises so many bytes more than come.
    Promise(usize),
    /// The object is so many bytes shorter, consistently.
    Cut(usize),
    /// So many bytes too many follow.
    Trailing(usize),
    /// Neither length nor chunks: the end is where the connection closes.
    NoLength,
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// The request is read, and that is all.
    HangBeforeHeaders,
    /// From the byte `from` on, `step` bytes come every so often.
    Drip { from: usize, step: usize, every: Duration },
    /// Another status, with an error body.
    Status(u16),
    /// 429 with `Retry-After`.
    TooMany { retry_after: u32 },
    /// One status after the other, then a good answer.
    Flap(&'static [u16]),
    /// 200 with everything for a request with `Range`.
    RangeIgnored,
    /// 206 with everything from the first byte, and a header that says so.
    RangeFromZero,
    /// 206 with the right bytes and a total that is too large by one.
    RangeOfAnother,
    /// 206 with `Content-Encoding: gzip`; answers without a range are well.
    RangeCoded,
    /// 206 for a request without `Range`.
    PartialUnasked,
    /// A header with another value, or without it.
    Header(&'static str, Option<&'static str>),
    /// 200 with other content.
    Content(&'static str, Bytes),
    /// 200 with JSON white space without end.
    Endless,
    /// 307. `{path}` stands for the request's path.
    Redirect(String),
    /// So many redirects within this origin, then the content.
    RedirectChain(u32),
    /// 401 with this challenge.
    Challenge(String),
}

/// Which requests a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    Any,
    /// `GET` and `HEAD` of blobs.
    Blobs,
    /// `GET` of blobs.
    BlobGets,
    /// `GET` and `HEAD` of manifests, by tag or digest.
    Manifests,
    /// `GET` and `HEAD` of manifests by tag.
    Tags,
    /// `HEAD` of anything.
    Heads,
    /// Token requests; the repository is [`TOKENS`].
    Tokens,
}

/// The name under which faults of the token endpoint are kept.
pub const TOKENS: &str = "/token";

/// What a request asks for, as far as faults distinguish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Blob,
    ManifestByDigest,
    ManifestByTag,
    Token,
    Other,
}

impl On {
    fn covers(self, kind: Kind, is_head: bool) -> bool {
        match self {
            Self::Any => true,
            Self::Blobs => kind == Kind::Blob,
            Self::BlobGets => kind == Kind::Blob && !is_head,
            Self::Manifests => matches!(kind, Kind::ManifestByDigest | Kind::ManifestByTag),
            Self::Tags => kind == Kind::ManifestByTag,
            Self::Heads => is_head,
            Self::Tokens => kind == Kind::Token,
        }
    }
}

/// A fault in force.
#[derive(Debug)]
struct Rule {
    repository: String,
    on: On,
    fault: Fault,
    times: usize,
    used: usize,
}

/// The faults in force at one origin.
#[derive(Debug, Default)]
pub struct Faults(Vec<Rule>);

impl Faults {
    pub fn inject(&mut self, repository: &str, on: On, fault: Fault, times: usize) {
        let times = match &fault {
            Fault::Flap(statuses) => statuses.len(),
            _ => times,
        };
        self.0.push(Rule { repository: repository.to_owned(), on, fault, times, used: 0 });
    }

    pub fn heal(&mut self, repository: &str) {
        self.0.retain(|rule| rule.repository != repository);
    }

    /// The faults of one request; counts them as used.
    pub fn take(&mut self, repository: &str, kind: Kind, is_head: bool) -> Vec<Fault> {
        let mut taken = Vec::new();
        for rule in &mut self.0 {
            let applies = rule.repository == repository && rule.on.covers(kind, is_head);
            if applies && rule.used < rule.times {
                taken.push(match &rule.fault {
                    Fault::Flap(statuses) => Fault::Status(statuses[rule.used]),
                    fault => fault.clone(),
                });
                rule.used += 1;
            }
        }
        taken
    }
}
