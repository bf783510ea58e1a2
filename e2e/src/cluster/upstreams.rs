//! The registries of a cluster, on addresses of their own beside the control plane.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    network::{CONTROL_PLANE, DOCKER_HUB, PRIVATE},
    pki::Authority,
    runtime::OWN_PORT,
};
use crate::{
    image::{Edition, Image, PAUSE},
    process,
    registry::{Kind, Registry},
    relay::{Relay, Shape},
    tools,
};

/// The three of them. Each can be stopped and started again.
pub struct Upstreams {
    /// Plain HTTP at `10.77.0.1:5000`, for what the cluster itself is made of.
    pub own: Registry,
    /// docker.io. Its certificate is signed by an authority that every node trusts.
    pub docker_hub: Registry,
    /// `registry.example:443`. Nodes do not know its authority: only who is told trusts it.
    pub private: Registry,
    /// Between docker.io and everybody, once it is laid.
    line: Option<Relay>,
    private_ca: String,
    folder: PathBuf,
}

impl Upstreams {
    /// Starts them, with nothing but the pause image in them.
    pub(super) async fn start(folder: &Path, trusted: &Authority) -> Result<Self> {
        let stranger = Authority::new("Example Company CA")?;
        let part = |name: &str| -> Result<PathBuf> {
            let path = folder.join(name);
            fs::create_dir_all(&path)?;
            Ok(path)
        };
        let (own, hub, private) = (part("own")?, part("docker-hub")?, part("private")?);
        let hub_names = ["registry-1.docker.io", &DOCKER_HUB.to_string()];
        let hub_certificate = trusted.certify(&hub, "registry-1.docker.io", &hub_names)?;
        let private_names = ["registry.example", &PRIVATE.to_string()];
        let private_certificate = stranger.certify(&private, "registry.example", &private_names)?;
        let kind = Kind::DockerRegistry;
        let (own, docker_hub, private) = tokio::try_join!(
            Registry::start_at(kind, &own, (CONTROL_PLANE, OWN_PORT).into(), None),
            Registry::start_at(kind, &hub, (DOCKER_HUB, 443).into(), Some(&hub_certificate)),
            Registry::start_at(kind, &private, (PRIVATE, 443).into(), Some(&private_certificate)),
        )?;
        let private_ca = stranger.pem().to_owned();
        let folder = folder.to_owned();
        let upstreams = Self { own, docker_hub, private, line: None, private_ca, folder };
        let pause = Image::of(&PAUSE, Edition::First)?;
        upstreams.push(&upstreams.own, "pause:1", &pause).await?;
        Ok(upstreams)
    }

    /// The authority behind [`Upstreams::private`], PEM.
    pub fn private_ca(&self) -> &str {
        &self.private_ca
    }

    /// Puts a line of that shape between docker.io and everybody: its clients find the line at the
    /// address where it was.
    pub async fn lay_line(&mut self, shape: Shape) -> Result<()> {
        let address = self.docker_hub.address();
        self.docker_hub.move_to((Ipv4Addr::LOCALHOST, 443).into()).await?;
        self.line = Some(Relay::start_at(address, self.docker_hub.address(), shape).await?);
        Ok(())
    }

    /// The line to docker.io.
    pub fn line(&self) -> Result<&Relay> {
        self.line.as_ref().context("no line was laid")
    }

    /// Pushes an image to docker.io, as `library/NAME:TAG`.
    pub async fn push_to_docker_hub(&self, name: &str, image: &Image) -> Result<()> {
        self.push(&self.docker_hub, name, image).await
    }

    /// Pushes an image to `registry.example:443`, as `TEAM/NAME:TAG`.
    pub async fn push_to_private(&self, name: &str, image: &Image) -> Result<()> {
        self.push(&self.private, name, image).await
    }

    async fn push(&self, registry: &Registry, name: &str, image: &Image) -> Result<()> {
        image.push(&self.folder, &format!("{}/{name}", registry.address())).await
    }

    /// Copies an image (`oci:DIR:TAG`, `docker://HOST/NAME:TAG`) into the cluster's own registry
    /// as `NAME:TAG`. Returns the name that pods use.
    pub(super) async fn load(&self, source: &str, name: &str) -> Result<String> {
        let address: SocketAddr = self.own.address();
        let reference = format!("{address}/{name}");
        let mut command = process::command(&tools::debian("skopeo")?, &self.folder);
        command
            .args(["copy", "--all", "--preserve-digests", "--quiet"])
            .args(["--src-tls-verify=false", "--dest-tls-verify=false"])
            .args([source, &format!("docker://{reference}")]);
        process::run(command).await.with_context(|| format!("copying {source}"))?;
        Ok(reference)
    }
}
