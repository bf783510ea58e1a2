//! A request as it arrived.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::{io::AsyncReadExt, net::TcpStream};

use super::fault::Kind;

/// One request that an origin received.
#[derive(Clone, Debug)]
pub struct Seen {
    pub connection: u64,
    pub method: String,
    /// The authority of a request in absolute form, as a proxy receives it.
    pub authority: Option<String>,
    pub path: String,
    pub query: String,
    pub headers: Vec<(String, String)>,
    /// Body bytes that were sent in answer so far.
    pub sent: Arc<AtomicU64>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// All values of a header in one line.
    pub fn header_lines(&self, name: &str) -> String {
        let of_name = |(key, _): &&(String, String)| key.eq_ignore_ascii_case(name);
        let values: Vec<_> =
            self.headers.iter().filter(of_name).map(|(_, value)| value.as_str()).collect();
        values.join(", ")
    }

    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Method, path and range, for failure messages.
    pub fn line(&self) -> String {
        // Enough of a digest to tell it from the others.
        let path: String = self.path.chars().take(self.path.find(':').unwrap_or(100) + 9).collect();
        let range = self.header("range").map(|range| format!(" [{range}]")).unwrap_or_default();
        format!("{} {path}{range} (connection {})", self.method, self.connection)
    }

    pub(super) fn target(&self) -> Target {
        Target::of(&self.path)
    }

    /// Reads the head of the next request; `None` at the end of the connection.
    pub(super) async fn read(stream: &mut TcpStream, connection: u64) -> io::Result<Option<Self>> {
        let mut head = Vec::new();
        // Byte by byte, so that nothing of what follows is taken out of the socket.
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) if head.is_empty() => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let (authority, target) = match target.strip_prefix("http://") {
            Some(rest) => {
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                (Some(authority.to_owned()), path)
            }
            None => (None, target),
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let (path, query) = (path.to_owned(), query.to_owned());
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        let sent = Arc::default();
        let seen = Self { connection, method, authority, path, query, headers, sent };
        let length = seen.header("content-length").and_then(|text| text.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await?;
        Ok(Some(seen))
    }
}

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Ping,
    Token,
    Hop(u32, String),
    Blob(String, String),
    Manifest(String, String),
    Tags(String),
    Referrers,
    Unknown,
}

impl Target {
    fn of(path: &str) -> Self {
        if let Some((left, rest)) = path.strip_prefix("/hop/").and_then(|p| p.split_once('/')) {
            return Self::Hop(left.parse().unwrap_or(0), format!("/{rest}"));
        }
        let two = |(name, last): (&str, &str)| (name.to_owned(), last.to_owned());
        match path.strip_prefix("/v2/") {
            _ if path == "/token" => Self::Token,
            None => Self::Unknown,
            Some("") => Self::Ping,
            Some(rest) if rest.ends_with("/tags/list") => {
                Self::Tags(rest.trim_end_matches("/tags/list").to_owned())
            }
            Some(rest) if rest.contains("/referrers/") => Self::Referrers,
            Some(rest) => {
                if let Some((name, digest)) = rest.rsplit_once("/blobs/").map(two) {
                    return Self::Blob(name, digest);
                }
                match rest.rsplit_once("/manifests/").map(two) {
                    Some((name, reference)) => Self::Manifest(name, reference),
                    None => Self::Unknown,
                }
            }
        }
    }

    /// The repository and the kind of request that faults are looked up by.
    pub(super) fn subject(&self) -> (&str, Kind) {
        match self {
            Self::Token => (super::fault::TOKENS, Kind::Token),
            Self::Blob(name, _) => (name, Kind::Blob),
            Self::Manifest(name, reference) if reference.contains(':') => {
                (name, Kind::ManifestByDigest)
            }
            Self::Manifest(name, _) => (name, Kind::ManifestByTag),
            Self::Tags(name) => (name, Kind::Other),
            Self::Ping | Self::Hop(..) | Self::Referrers | Self::Unknown => ("", Kind::Other),
        }
    }
}
