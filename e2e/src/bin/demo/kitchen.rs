//! The parts of the demo and what it reads off them.

use std::time::Duration;

use anyhow::Result;
use larder_e2e::{
    clients::Raw,
    containerd::{Containerd, Version},
    image::Image,
    larder::{Larder, Upstream},
    registry::{Kind, Registry},
    relay::{Relay, Shape},
    sandbox::Sandbox,
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
    home: std::path::PathBuf,
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
        let larder = start_larder(sandbox, "larder", &line).await?;
        let containerd = Containerd::start(Version::V2_4, &sandbox.folder("c")?).await?;
        containerd.mirror(DIRECT, line.address())?;
        containerd.mirror(THROUGH_LARDER, larder.address())?;
        let kitchen = Self { registry, line, larder, containerd, home };
        kitchen.push(image).await?;
        Ok(kitchen)
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

    /// Another Larder with an empty store takes the place of this one.
    pub(crate) async fn empty_larder(&mut self, sandbox: &Sandbox, folder: &str) -> Result<()> {
        self.larder.stop().await?;
        self.larder = start_larder(sandbox, folder, &self.line).await?;
        self.containerd.mirror(THROUGH_LARDER, self.larder.address())
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

async fn start_larder(sandbox: &Sandbox, folder: &str, line: &Relay) -> Result<Larder> {
    let upstream = Upstream { host: THROUGH_LARDER.to_owned(), endpoint: line.address() };
    Larder::start(&sandbox.folder(folder)?, &[upstream]).await
}
