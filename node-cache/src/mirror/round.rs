//! All registries once: written, or withdrawn.

use std::{collections::BTreeSet, path::Path};

use larder_crds::node::ExistingHosts;

use super::{
    certs_dir::{CertsDir, CertsDirError, Change},
    plan::{Owner, Plan, Refusal, Undo, Want},
};
use crate::oci::UpstreamHost;

/// What a round is to do.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// containerd's folder.
    pub certs_dir: &'a Path,
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
    /// What was changed.
    pub changes: Vec<Change>,
}

impl Round<'_> {
    /// Writes what is missing for `hosts` and withdraws what is of no other.
    pub fn write<'h>(
        &self,
        hosts: impl IntoIterator<Item = &'h UpstreamHost>,
    ) -> Result<Outcome, CertsDirError> {
        let folder = CertsDir::create(self.certs_dir)?;
        folder.sweep()?;
        let mut outcome = Outcome::default();
        let mut wanted = BTreeSet::new();
        for host in hosts {
            match self.write_one(&folder, host) {
                Ok(Ok(changes)) => {
                    outcome.changes.extend(changes);
                    wanted.insert(folder.folder_of(host));
                    outcome.mirrored.push(host.to_string());
                }
                Ok(Err(refusal)) => outcome.left.push((host.to_string(), refusal.0)),
                Err(error) if error.is_dead_mount() => return Err(error),
                // A folder of another user, say: the other registries are none the worse.
                Err(error) => outcome.left.push((host.to_string(), refused(&error))),
            }
        }
        for name in folder.ours()?.into_iter().filter(|name| !wanted.contains(name)) {
            withdraw_one(&folder, &name, &self.owner(), &mut outcome)?;
        }
        Ok(outcome)
    }

    fn write_one(
        &self,
        folder: &CertsDir,
        host: &UpstreamHost,
    ) -> Result<Result<Vec<Change>, Refusal>, CertsDirError> {
        let plan = match folder.plan(host, &self.want())? {
            Ok(plan) => plan,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let changes = folder.preview(host, &plan);
        folder.apply(host, &plan)?;
        Ok(Ok(changes))
    }

    /// What [`write`](Self::write) would do.
    pub fn preview<'h>(
        &self,
        hosts: impl IntoIterator<Item = &'h UpstreamHost>,
    ) -> Result<Outcome, CertsDirError> {
        let mut outcome = Outcome::default();
        let folder = CertsDir::open(self.certs_dir)?;
        let mut wanted = BTreeSet::new();
        for host in hosts {
            let plan = match &folder {
                Some(folder) => match folder.plan(host, &self.want()) {
                    Ok(plan) => plan,
                    Err(error) => Err(Refusal(refused(&error))),
                },
                None => super::plan::plan(&super::plan::Seen::default(), &self.want()),
            };
            match plan {
                Ok(plan) => {
                    outcome.mirrored.push(host.to_string());
                    if let Some(folder) = &folder {
                        wanted.insert(folder.folder_of(host));
                        outcome.changes.extend(folder.preview(host, &plan));
                    } else if let Plan::Create(hosts) = plan {
                        let name = super::folder::candidates(host).swap_remove(0);
                        outcome.changes.push(Change {
                            path: self.certs_dir.join(name).join("hosts.toml"),
                            before: None,
                            after: Some(String::from_utf8_lossy(&hosts.bytes).into_owned()),
                        });
                    }
                }
                Err(refusal) => outcome.left.push((host.to_string(), refusal.0)),
            }
        }
        if let Some(folder) = folder {
            for name in folder.ours()?.into_iter().filter(|name| !wanted.contains(name)) {
                let undo = folder.undo(&name, &self.owner())?;
                outcome.changes.extend(folder.preview_undo(&name, &undo));
            }
        }
        Ok(outcome)
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
    let undo = folder.undo(name, owner)?;
    if let Undo::Leave(why) = &undo {
        outcome.left.push((name.to_owned(), why.clone()));
    }
    let changes = folder.preview_undo(name, &undo);
    match folder.withdraw(name, &undo) {
        Ok(()) => outcome.changes.extend(changes),
        Err(error) if error.is_dead_mount() => return Err(error),
        Err(error) => outcome.failed.push((name.to_owned(), error.to_string())),
    }
    Ok(undo)
}

fn refused(error: &CertsDirError) -> String {
    format!("{error}; let the folder and its files belong to the user that larder-node runs as")
}

/// Brings every folder back to what it was. Folders that cannot be looked into are not ours.
pub fn withdraw(certs_dir: &Path, owner: &Owner, dry_run: bool) -> Result<Outcome, CertsDirError> {
    let mut outcome = Outcome::default();
    let Some(folder) = CertsDir::open(certs_dir)? else {
        return Ok(outcome);
    };
    if !dry_run {
        folder.sweep()?;
    }
    let mut others = false;
    for name in folder.ours()? {
        if dry_run {
            let undo = folder.undo(&name, owner)?;
            outcome.changes.extend(folder.preview_undo(&name, &undo));
        } else {
            others |= withdraw_one(&folder, &name, owner, &mut outcome)? == Undo::Nothing;
        }
    }
    if !dry_run && !others {
        folder.undo_repair()?;
        folder.remove_if_ours()?;
    }
    Ok(outcome)
}
