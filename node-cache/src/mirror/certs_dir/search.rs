//! Where containerd looks for a registry, in its order, and what it would find without us.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    CREATED, CertsDir, CertsDirError, HOSTS, ORIGINAL, entries,
    file::{self, SWAP, TEMPORARY},
};
use crate::mirror::{
    folder,
    plan::{Next, SeenFolder, Slot},
};

impl CertsDir {
    /// A folder that containerd finds before it looks into this one, for a registry with these
    /// names.
    pub(super) fn found_before(&self, names: &[String]) -> Option<PathBuf> {
        let paths = self.before.iter().flat_map(|root| paths_in(root, names));
        paths.into_iter().find(|path| leads_somewhere(path))
    }

    /// What containerd would use if the folder `name`, one of `names`, was not there: the folder of
    /// the other spelling, `_default`, or a folder of a root that comes later.
    pub(super) fn next(&self, names: &[String], name: &str) -> Result<Option<Next>, CertsDirError> {
        let tried = names.iter().position(|candidate| candidate == name).map_or(0, |at| at + 1);
        let here = paths_in(&self.path, &names[tried..]);
        let later = self.after.iter().flat_map(|root| paths_in(root, names));
        for path in here.into_iter().chain(later) {
            let odd = |problem: String| {
                let hosts = Slot::Odd(format!("{} {problem}", path.display()));
                Ok(Some(Next {
                    folder: SeenFolder { hosts, ..SeenFolder::default() },
                    path: path.clone(),
                }))
            };
            // containerd follows a link here, and nothing is written there.
            match fs::metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return odd(format!("cannot be looked into: {error}")),
                Ok(found) if !found.is_dir() => {
                    return odd("is not a folder, so that every pull fails; remove it".to_owned());
                }
                Ok(_) => {
                    let folder = observe_folder(&path)?;
                    return Ok(Some(Next { path, folder }));
                }
            }
        }
        Ok(None)
    }
}

fn paths_in(root: &Path, names: &[String]) -> Vec<PathBuf> {
    let names = names.iter().map(String::as_str).chain([folder::DEFAULT]);
    names.map(|name| root.join(name)).collect()
}

/// As containerd asks: whatever is there counts, and an error ends the search.
fn leads_somewhere(path: &Path) -> bool {
    !matches!(fs::metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
}

pub(super) fn observe_folder(path: &Path) -> Result<SeenFolder, CertsDirError> {
    let hosts = file::read(&path.join(HOSTS))?;
    let original = file::read(&path.join(ORIGINAL))?;
    let mut seen = SeenFolder { hosts, original, ..SeenFolder::default() };
    for (name, _) in entries(path)? {
        match name.as_str() {
            HOSTS | ORIGINAL | SWAP => {}
            CREATED => seen.created = true,
            name if name.starts_with(TEMPORARY) => {}
            name => {
                seen.others = true;
                let extension = Path::new(name).extension().and_then(|end| end.to_str());
                seen.certs |= matches!(extension, Some("crt" | "cert" | "key"));
            }
        }
    }
    Ok(seen)
}
