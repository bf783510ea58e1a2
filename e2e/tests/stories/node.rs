//! The stage of most stories: an upstream, the line to it, Larder, and one containerd.

use std::time::Duration;

use anyhow::{Result, ensure};
use larder_e2e::{
    clients::Raw,
    configurator,
    containerd::{Containerd, Version},
    image::{Edition, Image, Recipe},
    larder::{Larder, Upstream},
    registry::{Kind, Registry},
    relay::{Relay, Shape},
    sandbox::{Sandbox, Told, story},
};

/// The upstream's name in images. Nothing resolves it: a pull that works went through Larder.
pub(crate) const HOST: &str = "registry.test";
pub(crate) const REPOSITORY: &str = "team/app";

/// Upstream, line, Larder: what lies behind a node's containerd.
pub(crate) struct Kitchen {
    pub(crate) registry: Registry,
    pub(crate) line: Relay,
    pub(crate) larder: Larder,
    /// What the upstream was asked while it was filled.
    pub(crate) earlier: usize,
}

impl Kitchen {
    /// With an image at the upstream as `team/app:1`, and nothing in Larder.
    pub(crate) async fn with(
        sandbox: &Sandbox,
        kind: Kind,
        image: &Image,
        shape: Shape,
    ) -> Result<Self> {
        let registry = Registry::start(kind, &sandbox.folder("up")?).await?;
        image.push(&sandbox.folder("push")?, &at(&registry, "1")).await?;
        let line = Relay::start(registry.address(), shape).await?;
        let upstream = Upstream::at(HOST, line.address());
        let larder = Larder::start(&sandbox.folder("larder")?, &[upstream]).await?;
        let earlier = registry.requests().await?.len();
        Ok(Self { registry, line, larder, earlier })
    }

    /// Pushes another image under a tag, past Larder.
    pub(crate) async fn push(&mut self, sandbox: &Sandbox, image: &Image, tag: &str) -> Result<()> {
        image.push(&sandbox.folder("push")?, &at(&self.registry, tag)).await?;
        self.earlier = self.registry.requests().await?.len();
        Ok(())
    }

    /// A client of Larder that is not containerd.
    pub(crate) fn raw(&self) -> Result<Raw> {
        Raw::new(self.larder.address(), HOST)
    }

    /// Checks that the upstream has answered nothing since it was filled or last asked about.
    pub(crate) async fn upstream_was_silent(&mut self) -> Result<()> {
        let requests = self.registry.requests().await?;
        let new = requests.get(self.earlier..).unwrap_or_default();
        ensure!(new.is_empty(), "the upstream answered: {new:#?}");
        Ok(())
    }

    /// From now on only what the upstream is asked later counts.
    pub(crate) async fn forget_requests(&mut self) -> Result<()> {
        self.earlier = self.registry.requests().await?.len();
        Ok(())
    }
}

/// A kitchen and a containerd that is sent to it.
pub(crate) struct Node {
    pub(crate) kitchen: Kitchen,
    pub(crate) containerd: Containerd,
}

impl Node {
    /// Each release gets one of the two registries as its upstream: the stories alternate.
    pub(crate) async fn with(
        sandbox: &Sandbox,
        version: Version,
        recipe: &Recipe,
    ) -> Result<(Self, Image)> {
        let image = Image::of(recipe, Edition::First)?;
        let kitchen =
            Kitchen::with(sandbox, upstream_for(version), &image, Shape::LOOPBACK).await?;
        let containerd = Containerd::start(version, &sandbox.folder("c")?).await?;
        configurator::once(&kitchen.larder, &containerd).await?;
        Ok((Self { kitchen, containerd }, image))
    }
}

/// `registry.test/team/app:1`
pub(crate) fn tagged(tag: &str) -> String {
    format!("{HOST}/{REPOSITORY}:{tag}")
}

/// Larder's bound for an answer from a tag that it knows, while the upstream fails, and what a busy
/// machine may add.
pub(crate) const STALE_WITHIN: Duration = Duration::from_millis(3000 + 500);

/// Tells a story with one release of containerd.
pub(crate) fn told_with(
    version: Version,
    tell: impl AsyncFnOnce(&Sandbox, Version) -> Result<()> + Send,
) -> Told {
    story(async |sandbox| tell(sandbox, version).await)
}

fn upstream_for(version: Version) -> Kind {
    match version {
        Version::V1_6 | Version::V2_4 => Kind::Distribution,
        Version::V1_7 => Kind::DockerRegistry,
    }
}

fn at(registry: &Registry, tag: &str) -> String {
    format!("{}/{REPOSITORY}:{tag}", registry.address())
}
