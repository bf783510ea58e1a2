//! A clock that jumps by a year, both ways, under a running Larder.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Result, ensure};
use larder_e2e::{
    clients::Raw,
    configurator,
    containerd::{Containerd, Version},
    image::{Edition, Image, SMALL},
    larder::{Ground, Larder, Upstream},
    registry::{Kind, Registry},
    relay::{Mode, Relay, Shape},
    sandbox::{Sandbox, Told},
    soak::Soak,
    tools,
};

use crate::node::{HOST, REPOSITORY, tagged};

/// Headers of some twenty answers.
const HEADERS: u64 = 64 << 10;
/// The breaker opens for 5 s and doubles: three outages close together.
const BACK_WITHIN: Duration = Duration::from_mins(1);

#[test]
fn f12_a_clock_that_jumps_a_year_both_ways_loses_nothing_and_keeps_no_tag_for_ever() -> Told {
    crate::told_with(Version::V2_4, async |sandbox, version| {
        let mut soak = Soak::of("clock", 1, 5);
        let node = Node::with(sandbox, version).await?;
        for seed in soak.seeds() {
            let outcome = node.jump_to_and_fro().await;
            soak.note(seed, outcome);
        }
        soak.end()
    })
}

struct Node {
    _registry: Registry,
    line: Relay,
    _larder: Larder,
    containerd: Containerd,
    raw: Raw,
    image: Image,
    clock: PathBuf,
}

impl Node {
    async fn with(sandbox: &Sandbox, version: Version) -> Result<Self> {
        let image = Image::of(&SMALL, Edition::First)?;
        let registry = Registry::start(Kind::Distribution, &sandbox.folder("up")?).await?;
        let pushed = format!("{}/{REPOSITORY}:1", registry.address());
        image.push(&sandbox.folder("push")?, &pushed).await?;
        let line = Relay::start(registry.address(), Shape::LOOPBACK).await?;
        let clock = sandbox.folder("clock")?.join("offset");
        fs::write(&clock, "+0d\n")?;
        let variables = [
            ("LD_PRELOAD", tools::faketime()?.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            // A clock that is set moves neither timers nor what the disk remembers.
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("NO_FAKE_STAT", "1".to_owned()),
        ];
        let environment = variables.map(|(name, value)| (name.to_owned(), value)).to_vec();
        let ground = Ground { environment, ..Ground::default() };
        let upstream = Upstream::at(HOST, line.address());
        let larder = Larder::start_on(ground, &sandbox.folder("larder")?, &[upstream]).await?;
        let containerd = Containerd::start(version, &sandbox.folder("c")?).await?;
        configurator::once(&larder, &containerd).await?;
        let raw = Raw::new(larder.address(), HOST)?;
        let node =
            Self { _registry: registry, line, _larder: larder, containerd, raw, image, clock };
        node.pull(node.image.size() + HEADERS).await?;
        Ok(node)
    }

    async fn jump_to_and_fro(&self) -> Result<()> {
        ensure!(self.tag_without_upstream().await?, "the tag is not served stale");

        self.set_clock("+365d")?;
        ensure!(!self.tag_without_upstream().await?, "a tag of a year ago is served stale");
        self.pull(HEADERS).await?;
        ensure!(self.tag_without_upstream().await?, "the tag vanished a year ahead");

        self.set_clock("-365d")?;
        ensure!(self.tag_without_upstream().await?, "the tag vanished when the clock went back");
        self.pull(HEADERS).await?;

        self.set_clock("+0d")?;
        self.pull(HEADERS).await?;
        ensure!(self.tag_without_upstream().await?, "the tag vanished in the end");
        Ok(())
    }

    fn set_clock(&self, offset: &str) -> Result<()> {
        let next = self.clock.with_extension("next");
        fs::write(&next, format!("{offset}\n"))?;
        fs::rename(next, &self.clock)?;
        Ok(())
    }

    /// Pulls the image for at most so many bytes over the line, and removes it again.
    async fn pull(&self, at_most: u64) -> Result<()> {
        let before = self.line.carried().down;
        self.containerd.pull_exactly(&tagged("1"), &self.image).await?;
        self.containerd.remove(&tagged("1")).await?;
        let carried = self.line.carried().down - before;
        ensure!(carried <= at_most, "{carried} bytes over the line, {at_most} are enough");
        Ok(())
    }

    /// Whether the tag is served while the upstream refuses. Afterwards it does not any more.
    async fn tag_without_upstream(&self) -> Result<bool> {
        self.line.set(Mode::Refuse).await?;
        let served = match self.raw.resolve(REPOSITORY, "1").await {
            Ok(digest) => {
                ensure!(digest == self.image.index.digest, "the tag is {digest}");
                true
            }
            Err(_) => false,
        };
        // By digest it is served whatever the clock says.
        self.raw.fetch_manifest(REPOSITORY, &self.image.manifest.digest).await?;
        self.line.set(Mode::Open).await?;
        let before = self.line.carried().down;
        let back = async {
            // Until Larder asks the upstream again.
            while self.line.carried().down == before {
                let _ = self.raw.resolve(REPOSITORY, "1").await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(BACK_WITHIN, back).await?;
        Ok(served)
    }
}
