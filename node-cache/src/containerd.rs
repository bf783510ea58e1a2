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
    fmt, io,
    path::{Component, Path, PathBuf},
};

use document::Section;
pub use files::{examine_files, inspect_files};
use load::Loaded;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Whether containerd reads our folder.
    pub verdict: Verdict,
    /// The folders that containerd searches one after the other, if `config_path` is a list that it
    /// splits and ours is one of them; else empty. For each registry the first that has a folder
    /// for it, or `_default`, wins, so that those before ours can hide it and ours hides the rest.
    pub roots: Vec<PathBuf>,
    /// What the verdict depends on and the files do not tell.
    pub caution: Option<Caution>,
}

/// `config_path` is a list in a file that containerd before 2.1, which splits it, and later ones,
/// which do not, read alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caution {
    /// The list.
    pub path: String,
    /// For a person, with the edit that settles it.
    pub message: String,
}

impl From<Verdict> for Inspection {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, roots: Vec::new(), caution: None }
    }
}

/// The files that [`inspect`] looks at.
pub struct Files<'a> {
    /// Answers `None` when there is no such file or folder; of a folder it is asked only whether it
    /// exists, and may answer anything else, an error too.
    pub read: &'a dyn Fn(&Path) -> io::Result<Option<Vec<u8>>>,
    /// Answers the files that match a glob pattern, sorted.
    pub list: &'a dyn Fn(&Path) -> Vec<PathBuf>,
    /// Answers where a path leads when every link is followed; `None` if it leads nowhere.
    pub resolve: &'a dyn Fn(&Path) -> Option<PathBuf>,
}

impl fmt::Debug for Files<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

/// Whether containerd reads the `hosts.toml` files that Larder writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does. If that depends on containerd's release, [`Inspection::caution`] says so.
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
/// `certs_dir`: by their texts, without regard to `.`, `..` and superfluous slashes, and by where
/// they lead, if they do.
pub fn inspect(config_file: &Path, certs_dir: &Path, files: &Files<'_>) -> Inspection {
    let certs_dir = clean(certs_dir);
    match load::load(config_file, files) {
        Ok(Some(loaded)) => judge(&loaded, &certs_dir, files),
        Ok(None) if folder_is_missing(config_file, files) => Verdict::NotContainerd.into(),
        Ok(None) => Verdict::Missing { edit: edit::create(config_file, &certs_dir) }.into(),
        Err(message) => Verdict::Unreadable { message }.into(),
    }
}

fn folder_is_missing(config_file: &Path, files: &Files<'_>) -> bool {
    config_file.parent().is_some_and(|folder| matches!((files.read)(folder), Ok(None)))
}

fn judge(loaded: &Loaded, certs_dir: &Path, files: &Files<'_>) -> Inspection {
    let edit = || edit::set(loaded, certs_dir);
    let section = &loaded.section;
    let Some(path) = section.config_path.as_deref().filter(|path| !path.is_empty()) else {
        return Verdict::Missing { edit: edit() }.into();
    };
    if !section.conflicting.is_empty() {
        return Verdict::Unreadable { message: edit::resolve_conflict(loaded, path) }.into();
    }
    let lists = Lists::of(loaded.version, section);
    if !path.contains(':') || lists == Lists::OneName {
        let verdict = if path.contains(':') {
            // Where a link at that name leads is looked at by whoever makes such links.
            Verdict::Colon { path: path.to_owned(), edit: format!("{} {}", edit(), edit::REPAIR) }
        } else if is_same_folder(Path::new(path), certs_dir, files) {
            Verdict::Effective
        } else {
            Verdict::Elsewhere { path: PathBuf::from(path), edit: edit() }
        };
        return verdict.into();
    }
    let roots = path.split(':').filter(|root| !root.is_empty());
    let roots: Vec<_> = roots.map(|root| clean(Path::new(root))).collect();
    if !roots.iter().any(|root| is_same_folder(root, certs_dir, files)) {
        return Verdict::Elsewhere { path: PathBuf::from(path), edit: edit() }.into();
    }
    let caution = (lists == Lists::Unknown).then(|| {
        let message = edit::caution(path, &edit());
        Caution { path: path.to_owned(), message }
    });
    Inspection { verdict: Verdict::Effective, roots, caution }
}

/// Whether two paths are the same folder.
fn is_same_folder(one: &Path, other: &Path, files: &Files<'_>) -> bool {
    let leads_to = |path: &Path| (files.resolve)(path);
    clean(one) == clean(other) || leads_to(one).is_some_and(|it| leads_to(other) == Some(it))
}

/// How a `config_path` with a colon is read. containerd before 2.1 takes it for a list. So do later
/// ones when they pull by themselves; their transfer service, by which they pull unless a setting
/// excludes it, takes it for one name (containerd issues 12415, 12636, 12808).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lists {
    /// By every release as a list.
    Split,
    /// As one name.
    OneName,
    /// The file is of version 2, which every release reads, and has nothing that tells which one.
    /// It is most often one of 1.x, which can read no other.
    Unknown,
}

impl Lists {
    fn of(version: i64, section: &Section) -> Self {
        match version {
            _ if section.pulls_locally() => Self::Split,
            2 if !section.is_of_2_1() => Self::Unknown,
            _ => Self::OneName,
        }
    }
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
