//! What containerd's own configuration says about our folder of `hosts.toml` files.
//!
//! containerd reads `hosts.toml` only below its registry `config_path`, and on most nodes that is
//! unset, or is a list of folders that the default pull path takes for one folder. Nothing fails
//! then: the mirror is silently unused. So the configuration is read, and what is wrong with it is
//! answered together with the exact edit that puts it right.

mod document;
mod edit;
mod files;
mod load;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::{Component, Path, PathBuf},
};

use document::Section;
pub use files::inspect_files;
use load::Loaded;

/// Whether containerd reads the `hosts.toml` files that Larder writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does. For a colon-separated `config_path` in a file of version 2 this assumes containerd
    /// 1.x; containerd 2.1 and later read such a file too, and then take the list for one folder.
    Effective,
    /// `config_path` is unset or empty.
    Missing {
        /// What to do, with TOML to paste.
        edit: String,
    },
    /// `config_path` is a list of folders, which containerd 2.1 and later take for one folder.
    Colon {
        /// Its value.
        path: String,
        /// What to do, with TOML to paste.
        edit: String,
    },
    /// `config_path` is another folder.
    Elsewhere {
        /// Its value.
        path: PathBuf,
        /// What to do, with TOML to paste.
        edit: String,
    },
    /// There is neither a configuration nor a folder for one.
    NotContainerd,
    /// The configuration cannot be read, or containerd itself would refuse it.
    Unreadable {
        /// Which file, what is wrong with it, and the fix.
        message: String,
    },
}

impl Verdict {
    /// The condition reason; empty when there is nothing to report.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Effective => "",
            Self::Missing { .. } => "ConfigPathMissing",
            Self::Colon { .. } => "ColonConfigPath",
            Self::Elsewhere { .. } => "ConfigPathElsewhere",
            Self::NotContainerd => "NotContainerd",
            Self::Unreadable { .. } => "ConfigUnreadable",
        }
    }

    /// What was found and the exact edit, for a person.
    pub fn message(&self) -> String {
        match self {
            Self::Effective => "containerd reads the hosts.toml files of this folder.".to_owned(),
            Self::Missing { edit } => {
                format!("containerd has no registry config_path, so it reads no hosts.toml. {edit}")
            }
            Self::Colon { path, edit } => format!(
                "containerd takes its registry config_path {path:?} for one folder of that name, \
                 so it reads no hosts.toml. {edit}"
            ),
            Self::Elsewhere { path, edit } => {
                format!("containerd reads hosts.toml files below {}. {edit}", path.display())
            }
            Self::NotContainerd => "There is no containerd configuration, and no folder for one. \
                If the node runs containerd, set containerd.configFile to its file."
                .to_owned(),
            Self::Unreadable { message } => message.clone(),
        }
    }
}

/// Reads `config_file` and what it imports, and compares the registry `config_path` in force with
/// `certs_dir`. Both are compared as they are written: links are not followed.
///
/// `read` answers `None` when there is no such file or folder; of a folder it is asked only
/// whether it exists, and may answer anything else, an error too. `list` answers the files that
/// match a glob pattern, sorted.
pub fn inspect(
    config_file: &Path,
    certs_dir: &Path,
    read: &dyn Fn(&Path) -> io::Result<Option<Vec<u8>>>,
    list: &dyn Fn(&Path) -> Vec<PathBuf>,
) -> Verdict {
    let certs_dir = clean(certs_dir);
    match load::load(config_file, read, list) {
        Ok(Some(loaded)) => judge(&loaded, &certs_dir),
        Ok(None) if folder_is_missing(config_file, read) => Verdict::NotContainerd,
        Ok(None) => Verdict::Missing { edit: edit::create(config_file, &certs_dir) },
        Err(message) => Verdict::Unreadable { message },
    }
}

fn folder_is_missing(
    config_file: &Path,
    read: &dyn Fn(&Path) -> io::Result<Option<Vec<u8>>>,
) -> bool {
    config_file.parent().is_some_and(|folder| matches!(read(folder), Ok(None)))
}

fn judge(loaded: &Loaded, certs_dir: &Path) -> Verdict {
    let edit = || edit::set(loaded, certs_dir);
    let section = &loaded.section;
    let Some(path) = section.config_path.as_deref().filter(|path| !path.is_empty()) else {
        return Verdict::Missing { edit: edit() };
    };
    if !section.conflicting.is_empty() {
        return Verdict::Unreadable { message: edit::resolve_conflict(loaded, path) };
    }
    let covers = |root: &str| !root.is_empty() && clean(Path::new(root)) == certs_dir;
    let a_list = reads_lists(loaded.version, section);
    let covered = if a_list { path.split(':').any(covers) } else { covers(path) };
    if covered {
        Verdict::Effective
    } else if path.contains(':') && !a_list {
        let edit = format!("{} {}", edit(), edit::REPAIR);
        Verdict::Colon { path: path.to_owned(), edit }
    } else {
        Verdict::Elsewhere { path: PathBuf::from(path), edit: edit() }
    }
}

/// Whether a colon separates folders. containerd 1.x splits; the transfer service, by which 2.1
/// and later pull unless a setting excludes it, does not (containerd issues 12415, 12636, 12808).
/// A root file of version 2 is most often one of 1.x, which can read no other.
fn reads_lists(version: i64, section: &Section) -> bool {
    version == 2 || section.pulls_locally()
}

/// The path without `.`, `..` and doubled or trailing slashes, by its text alone.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if cleaned.file_name().is_some() => {
                cleaned.pop();
            }
            Component::ParentDir if cleaned.has_root() => {}
            other => cleaned.push(other),
        }
    }
    cleaned
}
