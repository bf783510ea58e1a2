//! Larder killed, or told to end, in the middle of a pull.

use std::time::Duration;

use anyhow::{Result, ensure};
use larder_e2e::{
    configurator,
    containerd::{Containerd, Version},
    image::{Edition, Image, SMALL},
    larder::{Larder, Upstream},
    process::eventually,
    registry::{Kind, Registry, Request},
    relay::{Relay, Shape},
    sandbox::Sandbox,
};

use crate::node::REPOSITORY;

/// Slow enough that an image of 4 MB takes two seconds.
const SLOW: Shape = Shape { rate: 2_000_000, latency: Duration::from_millis(1) };

on_every_containerd! {
    larder_killed_in_the_middle_of_a_pull_fails_nothing_and_goes_on_where_it_was
    larder_told_to_end_in_the_middle_of_a_pull_fails_nothing
}

/// A registry with one image, a slow line to it, and a containerd that is sent to Larder first. The
/// image is named after the registry's own address, so that containerd can go there by itself.
struct Stage {
    image: Image,
    registry: Registry,
    reference: String,
    line: Relay,
    larder: Larder,
    containerd: Containerd,
}

impl Stage {
    async fn set(sandbox: &Sandbox, version: Version) -> Result<Self> {
        let image = Image::of(&SMALL, Edition::First)?;
        let kind = if version == Version::V1_7 { Kind::Distribution } else { Kind::DockerRegistry };
        let registry = Registry::start(kind, &sandbox.folder("up")?).await?;
        let host = registry.address().to_string();
        let reference = format!("{host}/{REPOSITORY}:1");
        image.push(&sandbox.folder("push")?, &reference).await?;
        let line = Relay::start(registry.address(), SLOW).await?;
        let upstream = Upstream::at(&host, line.address());
        let larder = Larder::start(&sandbox.folder("larder")?, &[upstream]).await?;
        let containerd = Containerd::start(version, &sandbox.folder("c")?).await?;
        configurator::once(&larder, &containerd).await?;
        Ok(Self { image, registry, reference, line, larder, containerd })
    }
}

/// The kubelet ends the server's container last, and pulls go on meanwhile.
async fn larder_told_to_end_in_the_middle_of_a_pull_fails_nothing(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    let Stage { image, registry: _registry, reference, line, mut larder, containerd } =
        Stage::set(sandbox, version).await?;
    let pull = containerd.pull_exactly(&reference, &image);
    let end = async {
        let some = || Ok(line.carried().down > image.size() / 4);
        eventually("a quarter of the image is in Larder", Duration::from_secs(20), some).await?;
        let had = line.carried().down;
        ensure!(had < image.size() * 3 / 4, "the pull was over before Larder was told to end");
        larder.stop().await
    };
    tokio::try_join!(pull, end)?;
    larder.start_again().await?;
    containerd.remove(&reference).await?;
    containerd.pull_exactly(&reference, &image).await?;
    Ok(())
}

async fn larder_killed_in_the_middle_of_a_pull_fails_nothing_and_goes_on_where_it_was(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    let Stage { image, registry, reference, line, mut larder, containerd } =
        Stage::set(sandbox, version).await?;

    let pull = containerd.pull_exactly(&reference, &image);
    let kill = async {
        let half = || Ok(line.carried().down > image.size() / 2);
        eventually("half the image is in Larder", Duration::from_secs(20), half).await?;
        larder.kill()
    };
    tokio::try_join!(pull, kill)?;
    let requests = registry.requests().await?;
    let rescued = requests.iter().any(|request| request.user_agent.starts_with("containerd/"));
    ensure!(rescued, "containerd never went to the registry itself: the kill came too late");

    // What it had, it has: together both runs fetch hardly more than the image.
    larder.start_again().await?;
    containerd.remove(&reference).await?;
    let past = registry.requests().await?.len();
    containerd.pull_exactly(&reference, &image).await?;
    let requests = registry.requests().await?;
    let new = requests.get(past..).unwrap_or_default();
    ensure!(!new.iter().any(Request::is_from_a_client), "containerd went past Larder: {new:#?}");
    let carried = line.carried().down;
    ensure!(carried < image.size() * 5 / 4, "{carried} bytes over the line for {}", image.size());
    Ok(())
}
