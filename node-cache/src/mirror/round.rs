//! All registries once: written, or withdrawn.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use larder_crds::node::ExistingHosts;

use super::{
    certs_dir::{self, CertsDir, CertsDirError, Change, Kind},
    plan::{Owner, Plan, Refusal, Undo, Want},
};
use crate::oci::UpstreamHost;

/// So often a folder is looked at anew when somebody else changes it at the same moment.
const ATTEMPTS: u32 = 3;

/// What a round is to do.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// containerd's folder.
    pub certs_dir: &'a Path,
    /// All folders that containerd searches, if there are several.
    pub roots: &'a [PathBuf],
    /// Who writes.
    pub instance: &'a str,
    /// Address of the cache.
    pub mirror: &'a str,
    /// What happens to mirrors of somebody else.
    pub existing: ExistingHosts,
    /// Whether files of other instances are taken over. Only a process that has just begun does:
    /// it is the newer one.
    pub takeover: bool,
}

/// What a round came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Registries that are mirrored.
    pub mirrored: Vec<String>,
    /// Registries or folders that are left alone, and why.
    pub left: Vec<(String, String)>,
    /// Folders from which something could not be taken away, and why.
    pub failed: Vec<(String, String)>,
    /// Folders that could not be looked into, and why: if they have something of ours, it stays.
    pub unread: Vec<(String, String)>,
    /// What was changed.
    pub changes: Vec<Change>,
}

impl Round<'_> {
    /// Writes what is missing for `hosts` and withdraws what is of no other.
    pub fn write<'h>(
        &self,
        hosts: impl IntoIterator<Item = &'h UpstreamHost>,
    ) -> Result<Outcome, CertsDirError> {
        let mut outcome = Outcome::default();
        if self.certs_dir.symlink_metadata().is_err() {
            outcome.changes.push(new_folder(self.certs_dir));
        }
        let folder = CertsDir::create(self.certs_dir)?.among(self.roots);
        folder.sweep()?;
        let mut wanted = BTreeSet::new();
        let mut read_only = None;
        for host in hosts {
            match self.write_one(&folder, host) {
                Ok(Ok((name, changes))) => {
                    outcome.changes.extend(changes);
                    wanted.insert(name);
                    outcome.mirrored.push(host.to_string());
                }
                Ok(Err(refusal)) => outcome.left.push((host.to_string(), refusal.0)),
                Err(error) if error.is_dead_mount() => return Err(error),
                // A folder of another user, say: the other registries are none the worse.
                Err(error) => {
                    outcome.left.push((host.to_string(), refused(&error)));
                    read_only = read_only.or(Some(error).filter(CertsDirError::is_read_only));
                }
            }
        }
        if let (Some(CertsDirError::Io { .. }), true) = (read_only, outcome.mirrored.is_empty()) {
            let problem = "is on a read-only file system; mount it for writing".to_owned();
            return Err(CertsDirError::Unusable { path: self.certs_dir.to_owned(), problem });
        }
        let ours = folder.ours()?;
        outcome.unread = ours.unread;
        for name in ours.names.into_iter().filter(|name| !wanted.contains(name)) {
            withdraw_one(&folder, &name, &self.owner(), &mut outcome)?;
        }
        Ok(outcome)
    }

    /// The name of the registry's folder, and what was changed in it.
    fn write_one(
        &self,
        folder: &CertsDir,
        host: &UpstreamHost,
    ) -> Result<Result<(String, Vec<Change>), Refusal>, CertsDirError> {
        let mut attempts = 1..=ATTEMPTS;
        loop {
            let entry = folder.entry(host)?;
            let plan = match entry.plan(&self.want()) {
                Ok(plan) => plan,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let changes = entry.preview(&plan);
            match entry.apply(&plan) {
                Err(CertsDirError::Changed { .. }) if attempts.next().is_some() => {}
                done => return done.map(|()| Ok((entry.name().to_owned(), changes))),
            }
        }
    }

    /// What [`write`](Self::write) would do.
    pub fn preview<'h>(
        &self,
        hosts: impl IntoIterator<Item = &'h UpstreamHost>,
    ) -> Result<Outcome, CertsDirError> {
        let mut outcome = Outcome::default();
        let folder = CertsDir::open(self.certs_dir)?.map(|folder| folder.among(self.roots));
        if folder.is_none() {
            outcome.changes.push(new_folder(self.certs_dir));
        }
        let mut wanted = BTreeSet::new();
        for host in hosts {
            let planned = match &folder {
                Some(folder) => folder.entry(host).map(|entry| {
                    let plan = entry.plan(&self.want())?;
                    Ok((entry.name().to_owned(), entry.preview(&plan)))
                }),
                None => Ok(self.first_plan(host)),
            };
            match planned.unwrap_or_else(|error| Err(Refusal(refused(&error)))) {
                Ok((name, changes)) => {
                    outcome.mirrored.push(host.to_string());
                    wanted.insert(name);
                    outcome.changes.extend(changes);
                }
                Err(refusal) => outcome.left.push((host.to_string(), refusal.0)),
            }
        }
        if let Some(folder) = folder {
            for name in folder.ours()?.names.into_iter().filter(|name| !wanted.contains(name)) {
                let entry = folder.entry_named(&name)?;
                outcome.changes.extend(entry.preview_undo(&entry.undo(&self.owner())));
            }
        }
        Ok(outcome)
    }

    /// What is planned where there is no folder of mirrors yet.
    fn first_plan(&self, host: &UpstreamHost) -> Result<(String, Vec<Change>), Refusal> {
        let name = super::folder::candidates(host).swap_remove(0);
        let path = self.certs_dir.join(&name).join("hosts.toml");
        let changes = match super::plan::plan(&super::plan::Seen::default(), &self.want())? {
            Plan::Create(hosts) | Plan::Write { hosts, .. } => {
                let after = Some(String::from_utf8_lossy(&hosts.bytes).into_owned());
                vec![Change { kind: Kind::File, path, before: None, after }]
            }
            Plan::Keep => Vec::new(),
        };
        Ok((name, changes))
    }

    fn want(&self) -> Want<'_> {
        let Self { instance, mirror, existing, takeover, .. } = *self;
        Want { instance, mirror, existing, takeover }
    }

    /// Whose files this round may take away.
    pub fn owner(&self) -> Owner {
        if self.takeover { Owner::Any } else { Owner::Instance(self.instance.to_owned()) }
    }
}

/// Brings one folder back to what it was; trouble with it is the folder's own.
fn withdraw_one(
    folder: &CertsDir,
    name: &str,
    owner: &Owner,
    outcome: &mut Outcome,
) -> Result<Undo, CertsDirError> {
    let mut attempts = 1..=ATTEMPTS;
    loop {
        let entry = folder.entry_named(name)?;
        let undo = entry.undo(owner);
        let changes = entry.preview_undo(&undo);
        match entry.withdraw(&undo) {
            Err(CertsDirError::Changed { .. }) if attempts.next().is_some() => continue,
            Ok(()) => outcome.changes.extend(changes),
            Err(error) if error.is_dead_mount() => return Err(error),
            Err(error) => outcome.failed.push((name.to_owned(), error.to_string())),
        }
        if let Undo::Leave(why) = &undo {
            outcome.left.push((name.to_owned(), why.clone()));
        }
        return Ok(undo);
    }
}

fn new_folder(path: &Path) -> Change {
    let after = Some(String::new());
    Change { kind: Kind::Folder, path: path.to_owned(), before: None, after }
}

fn refused(error: &CertsDirError) -> String {
    let CertsDirError::Io { path, .. } = error else {
        return error.to_string();
    };
    if error.is_read_only() {
        return format!("{error}; mount it for writing");
    }
    // What could not be made is not there; then it is its folder that refused.
    let found = path.ancestors().find_map(|path| Some((path, fs::symlink_metadata(path).ok()?)));
    let owner = found.map(|(path, found)| {
        format!(
            " ({} belongs to user {}, mode {:o})",
            path.display(),
            found.uid(),
            found.mode() & 0o7777
        )
    });
    format!(
        "{error}{}; let the folder and its files belong to the user that larder-node runs as",
        owner.unwrap_or_default()
    )
}

/// Brings every folder back to what it was. Folders that cannot be looked into are named.
pub fn withdraw(certs_dir: &Path, owner: &Owner, dry_run: bool) -> Result<Outcome, CertsDirError> {
    let mut outcome = Outcome::default();
    if !dry_run {
        certs_dir::sweep_beside(certs_dir);
    }
    let Some(folder) = CertsDir::open(certs_dir)? else {
        outcome.changes = certs_dir::preview_undo_repairs_of(certs_dir);
        if !dry_run {
            certs_dir::undo_repairs_of(certs_dir)?;
        }
        return Ok(outcome);
    };
    if !dry_run {
        folder.sweep()?;
    }
    let mut others = false;
    let ours = folder.ours()?;
    outcome.unread = ours.unread;
    for name in ours.names {
        if dry_run {
            let entry = folder.entry_named(&name)?;
            let undo = entry.undo(owner);
            others |= undo == Undo::Nothing;
            outcome.changes.extend(entry.preview_undo(&undo));
        } else {
            others |= withdraw_one(&folder, &name, owner, &mut outcome)? == Undo::Nothing;
        }
    }
    if !others {
        outcome.changes.extend(folder.preview_undo_repair());
        if !dry_run {
            folder.undo_repair()?;
            folder.remove_if_ours()?;
        }
    }
    Ok(outcome)
}
