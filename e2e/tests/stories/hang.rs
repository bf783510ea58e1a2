//! Larder that hangs: its port accepts, and nothing comes.

use std::time::Duration;

use anyhow::{Result, ensure};
use larder_e2e::{
    containerd::Version, larder::Ground, process::eventually, relay::Shape, sandbox::Sandbox,
    soak::Soak,
};

use crate::shelf::{Shelf, pull_all};

on_every_containerd! {
    f22_larder_that_hangs_and_is_killed_after_ten_seconds_fails_no_pull
}

const SLOW: Shape = Shape { rate: 6_000_000, latency: Duration::from_millis(1) };
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
