//! Who may read what: visibility, links, policy.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    faulty::{ALWAYS, Door, Fault, Image, On, Origin, ROBOT_TOKEN, Seen},
    larder::{Larder, NodeConfig, Upstream, eventually},
};

const HOST: &str = "reg.test";
const APP: &str = "team/app";
const OTHER: &str = "team/other";

struct Story {
    origin: Origin,
    image: Image,
    larder: Larder,
}

impl Story {
    async fn of(door: impl FnOnce(&Origin) -> Door, upstream: fn(Upstream) -> Upstream) -> Self {
        let origin = Origin::start().await;
        let image = origin.image(APP, "v1", 1, 300_000);
        origin.close_door(APP, door(&origin));
        let larder = Larder::serving([upstream(Upstream::at(HOST, &origin))]).await;
        Self { origin, image, larder }
    }

    /// Every way to ask for something of the image, with what it is.
    fn ways(&self, repository: &str) -> Vec<(String, &[u8])> {
        let path = |rest: String| format!("/v2/{repository}/{rest}?ns={HOST}");
        vec![
            (path("manifests/v1".to_owned()), &self.image.index.bytes),
            (path(format!("manifests/{}", self.image.index.digest)), &self.image.index.bytes),
            (path(format!("manifests/{}", self.image.manifest.digest)), &self.image.manifest.bytes),
            (path(format!("blobs/{}", self.image.config.digest)), &self.image.config.bytes),
            (path(format!("blobs/{}", self.image.layer.digest)), &self.image.layer.bytes),
        ]
    }

    fn layer(&self, repository: &str) -> String {
        format!("/v2/{repository}/blobs/{}?ns={HOST}", self.image.layer.digest)
    }

    async fn serves_everything(&self) {
        for (path, bytes) in self.ways(APP) {
            self.larder.get(&path).send().await.is_whole(bytes);
        }
    }

    async fn denies_everything(&self) {
        for (path, _) in self.ways(APP) {
            let answer = self.larder.get(&path).send().await;
            answer.is_error(403, "DENIED");
            assert!(answer.header("www-authenticate").is_none());
            let message = answer.json()["errors"][0]["message"].as_str().map(str::len);
            assert!(message > Some(20), "a message that says what to do: {}", answer.text());
            let head = self.larder.head(&path).send().await;
            assert_eq!((head.status, head.body.len()), (403, 0), "{path}");
        }
    }
}

fn open(_: &Origin) -> Door {
    Door::Open
}

fn public(origin: &Origin) -> Door {
    Door::Bearer { realm: origin.realm(), public: true }
}

fn private(origin: &Origin) -> Door {
    Door::Bearer { realm: origin.realm(), public: false }
}

fn is_robot(seen: &Seen) -> bool {
    let bearer = format!("Bearer {ROBOT_TOKEN}");
    seen.header("authorization") == Some(&bearer)
}

#[tokio::test]
async fn what_everybody_may_read_is_served_without_credentials() {
    let story = Story::of(public, |upstream| upstream).await;
    story.serves_everything().await;
    assert!(story.origin.seen().iter().all(|seen| !is_robot(seen)));
}

#[tokio::test]
async fn t08_what_is_private_is_denied_in_every_form_and_never_challenged() {
    let story = Story::of(private, |upstream| upstream).await;
    story.denies_everything().await;
    let files = story.larder.store().files();
    assert!(
        !files.iter().any(|file| file.contains("_links") || file.contains("blobs/")),
        "{files:?}"
    );
}

#[tokio::test]
async fn t08_credentials_of_the_cache_do_not_open_what_is_private() {
    let story = Story::of(private, Upstream::with_credentials).await;
    story.denies_everything().await;
}

#[tokio::test]
async fn a_shared_repository_is_served_to_everybody_on_the_node() {
    let story = Story::of(private, |upstream| upstream.shared(&[APP])).await;
    story.serves_everything().await;
    story.serves_everything().await;
}

#[tokio::test]
async fn t08_only_what_is_on_the_list_is_shared() {
    let story = Story::of(private, |upstream| upstream.shared(&[OTHER])).await;
    story.denies_everything().await;
}

#[tokio::test]
async fn with_credentials_everything_but_the_visibility_check_carries_them() {
    let story = Story::of(public, Upstream::with_credentials).await;
    story.serves_everything().await;
    let asked = story.origin.seen();
    let manifests_and_blobs = asked.iter().filter(|seen| seen.path.starts_with("/v2/"));
    // The first request of an identity is the one that is challenged.
    let with_token = manifests_and_blobs.filter(|seen| seen.header("authorization").is_some());
    let (robot, anonymous): (Vec<_>, Vec<_>) = with_token.partition(|seen| is_robot(seen));
    assert!(robot.iter().any(|seen| seen.method == "GET" && seen.path.contains("/blobs/")));
    assert!(!anonymous.is_empty(), "nobody proved that it is public\n{}", story.origin.story());
    for seen in anonymous {
        assert_eq!(seen.method, "HEAD", "{}", seen.line());
        assert!(seen.path.contains("/manifests/"), "{}", seen.line());
    }
}

#[tokio::test]
async fn t08_a_repository_that_becomes_private_is_closed_at_the_next_tag_request() {
    let story = Story::of(public, Upstream::with_credentials).await;
    story.serves_everything().await;
    sleep(Duration::from_millis(1200)).await;
    story.origin.close_door(APP, private(&story.origin));
    let tag = format!("/v2/{APP}/manifests/v1?ns={HOST}");
    // The verdict is refreshed by the tag's own HEAD or in its background.
    let denied = async || story.larder.head(&tag).send().await.status == 403;
    assert!(eventually(10, denied).await);
    story.denies_everything().await;
}

#[tokio::test]
async fn t08_a_verdict_is_needed_and_cannot_be_had_while_the_upstream_is_down() {
    let story = Story::of(public, Upstream::with_credentials).await;
    story.origin.stop().await;
    for (path, _) in story.ways(APP) {
        let answer = story.larder.get(&path).send().await;
        answer.is_error(503, "UNAVAILABLE");
    }
}

#[tokio::test]
async fn t08_a_verdict_outlives_the_upstreams_troubles() {
    let story = Story::of(public, Upstream::with_credentials).await;
    story.serves_everything().await;
    story.origin.stop().await;
    story.serves_everything().await;
}

#[tokio::test]
async fn a_stored_blob_costs_another_repository_one_head() {
    let story = Story::of(open, |upstream| upstream).await;
    story.larder.get(&story.layer(APP)).send().await.is_whole(&story.image.layer.bytes);
    assert!(story.larder.store().gets(&story.image.layer.digest).await);
    story.origin.edit(OTHER, |repository| {
        repository.put_blob(&story.image.layer.bytes);
    });
    story.origin.forget();
    for _ in 0..3 {
        let answer = story.larder.get(&story.layer(OTHER)).send().await;
        answer.is_whole(&story.image.layer.bytes);
    }
    let asked = story.origin.seen();
    assert_eq!(asked.len(), 1, "{}", story.origin.story());
    assert_eq!((&*asked[0].method, asked[0].path.contains(OTHER)), ("HEAD", true));
    // Written off the client's path.
    let linked = async || story.larder.store().has_link(HOST, OTHER, &story.image.layer.digest);
    assert!(eventually(5, linked).await);
}

#[tokio::test]
async fn t08_a_stored_blob_is_not_served_under_a_repository_that_has_it_not() {
    let story = Story::of(open, |upstream| upstream).await;
    story.larder.get(&story.layer(APP)).send().await.is_whole(&story.image.layer.bytes);
    assert!(story.larder.store().gets(&story.image.layer.digest).await);
    story.origin.image(OTHER, "v1", 2, 1000);
    let digest = &story.image.layer.digest;
    for repository in [OTHER, "team/none"] {
        let path = story.layer(repository);
        story.larder.get(&path).send().await.is_error(404, "BLOB_UNKNOWN");
        assert_eq!(story.larder.head(&path).send().await.status, 404);
        let range = story.larder.get(&path).range("bytes=5-9").send().await;
        range.is_error(404, "BLOB_UNKNOWN");
        assert!(!story.larder.store().has_link(HOST, repository, digest));
    }
    assert_eq!(story.origin.count("GET", OTHER), 0, "{}", story.origin.story());
    story.origin.stop().await;
    let answer = story.larder.get(&story.layer(OTHER)).send().await;
    answer.is_error(503, "UNAVAILABLE");
}

#[tokio::test]
async fn t08_a_stored_blob_of_a_private_repository_is_not_served_under_a_public_one() {
    let story = Story::of(private, |upstream| upstream.shared(&[APP])).await;
    story.larder.get(&story.layer(APP)).send().await.is_whole(&story.image.layer.bytes);
    assert!(story.larder.store().gets(&story.image.layer.digest).await);
    story.origin.image(OTHER, "v1", 2, 1000);
    let answer = story.larder.get(&story.layer(OTHER)).send().await;
    answer.is_error(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn t08_a_blob_that_is_being_filled_is_not_shared_across_repositories() {
    let story = Story::of(open, |upstream| upstream).await;
    let every = Duration::from_millis(100);
    let drip = Fault::Drip { from: 0, step: 10_000, every };
    story.origin.inject(APP, On::BlobGets, drip, ALWAYS);
    let mut reading = story.larder.get(&story.layer(APP)).open().await;
    assert!(reading.reach(1000).await);
    let answer = story.larder.get(&story.layer(OTHER)).send().await;
    answer.is_error(404, "BLOB_UNKNOWN");
    assert!(reading.finish().await.body == story.image.layer.bytes);
}

#[tokio::test]
async fn t08_what_was_shared_is_not_open_after_the_credentials_are_gone() {
    let mut story = Story::of(private, |upstream| upstream.shared(&[APP])).await;
    story.serves_everything().await;
    assert!(story.larder.store().gets(&story.image.layer.digest).await);
    let linked = async || story.larder.store().has_link(HOST, APP, &story.image.layer.digest);
    assert!(eventually(5, linked).await);
    story.larder.write_config(&NodeConfig::new([Upstream::at(HOST, &story.origin)]));
    let denied = async || story.larder.get(&story.layer(APP)).send().await.status == 403;
    assert!(eventually(10, denied).await);
    story.denies_everything().await;
    story.larder.restart().await;
    story.denies_everything().await;
    story.origin.stop().await;
    assert_ne!(story.larder.get(&story.layer(APP)).send().await.status, 200);
}

#[tokio::test]
async fn a_registry_that_hangs_does_not_keep_a_blob_from_clients_of_another() {
    let origin = Origin::start().await;
    let image = origin.image(APP, "v1", 1, 300_000);
    let twin = origin.twin(std::net::Ipv4Addr::new(127, 0, 0, 2)).await;
    twin.inject(APP, On::Any, Fault::HangBeforeHeaders, ALWAYS);
    let timeouts = serde_json::json!({"firstByte": "2s"});
    let larder = Larder::serving([
        Upstream::at("well.test", &origin),
        Upstream::at("hangs.test", &twin).set("timeouts", timeouts),
    ])
    .await;
    let path = |host: &str| format!("/v2/{APP}/blobs/{}?ns={host}", image.layer.digest);
    let (hanging, well) = (path("hangs.test"), path("well.test"));
    let late = async {
        sleep(Duration::from_millis(300)).await;
        larder.get(&well).send().await
    };
    let (hanging, well) = tokio::join!(larder.get(&hanging).send(), late);
    hanging.is_error(503, "UNAVAILABLE");
    well.is_whole(&image.layer.bytes);
}

#[tokio::test]
async fn a_repository_that_is_not_allowed_is_denied_and_not_asked_for() {
    for (allow, deny) in [(&["**"][..], &["team/*"][..]), (&["library/**"], &[])] {
        let origin = Origin::start().await;
        let image = origin.image(APP, "v1", 1, 1000);
        origin.image("library/nginx", "v1", 2, 1000);
        let upstream = Upstream::at(HOST, &origin).repositories(allow, deny);
        let larder = Larder::serving([upstream]).await;
        let story = Story { origin, image, larder };
        story.denies_everything().await;
        assert_eq!(story.origin.seen().len(), 0, "{}", story.origin.story());
        let other = story.larder.get(&format!("/v2/library/nginx/manifests/v1?ns={HOST}"));
        assert_eq!(other.send().await.status, 200);
    }
}

#[tokio::test]
async fn t18_the_pull_port_answers_nothing_but_pulls() {
    let story = Story::of(open, |upstream| upstream).await;
    for path in [
        "/",
        "/metrics",
        "/livez",
        "/readyz",
        "/report",
        "/catalog",
        "/debug",
        "/v1/",
        "/v2/_catalog",
        "/v2/_catalog?ns=reg.test",
        "/v2/token",
        "/token",
        "/favicon.ico",
        "/healthz",
    ] {
        let answer = story.larder.get(path).send().await;
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.line());
        assert!(answer.code().is_some(), "{path}: {}", answer.text());
    }
    let ping = story.larder.get("/v2/").send().await;
    assert_eq!(ping.status, 200, "{}", ping.line());
    assert_eq!(story.origin.seen().len(), 0, "{}", story.origin.story());
}

#[tokio::test]
async fn nobody_pushes_through_the_cache() {
    let story = Story::of(open, |upstream| upstream).await;
    let uploads = format!("/v2/{APP}/blobs/uploads/?ns={HOST}");
    let manifest = format!("/v2/{APP}/manifests/v1?ns={HOST}");
    for (method, path) in [
        ("POST", &uploads),
        ("PUT", &manifest),
        ("DELETE", &manifest),
        ("PATCH", &uploads),
        ("OPTIONS", &manifest),
        ("POST", &manifest),
        ("PUT", &uploads),
    ] {
        let answer = story.larder.call(method, path).header("Content-Length", "0").send().await;
        answer.is_error(405, "UNSUPPORTED");
    }
    assert_eq!(story.origin.seen().len(), 0, "{}", story.origin.story());
}
