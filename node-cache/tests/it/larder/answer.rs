//! An answer, with what other clients hide: how it ended, and when which byte came.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All that was announced is there.
    Complete,
    /// Closed in an orderly way before that.
    Fin,
    /// Reset.
    Reset,
    /// Nobody answered at the port.
    Refused,
    /// Our own patience ended.
    Hung,
}

/// What came back for one request.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 0 if there was none.
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
    pub end: End,
    /// Until the last byte of the head.
    pub head_after: Duration,
    /// Until the first byte of the body.
    pub first_byte: Option<Duration>,
    /// The longest time without a byte after the head.
    pub longest_gap: Duration,
    pub elapsed: Duration,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The code of an OCI error body.
    pub fn code(&self) -> Option<String> {
        let body = self.json();
        let error = body["errors"].as_array()?.first()?;
        error["message"].as_str()?;
        error["code"].as_str().map(str::to_owned)
    }

    /// Status, end, length and error in one line, for failure messages.
    pub fn line(&self) -> String {
        let code = self.code().map(|code| format!(" {code}")).unwrap_or_default();
        format!(
            "{}{code}, {} bytes, {:?}, head after {:.2} s, longest gap {:.2} s, in all {:.2} s",
            self.status,
            self.body.len(),
            self.end,
            self.head_after.as_secs_f64(),
            self.longest_gap.as_secs_f64(),
            self.elapsed.as_secs_f64(),
        )
    }

    /// Asserts 200 and these bytes, complete.
    #[track_caller]
    pub fn is_whole(&self, bytes: &[u8]) -> &Self {
        assert_eq!((self.status, self.end), (200, End::Complete), "{}", self.line());
        assert!(self.body == bytes, "{} bytes expected: {}", bytes.len(), self.line());
        self
    }

    /// Asserts 206 and the bytes from `first` to `last`, inclusive.
    #[track_caller]
    pub fn is_part(&self, bytes: &[u8], first: usize, last: usize) -> &Self {
        assert_eq!((self.status, self.end), (206, End::Complete), "{}", self.line());
        let range = format!("bytes {first}-{last}/{}", bytes.len());
        assert_eq!(self.header("content-range"), Some(&*range), "{}", self.line());
        assert!(self.body == bytes[first..=last], "{}", self.line());
        self
    }

    /// Asserts an OCI error.
    #[track_caller]
    pub fn is_error(&self, status: u16, code: &str) -> &Self {
        assert_eq!((self.status, self.code().as_deref()), (status, Some(code)), "{}", self.line());
        self
    }
}
