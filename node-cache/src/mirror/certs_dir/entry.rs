//! One registry's folder as it was found, and the steps that change it.

use std::{io, path::PathBuf};

use super::{
    CREATED, CertsDir, CertsDirError, Change, HOSTS, Kind, NEW, ORIGINAL, at, file, litter,
    make_folder, nothing, observe_folder,
};
use crate::{
    mirror::{
        folder, mark,
        plan::{self, Content, Owner, Plan, Refusal, Seen, Slot, Undo, Want},
    },
    oci::{Algorithm, Digest, UpstreamHost},
};

const EDITED: &str = ".larder-edited-";

/// A registry's folder. What is done to it is done to what was found: if somebody changed it since,
/// the answer is [`CertsDirError::Changed`].
#[derive(Debug)]
pub struct Entry<'a> {
    dir: &'a CertsDir,
    name: String,
    path: PathBuf,
    seen: Seen,
}

impl CertsDir {
    /// Looks at the folder of `host`: the one that containerd would use, or would if it was there.
    pub fn entry(&self, host: &UpstreamHost) -> Result<Entry<'_>, CertsDirError> {
        let names = folder::candidates(host);
        let there = names.iter().find(|name| self.path.join(name).symlink_metadata().is_ok());
        let name = there.or(names.first()).cloned().unwrap_or_default();
        self.look(name, &names)
    }

    /// Looks at the folder `name`.
    pub fn entry_named(&self, name: &str) -> Result<Entry<'_>, CertsDirError> {
        self.look(name.to_owned(), &folder::candidates_beside(name))
    }

    fn look(&self, name: String, names: &[String]) -> Result<Entry<'_>, CertsDirError> {
        let path = self.path.join(&name);
        let mut seen = Seen { next: self.next(names, &name)?, ..Seen::default() };
        match path.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return at("cannot inspect", &path, Err(error)),
            Ok(found) if found.is_dir() => seen.folder = Some(observe_folder(&path)?),
            Ok(found) => {
                let what = if found.is_symlink() { "a symbolic link" } else { "not a folder" };
                let fix = "replace it by a folder or remove it";
                seen.odd = Some(format!("{} is {what} and left alone; {fix}", path.display()));
            }
        }
        if let Some(earlier) = self.found_before(names) {
            seen.odd = Some(format!(
                "containerd finds {} before it looks into {}; move it there, or set \
                 containerd.certsDir to the folder that it is in",
                earlier.display(),
                self.named.display()
            ));
        }
        Ok(Entry { dir: self, name, path, seen })
    }
}

impl Entry<'_> {
    /// The folder's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Decides what is to be done so that the registry is mirrored.
    pub fn plan(&self, want: &Want<'_>) -> Result<Plan, Refusal> {
        plan::plan(&self.seen, want)
    }

    /// Carries out a plan.
    pub fn apply(&self, plan: &Plan) -> Result<(), CertsDirError> {
        match plan {
            Plan::Keep => Ok(()),
            Plan::Create(hosts) => {
                let temporary = self.dir.path.join(format!("{NEW}{}", self.name));
                litter::discard(&temporary)?;
                make_folder(&temporary, &[(HOSTS, hosts), (CREATED, &nothing())])?;
                if let Err(error) = file::place(&temporary, &self.path) {
                    litter::discard(&temporary)?;
                    return Err(error);
                }
                file::sync(&self.dir.path)
            }
            Plan::Write { damaged, original, hosts } => {
                if *damaged {
                    self.keep_damaged()?;
                }
                if let Some(original) = original {
                    file::replace(&self.path.join(ORIGINAL), original)?;
                }
                let done = file::exchange(&self.path.join(HOSTS), self.found(), hosts);
                if original.is_some() && matches!(done, Err(CertsDirError::Changed { .. })) {
                    self.forget_original()?;
                }
                done
            }
        }
    }

    /// What a plan changes, for people.
    pub fn preview(&self, plan: &Plan) -> Vec<Change> {
        match plan {
            Plan::Keep => Vec::new(),
            Plan::Create(hosts) | Plan::Write { hosts, .. } => self.change(Some(text(hosts))),
        }
    }

    /// Decides how to withdraw.
    pub fn undo(&self, owner: &Owner) -> Undo {
        let next = self.seen.next.as_ref().map(|next| &next.folder);
        self.seen.folder.as_ref().map_or(Undo::Nothing, |seen| plan::undo(seen, next, owner))
    }

    /// What withdrawing changes, for people.
    pub fn preview_undo(&self, undo: &Undo) -> Vec<Change> {
        match undo {
            Undo::Nothing | Undo::Leftovers | Undo::Leave(_) => Vec::new(),
            Undo::Folder | Undo::Hosts => self.change(None),
            Undo::Restore => {
                let original = self.seen.folder.as_ref().map(|seen| &seen.original);
                self.change(original.and_then(text_of))
            }
            Undo::Rewrite(content) => self.change(Some(text(content))),
            Undo::Damaged(rest) => self.preview_undo(rest),
        }
    }

    /// Brings the folder back to what it was.
    pub fn withdraw(&self, undo: &Undo) -> Result<(), CertsDirError> {
        let hosts = self.path.join(HOSTS);
        match undo {
            Undo::Nothing | Undo::Leave(_) => return Ok(()),
            Undo::Leftovers => {}
            Undo::Damaged(rest) => {
                self.keep_damaged()?;
                return self.withdraw(rest);
            }
            Undo::Folder => {
                if let Slot::File(content) = self.found()
                    && !mark::is_intact(&content.bytes)
                {
                    // Or it would look like a file that somebody put into a folder on its way out.
                    file::take_away(&hosts, content)?;
                }
                return self.dir.remove_folder(&self.path, &self.name);
            }
            Undo::Hosts => {
                if let Slot::File(content) = self.found() {
                    file::take_away(&hosts, content)?;
                }
            }
            Undo::Restore => match self.found() {
                Slot::File(content) => file::swap(&self.path.join(ORIGINAL), &hosts, content)?,
                Slot::Absent | Slot::Odd(_) => file::place(&self.path.join(ORIGINAL), &hosts)?,
            },
            Undo::Rewrite(content) => file::exchange(&hosts, self.found(), content)?,
        }
        // The original stands: what is still beside it means nothing any more.
        file::sync(&self.path)?;
        file::remove(&self.path.join(ORIGINAL))?;
        file::remove(&self.path.join(CREATED))?;
        file::sync(&self.path)
    }

    fn found(&self) -> &Slot {
        self.seen.folder.as_ref().map_or(&Slot::Absent, |seen| &seen.hosts)
    }

    /// What was put aside is not what was there: if that was deleted meanwhile, it is to stay so.
    fn forget_original(&self) -> Result<(), CertsDirError> {
        let path = self.path.join(ORIGINAL);
        match self.seen.folder.as_ref().map(|seen| &seen.original) {
            Some(Slot::File(before)) => file::replace(&path, before),
            _ => file::remove(&path),
        }
    }

    /// Keeps a file of ours that cannot be read any more, under a name of its content: the same one
    /// is kept once, and no other is overwritten.
    fn keep_damaged(&self) -> Result<(), CertsDirError> {
        let Slot::File(content) = self.found() else {
            return Ok(());
        };
        let hash = Digest::of(Algorithm::Sha256, &content.bytes);
        let hash = hash.hex().get(..8).unwrap_or_default().to_owned();
        let copy = self.dir.path.join(format!("{EDITED}{}-{hash}", self.name));
        if copy.symlink_metadata().is_ok() {
            return Ok(());
        }
        file::replace(&copy, content)?;
        tracing::warn!(
            file = %self.path.join(HOSTS).display(),
            copy = %copy.display(),
            "a file of Larder was edited and is not TOML any more, so that containerd ignores it; \
             what was in it is kept in the copy"
        );
        Ok(())
    }

    fn change(&self, after: Option<String>) -> Vec<Change> {
        let before = text_of(self.found());
        vec![Change { kind: Kind::File, path: self.path.join(HOSTS), before, after }]
    }
}

fn text(content: &Content) -> String {
    String::from_utf8_lossy(&content.bytes).into_owned()
}

fn text_of(slot: &Slot) -> Option<String> {
    match slot {
        Slot::File(content) => Some(text(content)),
        Slot::Absent | Slot::Odd(_) => None,
    }
}
