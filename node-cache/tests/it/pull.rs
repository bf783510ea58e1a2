//! What a client gets when everything is well.

use std::{fs, time::Duration};

use futures_util::future::join_all;

use crate::{
    faulty::{ALWAYS, Blob, Fault, Image, On, Origin, sha512},
    larder::{Larder, Upstream, eventually},
};

const HOST: &str = "reg.test";
const APP: &str = "team/app";

async fn served(layer_size: usize) -> (Origin, Image, Larder) {
    let origin = Origin::start().await;
    let image = origin.image(APP, "v1", 1, layer_size);
    let larder = Larder::serving([Upstream::at(HOST, &origin)]).await;
    (origin, image, larder)
}

fn blob(image: &Image) -> String {
    format!("/v2/{APP}/blobs/{}?ns={HOST}", image.layer.digest)
}

#[tokio::test]
async fn a_blob_is_a_miss_once_and_a_hit_ever_after() {
    let (origin, image, larder) = served(1_000_000).await;
    larder.get(&blob(&image)).send().await.is_whole(&image.layer.bytes);
    assert!(larder.store().gets(&image.layer.digest).await);
    for _ in 0..3 {
        larder.get(&blob(&image)).send().await.is_whole(&image.layer.bytes);
    }
    assert_eq!(origin.seen().len(), 1, "{}", origin.story());
    let metrics = larder.metrics().await;
    assert_eq!((metrics.requests(HOST, "miss"), metrics.requests(HOST, "hit")), (1.0, 3.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_clients_of_a_cold_blob_share_one_fetch_as_it_arrives() {
    let (origin, image, larder) = served(20 << 20).await;
    // 20 MiB in 4 s.
    let every = Duration::from_millis(50);
    origin.inject(APP, On::BlobGets, Fault::Drip { from: 0, step: 256 << 10, every }, ALWAYS);
    let answers = join_all((0..64).map(|_| larder.get(&blob(&image)).send())).await;
    for answer in &answers {
        answer.is_whole(&image.layer.bytes);
        // Some milliseconds; long before the last one, however busy the machine is.
        assert!(answer.first_byte.unwrap() * 2 < answer.elapsed, "{}", answer.line());
        assert!(answer.elapsed > Duration::from_secs(3), "{}", answer.line());
    }
    assert_eq!(origin.count("GET", "/blobs/"), 1);
    let metrics = larder.metrics().await;
    assert_eq!((metrics.requests(HOST, "miss"), metrics.requests(HOST, "joined")), (1.0, 63.0));
}

#[tokio::test]
async fn f20_a_client_that_leaves_does_not_stop_the_fill() {
    let (origin, image, larder) = served(4 << 20).await;
    let every = Duration::from_millis(50);
    origin.inject(APP, On::BlobGets, Fault::Drip { from: 0, step: 128 << 10, every }, ALWAYS);
    let mut reading = larder.get(&blob(&image)).open().await;
    assert!(reading.reach(100_000).await);
    drop(reading);
    assert!(larder.store().gets(&image.layer.digest).await);
    larder.get(&blob(&image)).send().await.is_whole(&image.layer.bytes);
    assert_eq!(origin.count("GET", "/blobs/"), 1);
}

#[tokio::test]
async fn a_manifest_is_served_byte_for_byte_with_everything_clients_need() {
    let (origin, image, larder) = served(1000).await;
    let by_digest = format!("/v2/{APP}/manifests/{}?ns={HOST}", image.index.digest);
    let by_tag = format!("/v2/{APP}/manifests/v1?ns={HOST}");
    for path in [&by_tag, &by_digest] {
        let get = larder.get(path).send().await;
        get.is_whole(&image.index.bytes);
        let head = larder.head(path).send().await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        let etag = format!("\"{}\"", image.index.digest);
        for answer in [get, head] {
            let header = |name: &str| answer.header(name).unwrap_or_default().to_owned();
            assert_eq!(header("content-type"), image.index.media_type);
            assert_eq!(header("content-length"), image.index.bytes.len().to_string());
            assert_eq!(header("docker-content-digest"), image.index.digest);
            assert_eq!(header("etag"), etag);
            assert_eq!(header("oci-namespace"), HOST);
            assert!(answer.header("content-encoding").is_none());
        }
        let unchanged = larder.get(path).header("If-None-Match", &etag).send().await;
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
        let changed = larder.get(path).header("If-None-Match", "\"sha256:0\"").send().await;
        changed.is_whole(&image.index.bytes);
    }
    assert_eq!(origin.count("GET", "/manifests/"), 1, "{}", origin.story());
}

#[tokio::test]
async fn f07_what_is_stored_is_served_by_digest_without_the_upstream() {
    let (origin, image, mut larder) = served(300_000).await;
    let paths = [
        (format!("/v2/{APP}/manifests/v1?ns={HOST}"), &image.index.bytes),
        (format!("/v2/{APP}/manifests/{}?ns={HOST}", image.index.digest), &image.index.bytes),
        (format!("/v2/{APP}/manifests/{}?ns={HOST}", image.manifest.digest), &image.manifest.bytes),
        (format!("/v2/{APP}/blobs/{}?ns={HOST}", image.config.digest), &image.config.bytes),
        (blob(&image), &image.layer.bytes),
    ];
    for (path, bytes) in &paths {
        larder.get(path).send().await.is_whole(bytes);
    }
    let linked = || larder.store().has_link(HOST, APP, &image.layer.digest);
    assert!(eventually(5, async || linked()).await);
    assert!(larder.store().has_tag(HOST, APP, "v1"));
    origin.stop().await;
    larder.restart().await;
    for (path, bytes) in &paths {
        let answer = larder.get(path).send().await;
        answer.is_whole(bytes);
        assert!(answer.elapsed < Duration::from_secs(4), "{path}: {}", answer.line());
    }
}

#[tokio::test]
async fn sha512_is_verified_and_stored_like_sha256() {
    let (origin, image, larder) = served(300_000).await;
    let digest = sha512(&image.layer.bytes);
    let path = format!("/v2/{APP}/blobs/{digest}?ns={HOST}");
    let answer = larder.get(&path).send().await;
    answer.is_whole(&image.layer.bytes);
    assert_eq!(answer.header("docker-content-digest"), Some(&*digest));
    assert!(larder.store().gets(&digest).await);
    larder.get(&path).send().await.is_whole(&image.layer.bytes);
    assert_eq!(origin.count("GET", "/blobs/"), 1);

    let manifest = sha512(&image.manifest.bytes);
    let path = format!("/v2/{APP}/manifests/{manifest}?ns={HOST}");
    larder.get(&path).send().await.is_whole(&image.manifest.bytes);

    let config = sha512(&image.config.bytes);
    origin.inject(APP, On::BlobGets, Fault::FlipAt(3), ALWAYS);
    let path = format!("/v2/{APP}/blobs/{config}?ns={HOST}");
    larder.get(&path).send().await.is_error(503, "UNAVAILABLE");
}

#[tokio::test]
async fn blobs_of_no_byte_and_of_one_byte_are_blobs() {
    let (origin, _, larder) = served(1000).await;
    for bytes in [&b""[..], b"x"] {
        let small = Blob::new(bytes.to_vec());
        origin.edit(APP, |repository| repository.put_blob(&small.bytes));
        let path = format!("/v2/{APP}/blobs/{}?ns={HOST}", small.digest);
        larder.get(&path).send().await.is_whole(bytes);
        assert!(larder.store().gets(&small.digest).await);
        larder.get(&path).send().await.is_whole(bytes);
        assert_eq!(
            larder.head(&path).send().await.header("content-length"),
            Some(&*bytes.len().to_string())
        );
    }
    assert_eq!(origin.count("GET", "/blobs/"), 2);
}

#[tokio::test]
async fn the_upstream_is_asked_for_every_type_of_manifest_and_no_header_of_the_client_travels() {
    let (origin, image, larder) = served(1000).await;
    let answer = larder
        .get(&format!("/v2/{APP}/manifests/v1?ns={HOST}"))
        .header("Accept", "application/vnd.docker.distribution.manifest.v2+json")
        .header("Accept", "application/vnd.oci.image.index.v1+json")
        .header("Accept-Encoding", "zstd;q=1.0, gzip;q=0.8")
        .header("Authorization", "Basic Y2FuYXJ5OmNhbmFyeQ==")
        .header("Cookie", "canary=1")
        .header("X-Larder-Node-Secret", "canary")
        .header("Referer", "http://canary/")
        .send()
        .await;
    answer.is_whole(&image.index.bytes);
    for seen in origin.seen() {
        let accept = seen.header_lines("accept");
        for media_type in ["oci.image.index", "oci.image.manifest", "manifest.list", "manifest.v2"]
        {
            assert!(accept.contains(media_type), "{accept}");
        }
        let all = format!("{:?}", seen.headers).to_lowercase();
        assert!(!all.contains("canary") && !all.contains("y2fuyxj5"), "{all}");
        assert!(seen.header("accept-encoding").is_none_or(|coding| coding == "identity"));
    }
}

#[tokio::test]
async fn head_of_a_blob_of_unknown_length_does_not_say_that_it_is_empty() {
    let (origin, image, larder) = served(1_000_000).await;
    origin.inject(APP, On::Blobs, Fault::Chunked, ALWAYS);
    let head = larder.head(&blob(&image)).send().await;
    assert_eq!(head.status, 200, "{}", head.line());
    assert_ne!(head.header("content-length"), Some("0"), "{}", head.line());
}

#[tokio::test]
async fn f05_a_rotten_file_is_found_out_and_replaced_within_the_same_request() {
    let (origin, image, larder) = served(1_000_000).await;
    larder.get(&blob(&image)).send().await.is_whole(&image.layer.bytes);
    assert!(larder.store().gets(&image.layer.digest).await);
    let file = larder.store().blob(&image.layer.digest);
    let mut bytes = fs::read(&file).unwrap();
    bytes[500_000] ^= 1;
    fs::write(&file, bytes).unwrap();

    larder.get(&blob(&image)).send().await.is_whole(&image.layer.bytes);
    let counted = async || larder.metrics().await.sum("larder_node_quarantined_total", &[]) >= 1.0;
    assert!(eventually(5, counted).await);
    larder.get(&blob(&image)).send().await.is_whole(&image.layer.bytes);
    assert_eq!(origin.count("GET", "/blobs/"), 2);
}
