//! All registries once: written, or withdrawn.

use std::{collections::BTreeSet, path::Path};

use larder_crds::node::ExistingHosts;

use super::{
    certs_dir::{CertsDir, CertsDirError, Change},
    plan::{Owner, Plan, Undo, Want},
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
            match folder.plan(host, &self.want())? {
                Ok(plan) => {
                    outcome.changes.extend(folder.preview(host, &plan));
                    folder.apply(host, &plan)?;
                    wanted.insert(folder.folder_of(host));
                    outcome.mirrored.push(host.to_string());
                }
                Err(refusal) => outcome.left.push((host.to_string(), refusal.0)),
            }
        }
        for name in folder.ours()?.into_iter().filter(|name| !wanted.contains(name)) {
            let undo = folder.undo(&name, &self.owner())?;
            outcome.changes.extend(folder.preview_undo(&name, &undo));
            folder.withdraw(&name, &undo)?;
        }
        Ok(outcome)
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
                Some(folder) => folder.plan(host, &self.want())?,
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

/// Brings every folder back to what it was.
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
        let undo = folder.undo(&name, owner)?;
        others |= undo == Undo::Nothing;
        outcome.changes.extend(folder.preview_undo(&name, &undo));
        if let Undo::Leave(why) = &undo {
            outcome.left.push((name.clone(), why.clone()));
        }
        if !dry_run {
            folder.withdraw(&name, &undo)?;
        }
    }
    if !dry_run && !others {
        folder.undo_repair()?;
        folder.remove_if_ours()?;
    }
    Ok(outcome)
}
