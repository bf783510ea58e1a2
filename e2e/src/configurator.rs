//! `larder-node configure` and `withdraw`, which write containerd's mirror files.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use larder_crds::node::{ExistingHosts, MirrorState, MirrorStatus};

use crate::{
    containerd::Containerd,
    larder::Larder,
    process::{self, Daemon, POLL},
    tools,
};

const INSTANCE: &str = "e2e";
/// Three probes, one second apart, and what a busy machine may add.
const SETTLED_WITHIN: Duration = Duration::from_secs(20);
/// SIGTERM withdraws in under a second; the rest is a busy machine's.
const STOPPED_WITHIN: Duration = Duration::from_secs(3);

/// A running configurator. Dropping it kills it: its files stay.
pub struct Configurator {
    state: PathBuf,
    daemon: Daemon,
}

impl Configurator {
    /// Starts one that sends `containerd` to `larder`.
    pub fn start(
        larder: &Larder,
        containerd: &Containerd,
        existing: ExistingHosts,
    ) -> Result<Self> {
        Self::start_as(larder, containerd, &format!("existing: {existing:?}"))
    }

    /// Starts one that may repair a `config_path` with a colon.
    pub fn start_repairing(larder: &Larder, containerd: &Containerd) -> Result<Self> {
        Self::start_as(larder, containerd, "colonPathRepair: true")
    }

    fn start_as(larder: &Larder, containerd: &Containerd, how: &str) -> Result<Self> {
        let folder = containerd.folder();
        // Of an older process.
        let state = folder.join("state.json");
        if state.exists() {
            fs::remove_file(&state)?;
        }
        let mut command = command(larder, containerd, how)?;
        command.args(["--state", "state.json", "--log", "json"]);
        let log = folder.join("configure.log");
        let daemon = Daemon::start("larder-node configure", command, &log, &log)?;
        Ok(Self { state, daemon })
    }

    /// Its state file; `None` as long as there is none.
    pub fn status(&self) -> Result<Option<MirrorStatus>> {
        if !self.state.exists() {
            return Ok(None);
        }
        let text = fs::read(&self.state)?;
        Ok(Some(serde_json::from_slice(&text).context("the configurator's state")?))
    }

    /// Waits until it says that it is in `state`.
    pub async fn reaches(&mut self, state: MirrorState) -> Result<MirrorStatus> {
        let waiting = async {
            loop {
                self.daemon.check_running()?;
                match self.status()? {
                    Some(status) if status.state == state => return Ok(status),
                    _ => tokio::time::sleep(POLL).await,
                }
            }
        };
        match tokio::time::timeout(SETTLED_WITHIN, waiting).await {
            Ok(reached) => reached,
            Err(_) => {
                anyhow::bail!("not {state:?} within {SETTLED_WITHIN:?}: {:?}", self.status()?)
            }
        }
    }

    /// SIGTERM, which must end it with success.
    pub async fn stop(self) -> Result<()> {
        let status = self.daemon.terminate(STOPPED_WITHIN).await?;
        ensure!(status.success(), "larder-node configure ended with {status} after SIGTERM");
        Ok(())
    }

    /// SIGKILL.
    pub fn kill(self) -> Result<()> {
        self.daemon.kill()
    }
}

/// Sends `containerd` to `larder` once and for all: nobody withdraws when Larder does not answer.
pub async fn once(larder: &Larder, containerd: &Containerd) -> Result<()> {
    let mut command = command(larder, containerd, "existing: Prepend")?;
    command.arg("--once");
    process::run(command).await?;
    Ok(())
}

/// Takes away what a configurator left in `certs_dir`, as an administrator would.
pub async fn withdraw(certs_dir: &Path) -> Result<()> {
    let mut command = process::command(&tools::larder_node()?, certs_dir);
    command.args(["withdraw", "--instance", INSTANCE, "--certs-dir"]).arg(certs_dir);
    process::run(command).await?;
    Ok(())
}

/// With its document among containerd's files.
fn command(larder: &Larder, containerd: &Containerd, how: &str) -> Result<Command> {
    let folder = containerd.folder();
    let document = format!(
        "{}containerd: {{certsDir: {}, configFile: {}, {how}}}\n",
        fs::read_to_string(larder.config_file())?,
        containerd.certs_dir().display(),
        containerd.config_file().display(),
    );
    fs::write(folder.join("configure.yaml"), document)?;
    let mut command = process::command(&tools::larder_node()?, folder);
    command
        .args(["configure", "--config", "configure.yaml", "--instance", INSTANCE])
        .args(["--mirror", &format!("http://{}", larder.address())]);
    Ok(command)
}
