//! Several endpoints, breakers and time.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{
    fake::{Reply, ok, start, status},
    *,
};
use crate::upstream::ErrorClass;

/// Nothing listens on port 1.
const CLOSED: &str = "http://127.0.0.1:1";

#[tokio::test]
async fn f10_a_failing_endpoint_is_passed_over_and_left_alone_after_two_failures() {
    let first = start(|_| status(503)).await;
    let second = start(|_| ok("second")).await;
    let upstream = upstream(&[&first.url(""), &second.url("")]);
    for _ in 0..4 {
        let answer = send(&upstream, get()).await.unwrap();
        assert_eq!(answer.endpoint, 1);
    }
    assert_eq!((first.seen().len(), second.seen().len()), (2, 4));
    assert_eq!(upstream.errors(ErrorClass::Status5xx), 2);
    assert_eq!(upstream.errors(ErrorClass::BreakerOpen), 0);
    assert!(upstream.health().reachable);
    assert!(upstream.health().last_error.ends_with("status 503"));

    let starting_there = Request { first_endpoint: 1, ..get() };
    assert_eq!(send(&upstream, starting_there).await.unwrap().endpoint, 1);
}

#[tokio::test]
async fn f10_every_failure_passes_to_the_next_endpoint() {
    let last = start(|_| ok("last")).await;
    for reply in [400, 408, 429, 451, 500, 502, 204, 304] {
        let bad = start(move |_| status(reply)).await;
        let upstream = upstream(&[&bad.url(""), &last.url("")]);
        assert_eq!(body(&upstream, get()).await, "last", "{reply}");
    }
    let cut = start(|_| Reply::Cut).await;
    let garbage = start(|_| Reply::Raw("HELO\r\n\r\n".to_owned())).await;
    let many = format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "b".repeat(40_000));
    let large = start(move |_| Reply::Raw(many.clone())).await;
    for bad in [CLOSED, &cut.url(""), &garbage.url(""), &large.url(""), "http://localhost:1"] {
        let upstream = upstream(&[bad, &last.url("")]);
        assert_eq!(body(&upstream, get()).await, "last", "{bad}");
    }
}

#[tokio::test]
async fn what_the_first_endpoint_denies_is_not_asked_elsewhere() {
    let second = start(|_| ok("second")).await;
    for code in [403, 404, 410, 405, 501] {
        let first = start(move |_| status(code)).await;
        let upstream = upstream(&[&first.url(""), &second.url("")]);
        let error = send(&upstream, get()).await.unwrap_err();
        assert!(!matches!(error, UpstreamError::Unavailable { .. }), "{code}");
    }
    assert_eq!(second.seen().len(), 0);
}

#[tokio::test]
async fn t17_the_error_names_what_happened_at_each_endpoint_and_no_secret() {
    let busy = start(|_| status(429)).await;
    let upstream = upstream(&[CLOSED, &busy.url("/p")]);
    let reason = unavailable(&upstream, get()).await;
    let expected = format!("; 127.0.0.1:{}: status 429", busy.port());
    assert!(reason.starts_with("127.0.0.1:1: ") && reason.ends_with(&expected), "{reason}");
    assert!(reason.contains("refused") && !reason.contains("/v2/"), "{reason}");
    assert_eq!(upstream.errors(ErrorClass::Connect), 1);
    assert_eq!(upstream.errors(ErrorClass::RateLimited), 1);
}

#[tokio::test]
async fn f10_one_429_silences_us_for_as_long_as_it_asks() {
    let count = AtomicUsize::new(0);
    let hub = start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => status(429)
            .with("retry-after", "1")
            .with("ratelimit-limit", "100;w=21600")
            .with("ratelimit-remaining", "0;w=21600")
            .with("docker-ratelimit-source", "192.0.2.7"),
        _ => ok("again"),
    })
    .await;
    let upstream = upstream(&[&hub.url("")]);
    assert!(unavailable(&upstream, get()).await.contains("status 429"));
    let limit = upstream.rate_limit().unwrap();
    assert_eq!((limit.limit, limit.remaining, &*limit.source), (100, 0, "192.0.2.7"));

    let before = Instant::now();
    assert!(unavailable(&upstream, get()).await.contains("left alone"));
    assert!(before.elapsed() < Duration::from_millis(500));
    assert_eq!(hub.seen().len(), 1, "an open breaker sends nothing");
    assert_eq!(upstream.errors(ErrorClass::BreakerOpen), 1);
    assert!(upstream.health().last_error.contains("status 429"));

    tokio::time::sleep(Duration::from_millis(1050)).await;
    assert_eq!(body(&upstream, get()).await, "again");
}

#[tokio::test]
async fn f08_a_hanging_endpoint_leaves_time_for_the_others() {
    let hanging = start(|_| Reply::Hang).await;
    let second = start(|_| ok("second")).await;
    let upstream = upstream(&[&hanging.url(""), &hanging.url(""), &second.url("")]);
    let start = Instant::now();
    let answer = upstream.send(get(), start + Duration::from_millis(1500)).await.unwrap();
    assert_eq!(answer.endpoint, 2);
    let elapsed = start.elapsed();
    assert!(elapsed < Duration::from_millis(1500), "{elapsed:?}");
}

#[tokio::test]
async fn f08_an_answer_or_an_error_comes_before_the_deadline() {
    let hanging = start(|_| Reply::Hang).await;
    let upstream = upstream(&[&hanging.url("")]);
    for (allowed, at_most) in [(300, 1000), (5000, 2000)] {
        let start = Instant::now();
        let deadline = start + Duration::from_millis(allowed);
        let error = upstream.send(get(), deadline).await.unwrap_err();
        assert!(error.to_string().contains("no answer within"), "{error}");
        assert!(start.elapsed() < Duration::from_millis(at_most));
    }
    assert_eq!(upstream.errors(ErrorClass::Timeout), 2);
    assert!(!upstream.health().reachable);
    // The first one had no time to be sure, so this is the endpoint's second failure.
    assert!(unavailable(&upstream, get()).await.contains("no answer within"));
    assert!(unavailable(&upstream, get()).await.contains("left alone"));
    let past = upstream.send(get(), Instant::now()).await.unwrap_err();
    assert!(past.to_string().contains("no time"), "{past}");
}

#[tokio::test]
async fn one_request_probes_while_the_others_are_turned_away() {
    let count = AtomicUsize::new(0);
    let busy = start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => status(429).with("retry-after", "1"),
        _ => Reply::Hang,
    })
    .await;
    let upstream = upstream(&[&busy.url("")]);
    assert!(send(&upstream, get()).await.is_err());
    tokio::time::sleep(Duration::from_millis(1050)).await;
    let all = at_once((0..10).map(|_| send(&upstream, get()))).await;
    assert!(all.iter().all(Result::is_err));
    assert_eq!(busy.seen().len(), 2);
}

#[tokio::test]
async fn f09_a_connection_that_was_closed_meanwhile_is_replaced() {
    let count = AtomicUsize::new(0);
    let registry = start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        1 => Reply::Cut,
        _ => ok("fine"),
    })
    .await;
    let upstream = upstream(&[&registry.url("")]);
    assert_eq!(body(&upstream, get()).await, "fine");
    assert_eq!(body(&upstream, get()).await, "fine");
    assert_eq!((registry.seen().len(), registry.connections()), (3, 2));
}
