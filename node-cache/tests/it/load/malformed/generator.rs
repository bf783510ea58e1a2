//! Requests as nobody should send them.

use super::random::Random;

/// What a request may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// 4xx; what is no HTTP request may also get nothing but a closed connection.
    Refused,
    /// Anything but 5xx: it may happen to be well-formed.
    Anything,
}

#[derive(Clone, Debug)]
pub struct Request {
    pub kind: &'static str,
    pub bytes: Vec<u8>,
    pub fate: Fate,
    /// How many answers it may get.
    pub answers: usize,
}

impl Request {
    /// Whether a head is there from end to end, so that there must be an answer. The others end
    /// with the client's FIN.
    pub fn is_whole(&self) -> bool {
        let start = self.bytes.iter().position(|byte| !b"\r\n".contains(byte));
        let head = &self.bytes[start.unwrap_or(self.bytes.len())..];
        head.windows(4).any(|four| four == b"\r\n\r\n")
    }

    /// Whether it begins with something that can be read as a request of HTTP/1: a request line of
    /// three words, and lines of a name and a value, to an empty line. Such a one must get a status.
    ///
    /// Written after RFC 9112, without a look at what the server's parser takes. Left out, and so
    /// free to get a closed connection: raw bytes, heads that break off, lines without a colon or
    /// with control characters, names with spaces, unknown versions.
    pub fn is_http(&self) -> bool {
        let Some(end) = self.bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
            return false;
        };
        let Ok(head) = std::str::from_utf8(&self.bytes[..end]) else {
            return false;
        };
        let mut lines = head.split("\r\n");
        let words: Vec<_> = lines.next().unwrap_or_default().split(' ').collect();
        let [method, target, "HTTP/1.1" | "HTTP/1.0"] = words[..] else {
            return false;
        };
        let is_target = !target.is_empty() && target.bytes().all(|byte| byte.is_ascii_graphic());
        let is_field = |line: &str| {
            line.split_once(':').is_some_and(|(name, value)| {
                is_token(name)
                    && value.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control())
            })
        };
        is_token(method) && is_target && lines.all(is_field)
    }
}

/// What RFC 9110 allows in methods and names of fields.
fn is_token(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_part)
}

/// An endless row of requests, the same for the same seed.
#[derive(Clone, Debug)]
pub struct Generator {
    random: Random,
    blob: String,
}

type Kind = (&'static str, Fate, fn(&mut Generator) -> Vec<u8>);

const KINDS: [Kind; 15] = [
    ("raw bytes", Fate::Refused, Generator::raw),
    ("request line", Fate::Refused, Generator::request_line),
    ("header bomb", Fate::Refused, Generator::header_bomb),
    ("header", Fate::Refused, Generator::bad_header),
    ("path", Fate::Refused, Generator::path),
    ("ns", Fate::Refused, Generator::ns),
    ("digest", Fate::Refused, Generator::digest),
    ("range", Fate::Anything, Generator::range),
    ("pipeline", Fate::Anything, Generator::pipeline),
    ("chunks", Fate::Refused, Generator::chunks),
    ("method", Fate::Refused, Generator::method),
    ("absolute form", Fate::Refused, Generator::absolute),
    ("percent", Fate::Refused, Generator::percent),
    ("mutation", Fate::Anything, Generator::mutation),
    ("cut", Fate::Anything, Generator::cut),
];

impl Generator {
    pub fn new(seed: u64, blob: &str) -> Self {
        Self { random: Random::new(seed), blob: blob.to_owned() }
    }

    pub fn next(&mut self) -> Request {
        let (kind, fate, make) = KINDS[self.random.below(KINDS.len())];
        let answers = if kind == "pipeline" { usize::MAX } else { 1 };
        Request { kind, bytes: make(self), fate, answers }
    }

    fn valid(&mut self) -> String {
        let blob = format!("/v2/team/app/blobs/{}?ns=reg.test", self.blob);
        let path = self.random.of(&[
            "/v2/",
            "/v2/team/app/manifests/v1?ns=reg.test",
            "/v2/reg.test/team/app/manifests/v1",
            "/v2/team/app/tags/list?n=1&ns=reg.test",
            &blob,
            &blob,
        ]);
        let method = self.random.of(&["GET", "GET", "HEAD"]);
        let version = self.random.of(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
        format!(
            "{method} {path} {version}\r\nHost: larder\r\nAccept: */*\r\nRange: bytes=0-9\r\n\r\n"
        )
    }

    fn get(target: &str) -> Vec<u8> {
        format!("GET {target} HTTP/1.1\r\nHost: larder\r\n\r\n").into_bytes()
    }

    fn with(headers: &str) -> Vec<u8> {
        let line = "GET /v2/team/app/manifests/v1?ns=reg.test HTTP/1.1\r\nHost: larder";
        format!("{line}\r\n{headers}\r\n\r\n").into_bytes()
    }

    fn raw(&mut self) -> Vec<u8> {
        let length = 1 + self.random.below(2000);
        let mut bytes = self.random.bytes(length);
        if self.random.below(2) == 0 {
            bytes.extend_from_slice(b"\r\n\r\n");
        }
        bytes
    }

    fn request_line(&mut self) -> Vec<u8> {
        let word = self.random.word(5);
        let version =
            self.random.of(&["HTTP/9.9", "HTTP/1.", "http/1.1", "HTTP/1.1 x", "HTP/1.1", "\0"]);
        let line = match self.random.below(5) {
            0 => format!("GET /v2/ {version}"),
            1 => format!("GET  /v2/{word} HTTP/1.1"),
            2 => format!("GET\t/v2/{word}\tHTTP/1.1"),
            3 => format!("GET /v2/{word} {word} HTTP/1.1"),
            _ => format!("GET{word}"),
        };
        format!("{line}\r\nHost: larder\r\n\r\n").into_bytes()
    }

    fn header_bomb(&mut self) -> Vec<u8> {
        let size = 1 + self.random.below(64);
        match self.random.below(3) {
            0 => Self::with(&format!("X-{}: y\r\n", self.random.word(8)).repeat(64 + size * 4)),
            1 => Self::with(&format!("X: {}", "y".repeat((480 + size) << 10))),
            _ => Self::get(&format!("/v2/{}", "z".repeat(4200 + size * 1000))),
        }
    }

    fn bad_header(&mut self) -> Vec<u8> {
        let word = self.random.word(6);
        let line = match self.random.below(8) {
            0 => format!("{word} {word}: x"),
            1 => word,
            2 => format!("{word}: a\0b"),
            3 => format!("Content-Length: {word}x"),
            4 => "Content-Length: -5".to_owned(),
            5 => "Content-Length: 5\r\nContent-Length: 7".to_owned(),
            6 => format!("Transfer-Encoding: {word}"),
            _ => format!(": {word}"),
        };
        Self::with(&line)
    }

    fn path(&mut self) -> Vec<u8> {
        const PARTS: [&str; 14] = [
            "..",
            ".",
            "",
            "%2e%2e",
            "_catalog",
            "A",
            "a..b",
            "-a",
            "a%00",
            "%ff",
            "\\",
            "manifests",
            "blobs",
            "a___b",
        ];
        let length = 1 + self.random.below(6);
        let parts: Vec<&str> = (0..length).map(|_| self.random.of(&PARTS)).collect();
        // Whatever the rest is, no such repository is well-formed.
        Self::get(&format!(
            "/v2/../{}/manifests/{}?ns=reg.test",
            parts.join("/"),
            self.random.word(4)
        ))
    }

    fn ns(&mut self) -> Vec<u8> {
        let word = self.random.word(6);
        let ns = match self.random.below(8) {
            0 => format!("{word}.test"),
            1 => format!("reg.test@{word}"),
            2 => format!("http://127.0.0.1:{}/", 1 + self.random.below(65535)),
            3 => format!("reg.test&ns={word}"),
            4 => format!("127.0.0.1:{}", 1 + self.random.below(65535)),
            5 => "%00".repeat(1 + self.random.below(50)),
            6 => format!("reg.test%0d%0a{word}:x"),
            _ => word.repeat(1 + self.random.below(500)),
        };
        Self::get(&format!("/v2/team/app/manifests/v1?ns={ns}"))
    }

    fn digest(&mut self) -> Vec<u8> {
        let hex = &self.blob["sha256:".len()..];
        let cut = self.random.below(64);
        let digest = match self.random.below(6) {
            0 => format!("sha256:{}", &hex[..cut]),
            1 => format!("sha256:{hex}{}", self.random.below(10)),
            2 => format!("sha512:{hex}"),
            3 => format!("sha256:{}G{}", &hex[..cut], &hex[cut + 1..]),
            4 => format!("sha256:..%2f{}", &hex[5..]),
            _ => format!("{}:{hex}", self.random.word(6)),
        };
        let kind = self.random.of(&["blobs", "manifests", "referrers"]);
        Self::get(&format!("/v2/team/app/{kind}/{digest}?ns=reg.test"))
    }

    fn range(&mut self) -> Vec<u8> {
        let (a, b) = (self.random.number(), self.random.below(5000));
        let range = match self.random.below(8) {
            0 => format!("bytes={a}-{b}"),
            1 => format!("bytes={b}-{a}"),
            2 => format!("bytes=-{a}"),
            3 => format!("bytes={}", "0-1,".repeat(1 + b % 500)),
            4 => format!("bytes=-{b}"),
            5 => format!("{}=1-2", self.random.word(5)),
            6 => format!("bytes={a}{a}-{a}{a}"),
            _ => format!("bytes=-{b}-{a}"),
        };
        let path = format!("/v2/team/app/blobs/{}?ns=reg.test", self.blob);
        format!("GET {path} HTTP/1.1\r\nHost: larder\r\nRange: {range}\r\n\r\n").into_bytes()
    }

    /// Good requests with a bad one among them; the last asks to close.
    fn pipeline(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..=self.random.below(6) {
            bytes.extend_from_slice(self.valid().as_bytes());
        }
        if self.random.below(2) == 0 {
            let (_, _, make) = KINDS[self.random.below(8)];
            bytes.extend(make(self));
        }
        bytes.extend_from_slice(b"GET /v2/ HTTP/1.1\r\nHost: larder\r\nConnection: close\r\n\r\n");
        bytes
    }

    fn chunks(&mut self) -> Vec<u8> {
        let size =
            self.random.of(&["zz", "-1", "ffffffffffffffff", "5;x=\0", "", "5 5", "0x5", "5"]);
        let junk = self.random.word(10);
        let mut bytes = Self::with("Transfer-Encoding: chunked");
        bytes.extend_from_slice(format!("{size}\r\n{junk}\r\n0\r\n{junk}\r\n\r\n").as_bytes());
        bytes
    }

    fn method(&mut self) -> Vec<u8> {
        let length = 1 + self.random.below(3000);
        let method = match self.random.below(4) {
            0 => self.random.word(length).to_uppercase(),
            1 => "PUT".to_owned(),
            2 => format!("G{}T", char::from(self.random.bytes(1)[0] & 0x1f)),
            _ => self.random.of(&["POST", "PATCH", "DELETE", "TRACE", "CONNECT", "get"]).to_owned(),
        };
        format!("{method} /v2/team/app/manifests/v1?ns=reg.test HTTP/1.1\r\nHost: x\r\n\r\n")
            .into_bytes()
    }

    fn absolute(&mut self) -> Vec<u8> {
        let host = self.random.of(&[
            "reg.test",
            "127.0.0.1:1",
            "[::1]",
            "user@reg.test",
            "169.254.169.254",
        ]);
        Self::get(&format!("http://{host}/v2/team/app/manifests/v1?ns=reg.test"))
    }

    fn percent(&mut self) -> Vec<u8> {
        const CODES: [&str; 9] =
            ["%00", "%2f", "%252f", "%ff", "%zz", "%", "%c0%af", "%0d%0a", "%5c"];
        let length = 1 + self.random.below(30);
        let coded: String = (0..length).map(|_| self.random.of(&CODES)).collect();
        let target = match self.random.below(3) {
            0 => format!("/v2/team/app/manifests/{coded}?ns=reg.test"),
            1 => format!("/v2/team/{coded}/manifests/v1?ns=reg.test"),
            _ => format!("/v2/team/app/manifests/v1?ns={coded}"),
        };
        Self::get(&target)
    }

    /// A good request with a few bytes changed, put in, or taken away.
    fn mutation(&mut self) -> Vec<u8> {
        let mut bytes = self.valid().into_bytes();
        for _ in 0..=self.random.below(4) {
            let at = self.random.below(bytes.len());
            let byte = self.random.bytes(1)[0];
            match self.random.below(4) {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => drop(bytes.remove(at)),
                _ => bytes[at] ^= 1 << (byte & 7),
            }
        }
        bytes
    }

    /// The beginning of a good request.
    fn cut(&mut self) -> Vec<u8> {
        let mut bytes = self.valid().into_bytes();
        bytes.truncate(self.random.below(bytes.len()));
        bytes
    }
}
