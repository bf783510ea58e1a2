//! What comes back.

use super::{
    fake::{Reply, ok, start, status},
    *,
};
use crate::upstream::{BodyError, ContentRange, ErrorClass};

#[tokio::test]
async fn statuses_become_what_the_caller_can_act_on() {
    let registry = start(|seen| match &*seen.method {
        "HEAD" => status(405),
        _ if seen.header("range") == "bytes=7-" => status(416),
        _ if seen.target.contains("/blobs/") => status(404),
        _ => status(403),
    })
    .await;
    let upstream = upstream(&[&registry.url("")]);
    let head = manifest(Method::HEAD, Identity::Anonymous);
    let error = send(&upstream, head).await.unwrap_err();
    assert_eq!(error.to_string(), "reg.example does not answer HEAD here");
    let error = send(&upstream, blob(Some((7, None)))).await.unwrap_err();
    assert_eq!(error.to_string(), "reg.example has no such range");
    let error = send(&upstream, blob(None)).await.unwrap_err();
    assert_eq!(error.to_string(), "reg.example has no such content");
    assert_eq!(denied(&upstream, get()).await, "status 403");
    assert_eq!(upstream.errors(ErrorClass::Denied), 1);
    assert_eq!(upstream.health().last_error, "");
}

#[tokio::test]
async fn an_answer_has_its_headers_read() {
    let registry = start(|seen| match &*seen.method {
        "HEAD" => ok("0123456789").with("docker-content-digest", DIGEST),
        _ => Reply::Answer(206, Vec::new(), "34".to_owned())
            .with("content-range", "bytes 3-4/10")
            .with("docker-content-digest", "sha256:nonsense"),
    })
    .await;
    let upstream = upstream(&[&registry.url("")]);
    let head = manifest(Method::HEAD, Identity::Anonymous);
    let head = send(&upstream, head).await.unwrap();
    assert_eq!(head.content_length(), Some(10));
    assert_eq!(head.content_digest(), Some(DIGEST.parse().unwrap()));
    assert_eq!(head.content_range(), None);
    assert_eq!(text(head).await, "");

    let mut part = send(&upstream, blob(Some((3, Some(4))))).await.unwrap();
    assert_eq!((part.status.as_u16(), part.content_length()), (206, Some(2)));
    assert_eq!(part.content_digest(), None);
    let range = ContentRange { start: 3, end: 4, total: Some(10) };
    assert_eq!(part.content_range(), Some(range));
    assert_eq!(part.chunk().await.unwrap().unwrap(), "34");
    assert!(part.chunk().await.unwrap().is_none());
}

#[tokio::test]
async fn a_206_that_nobody_asked_for_is_broken() {
    let registry = start(|_| status(206)).await;
    let upstream = upstream(&[&registry.url("")]);
    assert!(unavailable(&upstream, blob(None)).await.contains("status 206"));
}

#[tokio::test]
async fn an_encoded_body_is_no_answer() {
    let encoded = start(|_| ok("x").with("content-encoding", "gzip")).await;
    let plain = start(|_| ok("plain").with("content-encoding", "identity")).await;
    let both = upstream(&[&encoded.url(""), &plain.url("")]);
    assert_eq!(body(&both, get()).await, "plain");
    let only = upstream(&[&encoded.url("")]);
    assert!(unavailable(&only, get()).await.contains("Content-Encoding"));
    assert_eq!(only.errors(ErrorClass::Broken), 1);
    assert!(only.health().reachable);
}

#[tokio::test]
async fn t13_bodies_are_read_within_bounds() {
    let registry = start(|_| ok("0123456789")).await;
    let upstream = upstream(&[&registry.url("")]);
    let fits = send(&upstream, get()).await.unwrap();
    assert_eq!(fits.read_all(10, soon()).await.unwrap(), "0123456789");
    let larger = send(&upstream, get()).await.unwrap();
    let error = larger.read_all(9, soon()).await.unwrap_err();
    assert!(matches!(error, BodyError::TooLarge { limit: 9 }));
}

#[tokio::test]
async fn f09_a_body_that_stops_is_not_complete() {
    let head = "HTTP/1.1 200 OK\r\n";
    let raw = |text: String| move |_: &fake::Seen| Reply::Raw(text.clone());
    let short = start(raw(format!("{head}Content-Length: 9\r\n\r\nabc"))).await;
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    let unfinished = start(raw(chunked.clone())).await;
    let finished = start(raw(format!("{chunked}0\r\n\r\n"))).await;
    for broken in [&short, &unfinished] {
        let answer = send(&upstream(&[&broken.url("")]), get()).await.unwrap();
        let error = answer.read_all(100, soon()).await.unwrap_err();
        assert!(matches!(error, BodyError::Broken(_)), "{error:?}");
    }
    let answer = send(&upstream(&[&finished.url("")]), get()).await.unwrap();
    assert_eq!(answer.content_length(), None);
    assert_eq!(text(answer).await, "abc");
}

#[tokio::test]
async fn f08_a_body_that_stalls_ends_at_the_deadline() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut request).await;
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc";
        tokio::io::AsyncWriteExt::write_all(&mut stream, head).await.unwrap();
        tokio::time::sleep(Duration::from_mins(1)).await;
        drop(stream);
    });
    let answer = send(&upstream(&[&url]), get()).await.unwrap();
    let deadline = Instant::now() + Duration::from_millis(100);
    let error = answer.read_all(100, deadline).await.unwrap_err();
    assert!(matches!(error, BodyError::TimedOut), "{error:?}");
    server.abort();
}
