//! Larder that hangs: its port accepts, and nothing comes.

use std::time::Duration;

use anyhow::{Result, ensure};
use larder_crds::node::{ExistingHosts, MirrorState};
use larder_e2e::{
    configurator::Configurator,
    containerd::{Containerd, Version},
    image::{Edition, Image, SMALL},
    larder::{Ground, Larder, Upstream},
    process::eventually,
    registry::{Kind, Registry},
    relay::Shape,
    sandbox::Sandbox,
    snapshot::Snapshot,
    soak::Soak,
};

use crate::{
    node::REPOSITORY,
    shelf::{Shelf, pull_all},
};

on_every_containerd! {
    f22_larder_that_hangs_and_is_killed_after_ten_seconds_fails_no_pull
    f22_the_mirror_goes_while_larder_hangs_and_comes_back_with_it
}

const SLOW: Shape = Shape { rate: 6_000_000, latency: Duration::from_millis(1) };
/// Three probes one second apart, the last of which takes its time: the promise is 4 s. The rest is
/// a busy machine's; without the configurator the mirror would stay for ever.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(4 + 2);
/// After which the kubelet's liveness probe has it killed.
const HANGS: Duration = Duration::from_secs(10);

async fn f22_larder_that_hangs_and_is_killed_after_ten_seconds_fails_no_pull(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    let mut soak = Soak::of(&format!("hang-{version}"), 1, 10);
    let mut shelf = Shelf::stocked(sandbox, version, Ground::default(), SLOW).await?;
    for seed in soak.seeds() {
        let outcome = hang_once(&mut shelf, seed).await;
        soak.note(seed, outcome);
        if !shelf.larder.is_started() {
            shelf.larder.start_again().await?;
        }
    }
    soak.end()
}

async fn hang_once(shelf: &mut Shelf, seed: u64) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    shelf.wipe().await?;
    let size = shelf.size();
    let some = shelf.line.carried().down + rng.u64(size / 10..size * 8 / 10);
    let Shelf { larder, containerd, images, line, .. } = shelf;
    let freeze = async {
        let reached = || Ok(line.carried().down > some);
        eventually("Larder has some of it", Duration::from_secs(20), reached).await?;
        larder.freeze()?;
        tokio::time::sleep(HANGS).await;
        larder.kill()?;
        larder.start_again().await
    };
    let (pulled, frozen) = tokio::join!(pull_all(containerd, images), freeze);
    frozen?;
    let pulled = pulled?;
    ensure!(
        pulled.iter().any(|pulled| pulled.took > HANGS),
        "no pull was under way while Larder hung: {pulled:?}"
    );
    shelf.remove_all().await?;
    shelf.fetch_all().await?;
    shelf.check_full_store().await
}

async fn f22_the_mirror_goes_while_larder_hangs_and_comes_back_with_it(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    let image = Image::of(&SMALL, Edition::First)?;
    let registry = Registry::start(Kind::DockerRegistry, &sandbox.folder("up")?).await?;
    // containerd can go there by itself.
    let host = registry.address().to_string();
    let reference = format!("{host}/{REPOSITORY}:1");
    image.push(&sandbox.folder("push")?, &reference).await?;
    let upstream = Upstream::at(&host, registry.address());
    let mut larder = Larder::start(&sandbox.folder("larder")?, &[upstream]).await?;
    let containerd = Containerd::start(version, &sandbox.folder("c")?).await?;
    let certs_dir = containerd.certs_dir();
    let without = Snapshot::of(&certs_dir)?;
    let mut configurator = Configurator::start(&larder, &containerd, ExistingHosts::Prepend)?;
    configurator.reaches(MirrorState::Mirrored).await?;
    containerd.pull_exactly(&reference, &image).await?;
    ensure!(larder.metrics().await?.served(&host) > 0, "the first pull went past Larder");
    containerd.remove(&reference).await?;

    larder.freeze()?;
    let gone = || Ok(Snapshot::of(&certs_dir).is_ok_and(|now| now == without));
    eventually("the mirror is withdrawn", WITHDRAWN_WITHIN, gone).await?;
    let pulled = containerd.pull_exactly(&reference, &image).await?;
    // One that still asked Larder would wait for it for 30 s.
    ensure!(pulled.took < Duration::from_secs(15), "{pulled:?} although the mirror was withdrawn");
    let status = configurator.reaches(MirrorState::Withdrawn).await?;
    ensure!(status.hosts.is_empty(), "{status:?}");
    containerd.remove(&reference).await?;

    larder.kill()?;
    larder.start_again().await?;
    configurator.reaches(MirrorState::Mirrored).await?;
    containerd.pull_exactly(&reference, &image).await?;
    ensure!(larder.metrics().await?.served(&host) > 0, "the last pull went past Larder");
    configurator.stop().await?;
    without.check(&certs_dir)
}
