//! `larder-node serve`, the program under test.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use larder_crds::node::NodeReport;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::{
    certificates::Certificates,
    disk::Mounts,
    metrics::Metrics,
    process::{self, Daemon, POLL},
    tools,
};

const READY_WITHIN: Duration = Duration::from_secs(10);
const DOCUMENT: &str = "config.yaml";

/// An upstream as the configuration names it.
#[derive(Clone, Debug)]
pub struct Upstream {
    host: String,
    endpoint: String,
    tls: Option<Certificates>,
}

impl Upstream {
    /// One that is `host` in image names and really at `endpoint`.
    pub fn at(host: impl Into<String>, endpoint: SocketAddr) -> Self {
        Self { host: host.into(), endpoint: format!("http://{endpoint}"), tls: None }
    }

    /// One that talks TLS, with a certificate of its own authority, to clients of that authority.
    pub fn behind_tls(
        host: impl Into<String>,
        endpoint: SocketAddr,
        certificates: &Certificates,
    ) -> Self {
        let endpoint = format!("https://{endpoint}");
        Self { host: host.into(), endpoint, tls: Some(certificates.clone()) }
    }

    fn document(&self) -> String {
        let Self { host, endpoint, tls } = self;
        let tls = tls.as_ref().map_or_else(String::new, |certificates| {
            let [ca, certificate, key] = ["ca.crt", "client.cert", "client.key"]
                .map(|name| certificates.file(name).display().to_string());
            format!(
                "  tls: {{caFile: {ca}, clientCertFile: {certificate}, clientKeyFile: {key}}}\n"
            )
        });
        format!("- host: \"{host}\"\n  endpoints: [{{url: \"{endpoint}\"}}]\n{tls}")
    }
}

/// What a node cache runs on, where it is not the machine as it is.
#[derive(Clone, Debug, Default)]
pub struct Ground {
    /// A disk's namespace.
    pub mounts: Option<Mounts>,
    /// Further environment variables.
    pub environment: Vec<(String, String)>,
}

/// A node cache with a store of its own, on two ports of its own.
pub struct Larder {
    folder: PathBuf,
    ground: Ground,
    daemon: Option<Daemon>,
    pull: SocketAddr,
    admin: SocketAddr,
}

impl Larder {
    /// Starts one with an empty store in `folder`. Serves when this returns.
    pub async fn start(folder: &Path, upstreams: &[Upstream]) -> Result<Self> {
        Self::start_on(Ground::default(), folder, upstreams).await
    }

    /// Starts one on a ground of its own. Serves when this returns.
    pub async fn start_on(ground: Ground, folder: &Path, upstreams: &[Upstream]) -> Result<Self> {
        fs::write(folder.join(DOCUMENT), configuration(folder, upstreams))?;
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut larder = Self {
            folder: folder.to_owned(),
            ground,
            daemon: None,
            pull: anywhere,
            admin: anywhere,
        };
        larder.start_again().await?;
        Ok(larder)
    }

    /// Starts it again on its ports, with what it had.
    pub async fn start_again(&mut self) -> Result<()> {
        let log = self.folder.join("larder.log");
        let seen = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let program = tools::larder_node()?;
        let mut command = match self.ground.mounts {
            Some(mounts) => mounts.command(&program, &self.folder),
            None => process::command(&program, &self.folder),
        };
        command
            .envs(self.ground.environment.iter().map(|(name, value)| (name, value)))
            .args(["serve", "--config", DOCUMENT, "--log", "json", "--instance", "e2e"])
            .args(["--listen", &self.pull.to_string(), "--admin", &self.admin.to_string()]);
        let mut daemon =
            Daemon::start("larder-node", command, &self.folder.join("stdout.log"), &log)?;
        let waiting = async {
            loop {
                daemon.check_running()?;
                if let Some(serving) = serving(&log, seen)? {
                    return Ok::<_, anyhow::Error>(serving);
                }
                tokio::time::sleep(POLL).await;
            }
        };
        let serving = tokio::time::timeout(READY_WITHIN, waiting).await;
        let serving = serving.context("larder-node never said that it serves")??;
        (self.pull, self.admin) = (serving.pull, serving.admin);
        self.daemon = Some(daemon);
        Ok(())
    }

    /// Where clients pull.
    pub fn address(&self) -> SocketAddr {
        self.pull
    }

    /// Where its metrics and its report are.
    pub fn admin_address(&self) -> SocketAddr {
        self.admin
    }

    /// Its document, with nothing about containerd.
    pub fn config_file(&self) -> PathBuf {
        self.folder.join(DOCUMENT)
    }

    /// A reference in the path form: `127.0.0.1:PORT/HOST/REPOSITORY:TAG`.
    pub fn path_form(&self, image: &str) -> String {
        format!("{}/{image}", self.pull)
    }

    /// One reading of its metrics.
    pub async fn metrics(&self) -> Result<Metrics> {
        let answer = reqwest::get(format!("http://{}/metrics", self.admin)).await?;
        Metrics::parse(&answer.error_for_status()?.text().await?)
    }

    /// What it says of itself.
    pub async fn report(&self) -> Result<NodeReport> {
        let answer = reqwest::get(format!("http://{}/report", self.admin)).await?;
        let text = answer.error_for_status()?.text().await?;
        serde_json::from_str(&text).context("the report of larder-node")
    }

    /// Whether it is running, as far as we started and ended it ourselves.
    pub fn is_started(&self) -> bool {
        self.daemon.is_some()
    }

    /// Its data folder, as the test sees it.
    pub fn store(&self) -> PathBuf {
        let store = self.folder.join("store");
        self.ground.mounts.map_or(store.clone(), |mounts| mounts.seen(&store))
    }

    /// SIGSTOP: it holds its ports and does nothing more.
    pub fn freeze(&self) -> Result<()> {
        let daemon = self.daemon.as_ref().context("larder-node is not running")?;
        let pid = i32::try_from(daemon.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("a process has an id")?, Signal::STOP)?;
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.take().context("larder-node is not running")?.kill()
    }

    /// SIGTERM, which must end it with success.
    pub async fn stop(&mut self) -> Result<()> {
        let daemon = self.daemon.take().context("larder-node is not running")?;
        let status = daemon.terminate(Duration::from_secs(10)).await?;
        ensure!(status.success(), "larder-node ended with {status} after SIGTERM");
        Ok(())
    }
}

/// Everything that stories do not speak of is as the defaults have it, except that a full disk of
/// the machine they run on is not their subject.
fn configuration(folder: &Path, upstreams: &[Upstream]) -> String {
    let store = folder.join("store");
    let upstreams: Vec<_> = upstreams.iter().map(Upstream::document).collect();
    format!(
        "apiVersion: node.larder.dev/v1alpha1\n\
         kind: NodeConfig\n\
         storage: {{path: {}, capacity: 20Gi, minFree: \"1%\"}}\n\
         upstreams:\n{}",
        store.display(),
        upstreams.concat()
    )
}

#[derive(Deserialize)]
struct Line {
    fields: serde_json::Value,
}

#[derive(Deserialize)]
struct Serving {
    pull: SocketAddr,
    admin: SocketAddr,
}

/// The line that says where it serves, after the first `seen` bytes of the log.
fn serving(log: &Path, seen: u64) -> Result<Option<Serving>> {
    let text = fs::read_to_string(log)?;
    let new = text.get(usize::try_from(seen)?..).unwrap_or_default();
    for line in new.lines() {
        let Ok(Line { fields }) = serde_json::from_str(line) else {
            continue;
        };
        if fields["message"] == "serving" {
            let serving = serde_json::from_value(fields).context("what it serves on")?;
            return Ok(Some(serving));
        }
    }
    Ok(None)
}
