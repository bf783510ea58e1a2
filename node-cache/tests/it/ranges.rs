//! Ranges: of what is stored, of what is coming, of what nobody has asked for.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::{
    faulty::{ALWAYS, Blob, Fault, On, Origin},
    larder::{End, Larder, Upstream},
};

const APP: &str = "team/app";
const MIB: usize = 1 << 20;

struct Story {
    origin: Origin,
    blob: Blob,
    larder: Larder,
    path: String,
}

async fn served(size: usize) -> Story {
    let origin = Origin::start().await;
    let blob = origin.blob(APP, 1, size);
    let larder = Larder::serving([Upstream::at("reg.test", &origin)]).await;
    let path = format!("/v2/{APP}/blobs/{}?ns=reg.test", blob.digest);
    Story { origin, blob, larder, path }
}

impl Story {
    /// The blob comes in steps of 256 KiB, one every so many milliseconds.
    fn slow(&self, millis: u64) {
        let every = Duration::from_millis(millis);
        let drip = Fault::Drip { from: 0, step: 256 << 10, every };
        self.origin.inject(APP, On::BlobGets, drip, ALWAYS);
    }

    fn gets(&self) -> usize {
        self.origin.count("GET", "/blobs/")
    }

    /// Starts a fill that goes on without a client.
    async fn filling(&self) {
        let mut reading = self.larder.get(&self.path).open().await;
        assert!(reading.reach(1000).await);
    }
}

#[tokio::test]
async fn ranges_of_a_stored_blob_follow_the_rfc() {
    let story = served(100_000).await;
    let bytes = &story.blob.bytes;
    story.larder.get(&story.path).send().await.is_whole(bytes);
    assert!(story.larder.store().gets(&story.blob.digest).await);
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=0-", 0, 99_999),
        ("bytes=5-9", 5, 9),
        ("bytes=99999-", 99_999, 99_999),
        ("bytes=5-200000", 5, 99_999),
        ("bytes=-1", 99_999, 99_999),
        ("bytes=-100000", 0, 99_999),
        ("bytes=-200000", 0, 99_999),
    ] {
        let answer = story.larder.get(&story.path).range(range).send().await;
        answer.is_part(bytes, first, last);
        assert_eq!(answer.header("docker-content-digest"), Some(&*story.blob.digest), "{range}");
    }
    for range in ["bytes=100000-", "bytes=100000-100001", "bytes=-0", "bytes=99999999999999-"] {
        let answer = story.larder.get(&story.path).range(range).send().await;
        answer.is_error(416, "RANGE_INVALID");
        assert_eq!(answer.header("content-range"), Some("bytes */100000"), "{range}");
    }
    // RFC 9110 14.2: what is not understood is ignored.
    for range in ["bytes=9-5", "bytes=a-b", "bytes=", "lines=1-2", "bytes 0-5", "bytes=0-1,5-6"] {
        let answer = story.larder.get(&story.path).range(range).send().await;
        answer.is_whole(bytes);
    }
    let head = story.larder.head(&story.path).range("bytes=5-9").send().await;
    assert_eq!((head.status, head.header("content-length")), (200, Some("100000")));
    assert_eq!(head.header("accept-ranges"), Some("bytes"));
    assert_eq!(story.gets(), 1);
}

#[tokio::test]
async fn a_range_just_ahead_of_the_fill_waits_for_it() {
    let story = served(12 * MIB).await;
    story.slow(40);
    story.filling().await;
    let (first, last) = (6 * MIB, 6 * MIB + 999);
    let call = story.larder.get(&story.path).range(&format!("bytes={first}-{last}"));
    call.send().await.is_part(&story.blob.bytes, first, last);
    let call = story.larder.get(&story.path).range("bytes=100-");
    call.send().await.is_part(&story.blob.bytes, 100, 12 * MIB - 1);
    assert_eq!(story.gets(), 1, "{}", story.origin.story());
}

#[tokio::test]
async fn a_range_far_ahead_of_the_fill_has_a_request_of_its_own() {
    let story = served(24 * MIB).await;
    story.slow(100);
    story.filling().await;
    let (first, last) = (20 * MIB, 20 * MIB + 99_999);
    let call = story.larder.get(&story.path).range(&format!("bytes={first}-{last}"));
    let answer = call.send().await;
    answer.is_part(&story.blob.bytes, first, last);
    assert!(answer.elapsed < Duration::from_secs(3), "{}", answer.line());
    let asked = story.origin.requests("GET", "/blobs/");
    assert_eq!(asked.len(), 2, "{}", story.origin.story());
    let range = asked[1].header("range").unwrap_or_default();
    assert!(range.starts_with(&format!("bytes={first}-")), "{range}");
    assert!(story.larder.store().gets(&story.blob.digest).await, "the fill goes on");
    assert_eq!(story.gets(), 2);
    assert!(story.larder.metrics().await.requests("reg.test", "pass_through") >= 1.0);
}

#[tokio::test]
async fn at_most_four_ranges_of_a_blob_run_far_ahead() {
    let story = served(30 * MIB).await;
    story.slow(150);
    story.filling().await;
    // Each takes 1.2 s, all at once.
    let calls = (0..8).map(|index| {
        let first = 20 * MIB + index * MIB;
        let range = format!("bytes={first}-{}", first + 2 * MIB - 1);
        story.larder.get(&story.path).range(&range).send()
    });
    let answers = join_all(calls).await;
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(206), count(503)), (4, 4));
    for (index, answer) in answers.iter().enumerate().filter(|(_, answer)| answer.status == 206) {
        let first = 20 * MIB + index * MIB;
        answer.is_part(&story.blob.bytes, first, first + 2 * MIB - 1);
    }
    assert_eq!(story.gets(), 5, "{}", story.origin.story());
}

#[tokio::test]
async fn the_first_request_for_a_blob_may_be_for_any_part_of_it() {
    for (range, first, last) in [
        ("bytes=0-", 0, 12 * MIB - 1),
        ("bytes=5-9", 5, 9),
        ("bytes=3000000-3000999", 3_000_000, 3_000_999),
        ("bytes=10485760-10485859", 10 * MIB, 10 * MIB + 99),
        ("bytes=-100", 12 * MIB - 100, 12 * MIB - 1),
        ("bytes=12582911-", 12 * MIB - 1, 12 * MIB - 1),
    ] {
        let story = served(12 * MIB).await;
        let answer = story.larder.get(&story.path).range(range).send().await;
        answer.is_part(&story.blob.bytes, first, last);
        assert!(story.gets() <= 2, "{range}: {}", story.origin.story());
        story.larder.get(&story.path).send().await.is_whole(&story.blob.bytes);
    }
}

#[tokio::test]
async fn a_range_behind_the_end_of_an_unknown_blob_is_416() {
    let story = served(2 * MIB).await;
    for range in ["bytes=2097152-", "bytes=99999999999-"] {
        let answer = story.larder.get(&story.path).range(range).send().await;
        answer.is_error(416, "RANGE_INVALID");
        assert_eq!(answer.header("content-range"), Some("bytes */2097152"), "{range}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_fetches_in_parallel_and_cuts_every_answer_gets_every_byte() {
    let story = served(6 * MIB).await;
    story.slow(20);
    // containerd: bytes=0- first, then open ranges, each closed after its part.
    let part = |index: usize| {
        let story = &story;
        async move {
            let range = format!("bytes={}-", index * MIB);
            let mut reading = story.larder.get(&story.path).range(&range).open().await;
            assert_eq!(reading.status(), 206, "{range}");
            assert_eq!(
                reading.header("content-range"),
                Some(&*format!("bytes {}-{}/{}", index * MIB, 6 * MIB - 1, 6 * MIB))
            );
            assert!(reading.reach(MIB).await, "{range}");
            reading.body()[..MIB].to_vec()
        }
    };
    let first = part(0).await;
    let mut whole = first;
    for piece in join_all((1..6).map(part)).await {
        whole.extend(piece);
    }
    assert!(whole == story.blob.bytes);
    assert!(story.larder.store().gets(&story.blob.digest).await, "the fill goes on");
    assert_eq!(story.gets(), 1, "{}", story.origin.story());
}

#[tokio::test]
async fn a_pull_that_was_cut_goes_on_where_it_stopped() {
    let story = served(4 * MIB).await;
    let mut reading = story.larder.get(&story.path).open().await;
    assert!(reading.reach(MIB).await);
    let received = reading.body().len();
    drop(reading);
    let answer = story.larder.get(&story.path).range(&format!("bytes={received}-")).send().await;
    answer.is_part(&story.blob.bytes, received, 4 * MIB - 1);
    assert_eq!(story.gets(), 1, "{}", story.origin.story());
}

#[tokio::test]
async fn the_last_byte_of_a_growing_blob_is_held_back_for_ranges_too() {
    let story = served(2 * MIB).await;
    story.slow(100);
    story.origin.inject(APP, On::BlobGets, Fault::FlipAt(MIB), 1);
    let range = format!("bytes={}-", MIB + 10);
    let whole = story.larder.get(&story.path).send();
    let part = async {
        sleep(Duration::from_millis(300)).await;
        story.larder.get(&story.path).range(&range).send().await
    };
    let (whole, part) = tokio::join!(whole, part);
    assert_eq!((whole.end, whole.body.len()), (End::Fin, 2 * MIB - 1), "{}", whole.line());
    assert_eq!((part.status, part.end), (206, End::Fin), "{}", part.line());
    assert_eq!(part.body.len(), MIB - 11, "{}", part.line());
    story.larder.get(&story.path).send().await.is_whole(&story.blob.bytes);
}

#[tokio::test]
async fn ranges_of_manifests_do_no_harm() {
    let story = served(1000).await;
    let image = story.origin.image(APP, "v1", 5, 1000);
    for path in [
        format!("/v2/{APP}/manifests/v1?ns=reg.test"),
        format!("/v2/{APP}/manifests/{}?ns=reg.test", image.index.digest),
    ] {
        // containerd 2.1.0 to 2.1.2 asks like this.
        let answer = story.larder.get(&path).range("bytes=0-").send().await;
        assert!(matches!(answer.status, 200 | 206), "{}", answer.line());
        assert!(answer.end == End::Complete && answer.body == image.index.bytes);
    }
}
