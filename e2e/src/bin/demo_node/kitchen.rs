//! The parts of the demo and what it reads off them.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use larder_crds::node::{ExistingHosts, MirrorState};
use larder_e2e::{
    clients::Raw,
    configurator::Configurator,
    containerd::{Containerd, Version},
    image::Image,
    larder::{Larder, Upstream},
    registry::{Kind, Registry},
    relay::{Relay, Shape},
    sandbox::Sandbox,
    snapshot::Snapshot,
};

pub(crate) const REPOSITORY: &str = "team/app";
/// Nothing resolves these names: containerd has only what its hosts.toml says.
const THROUGH_LARDER: &str = "registry.test";
const DIRECT: &str = "direct.test";

/// An upstream behind a line, a node with Larder and containerd.
pub(crate) struct Kitchen {
    registry: Registry,
    pub(crate) line: Relay,
    larder: Larder,
    containerd: Containerd,
    configurator: Option<Configurator>,
    home: PathBuf,
    /// containerd's folder of mirrors before Larder wrote there.
    before: Snapshot,
}

/// Bytes since a meter was set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bytes {
    pub(crate) upstream: u64,
    pub(crate) cache: u64,
}

/// Where the counters stood.
pub(crate) struct Meter(Bytes);

impl Kitchen {
    pub(crate) async fn open(sandbox: &Sandbox, image: &Image) -> Result<Self> {
        let registry = Registry::start(Kind::Distribution, &sandbox.folder("up")?).await?;
        let home = sandbox.folder("push")?;
        let line = Relay::start(registry.address(), Shape::GIGABIT).await?;
        let upstream = Upstream::at(THROUGH_LARDER, line.address());
        let larder = Larder::start(&sandbox.folder("larder")?, &[upstream]).await?;
        let containerd = Containerd::start(Version::V2_4, &sandbox.folder("c")?).await?;
        containerd.mirror(DIRECT, line.address())?;
        let before = Snapshot::of(&containerd.certs_dir())?;
        let configurator = None;
        let kitchen = Self { registry, line, larder, containerd, configurator, home, before };
        kitchen.push(image).await?;
        Ok(kitchen)
    }

    /// Runs `larder-node configure`. Returns the name and the text of the file that it wrote.
    pub(crate) async fn configure(&mut self) -> Result<(PathBuf, String)> {
        let existing = ExistingHosts::Prepend;
        let started = Configurator::start(&self.larder, &self.containerd, existing)?;
        self.configurator.insert(started).reaches(MirrorState::Mirrored).await?;
        let file = PathBuf::from(THROUGH_LARDER).join("hosts.toml");
        let text = fs::read_to_string(self.containerd.certs_dir().join(&file))?;
        Ok((file, text))
    }

    /// Ends `larder-node configure` by SIGTERM. Returns how long that took; an error unless
    /// containerd's folder is as it was before.
    pub(crate) async fn withdraw(&mut self) -> Result<Duration> {
        let configurator = self.configurator.take().context("the configurator is not running")?;
        let asked = Instant::now();
        configurator.stop().await?;
        let took = asked.elapsed();
        self.before.check(&self.containerd.certs_dir())?;
        Ok(took)
    }

    /// Under the one tag that is pulled all along, past the line.
    pub(crate) async fn push(&self, image: &Image) -> Result<()> {
        let reference = format!("{}/{REPOSITORY}:1", self.registry.address());
        image.push(&self.home, &reference).await
    }

    pub(crate) async fn pull(&self, image: &Image) -> Result<Duration> {
        self.pull_from(THROUGH_LARDER, image).await
    }

    pub(crate) async fn pull_directly(&self, image: &Image) -> Result<Duration> {
        self.pull_from(DIRECT, image).await
    }

    async fn pull_from(&self, host: &str, image: &Image) -> Result<Duration> {
        let name = format!("{host}/{REPOSITORY}:1");
        Ok(self.containerd.pull_exactly(&name, image).await?.took)
    }

    pub(crate) async fn remove_everything(&self) -> Result<()> {
        for host in [THROUGH_LARDER, DIRECT] {
            self.containerd.remove(&format!("{host}/{REPOSITORY}:1")).await?;
        }
        Ok(())
    }

    /// Starts Larder again with an empty store.
    pub(crate) async fn empty_larder(&mut self) -> Result<()> {
        self.larder.stop().await?;
        fs::remove_dir_all(self.larder.store())?;
        self.larder.start_again().await
    }

    pub(crate) fn path_form(&self) -> String {
        self.larder.path_form(&format!("{THROUGH_LARDER}/{REPOSITORY}:1"))
    }

    pub(crate) fn raw(&self) -> Result<Raw> {
        Raw::new(self.larder.address(), THROUGH_LARDER)
    }

    /// The same past Larder, over the line.
    pub(crate) fn raw_directly(&self) -> Result<Raw> {
        Raw::new(self.line.address(), DIRECT)
    }

    /// Once everything that earlier steps wrote is on the disk and in nobody's way.
    pub(crate) async fn meter(&self) -> Result<Meter> {
        rustix::fs::sync();
        Ok(Meter(self.counters().await?))
    }

    async fn counters(&self) -> Result<Bytes> {
        let cache = self.larder.metrics().await?.served(THROUGH_LARDER);
        Ok(Bytes { upstream: self.line.carried().down, cache })
    }

    /// Stops Larder as a node would.
    pub(crate) async fn close(mut self) -> Result<()> {
        self.larder.stop().await
    }
}

impl Meter {
    pub(crate) async fn read(self, kitchen: &Kitchen) -> Result<Bytes> {
        let now = kitchen.counters().await?;
        Ok(Bytes { upstream: now.upstream - self.0.upstream, cache: now.cache - self.0.cache })
    }
}
