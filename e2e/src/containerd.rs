//! A containerd of its own, driven through the CRI as the kubelet drives it.

use std::{
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::{
    image::Image,
    process::{self, Daemon},
    tools,
};

/// The releases that Larder must work with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 1.6.20, Debian 12's.
    V1_6,
    /// 1.7.35.
    V1_7,
    /// 2.4.2, with another resolver, transfer service and configuration format.
    V2_4,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::V1_6, Self::V1_7, Self::V2_4];

    fn tool(self) -> &'static str {
        match self {
            Self::V1_6 => "containerd-1.6",
            Self::V1_7 => "containerd-1.7",
            Self::V2_4 => "containerd-2.4",
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.tool())
    }
}

/// How the registry `config_path` is written in containerd's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigPath {
    /// Not at all: the release's own default is in force.
    Missing,
    /// The folder of [`Containerd::mirror`].
    Single,
    /// That folder and another, separated by a colon.
    Colon,
    /// That folder, in a file that the configuration imports.
    DropIn,
}

/// An image that was pulled.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// The runtime's id of it: the digest of its configuration.
    pub id: String,
    /// From the request to the unpacked image, as the kubelet would see it.
    pub took: Duration,
}

/// A running containerd. Its mounts are in a namespace of their own and end with it.
pub struct Containerd {
    version: Version,
    folder: PathBuf,
    /// Killed when this is dropped.
    _daemon: Daemon,
}

#[derive(Deserialize)]
struct PullAnswer {
    #[serde(rename = "ref")]
    id: String,
}

#[derive(Deserialize)]
struct ListedImage {
    id: String,
    digests: Vec<String>,
}

impl Containerd {
    /// Starts one without images in `folder`. Answers when this returns.
    pub async fn start(version: Version, folder: &Path) -> Result<Self> {
        Self::start_with(version, folder, ConfigPath::Single).await
    }

    /// As [`Containerd::start`], with another `config_path`.
    pub async fn start_with(
        version: Version,
        folder: &Path,
        config_path: ConfigPath,
    ) -> Result<Self> {
        for part in ["certs.d", "cni/net.d", "opt", "tmp"] {
            fs::create_dir_all(folder.join(part))?;
        }
        configure(version, folder, config_path)?;
        let programs = tools::built(&format!("{}/containerd", version.tool()))?;
        let mut command = process::command_with_own_mounts(&programs, folder);
        command.args(["--config", "config.toml"]).env("TMPDIR", folder.join("tmp"));
        if let (Some(programs), Some(system)) = (programs.parent(), path_of(&command)) {
            command.env("PATH", format!("{}:{system}", programs.display()));
        }
        let log = folder.join("containerd.log");
        let daemon = Daemon::start(version.tool(), command, &log, &log)?;
        let containerd = Self { version, folder: folder.to_owned(), _daemon: daemon };
        containerd.cri(&["wait", "--timeout", "20s"]).await?;
        Ok(containerd)
    }

    /// Which release it is.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Where all its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its configuration.
    pub fn config_file(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// Where [`Containerd::mirror`] writes.
    pub fn certs_dir(&self) -> PathBuf {
        self.folder.join("certs.d")
    }

    /// Sends pulls of `host`'s images to `mirror` first, where [`configurator`](crate::configurator)
    /// is not the one to do it. In force from the next pull on.
    pub fn mirror(&self, host: &str, mirror: SocketAddr) -> Result<()> {
        // Of the folders that containerd looks for, the one that wins, and without a colon.
        let name = match host.rsplit_once(':') {
            Some((host, port)) => format!("{host}_{port}_"),
            None => host.to_owned(),
        };
        let folder = self.certs_dir().join(name);
        fs::create_dir_all(&folder)?;
        let text =
            format!("[host.\"http://{mirror}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
        fs::write(folder.join("hosts.toml"), text)?;
        Ok(())
    }

    /// Pulls and unpacks an image.
    pub async fn pull(&self, image: &str) -> Result<Pulled> {
        let asked = Instant::now();
        let answer = self.cri(&["pull", "--timeout", "120s", image]).await;
        let answer = answer.with_context(|| format!("{} pulling {image}", self.version))?;
        let took = asked.elapsed();
        let answer: PullAnswer = serde_json::from_str(&answer)?;
        Ok(Pulled { id: answer.id, took })
    }

    /// Pulls `image` and checks that `wanted` is what came: its id, the digest that its name has,
    /// that all its content is there and that it is unpacked.
    pub async fn pull_exactly(&self, image: &str, wanted: &Image) -> Result<Pulled> {
        let pulled = self.pull(image).await?;
        let version = self.version;
        ensure!(
            pulled.id == wanted.config.digest,
            "{version} pulled {} instead of {}",
            pulled.id,
            wanted.config.digest
        );
        let images: Vec<ListedImage> = serde_json::from_str(&self.cri(&["images"]).await?)?;
        let listed = images.iter().find(|listed| listed.id == pulled.id);
        let listed = listed.with_context(|| format!("{version} does not list {image}"))?;
        let known = listed.digests.iter().any(|name| name.ends_with(&wanted.index.digest));
        ensure!(known, "{version} knows {image} as {:?}", listed.digests);
        self.check_unpacked(image).await?;
        Ok(pulled)
    }

    /// Removes an image; its content is gone when this returns, unless another image shares it.
    pub async fn remove(&self, image: &str) -> Result<()> {
        self.cri(&["remove", image]).await?;
        Ok(())
    }

    async fn check_unpacked(&self, image: &str) -> Result<()> {
        let mut command = self.tool(&tools::built(&format!("{}/ctr", self.version.tool()))?);
        command.arg("--address").arg(self.socket()).args(["-n", "k8s.io", "images", "check"]);
        let table = process::run(command).await?;
        let rows: Vec<_> = table.lines().filter(|row| row.starts_with(image)).collect();
        let whole = |row: &&str| row.contains("complete") && row.trim_end().ends_with("true");
        ensure!(
            !rows.is_empty() && rows.iter().all(whole),
            "{}: not unpacked:\n{table}",
            self.version
        );
        Ok(())
    }

    async fn cri(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.tool(&tools::built("cri/larder-cri")?);
        command.args(arguments).arg("--socket").arg(self.socket());
        process::run(command).await
    }

    fn tool(&self, program: &Path) -> Command {
        process::command(program, &self.folder)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("c.sock")
    }
}

fn path_of(command: &Command) -> Option<String> {
    let path = command.get_envs().find(|(name, _)| *name == "PATH")?.1?;
    Some(path.to_string_lossy().into_owned())
}

/// Writes the configuration.
fn configure(version: Version, folder: &Path, config_path: ConfigPath) -> Result<()> {
    let (root, cri) =
        (common(folder), cri(version, folder, &config_path_line(folder, config_path)));
    let version = match version {
        Version::V1_6 | Version::V1_7 => "version = 2\n",
        Version::V2_4 => "version = 3\n",
    };
    let text = if config_path == ConfigPath::DropIn {
        // All of what is about the CRI: containerd 1.x takes a plugin's section from one file.
        fs::create_dir_all(folder.join("conf.d"))?;
        fs::write(folder.join("conf.d/cri.toml"), format!("{version}{cri}"))?;
        format!("{version}imports = [\"{}/conf.d/*.toml\"]\n{root}", folder.display())
    } else {
        format!("{version}{root}{cri}")
    };
    Ok(fs::write(folder.join("config.toml"), text)?)
}

fn config_path_line(folder: &Path, config_path: ConfigPath) -> String {
    let folder = folder.display();
    match config_path {
        ConfigPath::Missing => String::new(),
        ConfigPath::Single | ConfigPath::DropIn => format!("config_path = \"{folder}/certs.d\""),
        ConfigPath::Colon => format!("config_path = \"{folder}/certs.d:{folder}/other.d\""),
    }
}

/// Everything below `folder`, nothing elsewhere on the machine: by default containerd makes
/// /opt/containerd and /etc/cni/net.d, and 2.x listens in /var/run/nri.
fn common(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"root = "{folder}/root"
state = "{folder}/state"
[grpc]
  address = "{folder}/c.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
[plugins."io.containerd.nri.v1.nri"]
  disable = true
"#
    )
}

fn cri(version: Version, folder: &Path, config_path: &str) -> String {
    let folder = folder.display();
    match version {
        Version::V1_6 | Version::V1_7 => format!(
            r#"[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    {config_path}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{folder}/cni/net.d"
"#
        ),
        Version::V2_4 => format!(
            r#"[plugins."io.containerd.cri.v1.images".registry]
  {config_path}
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["/usr/lib/cni"]
  conf_dir = "{folder}/cni/net.d"
"#
        ),
    }
}
