//! Stored files that are damaged while the server runs: no wrong body is ever complete, and the
//! next request gets good bytes.

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::PathBuf,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::future::join_all;
use larder_e2e::soak::Soak;

use crate::{
    faulty::Origin,
    larder::{Answer, End, Larder, Upstream, eventually},
};

const APP: &str = "team/app";
const HOST: &str = "reg.test";
/// After so many the server is started again: it trusts no file then, and has no manifest in
/// memory.
const RUNS_OF_ONE_PROCESS: u64 = 40;
/// Larger than what the sockets between server and client hold (a few MiB), so that the server has
/// not read it all while the client waits.
const LARGEST: usize = 12 << 20;

#[tokio::test]
async fn f05_no_file_with_a_flipped_byte_is_served_as_whole() {
    at_rest(Soak::of("damage", 500, 5_000), Pantry::flip_one).await;
}

#[tokio::test]
async fn f05_no_file_that_was_cut_lengthened_or_overwritten_is_served_as_whole() {
    at_rest(Soak::of("damage-other", 100, 1_000), Pantry::spoil_one).await;
}

/// Damages one stored file after the other.
async fn at_rest(mut soak: Soak, damage: impl AsyncFn(&Pantry, u64) -> Result<bool>) {
    let mut pantry = Pantry::stocked().await;
    let mut healed_at_once = 0;
    for (run, seed) in (0..).zip(soak.seeds()) {
        pantry.restart_now_and_then(run).await;
        let outcome = damage(&pantry, seed).await;
        healed_at_once += usize::from(matches!(outcome, Ok(true)));
        soak.note(seed, outcome.map(drop));
    }
    pantry.check_everything().await;
    // The others ended early, as a body must that turned out wrong on its way.
    assert!(healed_at_once * 10 > soak.seeds().count() * 9, "{healed_at_once} healed at once");
    soak.end().unwrap();
}

#[tokio::test]
async fn f05_no_file_that_is_damaged_while_it_is_sent_is_sent_as_whole() {
    let mut soak = Soak::of("damage-in-flight", 50, 500);
    let mut pantry = Pantry::stocked().await;
    for (run, seed) in (0..).zip(soak.seeds()) {
        pantry.restart_now_and_then(run).await;
        let outcome = pantry.in_flight(&mut fastrand::Rng::with_seed(seed)).await;
        soak.note(seed, outcome.map(drop));
    }
    pantry.check_everything().await;
    soak.end().unwrap();
}

struct Pantry {
    origin: Origin,
    larder: Larder,
    blobs: Vec<Item>,
    manifests: Vec<Item>,
    tags: Vec<Item>,
}

/// Something that is stored.
struct Item {
    path: String,
    bytes: Bytes,
    file: PathBuf,
    /// For blobs, that they are of this repository.
    link: PathBuf,
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Flip,
    Cut,
    Lengthen,
    Zero,
}

impl Pantry {
    async fn stocked() -> Self {
        let origin = Origin::start().await;
        let larder = Larder::serving([Upstream::at(HOST, &origin)]).await;
        let (store, root) = (larder.store(), larder.store_path());
        let mut pantry = Self { origin, larder, blobs: vec![], manifests: vec![], tags: vec![] };
        let mut rng = fastrand::Rng::with_seed(7);
        let item = |kind: &str, reference: &str, bytes: &Bytes, file: PathBuf| Item {
            path: format!("/v2/{APP}/{kind}/{reference}?ns={HOST}"),
            bytes: bytes.clone(),
            file,
            link: if reference.contains(':') {
                store.link_path(HOST, APP, reference)
            } else {
                root.join("larder-layout")
            },
        };
        for number in 0..12 {
            let tag = format!("v{number}");
            let image = pantry.origin.image(APP, &tag, rng.u64(..), rng.usize(1..200_000));
            pantry.tags.push(item(
                "manifests",
                &tag,
                &image.index.bytes,
                store.tag_path(HOST, APP, &tag),
            ));
            for manifest in [&image.index, &image.manifest] {
                let file = store.blob(&manifest.digest);
                pantry.manifests.push(item("manifests", &manifest.digest, &manifest.bytes, file));
            }
            for blob in [&image.config, &image.layer] {
                let file = store.blob(&blob.digest);
                pantry.blobs.push(item("blobs", &blob.digest, &blob.bytes, file));
            }
        }
        let large = [300_000, 700_000, 1 << 20, 3 << 20, LARGEST];
        for size in large {
            let blob = pantry.origin.blob(APP, rng.u64(..), size);
            let file = store.blob(&blob.digest);
            pantry.blobs.push(item("blobs", &blob.digest, &blob.bytes, file));
        }
        for item in pantry.all() {
            pantry.larder.get(&item.path).send().await.is_whole(&item.bytes);
        }
        pantry.is_stored().await;
        pantry
    }

    fn all(&self) -> impl Iterator<Item = &Item> {
        self.blobs.iter().chain(&self.manifests).chain(&self.tags)
    }

    async fn restart_now_and_then(&mut self, run: u64) {
        if run.is_multiple_of(RUNS_OF_ONE_PROCESS) {
            self.larder.restart().await;
            self.origin.forget();
        }
    }

    /// What was fetched again is stored, and the server has taken its leave of it: until it has
    /// noted what the file looks like after the rename, damage is taken for its own work.
    async fn settled(&self, item: &Item) -> Result<()> {
        let settled = async || {
            // A range far ahead is fetched without being stored.
            let aside = |range: &str| range.trim_start_matches("bytes=").len() > "8000000-".len();
            let gets = self.origin.requests("GET", "/blobs/");
            let gets = gets.iter().filter(|get| !get.header("range").is_some_and(aside)).count();
            let ended = self.larder.metrics().await.sum("larder_node_fills_total", &[]);
            item.file.is_file() && u32::try_from(gets).is_ok_and(|gets| f64::from(gets) <= ended)
        };
        ensure!(eventually(10, settled).await, "{} is not stored again", item.path);
        Ok(())
    }

    async fn is_stored(&self) {
        let all_there = async || self.all().all(|item| item.file.is_file());
        assert!(eventually(10, all_there).await, "{:?}", self.larder.store().files());
    }

    /// One byte of a stored file is another one. Whether the next request got good bytes.
    async fn flip_one(&self, seed: u64) -> Result<bool> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let items = match rng.u32(0..10) {
            0..7 => &self.blobs,
            7..9 => &self.manifests,
            _ => &self.tags,
        };
        self.damage(&items[rng.usize(..items.len())], Harm::Flip, &mut rng).await
    }

    /// A stored file is damaged in any other way.
    async fn spoil_one(&self, seed: u64) -> Result<bool> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let harm = [Harm::Cut, Harm::Lengthen, Harm::Zero][rng.usize(..3)];
        match rng.u32(0..10) {
            0..5 => self.damage(&self.blobs[rng.usize(..self.blobs.len())], harm, &mut rng).await,
            5..7 => {
                let item = &self.manifests[rng.usize(..self.manifests.len())];
                self.damage(item, harm, &mut rng).await
            }
            7..9 => {
                let tag = &self.tags[rng.usize(..self.tags.len())];
                eventually(10, async || tag.file.is_file()).await;
                fs::write(&tag.file, garbage(&mut rng))?;
                self.ask(tag).await
            }
            _ => {
                let blob = &self.blobs[rng.usize(..self.blobs.len())];
                fs::write(&blob.link, garbage(&mut rng))?;
                self.ask(blob).await
            }
        }
    }

    /// A stored file is damaged between two requests.
    async fn damage(&self, item: &Item, harm: Harm, rng: &mut fastrand::Rng) -> Result<bool> {
        self.harm(item, harm, 0, rng).await?;
        if rng.u32(0..4) > 0 {
            return self.ask(item).await;
        }
        // Several at once, or a part of it.
        if rng.bool() || item.bytes.len() < 2 || !item.path.contains("/blobs/") {
            let answers = (0..4).map(|_| self.larder.get(&item.path).send());
            for answer in join_all(answers).await {
                right_or_cut(item, &answer)?;
            }
        } else {
            let (first, last) = (rng.usize(..item.bytes.len() - 1), item.bytes.len() - 1);
            let range = format!("bytes={first}-{last}");
            let answer = self.larder.get(&item.path).range(&range).send().await;
            let complete = answer.end == End::Complete && answer.status == 206;
            let right = !complete || answer.body == item.bytes[first..];
            ensure!(right, "{range} of {}: wrong bytes: {}", item.path, answer.line());
        }
        self.ask(item).await
    }

    /// The largest file is damaged while it is being sent, where the server has not read yet.
    async fn in_flight(&self, rng: &mut fastrand::Rng) -> Result<bool> {
        let item = self.blobs.last().context("there are blobs")?;
        // One that is trusted, and one that is not.
        if rng.bool() {
            self.larder.get(&item.path).send().await.is_whole(&item.bytes);
        }
        self.settled(item).await?;
        let mut reading = self.larder.get(&item.path).open().await;
        ensure!(reading.reach(1).await, "the body does not begin");
        self.harm(item, Harm::Flip, LARGEST * 9 / 10, rng).await?;
        let answer = reading.finish().await;
        right_or_cut(item, &answer).context("damaged while it was sent")?;
        self.ask(item).await
    }

    /// Changes a stored file from `from` on.
    async fn harm(
        &self,
        item: &Item,
        harm: Harm,
        from: usize,
        rng: &mut fastrand::Rng,
    ) -> Result<()> {
        self.settled(item).await?;
        let file = OpenOptions::new().read(true).write(true).open(&item.file)?;
        let length = file.metadata()?.len();
        let position = rng.u64(from as u64..length.max(from as u64 + 1));
        let mut byte = [0];
        match harm {
            Harm::Cut => file.set_len(position)?,
            Harm::Lengthen => file.write_all_at(&garbage(rng), length)?,
            Harm::Zero => {
                let zeros = vec![0; usize::try_from((length - position).min(4096))?];
                file.write_all_at(&zeros, position)?;
            }
            Harm::Flip => {
                ensure!(file.read_at(&mut byte, position)? == 1, "there is no byte to flip");
                byte[0] ^= rng.u8(1..);
                file.write_all_at(&byte, position)?;
            }
        }
        Ok(())
    }

    /// Two requests: the first gets good bytes or a body that ends early, the second good bytes.
    async fn ask(&self, item: &Item) -> Result<bool> {
        let first = self.larder.get(&item.path).send().await;
        right_or_cut(item, &first)?;
        if is_whole(item, &first) {
            return Ok(true);
        }
        let second = self.larder.get(&item.path).send().await;
        ensure!(
            is_whole(item, &second),
            "{} is not healed: {}, then {}",
            item.path,
            first.line(),
            second.line()
        );
        Ok(false)
    }

    /// In the end everything is on disk as it should be: a new process serves it alone.
    async fn check_everything(&mut self) {
        self.larder.restart().await;
        for item in self.all() {
            self.ask(item).await.unwrap();
        }
        self.is_stored().await;
        self.larder.restart().await;
        self.origin.stop().await;
        for item in self.all() {
            self.larder.get(&item.path).send().await.is_whole(&item.bytes);
        }
        assert!(!self.larder.store().quarantined().is_empty(), "no damage was ever noticed");
    }
}

fn garbage(rng: &mut fastrand::Rng) -> Vec<u8> {
    let length = rng.usize(0..6_000);
    std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
}

fn is_whole(item: &Item, answer: &Answer) -> bool {
    (answer.status, answer.end) == (200, End::Complete) && answer.body == item.bytes
}

/// An answer is complete and right, or says that it is not.
fn right_or_cut(item: &Item, answer: &Answer) -> Result<()> {
    let cut = answer.status == 200 && answer.end == End::Fin;
    ensure!(
        cut || is_whole(item, answer),
        "{}: {} of {} bytes expected: {}",
        item.path,
        if answer.body.len() == item.bytes.len() { "wrong bytes, all" } else { "other bytes" },
        item.bytes.len(),
        answer.line()
    );
    Ok(())
}
