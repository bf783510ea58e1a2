//! A node on which somebody has configured containerd before Larder came.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use larder_crds::node::ExistingHosts;
use larder_e2e::{
    certificates::Certificates,
    configurator::Configurator,
    containerd::{Containerd, Version},
    image::{Edition, Image, SMALL},
    larder::{Larder, Upstream},
    registry::{Kind, Registry},
    sandbox::{ELSEWHERE, Sandbox},
};

use crate::node::REPOSITORY;

/// What the folder of mirrors has for the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum There {
    /// Nothing, but a folder of another registry.
    Nothing,
    /// A mirror, in the registry's own folder.
    Mirror,
    /// A mirror in `_default`.
    MirrorForAll,
    /// Certificate files, without which containerd does not come into the registry.
    Certificates,
    /// The same, named by a `hosts.toml`.
    NamedCertificates,
}

impl There {
    /// Where images come from without Larder.
    pub(super) fn usual(self) -> Origin {
        match self {
            Self::Mirror | Self::MirrorForAll => Origin::Mirror,
            Self::Nothing | Self::Certificates | Self::NamedCertificates => Origin::Upstream,
        }
    }

    /// Where they come from while Larder answers.
    pub(super) fn with_larder(self) -> Origin {
        match self {
            // containerd would ignore the files beside a hosts.toml.
            Self::Certificates => Origin::Upstream,
            _ => Origin::Larder,
        }
    }

    fn has_certificates(self) -> bool {
        matches!(self, Self::Certificates | Self::NamedCertificates)
    }
}

/// Who has sent an image to containerd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Larder,
    Mirror,
    Upstream,
}

/// Everything that a node's pull can touch.
pub(super) struct Place {
    upstream: Registry,
    mirror: Registry,
    pub(super) larder: Larder,
    pub(super) containerd: Containerd,
    image: Image,
}

impl Place {
    pub(super) async fn with(sandbox: &Sandbox, version: Version, there: There) -> Result<Self> {
        let image = Image::of(&SMALL, Edition::First)?;
        let [folder, up, mirror, c] =
            ["push", "up", "mirror", "c"].map(|name| sandbox.folder(name));
        let (folder, up, mirror, c) = (folder?, up?, mirror?, c?);
        let start = async |kind, home: &Path| {
            let registry = Registry::start(kind, home).await?;
            let name = format!("{}/{REPOSITORY}:1", registry.address());
            image.push(&folder, &name).await?;
            anyhow::Ok(registry)
        };
        let (upstream, mirror, containerd) = tokio::try_join!(
            start(Kind::DockerRegistry, &up),
            start(Kind::Distribution, &mirror),
            Containerd::start(version, &c),
        )?;
        let mut upstream = upstream;
        let certificates = if there.has_certificates() {
            sandbox.has_an_address_elsewhere().await?;
            let certificates = Certificates::issue(&sandbox.folder("certificates")?, ELSEWHERE)?;
            upstream.move_behind_tls(ELSEWHERE, &certificates).await?;
            Some(certificates)
        } else {
            None
        };
        let address = upstream.address();
        let endpoint = match &certificates {
            Some(certificates) => Upstream::behind_tls(address.to_string(), address, certificates),
            None => Upstream::at(address.to_string(), address),
        };
        let larder = Larder::start(&sandbox.folder("larder")?, &[endpoint]).await?;
        let place = Self { upstream, mirror, larder, containerd, image };
        place.furnish(there, certificates.as_ref())?;
        Ok(place)
    }

    /// The registry's name in images.
    pub(super) fn host(&self) -> String {
        self.upstream.address().to_string()
    }

    pub(super) fn configure(&self, existing: ExistingHosts) -> Result<Configurator> {
        Configurator::start(&self.larder, &self.containerd, existing)
    }

    /// Pulls into an empty containerd, all of it from one place, and empties it again.
    pub(super) async fn pull_comes_from(&self, origin: Origin, when: &str) -> Result<()> {
        let pull = async {
            let before = self.sent().await?;
            let name = format!("{}/{REPOSITORY}:1", self.host());
            self.containerd.pull_exactly(&name, &self.image).await?;
            let after = self.sent().await?;
            self.containerd.remove(&name).await?;
            let all = self.image.size();
            for ((who, before), (_, after)) in before.into_iter().zip(after) {
                let (sent, wanted) = (after - before, if who == origin { all } else { 0 });
                ensure!(sent == wanted, "{who:?} sent {sent} bytes instead of {wanted}");
            }
            Ok(())
        };
        pull.await.with_context(|| format!("a pull {when}, which is to come from {origin:?}"))
    }

    /// Bytes of bodies that everybody has sent to containerd so far.
    async fn sent(&self) -> Result<[(Origin, u64); 3]> {
        let served = if self.larder.is_started() {
            self.larder.metrics().await?.served(&self.host())
        } else {
            0
        };
        let to_containerd = async |registry: &Registry| {
            let requests = registry.requests().await?.into_iter();
            let gets = requests.filter(|request| {
                request.method == "GET" && request.user_agent.starts_with("containerd/")
            });
            anyhow::Ok(gets.map(|request| request.bytes).sum())
        };
        let (mirror, upstream) =
            tokio::try_join!(to_containerd(&self.mirror), to_containerd(&self.upstream))?;
        Ok([(Origin::Larder, served), (Origin::Mirror, mirror), (Origin::Upstream, upstream)])
    }

    /// Writes what somebody else has written before Larder came.
    fn furnish(&self, there: There, certificates: Option<&Certificates>) -> Result<()> {
        let (host, mirror) = (self.host(), self.mirror.address());
        // Both names that containerd knows.
        let own = match self.containerd.version() {
            Version::V1_6 => host.clone(),
            Version::V1_7 | Version::V2_4 => host.replace(':', "_") + "_",
        };
        self.write("other.test", "server = \"https://other.test\"\n", 0o600)?;
        match there {
            There::Nothing => {}
            There::Mirror => {
                let text = format!(
                    "# The house's own.\nserver = \"http://{host}\"\n\n\
                     [host.\"http://{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"] # no pushes\n\
                     [host.\"http://{mirror}\".header]\n  x-team = [\"blue\"]"
                );
                self.write(&own, &text, 0o640)?;
            }
            There::MirrorForAll => {
                let text = format!(
                    "[host.\"http://{mirror}\"]\n# All\ncapabilities=[\"pull\",\"resolve\"]\n"
                );
                self.write("_default", &text, 0o644)?;
            }
            There::Certificates | There::NamedCertificates => {
                let folder = self.containerd.certs_dir().join(&own);
                fs::create_dir_all(&folder)?;
                certificates.context("there are certificates")?.hand_out(&folder)?;
                if there == There::NamedCertificates {
                    // 1.6 and 1.7 reject a file without a host.
                    let text = format!(
                        "[host.\"https://{host}\"]\n  ca = \"ca.crt\"\n  \
                         client = [[\"client.cert\", \"client.key\"]]\n"
                    );
                    self.write(&own, &text, 0o644)?;
                }
            }
        }
        Ok(())
    }

    fn write(&self, folder: &str, text: &str, mode: u32) -> Result<()> {
        let folder = self.containerd.certs_dir().join(folder);
        fs::create_dir_all(&folder)?;
        let file = folder.join("hosts.toml");
        fs::write(&file, text)?;
        Ok(fs::set_permissions(file, Permissions::from_mode(mode))?)
    }
}
