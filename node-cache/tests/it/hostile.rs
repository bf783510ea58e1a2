//! Clients that mean no good: every one gets a clear refusal, and nothing else happens.

use std::net::Ipv4Addr;

use crate::{
    faulty::{Origin, Sink},
    larder::{Answer, End, Larder, NodeConfig, Upstream, files_below},
};

mod framing;
mod targets;

/// What a hostile request may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// 4xx with an OCI error.
    Refused,
    /// 4xx or "not implemented" of any shape, or a closed connection: this is not even HTTP.
    Broken,
}

struct Hostile {
    what: String,
    bytes: Vec<u8>,
    fate: Fate,
}

impl Hostile {
    fn get(target: &str) -> Self {
        let shown: String = target.chars().take(80).collect();
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: larder\r\n\r\n").into_bytes();
        Self { what: format!("GET {shown}"), bytes, fate: Fate::Refused }
    }

    fn wrong(&self, answer: &Answer) -> Option<String> {
        let refused = (400..500).contains(&answer.status);
        let right = match self.fate {
            Fate::Refused => {
                let quiet = self.bytes.starts_with(b"HEAD ");
                refused && answer.end == End::Complete && (quiet || answer.code().is_some())
            }
            Fate::Broken => {
                let closed = answer.status == 0 && matches!(answer.end, End::Fin | End::Reset);
                refused || closed || matches!(answer.status, 501 | 505)
            }
        };
        (!right).then(|| format!("  {}: {}", self.what, answer.line()))
    }
}

#[tokio::test]
async fn t09_t12_every_hostile_request_is_refused_and_nothing_else_happens() {
    let origin = Origin::start().await;
    let image = origin.image("team/app", "v1", 1, 1000);
    let sink = Sink::start(Ipv4Addr::new(127, 0, 0, 4)).await;
    let config = NodeConfig::new([Upstream::at("reg.test", &origin)]);
    let mut larder = Larder::stopped(&config);
    std::fs::write(larder.folder().join("outside"), "a file beside the store").unwrap();
    larder.start().await;
    let outside = |larder: &Larder| {
        let mut files = files_below(larder.folder());
        files.retain(|file| !file.starts_with("store/"));
        files
    };
    let content = |larder: &Larder| {
        let mut files = larder.store().files();
        files.retain(|file| file.contains('/'));
        files
    };
    let (before, stored) = (outside(&larder), content(&larder));

    let sink_address = sink.address().to_string();
    let mut table = targets::table(&sink_address);
    table.extend(framing::table(&sink_address));
    assert!(table.len() >= 60, "{}", table.len());
    let mut wrong = Vec::new();
    for hostile in &table {
        let answer = larder.raw(&hostile.bytes).await;
        wrong.extend(hostile.wrong(&answer));
        let alive = larder.get("/v2/").send().await;
        assert_eq!(alive.status, 200, "dead after {}: {}", hostile.what, alive.line());
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.len(), wrong.join("\n"));
    assert!(origin.seen().is_empty(), "the upstream saw\n{}", origin.story());
    assert_eq!(sink.heard(), Vec::<String>::new());
    assert_eq!(outside(&larder), before);
    assert_eq!(content(&larder), stored);
    assert!(!larder.log().text().contains("panicked"));

    let path = "/v2/team/app/manifests/v1?ns=reg.test";
    larder.get(path).send().await.is_whole(&image.index.bytes);
}

#[tokio::test]
async fn t12_what_follows_a_refused_request_is_not_taken_for_another() {
    let origin = Origin::start().await;
    origin.image("team/app", "v1", 1, 1000);
    let larder = Larder::serving([Upstream::at("reg.test", &origin)]).await;
    let smuggled = "GET /v2/team/app/manifests/v1?ns=reg.test HTTP/1.1\r\nHost: x\r\n\r\n";
    let length = smuggled.len();
    for head in [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        "Content-Length: 0\r\nContent-Length: 5\r\n\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n".to_owned(),
        "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n".to_owned(),
        format!("Content-Length: {length}\r\n\r\n"),
    ] {
        let request =
            format!("GET /v2/x/manifests/v1?ns=a HTTP/1.1\r\nHost: x\r\n{head}{smuggled}");
        let answer = larder.raw(request.as_bytes()).await;
        assert!(answer.status == 0 || answer.status >= 400, "{head}: {}", answer.line());
    }
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert!(origin.seen().is_empty(), "{}", origin.story());
}
