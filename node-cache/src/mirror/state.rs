//! What the configurator found, as a status and as a file for `larder-node serve`.

use std::{
    fs::{self, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use larder_crds::node::{API_VERSION, MirrorReason, MirrorReport, MirrorState, MirrorStatus};

use super::round::Outcome;
use crate::containerd::{Inspection, Verdict};

/// Everything that makes up the state.
#[derive(Clone, Debug)]
pub struct Findings {
    /// Whether containerd reads the folder, and what that depends on.
    pub containerd: Inspection,
    /// Whether the cache answers.
    pub answers: bool,
    /// What came of the last round, or why the folder cannot be used.
    pub round: Result<Outcome, String>,
    /// Why our own configuration cannot be read, if it cannot.
    pub config_error: Option<String>,
}

/// The state and its reason, with a text for people.
pub type Judgement = (MirrorState, MirrorReason, String);

impl Findings {
    /// The worst of what was found. Without a reason the text is empty, or says under what condition
    /// all is well.
    pub fn judge(&self) -> Judgement {
        let outcome = match &self.round {
            Err(message) => {
                return (MirrorState::Failing, MirrorReason::CertsDirUnusable, message.clone());
            }
            Ok(outcome) => outcome,
        };
        // The files are there all the same: they wait for the edit.
        let not = |reason, message: String| (MirrorState::NotEffective, reason, message);
        if self.containerd.verdict == Verdict::NotContainerd {
            let message = "there is no containerd configuration on this machine".to_owned();
            return not(MirrorReason::NotContainerd, message);
        }
        if let Some(error) = &self.config_error
            && outcome.mirrored.is_empty()
        {
            return (MirrorState::Failing, MirrorReason::ConfigUnreadable, error.clone());
        }
        if !self.answers {
            let message = "the cache does not answer; its log says why".to_owned();
            return (MirrorState::Withdrawn, MirrorReason::MirrorUnreachable, message);
        }
        match &self.containerd.verdict {
            Verdict::Missing { edit } => {
                return not(MirrorReason::ConfigPathMissing, edit.clone());
            }
            Verdict::Colon { path, edit } => {
                let message = format!("config_path {path:?} is read as one name; {edit}");
                return not(MirrorReason::ColonConfigPath, message);
            }
            Verdict::Elsewhere { path, edit } => {
                let message = format!("config_path is {}; {edit}", path.display());
                return not(MirrorReason::ConfigPathElsewhere, message);
            }
            Verdict::Unreadable { message } => {
                return (MirrorState::Failing, MirrorReason::ConfigUnreadable, message.clone());
            }
            Verdict::Effective | Verdict::NotContainerd => {}
        }
        if !outcome.left.is_empty() {
            let left = outcome.left.iter().map(|(host, why)| format!("{host}: {why}"));
            let message = left.collect::<Vec<_>>().join("\n");
            let state = if outcome.mirrored.is_empty() {
                MirrorState::NotEffective
            } else {
                MirrorState::Mirrored
            };
            return (state, MirrorReason::ForeignMirror, message);
        }
        if let Some(error) = &self.config_error {
            return (MirrorState::Mirrored, MirrorReason::ConfigUnreadable, error.clone());
        }
        let caution = self.containerd.caution.as_ref().map(|caution| caution.message.clone());
        (MirrorState::Mirrored, MirrorReason::None, caution.unwrap_or_default())
    }

    /// The registries with a file of ours.
    pub fn hosts(&self) -> &[String] {
        match &self.round {
            Ok(outcome) if self.answers => &outcome.mirrored,
            _ => &[],
        }
    }
}

/// The file is written again after this long, so that its age tells whether anybody is there.
const REFRESH: Duration = Duration::from_secs(4);
/// Older than this, a state says nothing.
const MAX_AGE: jiff::SignedDuration = jiff::SignedDuration::from_secs(15);
/// Longest message in a report, which as a whole stays below 256 KiB.
const MAX_SIZE: u64 = 1 << 20;

/// The state file of a running configurator.
#[derive(Debug)]
pub struct StateFile {
    path: Option<PathBuf>,
    instance: String,
    last: Option<(MirrorStatus, Instant)>,
}

impl StateFile {
    /// The file at `path`; without one, states only go to the log.
    pub fn new(path: Option<PathBuf>, instance: &str) -> Self {
        Self { path, instance: instance.to_owned(), last: None }
    }

    /// Writes a state if it is a new one, or if the last is about to be too old.
    pub fn put(&mut self, judgement: Judgement, hosts: &[String]) {
        let (state, reason, message) = judgement;
        let last = self.last.as_ref();
        let same = last.filter(|(last, _)| {
            (last.state, last.reason, &last.message, last.hosts.as_slice())
                == (state, reason, &message, hosts)
        });
        if same.is_some_and(|(_, written)| written.elapsed() < REFRESH) {
            return;
        }
        if same.is_none() {
            let (state, reason) = (state.as_str(), reason.as_str());
            tracing::info!(state, reason, message, hosts = hosts.join(","), "mirror state");
        }
        let status = MirrorStatus {
            api_version: API_VERSION.to_owned(),
            instance: self.instance.clone(),
            time: Timestamp::now(),
            state,
            reason,
            message,
            hosts: hosts.to_vec(),
        };
        if let Some(path) = &self.path
            && let Err(error) = write(path, &status)
        {
            let path = path.display();
            tracing::error!(%path, %error, "cannot write --state");
        }
        self.last = Some((status, Instant::now()));
    }
}

fn write(path: &Path, status: &MirrorStatus) -> io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new().prefix(".larder-state-").tempfile_in(folder)?;
    serde_json::to_writer_pretty(&mut file, status)?;
    file.write_all(b"\n")?;
    // The server shares the group and reads, never writes.
    file.as_file().set_permissions(Permissions::from_mode(0o640))?;
    file.persist(path)?;
    Ok(())
}

/// What a report says: the state in the file at `path` if it is from now, else `Unknown`.
pub fn report(path: Option<&Path>) -> MirrorReport {
    let status = path
        .and_then(read)
        .filter(|status| Timestamp::now().duration_since(status.time).abs() <= MAX_AGE);
    match status {
        Some(status) => MirrorReport {
            state: status.state.as_str().to_owned(),
            reason: status.reason.as_str().to_owned(),
            hosts: status.hosts,
        },
        None => MirrorReport { state: "Unknown".to_owned(), ..MirrorReport::default() },
    }
}

fn read(path: &Path) -> Option<MirrorStatus> {
    let small = fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() <= MAX_SIZE);
    small.then(|| serde_json::from_slice(&fs::read(path).ok()?).ok()).flatten()
}

#[cfg(test)]
mod tests;
