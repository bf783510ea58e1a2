//! The token flow.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use super::{
    fake::{Fake, Reply, Seen, ok, start, start_on, status},
    *,
};
use crate::upstream::ErrorClass;

/// Says 401 with this challenge.
fn challenge(value: &str) -> Reply {
    status(401).with("www-authenticate", value)
}

fn bearer(realm: &str) -> Reply {
    let value = format!("Bearer realm=\"{realm}\",service=\"reg.example\"");
    let body = r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#;
    Reply::Answer(401, Vec::new(), body.to_owned()).with("www-authenticate", &value)
}

/// A registry that serves whoever presents one of the tokens `accepted`, and a token service
/// under `/token` that answers with `issue`.
async fn registry(
    accepted: &'static str,
    issue: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
) -> Fake {
    start(move |seen| {
        if seen.target.starts_with("/token") {
            return issue(seen);
        }
        match seen.header("authorization").strip_prefix("Bearer ") {
            Some(token) if accepted.contains(token) => ok(token),
            _ => bearer(&format!("http://{}/token?x=1", seen.header("host"))),
        }
    })
    .await
}

fn token(text: &str) -> Reply {
    ok(&format!("{{\"token\":\"{text}\"}}"))
}

#[tokio::test]
async fn an_anonymous_token_is_fetched_once_and_then_sent_at_once() {
    let registry = registry("t1", |_| token("t1")).await;
    let upstream = upstream(&[&registry.url("")]);
    for _ in 0..3 {
        assert_eq!(body(&upstream, get()).await, "t1");
    }
    let manifest = "/v2/library/nginx/manifests/1.27";
    let scope = "scope=repository%3Alibrary%2Fnginx%3Apull";
    let token = format!("/token?x=1&service=reg.example&{scope}");
    assert_eq!(registry.targets(), [manifest, &token, manifest, manifest, manifest]);
    assert_eq!(registry.seen()[1].header("authorization"), "");
    assert_eq!(registry.seen()[4].header("authorization"), "Bearer t1");
    assert_eq!(registry.connections(), 1);

    let other = Target::Manifest("library/redis".parse().unwrap(), "8".parse().unwrap());
    let other = Request { target: other, ..get() };
    assert_eq!(body(&upstream, other).await, "t1");
    assert!(registry.targets()[6].contains("redis"), "tokens are per repository");
}

#[tokio::test]
async fn identities_never_share_a_token() {
    let registry = registry("t-robot t-nobody", |seen| match seen.header("authorization") {
        BASIC => token("t-robot"),
        "" => token("t-nobody"),
        other => panic!("{other}"),
    })
    .await;
    let upstream = with_credentials(&[&registry.url("")], "");
    for _ in 0..2 {
        assert_eq!(body(&upstream, get_as_configured()).await, "t-robot");
        assert_eq!(body(&upstream, get()).await, "t-nobody");
    }
    assert_eq!(registry.seen().len(), 8, "{:?}", registry.targets());
}

#[tokio::test]
async fn basic_credentials_are_sent_where_they_are_asked_for() {
    let registry = start(|seen| match seen.header("authorization") {
        BASIC => ok("in"),
        _ => challenge("Basic realm=\"x\""),
    })
    .await;
    let upstream = with_credentials(&[&registry.url("")], "");
    let reason = denied(&upstream, get()).await;
    assert!(reason.contains("user name"), "{reason}");
    assert_eq!(body(&upstream, get_as_configured()).await, "in");
    assert_eq!(body(&upstream, get_as_configured()).await, "in");
    let sent: Vec<_> =
        registry.seen().iter().map(|s| s.header("authorization").to_owned()).collect();
    assert_eq!(sent, ["", "", BASIC, BASIC]);
}

#[tokio::test]
async fn a_refused_password_is_not_tried_again_and_again() {
    let registry = start(|_| challenge("Basic realm=\"x\"")).await;
    let upstream = with_credentials(&[&registry.url("")], "");
    let reason = denied(&upstream, get_as_configured()).await;
    assert!(reason.contains("credentials do not give access to library/nginx"), "{reason}");
    assert_eq!(registry.seen().len(), 2);
    denied(&upstream, get_as_configured()).await;
    assert_eq!(registry.seen().len(), 3);
}

#[tokio::test]
async fn an_expired_token_is_replaced_once() {
    let current = Arc::new(AtomicU64::new(1));
    let (issuing, checking) = (current.clone(), current.clone());
    let registry = start(move |seen| {
        if seen.target.starts_with("/token") {
            return token(&format!("t{}", issuing.load(Ordering::SeqCst)));
        }
        let expected = format!("Bearer t{}", checking.load(Ordering::SeqCst));
        match seen.header("authorization") {
            sent if sent == expected => ok("in"),
            _ => bearer(&format!("http://{}/token", seen.header("host"))),
        }
    })
    .await;
    let upstream = upstream(&[&registry.url("")]);
    assert_eq!(body(&upstream, get()).await, "in");
    current.store(2, Ordering::SeqCst);
    assert_eq!(body(&upstream, get()).await, "in");
    assert_eq!(registry.seen().len(), 3 + 3);
}

#[tokio::test]
async fn a_registry_that_accepts_no_token_is_asked_a_bounded_number_of_times() {
    let registry = registry("", |_| token("t")).await;
    let upstream = upstream(&[&registry.url("")]);
    let reason = denied(&upstream, get()).await;
    assert!(reason.contains("library/nginx is not open to anonymous clients"), "{reason}");
    assert_eq!(registry.seen().len(), 3, "question, token, answer");
    denied(&upstream, get()).await;
    assert_eq!(registry.seen().len(), 5, "token, answer");
}

#[tokio::test]
async fn many_requests_wait_for_one_token() {
    let registry = registry("t1", |_| token("t1")).await;
    let upstream = upstream(&[&registry.url("")]);
    let all = at_once((0..40).map(|_| body(&upstream, get()))).await;
    assert!(all.iter().all(|text| text == "t1"));
    let tokens = registry.targets().iter().filter(|target| target.starts_with("/token")).count();
    assert_eq!(tokens, 1);
}

#[tokio::test]
async fn f10_a_token_service_that_fails_means_unavailable_and_is_left_alone() {
    for (reply, class) in [(429, ErrorClass::RateLimited), (503, ErrorClass::Status5xx)] {
        let registry = registry("t", move |_| status(reply)).await;
        let upstream = upstream(&[&registry.url("")]);
        for _ in 0..2 {
            let reason = unavailable(&upstream, get()).await;
            assert!(reason.contains("token service 127.0.0.1: status"), "{reason}");
            if reply == 429 {
                break;
            }
        }
        let before = registry.seen().len();
        let reason = unavailable(&upstream, get()).await;
        assert!(reason.contains("token service 127.0.0.1: left alone"), "{reason}");
        assert_eq!(registry.seen().len(), before + 1, "only the registry is asked");
        assert!(upstream.errors(class) > 0);
        assert!(upstream.health().reachable);
    }
}

#[tokio::test]
async fn f08_a_token_service_that_hangs_ends_within_the_time_to_the_first_byte() {
    let registry = registry("t", |_| Reply::Hang).await;
    let upstream = upstream(&[&registry.url("")]);
    let start = Instant::now();
    let early = upstream.send(get(), start + Duration::from_millis(300));
    let (early, late) = tokio::join!(early, unavailable(&upstream, get()));
    assert!(matches!(early, Err(UpstreamError::Unavailable { .. })));
    assert!(late.contains("token service 127.0.0.1: no answer within"), "{late}");
    let elapsed = start.elapsed();
    assert!(elapsed > Duration::from_secs(1), "the impatient must not speak for all: {elapsed:?}");
    // 1.01 s on an idle machine; the budget of the request as a whole would be 10 s.
    assert!(elapsed < Duration::from_secs(6), "{elapsed:?}");
}

#[tokio::test]
async fn a_token_service_that_refuses_means_denied() {
    for code in [401, 403] {
        let registry = registry("t", move |_| status(code)).await;
        let upstream = with_credentials(&[&registry.url("")], "");
        let reason = denied(&upstream, get_as_configured()).await;
        let expected = format!("the token service 127.0.0.1 refuses the credentials ({code})");
        assert_eq!(reason, expected);
    }
}

#[tokio::test]
async fn t13_an_answer_of_a_token_service_has_bounds() {
    let large = format!("{{\"token\":\"{}\"}}", "t".repeat(70_000));
    let answers = [large, "[".repeat(60_000), "{}".to_owned(), "{\"token\":\"a\\nb\"}".to_owned()];
    for answer in answers {
        let registry = registry("t", move |_| ok(&answer)).await;
        let upstream = upstream(&[&registry.url("")]);
        let reason = unavailable(&upstream, get()).await;
        assert!(reason.contains("token service") && reason.len() < 250, "{reason}");
    }
}

#[tokio::test]
async fn t02_a_redirect_of_a_token_service_is_not_followed() {
    let sink = start_on("127.0.0.2", None, |_| token("t")).await;
    let elsewhere = sink.url("/token");
    let registry = registry("t", move |_| fake::redirect(&elsewhere)).await;
    let upstream = with_credentials(&[&registry.url("")], "");
    assert!(unavailable(&upstream, get_as_configured()).await.contains("status 307"));
    assert_eq!(sink.connections(), 0);
}

#[tokio::test]
async fn t02_credentials_do_not_reach_a_foreign_realm() {
    let sink = start_on("127.0.0.2", None, |_| token("t")).await;
    let realm = sink.url("/token");
    let registry = start(move |seen| match seen.header("authorization") {
        "Bearer t" => ok("in"),
        _ => bearer(&realm),
    })
    .await;
    let hijacked = with_credentials(&[&registry.url("")], "");
    let reason = denied(&hijacked, get_as_configured()).await;
    assert!(reason.contains("add 127.0.0.2 to tokenRealms"), "{reason}");
    assert_eq!(sink.connections(), 0, "not even a connection");
    assert_eq!(hijacked.errors(ErrorClass::Refused), 1);

    let reason = denied(&hijacked, get()).await;
    assert!(reason.contains("plain http"), "{reason}");
    assert_eq!(sink.connections(), 0, "not even anonymously, because it is plain http");

    let listed = with_credentials(&[&registry.url("")], "  tokenRealms: [\"127.0.0.2\"]\n");
    assert_eq!(body(&listed, get_as_configured()).await, "in");
    assert_eq!(sink.seen()[0].header("authorization"), BASIC);
}

#[tokio::test]
async fn t02_t04_hostile_realms_see_nothing() {
    let sink = start_on("127.0.0.3", None, |_| token("t")).await;
    let port = sink.port();
    let realms = [
        format!("http://127.0.0.1:80@127.0.0.3:{port}/"),
        format!("http://robot:pw@127.0.0.3:{port}/"),
        format!("http://2130706435:{port}/"),
        format!("http://0x7f.3:{port}/"),
        format!("http://[::ffff:127.0.0.3]:{port}/"),
        format!("http://127.0.0.3:{port}/?127.0.0.1"),
        format!("http://127.0.0.3:{port}#@127.0.0.1/"),
        format!("//127.0.0.3:{port}/"),
        format!("ftp://127.0.0.3:{port}/"),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "http://[fd00:ec2::254]/".to_owned(),
        "http://metadata.google.internal/".to_owned(),
        "http://0.0.0.0/".to_owned(),
        "Registry".to_owned(),
    ];
    for realm in realms {
        let named = realm.clone();
        let registry = start(move |_| bearer(&named)).await;
        let upstream = with_credentials(&[&registry.url("")], "");
        denied(&upstream, get_as_configured()).await;
        assert_eq!(registry.seen().len(), 1, "{realm}");
        assert_eq!(registry.seen()[0].header("authorization"), "", "{realm}");
    }
    assert_eq!(sink.connections(), 0);
}

#[tokio::test]
async fn a_401_without_a_usable_challenge_is_a_refusal() {
    for reply in ["", "Negotiate", "Bearer service=\"x\"", "Digest realm=\"x\""] {
        let registry = start(move |_| challenge(reply)).await;
        let upstream = with_credentials(&[&registry.url("")], "");
        denied(&upstream, get_as_configured()).await;
        assert_eq!(registry.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_hijacked_endpoint_does_not_hide_a_good_one() {
    let hijacked = start(|_| bearer("http://127.0.0.2:9/")).await;
    let good = start(|_| ok("good")).await;
    let upstream = with_credentials(&[&hijacked.url(""), &good.url("")], "");
    assert_eq!(body(&upstream, get_as_configured()).await, "good");
    let broken = with_credentials(&[&hijacked.url(""), "http://127.0.0.1:1"], "");
    let reason = unavailable(&broken, get_as_configured()).await;
    assert!(reason.contains("tokenRealms") && reason.contains("refused"), "{reason}");
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn t17_no_secret_is_logged_or_shown() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(move || writer.clone())
        .finish();
    // With a single subscriber in the process, a log line that another test's thread reaches first
    // is switched off for all threads.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let guard = tracing::subscriber::set_default(subscriber);

    let count = AtomicUsize::new(0);
    let registry = start(move |seen| {
        if seen.target.starts_with("/token") {
            return token("canary-token");
        }
        match (seen.header("authorization"), count.fetch_add(1, Ordering::SeqCst)) {
            ("Bearer canary-token", 2..) => {
                fake::redirect("http://127.0.0.1:1/layer?X-Amz-Signature=canary-signature")
            }
            ("Bearer canary-token", _) => ok("in"),
            _ => bearer(&format!("http://{}/token?key=canary-query", seen.header("host"))),
        }
    })
    .await;
    let upstream = with_credentials(&[&registry.url("")], "");
    assert_eq!(body(&upstream, get_as_configured()).await, "in");
    let error = send(&upstream, get_as_configured()).await.unwrap_err();
    drop(guard);

    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("/v2/library/nginx/manifests/1.27") && logged.contains("/token"));
    let health = upstream.health().last_error;
    for text in [logged, format!("{error} {error:?}"), health, format!("{upstream:?}")] {
        assert!(!text.contains("canary") && !text.contains(BASIC), "{text}");
    }
}
