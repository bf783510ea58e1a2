//! The faulty upstream does what it is told, seen by a plain client.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    faulty::{
        ALWAYS, ANONYMOUS_TOKEN, CREDENTIALS, Door, Fault, Image, On, Origin, ROBOT_TOKEN, Sink,
        TOKENS,
    },
    larder::{Call, End},
};

const SIZE: usize = 300_000;

async fn origin() -> (Origin, Image) {
    let origin = Origin::start().await;
    let image = origin.image("team/app", "v1", 7, SIZE);
    (origin, image)
}

fn call(origin: &Origin, method: &str, path: &str) -> Call {
    Call::new(origin.address(), method, path)
}

fn layer(origin: &Origin, image: &Image) -> Call {
    call(origin, "GET", &format!("/v2/team/app/blobs/{}", image.layer.digest))
}

#[tokio::test]
async fn a_well_origin_serves_blobs_manifests_ranges_and_tags() {
    let (origin, image) = origin().await;
    layer(&origin, &image).send().await.is_whole(&image.layer.bytes);
    let part = layer(&origin, &image).range("bytes=5-9").send().await;
    part.is_part(&image.layer.bytes, 5, 9);
    let suffix = layer(&origin, &image).range("bytes=-3").send().await;
    suffix.is_part(&image.layer.bytes, SIZE - 3, SIZE - 1);
    assert_eq!(layer(&origin, &image).range("bytes=300000-").send().await.status, 416);
    let tag = call(&origin, "GET", "/v2/team/app/manifests/v1").send().await;
    tag.is_whole(&image.index.bytes);
    assert_eq!(tag.header("docker-content-digest"), Some(&*image.index.digest));
    let head = call(&origin, "HEAD", "/v2/team/app/manifests/v1").send().await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    let tags = call(&origin, "GET", "/v2/team/app/tags/list?n=1").send().await;
    assert_eq!(tags.json()["tags"][0], "v1");
    assert_eq!(call(&origin, "GET", "/v2/team/app/manifests/v2").send().await.status, 404);
    assert_eq!(origin.count("GET", "/blobs/"), 4);
}

#[tokio::test]
async fn every_fault_of_a_body_looks_like_itself() {
    let table = [
        (Fault::FinAt(1000), 200, End::Fin, 1000),
        (Fault::RstAt(1000), 200, End::Reset, 1000),
        (Fault::FlipAt(1000), 200, End::Complete, SIZE),
        (Fault::Promise(10), 200, End::Fin, SIZE),
        (Fault::Cut(10), 200, End::Complete, SIZE - 10),
        (Fault::Trailing(10), 200, End::Complete, SIZE),
        (Fault::NoLength, 200, End::Complete, SIZE),
        (Fault::Chunked, 200, End::Complete, SIZE),
        (Fault::Status(503), 503, End::Complete, 69),
        (Fault::TooMany { retry_after: 3 }, 429, End::Complete, 69),
        (Fault::PartialUnasked, 206, End::Complete, SIZE),
        (Fault::Content("text/html", "login".into()), 200, End::Complete, 5),
        (Fault::Redirect("http://elsewhere{path}".to_owned()), 307, End::Complete, 69),
        (Fault::Challenge("Basic realm=\"x\"".to_owned()), 401, End::Complete, 69),
    ];
    for (fault, status, end, length) in table {
        let (origin, image) = origin().await;
        let told = format!("{fault:?}");
        origin.inject("team/app", On::Blobs, fault, 1);
        let answer = layer(&origin, &image).send().await;
        let found = (answer.status, answer.end, answer.body.len());
        assert_eq!(found, (status, end, length), "{told}: {}", answer.line());
        layer(&origin, &image).send().await.is_whole(&image.layer.bytes);
    }
}

#[tokio::test]
async fn every_fault_of_a_range_looks_like_itself() {
    let table = [
        (Fault::RangeIgnored, 200, None, SIZE),
        (Fault::RangeFromZero, 206, Some("bytes 0-299999/300000"), SIZE),
        (Fault::RangeOfAnother, 206, Some("bytes 200000-299999/300001"), 100_000),
        (Fault::FinAt(250_000), 206, Some("bytes 200000-299999/300000"), 50_000),
        (Fault::FinAt(100_000), 206, Some("bytes 200000-299999/300000"), 100_000),
    ];
    for (fault, status, range, length) in table {
        let (origin, image) = origin().await;
        let told = format!("{fault:?}");
        origin.inject("team/app", On::Blobs, fault, ALWAYS);
        let answer = layer(&origin, &image).range("bytes=200000-").send().await;
        let found = (answer.status, answer.header("content-range"), answer.body.len());
        assert_eq!(found, (status, range, length), "{told}");
    }
}

#[tokio::test]
async fn hangs_and_drips_take_their_time() {
    let (origin, image) = origin().await;
    origin.inject("team/app", On::Blobs, Fault::HangAt(1000), 1);
    let mut reading = layer(&origin, &image).open().await;
    assert!(reading.reach(1000).await);
    let more = tokio::time::timeout(Duration::from_millis(300), reading.reach(1001)).await;
    assert!(more.is_err(), "it does not hang");

    origin.inject("team/app", On::Blobs, Fault::HangBeforeHeaders, 1);
    let opening = layer(&origin, &image).open();
    assert!(tokio::time::timeout(Duration::from_millis(300), opening).await.is_err());

    let every = Duration::from_millis(50);
    let drip = Fault::Drip { from: SIZE - 10, step: 1, every };
    origin.inject("team/app", On::Blobs, drip, 1);
    let answer = layer(&origin, &image).send().await;
    answer.is_whole(&image.layer.bytes);
    assert!(answer.elapsed > Duration::from_millis(400), "{}", answer.line());
    assert!(answer.longest_gap < Duration::from_secs(1), "{}", answer.line());
}

#[tokio::test]
async fn chains_flaps_and_endless_bodies_are_counted() {
    let (origin, image) = origin().await;
    origin.inject("team/app", On::Blobs, Fault::RedirectChain(2), 1);
    let first = layer(&origin, &image).send().await;
    let second = call(&origin, "GET", first.header("location").unwrap()).send().await;
    let last = call(&origin, "GET", second.header("location").unwrap()).send().await;
    assert_eq!((first.status, second.status), (307, 307));
    last.is_whole(&image.layer.bytes);

    origin.inject("team/app", On::Any, Fault::Flap(&[500, 502]), 0);
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(layer(&origin, &image).send().await.status);
    }
    assert_eq!(statuses, [500, 502, 200]);

    origin.forget();
    origin.inject("team/app", On::Manifests, Fault::Endless, 1);
    let mut reading = call(&origin, "GET", "/v2/team/app/manifests/v1").open().await;
    assert!(reading.reach(1 << 20).await);
    assert!(origin.seen()[0].sent() >= 1 << 20);
}

#[tokio::test]
async fn closed_doors_open_for_tokens_and_passwords() {
    let (origin, image) = origin().await;
    let basic = format!("Basic {}", BASE64_STANDARD.encode(CREDENTIALS));
    let ask = || layer(&origin, &image);
    origin.close_door("team/app", Door::Basic);
    assert_eq!(ask().send().await.status, 401);
    assert_eq!(ask().header("Authorization", &basic).send().await.status, 200);

    for (public, anonymous) in [(true, 200), (false, 401)] {
        origin.close_door("team/app", Door::Bearer { realm: origin.realm(), public });
        let refused = ask().send().await;
        assert!(refused.header("www-authenticate").unwrap().contains("repository:team/app:pull"));
        let token = call(&origin, "GET", "/token?service=origin").send().await.json();
        assert_eq!(token["token"], ANONYMOUS_TOKEN);
        let answer = ask().header("Authorization", &format!("Bearer {ANONYMOUS_TOKEN}"));
        assert_eq!(answer.send().await.status, anonymous);
        let token = call(&origin, "GET", "/token").header("Authorization", &basic).send().await;
        assert_eq!(token.json()["token"], ROBOT_TOKEN);
        let answer = ask().header("Authorization", &format!("Bearer {ROBOT_TOKEN}"));
        assert_eq!(answer.send().await.status, 200);
    }
    origin.inject(TOKENS, On::Tokens, Fault::Status(500), 1);
    assert_eq!(call(&origin, "GET", "/token").send().await.status, 500);
}

#[tokio::test]
async fn a_stopped_origin_refuses_and_a_restarted_one_is_the_same() {
    let (origin, image) = origin().await;
    let mut reading = layer(&origin, &image).open().await;
    assert!(reading.reach(1).await);
    origin.stop().await;
    assert_eq!(layer(&origin, &image).send().await.end, End::Refused);
    origin.restart().await;
    layer(&origin, &image).send().await.is_whole(&image.layer.bytes);
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_sink_remembers_what_it_was_told() {
    let sink = Sink::start(std::net::Ipv4Addr::new(127, 0, 0, 5)).await;
    let opening = Call::new(sink.address(), "GET", "/secret").open();
    assert!(tokio::time::timeout(Duration::from_millis(300), opening).await.is_err());
    assert_eq!(sink.heard().len(), 1);
    assert!(sink.heard()[0].starts_with("GET /secret HTTP/1.1\r\n"));
}
