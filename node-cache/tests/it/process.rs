//! The life of the process: killed, asked to leave, started twice, and what it leaves behind.

use std::time::Duration;

use tokio::{io::AsyncReadExt, io::AsyncWriteExt, net::TcpStream, time::timeout};

use crate::{
    faulty::{ALWAYS, Blob, Fault, On, Origin},
    larder::{Call, End, Larder, NodeConfig, Upstream, eventually},
};

const APP: &str = "team/app";
const HOST: &str = "reg.test";

struct Story {
    origin: Origin,
    blob: Blob,
    larder: Larder,
    path: String,
}

/// A blob of 4 MiB that comes in about 2 s.
async fn slow() -> Story {
    let origin = Origin::start().await;
    let blob = origin.blob(APP, 1, 4 << 20);
    let every = Duration::from_millis(30);
    origin.inject(APP, On::BlobGets, Fault::Drip { from: 0, step: 64 << 10, every }, ALWAYS);
    let larder = Larder::serving([Upstream::at(HOST, &origin)]).await;
    let path = format!("/v2/{APP}/blobs/{}?ns={HOST}", blob.digest);
    Story { origin, blob, larder, path }
}

#[tokio::test]
async fn f01_a_fill_that_was_killed_is_resumed_where_it_stopped() {
    let mut story = slow().await;
    let mut reading = story.larder.get(&story.path).open().await;
    assert!(reading.reach(1 << 20).await);
    let on_disk = async || story.larder.store().partial(&story.blob.digest) >= Some(1 << 20);
    assert!(eventually(5, on_disk).await, "{:?}", story.larder.store().files());
    story.larder.kill().await;
    let cut = reading.finish().await;
    assert_ne!(cut.end, End::Complete, "{}", cut.line());
    assert!(!story.larder.store().has(&story.blob.digest));

    story.origin.heal(APP);
    story.larder.start().await;
    story.larder.get(&story.path).send().await.is_whole(&story.blob.bytes);
    assert!(story.larder.store().gets(&story.blob.digest).await);
    let asked = story.origin.requests("GET", "/blobs/");
    assert_eq!(asked.len(), 2, "{}", story.origin.story());
    let range = asked[1].header("range").unwrap_or_default();
    let start = range.trim_start_matches("bytes=").trim_end_matches('-').parse::<u64>();
    assert!(start.is_ok_and(|start| start > 0), "resumed with {range:?}");
    assert!(
        eventually(5, async || story.larder.store().partial(&story.blob.digest).is_none()).await
    );
}

#[tokio::test]
async fn f01_a_partial_with_wrong_bytes_is_found_out() {
    let mut story = slow().await;
    let mut reading = story.larder.get(&story.path).open().await;
    assert!(reading.reach(1 << 20).await);
    let on_disk = async || story.larder.store().partial(&story.blob.digest) >= Some(1 << 20);
    assert!(eventually(5, on_disk).await);
    story.larder.kill().await;
    drop(reading);
    let files = story.larder.store().files();
    let partial = files.iter().find(|file| file.starts_with("partial/")).unwrap();
    let partial = story.larder.folder().join("store").join(partial);
    let mut bytes = std::fs::read(&partial).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&partial, bytes).unwrap();

    story.origin.heal(APP);
    story.larder.start().await;
    let answer = story.larder.get(&story.path).send().await;
    let good = answer.end == End::Complete && answer.body == story.blob.bytes;
    let cut = answer.end == End::Fin && answer.body.len() < story.blob.bytes.len();
    assert!(answer.status == 200 && (good || cut), "{}", answer.line());
    story.larder.get(&story.path).send().await.is_whole(&story.blob.bytes);
}

#[tokio::test]
async fn f01_what_was_stored_survives_kill_9_and_leaves_no_litter() {
    let origin = Origin::start().await;
    let image = origin.image(APP, "v1", 1, 500_000);
    let mut larder = Larder::serving([Upstream::at(HOST, &origin)]).await;
    let paths = [
        (format!("/v2/{APP}/manifests/v1?ns={HOST}"), &image.index.bytes),
        (format!("/v2/{APP}/blobs/{}?ns={HOST}", image.layer.digest), &image.layer.bytes),
    ];
    for (path, bytes) in &paths {
        larder.get(path).send().await.is_whole(bytes);
    }
    assert!(larder.store().gets(&image.layer.digest).await);
    // Manifests and tags are written after the answer.
    assert!(larder.store().gets(&image.index.digest).await);
    assert!(eventually(5, async || larder.store().has_tag(HOST, APP, "v1")).await);
    origin.stop().await;
    for _ in 0..5 {
        larder.kill().await;
        larder.start().await;
        for (path, bytes) in &paths {
            larder.get(path).send().await.is_whole(bytes);
        }
    }
    let files = larder.store().files();
    assert!(
        !files.iter().any(|file| file.contains("tmp") || file.starts_with("partial/")),
        "{files:?}"
    );
    assert_eq!(larder.store().quarantined().len(), 0);
}

#[tokio::test]
async fn f19_sigterm_lets_a_running_pull_finish_and_takes_no_new_one() {
    let mut story = slow().await;
    let mut reading = story.larder.get(&story.path).open().await;
    assert!(reading.reach(1000).await);
    story.larder.terminate();
    let pull = story.larder.pull_address();
    let closed = async || Call::new(pull, "GET", "/v2/").send().await.end == End::Refused;
    assert!(eventually(3, closed).await, "still accepting");
    reading.finish().await.is_whole(&story.blob.bytes);
    let status = story.larder.ended().await;
    assert_eq!(status.code(), Some(0), "{}", story.larder.log().text());
}

#[tokio::test]
async fn f19_sigterm_ends_an_idle_process_at_once() {
    let mut story = slow().await;
    // A connection that is kept alive is no reason to stay.
    let mut idle = TcpStream::connect(story.larder.pull_address()).await.unwrap();
    idle.write_all(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut buffer = [0; 4096];
    assert!(idle.read(&mut buffer).await.unwrap() > 0);
    story.larder.terminate();
    let status = timeout(Duration::from_secs(5), story.larder.ended()).await.unwrap();
    assert_eq!(status.code(), Some(0), "{}", story.larder.log().text());
    story.larder.start().await;
    story.larder.get(&story.path).send().await.is_whole(&story.blob.bytes);
}

#[tokio::test]
async fn f14_a_second_process_on_one_store_passes_through_until_the_first_has_gone() {
    let mut story = slow().await;
    let config = NodeConfig::new([Upstream::at(HOST, &story.origin)]);
    let mut second = Larder::stopped(&config);
    let folder = story.larder.folder().join("store");
    second.write_config_text(&config.text(&folder));
    second.start().await;
    let report = async |larder: &Larder| larder.admin("/report").send().await.json();
    assert_eq!(report(&second).await["store"]["state"], "Locked");
    assert!(second.log().text().contains("in use by another process"), "{}", second.log().text());
    second.get(&story.path).send().await.is_whole(&story.blob.bytes);
    story.larder.get(&story.path).send().await.is_whole(&story.blob.bytes);

    story.larder.terminate();
    story.larder.ended().await;
    let taken = eventually(10, async || report(&second).await["store"]["state"] == "Ready").await;
    assert!(taken, "{}", second.log().text());
    second.get(&story.path).send().await.is_whole(&story.blob.bytes);
}

#[tokio::test]
async fn t14_a_connection_that_never_finishes_its_request_is_closed() {
    let story = slow().await;
    let mut half = Vec::new();
    for _ in 0..50 {
        let mut stream = TcpStream::connect(story.larder.pull_address()).await.unwrap();
        stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: ").await.unwrap();
        half.push(stream);
    }
    story.larder.get(&story.path).send().await.is_whole(&story.blob.bytes);
    for mut stream in half {
        let mut rest = Vec::new();
        let closed = timeout(Duration::from_secs(15), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "half a request may stay for ever");
    }
}

#[tokio::test]
async fn the_admin_port_tells_how_the_process_is() {
    let story = slow().await;
    for path in ["/livez", "/readyz"] {
        assert_eq!(story.larder.admin(path).send().await.status, 200, "{path}");
    }
    story.larder.get(&story.path).send().await.is_whole(&story.blob.bytes);
    assert!(story.larder.store().gets(&story.blob.digest).await);
    let report = story.larder.admin("/report").send().await;
    assert!(report.header("content-type").unwrap().starts_with("application/json"));
    let report = report.json();
    assert_eq!(report["instance"], "test", "{report:#}");
    assert_eq!(report["apiVersion"], "node.larder.dev/v1alpha1");
    assert_eq!(report["store"]["blobs"], 1, "{report:#}");
    let upstream = &report["upstreams"][HOST];
    assert_eq!((&upstream["accepted"], &upstream["reachable"]), (&true.into(), &true.into()));
    assert_eq!(upstream["misses"], 1, "{report:#}");
    assert_eq!(upstream["bytesFetched"], 4 << 20, "{report:#}");
    assert_eq!(upstream["bytesServed"], 4 << 20, "{report:#}");
    for path in ["/v2/", "/nowhere"] {
        assert_eq!(story.larder.admin(path).send().await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn t16_no_client_makes_the_metrics_grow() {
    let story = slow().await;
    story.larder.get(&story.path).send().await.is_whole(&story.blob.bytes);
    let _ = story.larder.get(&format!("/v2/a/manifests/x?ns={HOST}")).send().await;
    let _ = story.larder.get("/v2/a/manifests/x?ns=nowhere.test").send().await;
    let before = story.larder.metrics().await.len();
    for index in 0..150 {
        let path = format!("/v2/r{index}/app/manifests/t{index}?ns=h{index}.test");
        assert_eq!(story.larder.get(&path).send().await.status, 404);
        let path = format!("/v2/r{index}/app/manifests/t{index}?ns={HOST}");
        assert_eq!(story.larder.get(&path).send().await.status, 404);
    }
    let after = story.larder.metrics().await.len();
    assert!(after <= before + 5, "{before} series became {after}");
    assert!(after <= 150 + 25, "{after} series");
}
