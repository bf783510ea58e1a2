//! Tags move. What a client sees of that, and what it costs the upstream.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    faulty::{ALWAYS, Door, Fault, Image, On, Origin, TOKENS},
    larder::{Answer, Larder, Upstream, eventually},
};

const HOST: &str = "reg.test";
const APP: &str = "team/app";
const V1: &str = "/v2/team/app/manifests/v1?ns=reg.test";

async fn served(tags: serde_json::Value) -> (Origin, Image, Larder) {
    let origin = Origin::start().await;
    let image = origin.image(APP, "v1", 1, 1000);
    let larder = Larder::serving([Upstream::at(HOST, &origin).tags(tags)]).await;
    (origin, image, larder)
}

/// The tag was pulled more than a second ago (requests within one join); what happened so far at
/// the origin is forgotten.
async fn pulled(tags: serde_json::Value) -> (Origin, Image, Larder) {
    let (origin, image, larder) = served(tags).await;
    larder.get(V1).send().await.is_whole(&image.index.bytes);
    assert!(larder.store().gets(&image.index.digest).await);
    sleep(Duration::from_millis(1200)).await;
    origin.forget();
    (origin, image, larder)
}

fn heads(origin: &Origin) -> usize {
    origin.count("HEAD", "/manifests/")
}

fn gets(origin: &Origin) -> usize {
    origin.count("GET", "/manifests/")
}

/// Within the 3 s that a stale answer may take, and what a busy machine adds. Without that bound it
/// would be 10 s.
#[track_caller]
fn is_quick(answer: &Answer) {
    assert!(answer.elapsed <= Duration::from_secs(6), "{}", answer.line());
}

/// Without asking the upstream, which would cost 3 s: some milliseconds on an idle machine.
#[track_caller]
fn is_at_once(answer: &Answer) {
    assert!(answer.elapsed < Duration::from_millis(2500), "{}", answer.line());
}

#[tokio::test]
async fn a_tag_is_revalidated_by_head_at_every_request() {
    let (origin, image, larder) = pulled(json!({})).await;
    for _ in 0..3 {
        // Requests within a second may join one check.
        sleep(Duration::from_millis(1200)).await;
        larder.get(V1).send().await.is_whole(&image.index.bytes);
    }
    assert_eq!((heads(&origin), gets(&origin)), (3, 0), "{}", origin.story());
    assert!(larder.metrics().await.requests(HOST, "revalidated") >= 3.0);
}

#[tokio::test]
async fn a_tag_that_moved_is_served_as_it_is_now() {
    let (origin, old, larder) = pulled(json!({})).await;
    let new = origin.image(APP, "v1", 2, 1000);
    let head = larder.head(V1).send().await;
    assert_eq!(head.header("docker-content-digest"), Some(&*new.index.digest));
    assert_eq!(head.header("content-length"), Some(&*new.index.bytes.len().to_string()));
    larder.get(V1).send().await.is_whole(&new.index.bytes);
    let by_digest = format!("/v2/{APP}/manifests/{}?ns={HOST}", old.index.digest);
    larder.get(&by_digest).send().await.is_whole(&old.index.bytes);
}

#[tokio::test]
async fn thirty_two_clients_of_one_tag_share_one_check() {
    let (origin, image, larder) = pulled(json!({})).await;
    let answers = join_all((0..32).map(|_| larder.get(V1).send())).await;
    for answer in &answers {
        answer.is_whole(&image.index.bytes);
    }
    assert!((1..=2).contains(&heads(&origin)), "{}", origin.story());
    assert_eq!(gets(&origin), 0);
}

#[tokio::test]
async fn thirty_two_clients_of_one_cold_tag_share_one_fetch() {
    let (origin, image, larder) = served(json!({})).await;
    let answers = join_all((0..32).map(|_| larder.get(V1).send())).await;
    for answer in &answers {
        answer.is_whole(&image.index.bytes);
    }
    assert_eq!(gets(&origin), 1, "{}", origin.story());
    assert!(heads(&origin) <= 2, "{}", origin.story());
}

#[tokio::test]
async fn f07_a_tag_is_served_stale_while_the_upstream_is_down() {
    let (origin, image, mut larder) = pulled(json!({})).await;
    origin.stop().await;
    for call in [larder.get(V1), larder.head(V1)] {
        let answer = call.send().await;
        assert_eq!(answer.status, 200, "{}", answer.line());
        assert_eq!(answer.header("docker-content-digest"), Some(&*image.index.digest));
        is_quick(&answer);
    }
    assert!(larder.metrics().await.requests(HOST, "stale") >= 2.0);
    larder.restart().await;
    let answer = larder.get(V1).send().await;
    is_quick(answer.is_whole(&image.index.bytes));
}

#[tokio::test]
async fn f08_a_tag_is_served_stale_within_three_seconds_while_the_upstream_hangs() {
    let (origin, image, larder) = pulled(json!({})).await;
    origin.inject(APP, On::Any, Fault::HangBeforeHeaders, ALWAYS);
    for _ in 0..3 {
        let answer = larder.get(V1).send().await;
        is_quick(answer.is_whole(&image.index.bytes));
        let answer = larder.head(V1).send().await;
        assert_eq!(answer.status, 200, "{}", answer.line());
        is_quick(&answer);
    }
}

#[tokio::test]
async fn f10_a_tag_is_served_stale_for_every_error_of_a_server() {
    for fault in [
        Fault::Status(500),
        Fault::Status(502),
        Fault::Status(503),
        Fault::Status(504),
        Fault::TooMany { retry_after: 60 },
        Fault::Content("text/html", "<html>".into()),
    ] {
        let told = format!("{fault:?}");
        let (origin, image, larder) = pulled(json!({})).await;
        origin.inject(APP, On::Any, fault, ALWAYS);
        for _ in 0..3 {
            let answer = larder.get(V1).send().await;
            assert_eq!(answer.status, 200, "{told}: {}", answer.line());
            is_quick(answer.is_whole(&image.index.bytes));
        }
    }
}

#[tokio::test]
async fn f10_a_tag_is_served_stale_while_the_token_endpoint_has_no_quota() {
    let origin = Origin::start().await;
    let image = origin.image(APP, "v1", 1, 1000);
    let door = Door::Bearer { realm: origin.realm(), public: true };
    origin.close_door(APP, door);
    let mut larder = Larder::serving([Upstream::at(HOST, &origin)]).await;
    larder.get(V1).send().await.is_whole(&image.index.bytes);
    for fault in [Fault::TooMany { retry_after: 60 }, Fault::Status(503), Fault::HangBeforeHeaders]
    {
        origin.heal(TOKENS);
        origin.inject(TOKENS, On::Tokens, fault, ALWAYS);
        // A new process has no token.
        larder.restart().await;
        let answer = larder.get(V1).send().await;
        is_quick(answer.is_whole(&image.index.bytes));
    }
}

#[tokio::test]
async fn a_refusal_is_never_answered_from_what_was_there_before() {
    for (status, seen, code) in
        [(401, 403, "DENIED"), (403, 403, "DENIED"), (404, 404, "MANIFEST_UNKNOWN")]
    {
        let (origin, _, larder) = pulled(json!({})).await;
        origin.inject(APP, On::Any, Fault::Status(status), ALWAYS);
        larder.get(V1).send().await.is_error(seen, code);
        assert_eq!(larder.head(V1).send().await.status, seen);
        // Not even when the upstream goes down afterwards.
        origin.stop().await;
        let answer = larder.get(V1).send().await;
        assert_ne!(answer.status, 200, "{status}: {}", answer.line());
    }
}

#[tokio::test]
async fn a_deleted_tag_is_gone_and_comes_back() {
    let (origin, image, larder) = pulled(json!({"negativeTTL": "1s"})).await;
    origin.edit(APP, |repository| drop(repository.tags.remove("v1")));
    larder.get(V1).send().await.is_error(404, "MANIFEST_UNKNOWN");
    origin.edit(APP, |repository| repository.put_image("v1", &image));
    sleep(Duration::from_millis(1500)).await;
    larder.get(V1).send().await.is_whole(&image.index.bytes);
}

#[tokio::test]
async fn a_tag_that_is_not_there_is_asked_for_once_in_a_while() {
    let (origin, _, larder) = served(json!({"negativeTTL": "3s"})).await;
    let missing = "/v2/team/app/manifests/v9?ns=reg.test";
    let asked = || origin.seen().iter().filter(|seen| seen.path.ends_with("/v9")).count();
    larder.get(missing).send().await.is_error(404, "MANIFEST_UNKNOWN");
    let once = asked();
    assert!((1..=2).contains(&once), "{}", origin.story());
    for _ in 0..5 {
        larder.get(missing).send().await.is_error(404, "MANIFEST_UNKNOWN");
    }
    assert_eq!(asked(), once, "{}", origin.story());
    let image = origin.image(APP, "v9", 9, 1000);
    sleep(Duration::from_millis(3500)).await;
    larder.get(missing).send().await.is_whole(&image.index.bytes);
}

#[tokio::test]
async fn a_digest_that_is_not_there_is_asked_for_every_time() {
    let (origin, _, larder) = served(json!({"negativeTTL": "1h"})).await;
    let later = crate::faulty::Blob::noise(77, 5000);
    let path = format!("/v2/{APP}/blobs/{}?ns={HOST}", later.digest);
    larder.get(&path).send().await.is_error(404, "BLOB_UNKNOWN");
    origin.edit(APP, |repository| repository.put_blob(&later.bytes));
    larder.get(&path).send().await.is_whole(&later.bytes);
}

#[tokio::test]
async fn a_refresh_interval_spares_the_upstream() {
    let (origin, image, larder) = pulled(json!({"refreshInterval": "3s"})).await;
    for _ in 0..5 {
        larder.get(V1).send().await.is_whole(&image.index.bytes);
        assert_eq!(larder.head(V1).send().await.status, 200);
    }
    assert_eq!(origin.seen().len(), 0, "{}", origin.story());
    assert!(larder.metrics().await.requests(HOST, "hit") >= 10.0);
    let new = origin.image(APP, "v1", 2, 1000);
    sleep(Duration::from_millis(3500)).await;
    larder.get(V1).send().await.is_whole(&new.index.bytes);
}

#[tokio::test]
async fn an_immutable_tag_is_never_revalidated() {
    let (origin, image, mut larder) = pulled(json!({"immutable": ["v*"]})).await;
    let latest = origin.image(APP, "latest", 2, 1000);
    let path = "/v2/team/app/manifests/latest?ns=reg.test";
    larder.get(path).send().await.is_whole(&latest.index.bytes);
    origin.forget();
    sleep(Duration::from_millis(1200)).await;
    larder.get(V1).send().await.is_whole(&image.index.bytes);
    assert_eq!(origin.seen().len(), 0, "{}", origin.story());
    larder.get(path).send().await.is_whole(&latest.index.bytes);
    assert_eq!(heads(&origin), 1, "{}", origin.story());
    origin.stop().await;
    larder.restart().await;
    let answer = larder.get(V1).send().await;
    answer.is_whole(&image.index.bytes);
    is_at_once(&answer);
}

#[tokio::test]
async fn a_tag_is_not_served_stale_for_ever() {
    let (origin, _, larder) = pulled(json!({"staleIfError": "1s"})).await;
    origin.stop().await;
    sleep(Duration::from_millis(2200)).await;
    larder.get(V1).send().await.is_error(503, "UNAVAILABLE");
}

#[tokio::test]
async fn f07_a_tag_that_was_never_seen_is_503_while_the_upstream_is_down() {
    let (origin, _, larder) = served(json!({})).await;
    origin.stop().await;
    let answer = larder.get(V1).send().await;
    is_quick(answer.is_error(503, "UNAVAILABLE"));
}

#[tokio::test]
async fn an_upstream_that_came_back_is_asked_again() {
    let (origin, _, larder) = pulled(json!({})).await;
    origin.stop().await;
    for _ in 0..3 {
        assert_eq!(larder.get(V1).send().await.status, 200);
    }
    origin.restart().await;
    let new = origin.image(APP, "v1", 2, 1000);
    // The breaker probes after 5 s.
    sleep(Duration::from_millis(6500)).await;
    larder.get(V1).send().await.is_whole(&new.index.bytes);
}

#[tokio::test]
async fn a_digest_never_waits_for_the_upstream() {
    let (origin, image, larder) = pulled(json!({})).await;
    origin.inject(APP, On::Any, Fault::HangBeforeHeaders, ALWAYS);
    let path = format!("/v2/{APP}/manifests/{}?ns={HOST}", image.index.digest);
    let answer = larder.get(&path).send().await;
    answer.is_whole(&image.index.bytes);
    is_at_once(&answer);
    assert_eq!(origin.seen().len(), 0, "{}", origin.story());
}

#[tokio::test]
async fn f12_a_record_from_the_future_ages_from_now_on() {
    let (origin, image, larder) = pulled(json!({})).await;
    let path = larder.store().tag_path(HOST, APP, "v1");
    let mut record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let future = "2199-01-01T00:00:00Z";
    record["checkedAt"] = json!(future);
    std::fs::write(&path, record.to_string()).unwrap();

    origin.inject(APP, On::Manifests, Fault::Status(503), ALWAYS);
    larder.get(V1).send().await.is_whole(&image.index.bytes);
    let ages = eventually(5, async || {
        let text = std::fs::read_to_string(&path).unwrap();
        !text.contains(future) && text.contains(&image.index.digest)
    });
    assert!(ages.await, "the record would be served stale until 2199");
}

#[tokio::test]
async fn a_manifest_whose_file_is_gone_is_kept_again_though_it_is_hot_in_memory() {
    let (_origin, image, larder) = pulled(json!({"refreshInterval": "1h"})).await;
    let path = format!("/v2/{APP}/manifests/{}?ns={HOST}", image.index.digest);
    larder.get(&path).send().await.is_whole(&image.index.bytes);
    std::fs::remove_file(larder.store().blob(&image.index.digest)).unwrap();
    let kept = eventually(75, async || {
        larder.get(&path).send().await.is_whole(&image.index.bytes);
        larder.store().has(&image.index.digest)
    });
    assert!(kept.await, "the next start would not find it");
}
