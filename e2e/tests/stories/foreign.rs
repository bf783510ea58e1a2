//! What others have written into containerd's folder of mirrors: it goes on working with Larder,
//! when Larder is gone, and it is as it was when Larder has withdrawn.

mod place;

use anyhow::{Result, ensure};
use larder_crds::node::{ExistingHosts, MirrorReason, MirrorState};
use larder_e2e::{
    configurator::{self, Configurator},
    containerd::Version,
    sandbox::Sandbox,
    snapshot::Snapshot,
};

use place::{Origin, Place, There};

on_every_containerd! {
    a_registry_without_mirrors_is_pulled_through_larder_until_larder_withdraws
    a_mirror_of_somebody_else_is_the_fallback_and_is_restored
    a_mirror_for_all_registries_is_the_fallback_and_is_restored
    certificate_files_alone_are_left_alone
    certificate_files_that_a_hosts_toml_names_stay_in_use
}

async fn a_registry_without_mirrors_is_pulled_through_larder_until_larder_withdraws(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    with_larder_and_after(sandbox, version, There::Nothing).await
}

async fn a_mirror_of_somebody_else_is_the_fallback_and_is_restored(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    with_larder_and_after(sandbox, version, There::Mirror).await
}

async fn a_mirror_for_all_registries_is_the_fallback_and_is_restored(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    with_larder_and_after(sandbox, version, There::MirrorForAll).await
}

async fn certificate_files_alone_are_left_alone(sandbox: &Sandbox, version: Version) -> Result<()> {
    with_larder_and_after(sandbox, version, There::Certificates).await
}

async fn certificate_files_that_a_hosts_toml_names_stay_in_use(
    sandbox: &Sandbox,
    version: Version,
) -> Result<()> {
    with_larder_and_after(sandbox, version, There::NamedCertificates).await
}

/// The life of Larder on a node where somebody was before.
async fn with_larder_and_after(sandbox: &Sandbox, version: Version, there: There) -> Result<()> {
    let mut place = Place::with(sandbox, version, there).await?;
    let certs_dir = place.containerd.certs_dir();
    let before = Snapshot::of(&certs_dir)?;
    let usual = there.usual();
    place.pull_comes_from(usual, "before Larder").await?;

    if there != There::Nothing {
        let mut configurator = place.configure(ExistingHosts::Leave)?;
        left_alone(&mut configurator).await?;
        before.check(&certs_dir)?;
        place.pull_comes_from(usual, "beside a Larder that leaves others alone").await?;
        configurator.stop().await?;
        before.check(&certs_dir)?;
    }

    let mut configurator = place.configure(ExistingHosts::Prepend)?;
    settled(&mut configurator, &place, there).await?;
    place.pull_comes_from(there.with_larder(), "with Larder").await?;
    let with_larder = Snapshot::of(&certs_dir)?;
    ensure!((with_larder == before) == (there.with_larder() == usual), "{with_larder:?}");

    // Its file is still there when containerd looks, or it was withdrawn a moment ago: three probes
    // have to fail for that, and this pull takes less on a quiet machine.
    place.larder.kill()?;
    place.pull_comes_from(usual, "when Larder has just died").await?;
    configurator.reaches(MirrorState::Withdrawn).await?;
    before.check(&certs_dir)?;
    place.larder.start_again().await?;
    settled(&mut configurator, &place, there).await?;
    place.pull_comes_from(there.with_larder(), "when Larder is back").await?;

    configurator.stop().await?;
    before.check(&certs_dir)?;
    place.pull_comes_from(usual, "after SIGTERM").await?;

    let mut configurator = place.configure(ExistingHosts::Prepend)?;
    settled(&mut configurator, &place, there).await?;
    configurator.kill()?;
    with_larder.check(&certs_dir)?;
    configurator::withdraw(&certs_dir).await?;
    before.check(&certs_dir)?;
    place.pull_comes_from(usual, "after withdraw").await
}

/// As it has to be while Larder answers.
async fn settled(configurator: &mut Configurator, place: &Place, there: There) -> Result<()> {
    if there.with_larder() != Origin::Larder {
        return left_alone(configurator).await;
    }
    let status = configurator.reaches(MirrorState::Mirrored).await?;
    ensure!(status.reason == MirrorReason::None && status.hosts == [place.host()], "{status:?}");
    Ok(())
}

async fn left_alone(configurator: &mut Configurator) -> Result<()> {
    let status = configurator.reaches(MirrorState::NotEffective).await?;
    ensure!(status.reason == MirrorReason::ForeignMirror && status.hosts.is_empty(), "{status:?}");
    Ok(())
}
