//! Requests that are not quite HTTP, or more than was asked for.

use super::{Fate, Hostile};

const PATH: &str = "/v2/team/app/manifests/v1?ns=reg.test";

pub(super) fn table(sink: &str) -> Vec<Hostile> {
    let mut table: Vec<_> = broken().into_iter().map(|text| hostile(&text, Fate::Broken)).collect();
    table.extend(refused(sink).into_iter().map(|text| hostile(&text, Fate::Refused)));
    table.push(Hostile {
        what: "a TLS client hello".to_owned(),
        bytes: b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03\r\n\r\n".to_vec(),
        fate: Fate::Broken,
    });
    table.push(Hostile {
        what: "a header that is not UTF-8 as ns".to_owned(),
        bytes: b"GET /v2/team/app/manifests/v1?ns=\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        fate: Fate::Broken,
    });
    table
}

fn hostile(text: &str, fate: Fate) -> Hostile {
    let shown: String = text.chars().take(90).collect();
    Hostile { what: format!("{shown:?}"), bytes: text.as_bytes().to_vec(), fate }
}

fn with(headers: &str) -> String {
    format!("GET {PATH} HTTP/1.1\r\nHost: larder\r\n{headers}\r\n\r\n")
}

fn broken() -> Vec<String> {
    vec![
        "GARBAGE\r\n\r\n".to_owned(),
        "\r\n\r\n\r\n\0\0\r\n\r\n".to_owned(),
        format!("GET  {PATH} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET {PATH}\r\n\r\n"),
        format!("GET {PATH} HTTP/3.0\r\nHost: x\r\n\r\n"),
        format!("GET {PATH} HTTP/1.1 more\r\nHost: x\r\n\r\n"),
        format!("GET\t{PATH}\tHTTP/1.1\r\nHost: x\r\n\r\n"),
        "GET /v2/team/app/manifests/v 1?ns=reg.test HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "GET /v2/team/app/manifests/v1\0?ns=reg.test HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        with("no colon"),
        with("Name with spaces: x"),
        with("X-Nul: a\0b"),
        with("Content-Length: abc"),
        with("Content-Length: -1"),
        with("Content-Length: +5"),
        with("Content-Length: 5\r\nContent-Length: 6"),
        with("Content-Length: 99999999999999999999"),
        with("Transfer-Encoding: xchunked"),
        with("Transfer-Encoding: chunked, identity"),
        with("Content-Length: 5\r\nTransfer-Encoding: chunked") + "0\r\n\r\n",
        with("Transfer-Encoding: chunked") + "zz\r\nhello\r\n0\r\n\r\n",
        with("Transfer-Encoding: chunked") + "ffffffffffffffff1\r\n",
        with(&format!("X-Large: {}", "x".repeat(600 << 10))),
        with("X-Many: x\r\n".repeat(500).trim_end()),
        format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100 << 10)),
        format!("GET {PATH}&x={} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(100 << 10)),
        "CONNECT 127.0.0.4:80 HTTP/1.1\r\nHost: 127.0.0.4:80\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(),
    ]
}

fn refused(sink: &str) -> Vec<String> {
    let method = |method: &str| {
        format!("{method} {PATH} HTTP/1.1\r\nHost: larder\r\nContent-Length: 0\r\n\r\n")
    };
    vec![
        // Forms for proxies.
        format!("GET http://{sink}{PATH} HTTP/1.1\r\nHost: {sink}\r\n\r\n"),
        format!("HEAD http://{sink}{PATH} HTTP/1.1\r\nHost: {sink}\r\n\r\n"),
        format!("GET http://reg.test{PATH} HTTP/1.1\r\nHost: reg.test\r\n\r\n"),
        // Bodies where none belongs.
        with("Content-Length: 5") + "hello",
        with("Transfer-Encoding: chunked") + "5\r\nhello\r\n0\r\n\r\n",
        with("Content-Length: 1000000000000"),
        // Methods.
        method("TRACE"),
        method("BREW"),
        method("get"),
        method("PUT"),
        method("POST"),
        method("DELETE"),
        method("PROPFIND"),
    ]
}
