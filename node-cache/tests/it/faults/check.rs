//! What the upstream may have seen, and what is in the store.

use std::fs;

use super::case::{Ground, REPOSITORY};
use crate::{
    faulty::{Origin, Seen},
    larder::{Larder, eventually},
};

/// Something that holds at some point of a story.
#[derive(Clone, Copy, Debug)]
pub enum Check {
    /// The layer was asked for so many times.
    BlobGets(usize),
    /// The layer was asked for at least and at most so many times.
    BlobGetsWithin(usize, usize),
    BlobHeads(usize),
    ManifestGets(usize),
    /// Nothing at all was asked.
    Untouched,
    /// The layer was asked for so many times at the second origin.
    SecondGets(usize),
    /// The last request for the layer was this range.
    Resumed(&'static str),
    /// The last request for the layer asked for a range that starts here or before.
    ResumedBefore(usize),
    /// The last request for the layer asked for everything.
    AskedWhole,
    /// The second origin was asked for this range.
    SecondRange(&'static str),
    /// The foreign origin was asked for this range.
    ForeignRange(&'static str),
    /// The upstream sent at most so many bytes in answer to all requests.
    SentAtMost(u64),
    /// At most so many requests arrived.
    RequestsAtMost(usize),
    Stored,
    NotStored,
    ManifestStored,
    ManifestNotStored,
    Linked,
    NotLinked,
    /// No connection was made to the sink.
    SinkUntouched,
    /// No connection was made to the foreign host.
    ForeignUntouched,
    /// Every request came as to a proxy, for this authority.
    ProxiedOnlyTo(&'static str),
    /// No credentials and no cookies arrived at the second or the foreign origin.
    NoCredentialsElsewhere,
    /// Token requests arrived at the origin, with or without the robot's password.
    TokensAsked {
        password: bool,
    },
    /// The same at the foreign origin.
    ForeignTokensAsked {
        password: bool,
    },
    /// So many token requests arrived at the origin.
    TokenRequests(usize),
}

impl Check {
    /// Why it does not hold.
    pub async fn fails(&self, ground: &Ground, larder: &Larder) -> Option<String> {
        let (origin, path) = (&ground.origin, ground.blob_path());
        let blob_gets = || origin.requests("GET", &path);
        let last_range = || blob_gets().last().and_then(range).unwrap_or_default();
        let total = || origin.seen().iter().map(Seen::sent).sum::<u64>();
        let (layer, manifest) = (&ground.image.layer.digest, &ground.image.manifest.digest);
        let store = larder.store();
        let (holds, found) = match *self {
            Self::BlobGets(n) => (blob_gets().len() == n, blob_gets().len().to_string()),
            Self::BlobGetsWithin(least, most) => {
                let count = blob_gets().len();
                ((least..=most).contains(&count), count.to_string())
            }
            Self::BlobHeads(n) => number(origin.count("HEAD", &path), n),
            Self::ManifestGets(n) => number(origin.count("GET", "/manifests/"), n),
            Self::Untouched => number(origin.seen().len(), 0),
            Self::SecondGets(n) => number(ground.second.count("GET", &path), n),
            Self::Resumed(wanted) => (last_range() == wanted, last_range()),
            Self::ResumedBefore(most) => (start(&last_range()) <= Some(most), last_range()),
            Self::AskedWhole => (matches!(&*last_range(), "" | "bytes=0-"), last_range()),
            Self::SecondRange(wanted) => saw_range(&ground.second, &path, wanted),
            Self::ForeignRange(wanted) => saw_range(&ground.foreign, &path, wanted),
            Self::SentAtMost(most) => (total() <= most, total().to_string()),
            Self::RequestsAtMost(most) => {
                let count = origin.seen().len();
                (count <= most, count.to_string())
            }
            Self::Stored => (store.gets(layer).await, String::new()),
            Self::NotStored => (!store.has(layer), String::new()),
            Self::ManifestStored => (store.gets(manifest).await, String::new()),
            Self::ManifestNotStored => (!store.has(manifest), String::new()),
            Self::Linked => {
                let linked = || store.has_link(&ground.host, REPOSITORY, layer);
                (eventually(5, async || linked()).await, String::new())
            }
            Self::NotLinked => (!store.has_link(&ground.host, REPOSITORY, layer), String::new()),
            Self::SinkUntouched => {
                let heard = ground.sink.heard();
                (heard.is_empty(), format!("{heard:?}"))
            }
            Self::ForeignUntouched => {
                let connections = usize::try_from(ground.foreign.connections()).unwrap();
                number(connections, 0)
            }
            Self::ProxiedOnlyTo(wanted) => {
                let seen = origin.seen().into_iter().map(|seen| seen.authority.unwrap_or_default());
                let seen: Vec<_> = seen.map(|to| to.trim_end_matches(":80").to_owned()).collect();
                (!seen.is_empty() && seen.iter().all(|to| to == wanted), format!("{seen:?}"))
            }
            Self::NoCredentialsElsewhere => {
                let told = secrets(&ground.second).chain(secrets(&ground.foreign));
                let told: Vec<_> = told.collect();
                (told.is_empty(), format!("{told:?}"))
            }
            Self::TokensAsked { password } => tokens(origin, password),
            Self::ForeignTokensAsked { password } => tokens(&ground.foreign, password),
            Self::TokenRequests(n) => number(origin.count("GET", "/token"), n),
        };
        (!holds).then(|| format!("{self:?} does not hold: {found}"))
    }
}

/// What holds after every case.
pub fn always(ground: &Ground, larder: &Larder) -> Vec<String> {
    let mut wrong = Vec::new();
    for origin in [&ground.origin, &ground.second, &ground.foreign] {
        for seen in origin.seen() {
            let coding = seen.header("accept-encoding").unwrap_or("identity");
            if coding != "identity" {
                wrong.push(format!("Accept-Encoding {coding:?} in {}", seen.line()));
            }
        }
    }
    let Ground { image, .. } = ground;
    let contents = [
        (&image.layer.digest, &image.layer.bytes),
        (&image.manifest.digest, &image.manifest.bytes),
        (&image.index.digest, &image.index.bytes),
    ];
    for (digest, bytes) in contents {
        if fs::read(larder.store().blob(digest)).is_ok_and(|stored| stored != **bytes) {
            wrong.push(format!("{digest} is stored with wrong content"));
        }
    }
    wrong
}

fn number(found: usize, wanted: usize) -> (bool, String) {
    (found == wanted, found.to_string())
}

fn range(seen: &Seen) -> Option<String> {
    seen.header("range").map(str::to_owned)
}

/// The first byte of `bytes=N-`.
fn start(range: &str) -> Option<usize> {
    range.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
}

fn saw_range(origin: &Origin, path: &str, wanted: &str) -> (bool, String) {
    let ranges: Vec<_> = origin.requests("GET", path).iter().filter_map(range).collect();
    (ranges.iter().any(|range| range == wanted), format!("{ranges:?}"))
}

/// Credentials that arrived at an origin.
fn secrets(origin: &Origin) -> impl Iterator<Item = String> {
    origin.seen().into_iter().flat_map(|seen| {
        let told = ["authorization", "cookie", "proxy-authorization"];
        let told: Vec<_> = told.iter().filter_map(|name| seen.header(name)).collect();
        told.iter().map(|value| format!("{value} in {}", seen.line())).collect::<Vec<_>>()
    })
}

fn tokens(origin: &Origin, password: bool) -> (bool, String) {
    let asked = origin.requests("GET", "/token");
    let right = |seen: &Seen| {
        seen.header("authorization").is_some() == password
            && seen.query.contains("service=origin")
            && seen.query.replace("%3A", ":").replace("%2F", "/").contains(":team/app:pull")
    };
    let found: Vec<_> = asked.iter().map(|seen| format!("{}?{}", seen.path, seen.query)).collect();
    (!asked.is_empty() && asked.iter().all(right), format!("{found:?}"))
}
