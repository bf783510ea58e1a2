//! The configurator: once a second it sees to it that the files are there while the cache answers.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, bail};
use larder_crds::node::Containerd;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    certs_dir::CertsDirError,
    colon,
    plan::Owner,
    probe::Probe,
    round::{self, Outcome, Round},
    state::{Findings, StateFile},
};
use crate::{
    args::ConfigureArgs,
    config::{self, Config, ConfigSource},
    containerd::{self, Inspection, Verdict},
};

const EVERY: Duration = Duration::from_secs(1);
/// So many probes in a row without an answer, and the cache is taken for hung.
const PATIENCE: u32 = 3;
/// What is left of the second in which an ending process withdraws.
const LAST: Duration = Duration::from_millis(900);

/// Runs `larder-node configure` until SIGTERM or SIGINT, then withdraws.
pub async fn run(args: ConfigureArgs) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let probe = Probe::new(&args.mirror).context("cannot make an HTTP client")?;
    let source = ConfigSource::File(args.config.clone());
    let (send, config) = watch::channel(Loaded::default().with(source.load()));
    let reload = tokio::spawn(config::watch(source, move |loaded| {
        send.send_modify(|known| *known = known.clone().with(loaded));
    }));
    let mut agent = Agent {
        state: StateFile::new(args.state.clone(), &args.instance),
        args: Arc::new(args),
        config,
        takeover: true,
        wrote: None,
        answers: false,
        failed: 0,
        lost: 0,
        unread: Vec::new(),
    };
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let ended = loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            _ = ticks.tick() => {}
        }
        let answers = tokio::select! {
            biased;
            _ = terminate.recv() => break Ok(()),
            _ = interrupt.recv() => break Ok(()),
            answers = probe.answers() => answers,
        };
        if let Err(error) = agent.round(answers).await {
            break Err(error);
        }
    };
    reload.abort();
    if ended.is_ok() {
        agent.withdraw().await?;
    }
    ended
}

/// The configuration in force, and what is wrong with a newer one.
#[derive(Clone, Debug, Default)]
struct Loaded {
    config: Option<Arc<Config>>,
    error: Option<String>,
}

impl Loaded {
    fn with(self, loaded: Result<Config, config::ConfigError>) -> Self {
        match loaded {
            Ok(config) => Self { config: Some(Arc::new(config)), error: None },
            Err(error) => Self { error: Some(format!("{:#}", anyhow::Error::from(error))), ..self },
        }
    }
}

struct Agent {
    args: Arc<ConfigureArgs>,
    config: watch::Receiver<Loaded>,
    state: StateFile,
    /// Until the first files are written: what is there belongs to an older process.
    takeover: bool,
    /// The folder that holds our files.
    wrote: Option<PathBuf>,
    answers: bool,
    failed: u32,
    /// Rounds in a row in which the folder was gone.
    lost: u32,
    /// Folders that could not be looked into, of which the log has spoken.
    unread: Vec<(String, String)>,
}

impl Agent {
    async fn round(&mut self, answered: bool) -> anyhow::Result<()> {
        if answered {
            (self.failed, self.answers) = (0, true);
        } else {
            self.failed = self.failed.saturating_add(1);
            self.answers &= self.failed < PATIENCE;
        }
        // A cache that has not answered yet may be starting.
        if !self.answers && self.failed < PATIENCE {
            return Ok(());
        }
        let loaded = self.config.borrow().clone();
        let task = Task {
            args: self.args.clone(),
            config: loaded.config.clone(),
            answers: self.answers,
            takeover: self.takeover,
            previous: self.wrote.clone(),
        };
        let done = tokio::task::spawn_blocking(move || task.run()).await?;
        let round = match done.round {
            Ok(outcome) => {
                self.lost = 0;
                for change in &outcome.changes {
                    let what = if change.after.is_some() { "wrote" } else { "removed" };
                    tracing::info!(path = %change.path.display(), "{what}");
                }
                if self.unread != outcome.unread {
                    warn_unread(&outcome.unread);
                    self.unread.clone_from(&outcome.unread);
                }
                // Without a document nothing was written, and what an older process left is to
                // be taken over when there is one.
                if self.answers && loaded.config.is_some() {
                    self.takeover = false;
                    self.wrote = Some(done.certs_dir);
                }
                Ok(outcome)
            }
            Err(error) => {
                if self.wrote.is_some() && error.is_dead_mount() {
                    self.lost += 1;
                    if self.lost > 1 {
                        bail!("{error}; the folder is gone, so this process has to start anew");
                    }
                }
                Err(error.to_string())
            }
        };
        let findings = Findings {
            containerd: done.inspection,
            answers: self.answers,
            round,
            config_error: loaded.error,
        };
        self.state.put(findings.judge(), findings.hosts());
        Ok(())
    }

    /// Takes away what this process wrote.
    async fn withdraw(&mut self) -> anyhow::Result<()> {
        let containerd =
            self.config.borrow().config.as_ref().map(|config| config.containerd.clone());
        let certs_dir =
            self.wrote.clone().unwrap_or_else(|| self.args.places(containerd.as_ref()).0);
        let owner = Owner::Instance(self.args.instance.clone());
        let task = tokio::task::spawn_blocking(move || round::withdraw(&certs_dir, &owner, false));
        let outcome = timeout(LAST, task).await.context("withdrawing takes too long")??;
        let outcome = outcome.context("cannot withdraw")?;
        warn_unread(&outcome.unread);
        for (folder, why) in &outcome.failed {
            tracing::error!(folder, why, "a mirror stays");
        }
        tracing::info!(files = outcome.changes.len(), "withdrawn");
        Ok(())
    }
}

fn warn_unread(folders: &[(String, String)]) {
    for (folder, why) in folders {
        tracing::warn!(folder, why, "not looked into; if it holds a file of Larder, that stays");
    }
}

/// The blocking part of a round.
struct Task {
    args: Arc<ConfigureArgs>,
    config: Option<Arc<Config>>,
    answers: bool,
    takeover: bool,
    previous: Option<PathBuf>,
}

struct Done {
    certs_dir: PathBuf,
    inspection: Inspection,
    round: Result<Outcome, CertsDirError>,
}

impl Task {
    fn run(&self) -> Done {
        let section = self.config.as_ref().map(|config| &config.containerd);
        let (certs_dir, config_file) = self.args.places(section);
        let inspection = containerd::examine_files(&config_file, &certs_dir);
        let (inspection, round) = match self.work(&certs_dir, inspection.clone()) {
            Ok((inspection, outcome)) => (inspection, Ok(outcome)),
            Err(error) => (inspection, Err(error)),
        };
        Done { certs_dir, inspection, round }
    }

    fn work(
        &self,
        certs_dir: &Path,
        inspection: Inspection,
    ) -> Result<(Inspection, Outcome), CertsDirError> {
        let own = Owner::Instance(self.args.instance.clone());
        if let Some(previous) = self.previous.as_deref().filter(|previous| *previous != certs_dir) {
            round::withdraw(previous, &own, false)?;
        }
        let config = self.config.as_deref();
        let round = self.args.round(certs_dir, &inspection.roots, config, self.takeover);
        let Some(config) = config else {
            return Ok((inspection, Outcome::default()));
        };
        if !self.answers || inspection.verdict == Verdict::NotContainerd {
            // What an older process left is no better than ours.
            let outcome = round::withdraw(certs_dir, &round.owner(), false)?;
            return Ok((inspection, outcome));
        }
        let mut outcome = round.write(config.upstreams.keys())?;
        let allowed = config.containerd.colon_path_repair;
        let (inspection, change) = colon::settle(certs_dir, inspection, allowed, false)?;
        outcome.changes.extend(change);
        Ok((inspection, outcome))
    }
}

impl ConfigureArgs {
    /// containerd's folder of mirrors and its configuration: as flags say, else as the document.
    pub(super) fn places(&self, section: Option<&Containerd>) -> (PathBuf, PathBuf) {
        let section = section.cloned().unwrap_or_default();
        (
            self.certs_dir.clone().unwrap_or(section.certs_dir),
            self.containerd_config.clone().unwrap_or(section.config_file),
        )
    }

    /// A round over `certs_dir`.
    pub(super) fn round<'a>(
        &'a self,
        certs_dir: &'a Path,
        roots: &'a [PathBuf],
        config: Option<&Config>,
        takeover: bool,
    ) -> Round<'a> {
        Round {
            certs_dir,
            roots,
            instance: &self.instance,
            mirror: self.mirror.as_str(),
            existing: config.map(|config| config.containerd.existing).unwrap_or_default(),
            takeover,
        }
    }
}
