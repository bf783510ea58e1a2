//! `kill -9` at any moment of eight pulls at once, again and again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use larder_e2e::{containerd::Version, larder::Ground, relay::Shape, sandbox::Sandbox, soak::Soak};

use crate::shelf::{Shelf, check_killed_store, pull_all};

on_every_containerd! {
    f01_larder_killed_at_any_moment_of_eight_pulls_fails_none
}

/// All images take about two seconds.
const SLOW: Shape = Shape { rate: 11_000_000, latency: Duration::from_millis(1) };
/// What a kill may cost: of each object on its way one batch of the writer (at most 1 MiB) and what
/// the sockets on both sides of it hold. At most 3.1 MB were seen in 30 kills, with the 24 objects
/// at once that containerd 1.6 asks for; 27 MB are fetched in all.
const LOST: u64 = 6_000_000;
/// Headers, tags that are revalidated.
const HEADERS: u64 = 256 << 10;

async fn f01_larder_killed_at_any_moment_of_eight_pulls_fails_none(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    // 3 * 14 in `cargo test`, 3 * 67 in `make soak`.
    let mut soak = Soak::of(&format!("kill-{version}"), 14, 67);
    let mut shelf = Shelf::stocked(sandbox, version, Ground::default(), SLOW).await?;
    // Every other run may be the first one.
    shelf.fetch_all().await?;
    let mut lengths = Lengths::default();
    for seed in soak.seeds() {
        let outcome = kill_once(&mut shelf, &mut lengths, seed).await;
        let failed = outcome.is_err();
        soak.note(seed, outcome);
        if failed {
            // The next run begins with a full Larder and an empty containerd.
            let _ = shelf.larder.kill();
            shelf.wipe().await?;
            shelf.remove_all().await?;
            shelf.fetch_all().await?;
        }
    }
    soak.end()
}

/// How long eight pulls took when last seen, so that the moment of the kill is any of theirs.
struct Lengths {
    cold: Duration,
    warm: Duration,
}

impl Default for Lengths {
    fn default() -> Self {
        Self { cold: Duration::from_secs(3), warm: Duration::from_secs(1) }
    }
}

async fn kill_once(shelf: &mut Shelf, lengths: &mut Lengths, seed: u64) -> Result<()> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let cold = rng.u32(0..4) > 0;
    if cold {
        shelf.wipe().await?;
    }
    let length = if cold { &mut lengths.cold } else { &mut lengths.warm };
    let delay = length.mul_f64(rng.f64());
    let before = shelf.line.carried().down;

    let began = Instant::now();
    let Shelf { larder, containerd, images, .. } = shelf;
    let pulls = async {
        let pulled = pull_all(containerd, images).await;
        pulled.map(|_| began.elapsed())
    };
    let kill = async {
        tokio::time::sleep(delay).await;
        larder.kill()?;
        check_killed_store(&larder.store(), images).context("in the store of the killed one")?;
        // As the kubelet would: the first restart comes at once.
        larder.start_again().await
    };
    let (took, killed) = tokio::join!(pulls, kill);
    let (took, ()) = (took?, killed?);
    *length = took.clamp(Duration::from_millis(500), Duration::from_secs(5));

    // Whatever is missing is fetched now, and nothing that is there.
    shelf.remove_all().await?;
    shelf.fetch_all().await.context("after the kill, from Larder alone")?;
    shelf.check_full_store().await?;
    let carried = shelf.line.carried().down - before;
    // Not one byte that was on the disk is fetched again. What containerd fetched by itself did
    // not come over this line.
    let wanted = if cold { shelf.size() } else { 0 };
    let lost = if cold { LOST } else { 0 };
    ensure!(
        carried <= wanted + lost + HEADERS,
        "{carried} bytes over the line for {wanted}; {delay:?} into {took:?}"
    );
    Ok(())
}
