//! The commands that do one thing and end: `configure --once`, `--dry-run`, `withdraw`.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, anyhow};
use larder_crds::node::MirrorReason;

use super::{
    certs_dir::{Change, Kind},
    colon,
    plan::Owner,
    probe::Probe,
    round,
    state::{Findings, StateFile},
};
use crate::{
    args::{ConfigureArgs, WithdrawArgs},
    config::Config,
    containerd::{Verdict, examine_files},
};

/// What `configure --once` says to a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// containerd is sent to the cache.
    Effective = 0,
    /// Anything that has no code of its own.
    Other = 1,
    /// `config_path` is missing or names another folder.
    Missing = 3,
    /// `config_path` is a list that containerd reads as one name.
    Colon = 4,
    /// Mirrors of somebody else were left alone.
    Foreign = 5,
    /// There is no containerd.
    NotContainerd = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

impl From<MirrorReason> for Exit {
    fn from(reason: MirrorReason) -> Self {
        match reason {
            MirrorReason::None => Self::Effective,
            MirrorReason::ConfigPathMissing | MirrorReason::ConfigPathElsewhere => Self::Missing,
            MirrorReason::ColonConfigPath => Self::Colon,
            MirrorReason::ForeignMirror => Self::Foreign,
            MirrorReason::NotContainerd => Self::NotContainerd,
            MirrorReason::CertsDirUnusable
            | MirrorReason::MirrorUnreachable
            | MirrorReason::ConfigUnreadable => Self::Other,
        }
    }
}

const ATTEMPTS: u32 = 3;

/// Runs `configure --once` or `configure --dry-run`.
pub async fn configure(args: ConfigureArgs) -> anyhow::Result<Exit> {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => return unreadable(&args, error.into()),
    };
    for rejected in &config.rejected {
        say(&format!("{}: {}: {}", rejected.host, rejected.field, rejected.message))?;
    }
    let (certs_dir, config_file) = args.places(Some(&config.containerd));
    let mut inspection = examine_files(&config_file, &certs_dir);
    let round = args.round(&certs_dir, &inspection.roots, Some(&config), true);
    let answers = args.dry_run || answers(&args).await?;
    let write = answers && inspection.verdict != Verdict::NotContainerd;
    let mut done = if args.dry_run {
        round.preview(config.upstreams.keys())
    } else if write {
        round.write(config.upstreams.keys())
    } else {
        round::withdraw(&certs_dir, &round.owner(), false)
    };
    if let Ok(outcome) = &mut done {
        if write {
            let allowed = config.containerd.colon_path_repair;
            let settled = colon::settle(&certs_dir, inspection.clone(), allowed, args.dry_run)?;
            inspection = settled.0;
            outcome.changes.extend(settled.1);
        }
        tell(&outcome.changes, args.dry_run)?;
        tell_unread(&outcome.unread)?;
    }
    let round = done.map_err(|error| error.to_string());
    let findings = Findings { containerd: inspection, answers, round, config_error: None };
    let judgement = findings.judge();
    let (state, reason, message) = judgement.clone();
    if !args.dry_run {
        StateFile::new(args.state.clone(), &args.instance).put(judgement, findings.hosts());
    }
    let hosts = findings.hosts().join(", ");
    match reason {
        MirrorReason::None if message.is_empty() => say(&format!("{}: {hosts}", state.as_str()))?,
        MirrorReason::None => say(&format!("{}: {hosts}\n{message}", state.as_str()))?,
        _ => say(&format!("{} ({}): {message}", state.as_str(), reason.as_str()))?,
    }
    Ok(reason.into())
}

/// What is wrong with our own document is the state, as in an agent.
fn unreadable(args: &ConfigureArgs, error: anyhow::Error) -> anyhow::Result<Exit> {
    if !args.dry_run {
        let (certs_dir, config_file) = args.places(None);
        let containerd = examine_files(&config_file, &certs_dir);
        let (round, config_error) = (Ok(round::Outcome::default()), Some(format!("{error:#}")));
        let findings = Findings { containerd, answers: true, round, config_error };
        StateFile::new(args.state.clone(), &args.instance).put(findings.judge(), &[]);
    }
    Err(error)
}

async fn answers(args: &ConfigureArgs) -> anyhow::Result<bool> {
    let probe = Probe::new(&args.mirror).context("cannot make an HTTP client")?;
    for attempt in 1..=ATTEMPTS {
        if probe.answers().await {
            return Ok(true);
        }
        if attempt < ATTEMPTS {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    Ok(false)
}

/// Runs `withdraw`.
pub fn withdraw(args: &WithdrawArgs) -> anyhow::Result<Exit> {
    let owner = match &args.instance {
        Some(instance) if !args.any => Owner::Instance(instance.clone()),
        _ => Owner::Any,
    };
    let outcome = round::withdraw(&args.certs_dir, &owner, args.dry_run)
        .map_err(|error| anyhow!(error.to_string()))?;
    tell(&outcome.changes, args.dry_run)?;
    tell_unread(&outcome.unread)?;
    for (name, why) in outcome.failed.iter().chain(&outcome.left) {
        say(&format!("{name}: {why}"))?;
    }
    Ok(match (outcome.failed.is_empty(), outcome.left.is_empty()) {
        (false, _) => Exit::Other,
        (true, false) => Exit::Foreign,
        (true, true) => Exit::Effective,
    })
}

/// Names what was done on standard error, or shows on standard output what would be.
fn tell(changes: &[Change], dry_run: bool) -> io::Result<()> {
    for change in changes {
        if dry_run {
            write!(io::stdout(), "{}", diff(change))?;
        } else {
            let what = if change.after.is_some() { "wrote" } else { "removed" };
            say(&format!("{what} {}", change.path.display()))?;
        }
    }
    Ok(())
}

fn tell_unread(folders: &[(String, String)]) -> io::Result<()> {
    for (name, why) in folders {
        say(&format!("{name}: {why}; if it holds a file of Larder, that stays"))?;
    }
    Ok(())
}

/// A file as a unified diff; folders and links, of which such a diff knows nothing, as its comments.
fn diff(change: &Change) -> String {
    let path = change.path.display();
    let what = if change.after.is_some() { "make" } else { "remove" };
    match change.kind {
        Kind::Folder => format!("# {what} the folder {path}\n"),
        Kind::Link => {
            let target = change.after.as_ref().or(change.before.as_ref());
            let target = target.map(String::as_str).unwrap_or_default();
            format!("# {what} the symbolic link {path} -> {target}\n")
        }
        Kind::File => {
            let text = |side: &Option<String>| side.clone().unwrap_or_default();
            let name = |side: &Option<String>| match side {
                Some(_) => path.to_string(),
                None => "/dev/null".to_owned(),
            };
            let (before, after) = (text(&change.before), text(&change.after));
            let diff = similar::TextDiff::from_lines(&before, &after);
            let mut diff = diff.unified_diff();
            diff.header(&name(&change.before), &name(&change.after)).to_string()
        }
    }
}

fn say(line: &str) -> io::Result<()> {
    writeln!(io::stderr(), "larder-node: {line}")
}
