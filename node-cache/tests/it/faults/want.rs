//! What a client asks, and what it must see.

use super::case::{Ground, REPOSITORY, TAG};
use crate::larder::{Answer, Call, End, Larder};

/// A request of a client.
#[derive(Clone, Copy, Debug)]
pub struct Ask {
    method: &'static str,
    what: What,
    range: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Layer,
    Manifest,
    Tag,
    NoSuchBlob,
    NoSuchTag,
    OtherHost,
}

const fn get(what: What) -> Ask {
    Ask { method: "GET", what, range: None }
}

/// The image's layer.
pub const LAYER: Ask = get(What::Layer);
/// The image's manifest, by digest.
pub const MANIFEST: Ask = get(What::Manifest);
/// The image's index, by tag.
pub const BY_TAG: Ask = get(What::Tag);
pub const NO_SUCH_BLOB: Ask = get(What::NoSuchBlob);
pub const NO_SUCH_TAG: Ask = get(What::NoSuchTag);
/// The layer, from a host that is not configured: the sink.
pub const OTHER_HOST: Ask = get(What::OtherHost);

impl Ask {
    pub const fn head(self) -> Self {
        Self { method: "HEAD", ..self }
    }

    pub const fn range(self, range: &'static str) -> Self {
        Self { range: Some(range), ..self }
    }

    pub fn call(&self, ground: &Ground, larder: &Larder) -> Call {
        let nowhere = format!("blobs/sha256:{}", "0".repeat(64));
        let rest = match self.what {
            What::Layer | What::OtherHost => format!("blobs/{}", ground.image.layer.digest),
            What::Manifest => format!("manifests/{}", ground.image.manifest.digest),
            What::Tag => format!("manifests/{TAG}"),
            What::NoSuchBlob => nowhere,
            What::NoSuchTag => "manifests/no-such-tag".to_owned(),
        };
        let ns = match self.what {
            What::OtherHost => ground.sink.address().to_string(),
            _ => ground.host.clone(),
        };
        let call = larder.call(self.method, &format!("/v2/{REPOSITORY}/{rest}?ns={ns}"));
        match self.range {
            Some(range) => call.range(range),
            None => call,
        }
    }

    fn content<'a>(&self, ground: &'a Ground) -> Content<'a> {
        let Ground { image, .. } = ground;
        let manifest = |manifest: &'a crate::faulty::Manifest| Content {
            bytes: &manifest.bytes,
            digest: &manifest.digest,
            media_type: &manifest.media_type,
        };
        match self.what {
            What::Manifest => manifest(&image.manifest),
            What::Tag => manifest(&image.index),
            _ => Content {
                bytes: &image.layer.bytes,
                digest: &image.layer.digest,
                media_type: "application/octet-stream",
            },
        }
    }

    fn unknown(&self) -> &'static str {
        match self.what {
            What::Layer | What::NoSuchBlob => "BLOB_UNKNOWN",
            What::Manifest | What::Tag | What::NoSuchTag => "MANIFEST_UNKNOWN",
            What::OtherHost => "NAME_UNKNOWN",
        }
    }
}

struct Content<'a> {
    bytes: &'a [u8],
    digest: &'a str,
    media_type: &'a str,
}

/// What the client must see.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// One of these; everything above 206 must be an OCI error.
    status: &'static [u16],
    body: Body,
    /// Seconds until the end.
    within: u64,
    /// Seconds until the first byte of the body.
    first_byte: u64,
}

#[derive(Clone, Copy, Debug)]
enum Body {
    /// Everything, of known length.
    Whole,
    /// Everything, of whatever framing.
    Unsized,
    /// First and last byte, inclusive.
    Part(usize, usize),
    /// All good bytes but the last, then FIN.
    AllButLast,
    /// Everything, or all good bytes but the last and FIN.
    WholeOrAllButLast,
    /// What the upstream sent before it went wrong, then FIN.
    Prefix(usize),
    /// Not everything, whatever it is, then FIN.
    Short,
    /// Everything, or a good prefix and FIN.
    WholeOrPrefix,
    /// Headers only.
    Nothing,
}

const fn want(status: &'static [u16], body: Body) -> Want {
    Want { status, body, within: 15, first_byte: 15 }
}

pub const WHOLE: Want = want(&[200], Body::Whole);
pub const UNSIZED: Want = want(&[200], Body::Unsized);
pub const ALL_BUT_LAST: Want = want(&[200], Body::AllButLast);
pub const SHORT: Want = want(&[200], Body::Short);
pub const WHOLE_OR_PREFIX: Want = want(&[200], Body::WholeOrPrefix);
pub const WHOLE_OR_ALL_BUT_LAST: Want = want(&[200], Body::WholeOrAllButLast);
/// A good prefix and FIN, or an error: what is left when small content stalls.
pub const PREFIX_OR_503: Want = want(&[200, 503], Body::WholeOrPrefix);
pub const NOTHING: Want = want(&[200], Body::Nothing);
/// Everything, or an error that says that the upstream failed.
pub const WHOLE_OR_503: Want = want(&[200, 503], Body::Whole);
pub const NOTHING_OR_503: Want = want(&[200, 503], Body::Nothing);
pub const UNAVAILABLE: Want = want(&[503], Body::Nothing);
pub const DENIED: Want = want(&[403], Body::Nothing);
pub const UNKNOWN: Want = want(&[404], Body::Nothing);
pub const WHOLE_OR_REFUSED: Want = want(&[200, 403, 503], Body::Whole);
/// Refused, and it does not matter on whose behalf.
pub const REFUSED: Want = want(&[403, 503], Body::Nothing);

pub const fn part(first: usize, last: usize) -> Want {
    want(&[206], Body::Part(first, last))
}

pub const fn prefix(length: usize) -> Want {
    want(&[200], Body::Prefix(length))
}

impl Want {
    pub const fn within(self, seconds: u64) -> Self {
        Self { within: seconds, ..self }
    }

    pub const fn first_byte(self, seconds: u64) -> Self {
        Self { first_byte: seconds, ..self }
    }

    /// Everything about `answer` that is not as wanted.
    pub fn compare(&self, ask: &Ask, ground: &Ground, answer: &Answer) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut must = |holds: bool, what: &str| {
            if !holds {
                wrong.push(what.to_owned());
            }
        };
        must(self.status.contains(&answer.status), &format!("status is not {:?}", self.status));
        must(answer.elapsed.as_secs_f64() <= seconds(self.within), "too slow");
        let first = answer.first_byte.unwrap_or(answer.head_after);
        must(first.as_secs_f64() <= seconds(self.first_byte), "first byte too late");
        // The promises that hold whatever happens.
        must(answer.head_after.as_secs_f64() <= 11.0, "no headers within 10 s");
        must(answer.longest_gap.as_secs_f64() <= 11.0, "more than 10 s without a byte");
        must(!matches!(answer.end, End::Reset | End::Hung), "neither complete nor FIN");
        for name in ["Retry-After", "WWW-Authenticate", "Set-Cookie", "Location"] {
            must(answer.header(name).is_none(), &format!("{name} is passed on"));
        }
        if answer.status <= 206 && self.status.contains(&answer.status) {
            let content = ask.content(ground);
            self.compare_headers(ask, ground, &content, answer, &mut must);
            self.compare_body(content.bytes, answer, &mut must);
        } else if answer.status > 206 && ask.method == "GET" {
            let code = match answer.status {
                403 => "DENIED",
                404 => ask.unknown(),
                _ => "UNAVAILABLE",
            };
            must(answer.code().as_deref() == Some(code), &format!("not an OCI error {code}"));
            must(!answer.text().contains("own words"), "the upstream's own words are passed on");
        }
        if !wrong.is_empty() {
            let range = ask.range.map(|range| format!(" [{range}]")).unwrap_or_default();
            let wrong_too = wrong.join(", ");
            let Ask { method, what, .. } = ask;
            wrong =
                vec![format!("{method} {what:?}{range}: {wrong_too}; it was {}", answer.line())];
        }
        wrong
    }

    fn compare_headers(
        &self,
        ask: &Ask,
        ground: &Ground,
        content: &Content<'_>,
        answer: &Answer,
        must: &mut impl FnMut(bool, &str),
    ) {
        let mut header = |name: &str, value: &str| {
            let found = answer.header(name);
            must(found == Some(value), &format!("{name} is {found:?}, not {value:?}"));
        };
        header("Docker-Content-Digest", content.digest);
        header("Content-Type", content.media_type);
        header("OCI-Namespace", &ground.host);
        let total = content.bytes.len();
        match self.body {
            Body::Part(first, last) => {
                header("Content-Range", &format!("bytes {first}-{last}/{total}"));
                header("Content-Length", &(last - first + 1).to_string());
            }
            Body::Unsized | Body::Short | Body::WholeOrPrefix => {}
            _ => header("Content-Length", &total.to_string()),
        }
        if matches!(ask.what, What::Layer) {
            header("Accept-Ranges", "bytes");
        }
    }

    fn compare_body(&self, good: &[u8], answer: &Answer, must: &mut impl FnMut(bool, &str)) {
        let body = &answer.body[..];
        let complete = answer.end == End::Complete;
        let cut = answer.end == End::Fin && body.len() < good.len();
        let prefix = good.starts_with(body);
        match self.body {
            Body::Whole | Body::Unsized => must(complete && body == good, "not whole"),
            Body::Part(first, last) => {
                must(complete && body == &good[first..=last], "not that part");
            }
            // The bytes are the upstream's, wrong ones included; their number is what counts.
            Body::AllButLast => {
                must(cut && body.len() == good.len() - 1, "not all but the last byte");
            }
            Body::WholeOrAllButLast => {
                let all_but_last = cut && body.len() == good.len() - 1;
                must((complete && body == good) || all_but_last, "neither whole nor all but one");
            }
            Body::Prefix(length) => must(cut && prefix && body.len() == length, "not that prefix"),
            Body::Short => must(!complete && answer.end == End::Fin, "complete"),
            Body::WholeOrPrefix => {
                must((complete && body == good) || (cut && prefix), "neither whole nor a prefix");
            }
            Body::Nothing => must(complete && body.is_empty(), "a body"),
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few seconds")]
fn seconds(whole: u64) -> f64 {
    whole as f64
}
