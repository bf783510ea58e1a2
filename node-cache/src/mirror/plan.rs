//! What is to be done in one registry's folder, from what was seen there.

use std::path::PathBuf;

use larder_crds::node::ExistingHosts;

use super::{
    hosts_toml::{self, Unmergeable},
    mark,
};

/// Mode and owner of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits.
    pub mode: u32,
    /// Owner and group; `None` for who runs the process.
    pub owner: Option<(u32, u32)>,
}

impl Default for Meta {
    /// containerd may run as another user than the configurator.
    fn default() -> Self {
        Self { mode: 0o644, owner: None }
    }
}

/// A file as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    /// All of it.
    pub bytes: Vec<u8>,
    /// To be kept, for a mirror file may hold secrets in its headers.
    pub meta: Meta,
}

/// What is under the name of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Slot {
    /// Nothing.
    #[default]
    Absent,
    /// A file.
    File(Content),
    /// Something that is not read; says what, and what to do about it.
    Odd(String),
}

impl Slot {
    fn file(&self) -> Option<&Content> {
        match self {
            Self::File(content) => Some(content),
            Self::Absent | Self::Odd(_) => None,
        }
    }
}

/// A registry's folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenFolder {
    /// `hosts.toml`.
    pub hosts: Slot,
    /// The copy of what was there before.
    pub original: Slot,
    /// Whether we made the folder.
    pub created: bool,
    /// `*.crt`, `*.cert`, `*.key`: what containerd uses without a `hosts.toml`.
    pub certs: bool,
    /// Anything else in it.
    pub others: bool,
}

/// Everything that decides about one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its folder; `None` if there is none.
    pub folder: Option<SeenFolder>,
    /// Why the folder cannot be used.
    pub odd: Option<String>,
    /// What containerd would use without the folder.
    pub next: Option<Next>,
}

/// Another folder that containerd would use: of the other spelling, `_default`, or in another root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// Where.
    pub path: PathBuf,
    /// What is in it.
    pub folder: SeenFolder,
}

/// What we want there.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// Who writes.
    pub instance: &'a str,
    /// Address of the cache.
    pub mirror: &'a str,
    /// What happens to mirrors of somebody else.
    pub existing: ExistingHosts,
    /// Whether the mark of another instance is replaced by ours.
    pub takeover: bool,
}

/// What is to be done so that the registry is mirrored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Nothing, it is.
    Keep,
    /// Make the folder with this `hosts.toml`.
    Create(Content),
    /// Put the original aside, then write `hosts.toml`.
    Write {
        /// Whether `hosts.toml` is ours and cannot be read: a copy of it is to be kept.
        damaged: bool,
        /// What is to be put aside; `None` if it is already, or if there is none.
        original: Option<Content>,
        /// The new `hosts.toml`.
        hosts: Content,
    },
}

/// Why a registry is not mirrored: what is in the way, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// Decides about one registry.
pub fn plan(seen: &Seen, want: &Want<'_>) -> Result<Plan, Refusal> {
    if let Some(odd) = &seen.odd {
        return Err(Refusal(odd.clone()));
    }
    let Some(folder) = &seen.folder else {
        let original = inherited(seen, want)?;
        return Ok(Plan::Create(sealed(original.as_ref(), want)?));
    };
    let kept = match kept(folder) {
        Some(Slot::Odd(odd)) => return Err(Refusal(odd.clone())),
        other => other.and_then(Slot::file),
    };
    let write = |original: Option<Content>, hosts: Content| {
        Ok(Plan::Write { damaged: false, original, hosts })
    };
    match &folder.hosts {
        Slot::Odd(odd) => Err(Refusal(odd.clone())),
        Slot::Absent if kept.is_none() && folder.created => {
            let original = inherited(seen, want)?;
            not_shadowing(folder, original.as_ref())?;
            write(None, sealed(original.as_ref(), want)?)
        }
        Slot::Absent => {
            not_shadowing(folder, kept)?;
            foreign(kept, want)?;
            write(None, sealed(kept, want)?)
        }
        Slot::File(hosts) => match mark::parse(&hosts.bytes) {
            // Nobody's mark: it is the original, whatever was put aside before.
            None => {
                not_shadowing(folder, Some(hosts))?;
                foreign(Some(hosts), want)?;
                let written = sealed(Some(hosts), want)?;
                write((kept != Some(hosts)).then(|| hosts.clone()), written)
            }
            Some(mark) => {
                let inherited =
                    if folder.created && kept.is_none() { inherited(seen, want)? } else { None };
                let lost = if kept.is_none() {
                    lost(folder, &mark, hosts, Some(want.mirror))
                } else {
                    None
                };
                let known = kept.or(inherited.as_ref()).or(lost.as_ref());
                let (damaged, edited) = match changes(&mark, hosts, known, Some(want.mirror)) {
                    Ok(edited) => (false, edited),
                    Err(problem) if is_ignored(&problem) => (true, None),
                    Err(problem) => return Err(Refusal(by_hand(&problem))),
                };
                let edited = edited.or_else(|| lost.clone());
                let original = edited.as_ref().or(known);
                not_shadowing(folder, original)?;
                foreign(original, want)?;
                let written = sealed(original, want)?;
                // A newer configurator that writes the same has taken over.
                let same = mark::body(&written.bytes) == mark::body(&hosts.bytes)
                    && (mark.instance == want.instance || !want.takeover);
                if edited.is_none() && mark.intact && same {
                    return Ok(Plan::Keep);
                }
                Ok(Plan::Write { damaged, original: edited, hosts: written })
            }
        },
    }
}

/// The copy of what was there before. One that is ours was on its way out when it was restored.
fn kept(folder: &SeenFolder) -> Option<&Slot> {
    match &folder.original {
        Slot::Absent => None,
        Slot::File(content) if mark::is_intact(&content.bytes) => None,
        other => Some(other),
    }
}

/// What was changed in a file with our mark, as [`edited`] has it.
fn changes(
    mark: &mark::Mark,
    hosts: &Content,
    known: Option<&Content>,
    mirror: Option<&str>,
) -> Result<Option<Content>, Unmergeable> {
    if mark.intact { Ok(None) } else { edited(hosts, known, mirror) }
}

/// What was merged into a file of ours whose copy of the original somebody took away.
fn lost(
    folder: &SeenFolder,
    mark: &mark::Mark,
    hosts: &Content,
    mirror: Option<&str>,
) -> Option<Content> {
    if folder.created || !mark.intact {
        return None;
    }
    let left = hosts_toml::strip(mark::body(&hosts.bytes), mirror).ok().flatten()?;
    // The line that we put between our entry and theirs.
    let bytes = left.trim_start_matches('\n').as_bytes().to_vec();
    (!hosts_toml::says_nothing(&bytes)).then_some(Content { bytes, meta: hosts.meta })
}

/// Whether containerd makes nothing of such a file at all, so that nothing in it is in force.
fn is_ignored(problem: &Unmergeable) -> bool {
    matches!(problem, Unmergeable::NotToml(_) | Unmergeable::NotText)
}

fn by_hand(problem: &Unmergeable) -> String {
    format!("hosts.toml was edited by hand and is left alone: {problem}; remove the file")
}

/// What a person made of a file of ours, without our part; `None` if that is what was there before.
fn edited(
    hosts: &Content,
    known: Option<&Content>,
    mirror: Option<&str>,
) -> Result<Option<Content>, Unmergeable> {
    let left = hosts_toml::strip(mark::body(&hosts.bytes), mirror)?.map(String::into_bytes);
    let same = hosts_toml::alike(left.as_deref(), known.map(|known| known.bytes.as_slice()));
    Ok(if same {
        None
    } else {
        Some(Content { bytes: left.unwrap_or_default(), meta: hosts.meta })
    })
}

fn inherited(seen: &Seen, want: &Want<'_>) -> Result<Option<Content>, Refusal> {
    let Some(Next { path, folder }) = &seen.next else {
        return Ok(None);
    };
    let of = |refusal: Refusal| Refusal(format!("{}: {}", path.display(), refusal.0));
    match &folder.hosts {
        Slot::Odd(odd) => Err(Refusal(odd.clone())),
        Slot::Absent if folder.certs => Err(of(certificates())),
        Slot::Absent => Ok(None),
        Slot::File(hosts) => {
            foreign(Some(hosts), want).map_err(of)?;
            not_shadowing(folder, Some(hosts)).map_err(of)?;
            if let Some(name) = hosts_toml::relative_file(&hosts.bytes) {
                let message = "its hosts.toml names a file relative to its own folder";
                let fix = "write its absolute path";
                return Err(of(Refusal(format!("{message} ({name}); {fix}"))));
            }
            sealed(Some(hosts), want).map_err(of)?;
            Ok(Some(hosts.clone()))
        }
    }
}

fn foreign(original: Option<&Content>, want: &Want<'_>) -> Result<(), Refusal> {
    match (original, want.existing) {
        (Some(_), ExistingHosts::Leave) => {
            let message = "there is a mirror already, and containerd.existing is Leave; ";
            Err(Refusal(message.to_owned() + "set it to Prepend to put the cache in front"))
        }
        _ => Ok(()),
    }
}

/// containerd goes by the certificate files of a folder until there is a `hosts.toml` that says
/// anything; ours would end that for the registry itself as well.
fn not_shadowing(folder: &SeenFolder, original: Option<&Content>) -> Result<(), Refusal> {
    let silent = original.is_none_or(|content| hosts_toml::says_nothing(&content.bytes));
    if folder.certs && silent { Err(certificates()) } else { Ok(()) }
}

fn certificates() -> Refusal {
    let message = "there are certificate files (*.crt, *.cert, *.key) without a hosts.toml, and \
                   containerd would ignore them beside one; write a hosts.toml that names them";
    Refusal(message.to_owned())
}

fn sealed(original: Option<&Content>, want: &Want<'_>) -> Result<Content, Refusal> {
    let bytes = original.map(|original| original.bytes.as_slice());
    let body = hosts_toml::merge(bytes, want.mirror)
        .map_err(|problem| Refusal(format!("hosts.toml is left alone: {problem}")))?;
    let meta = original.map_or_else(Meta::default, |original| original.meta);
    Ok(Content { bytes: mark::seal(want.instance, &body).into_bytes(), meta })
}

/// Whose files are withdrawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Those of every instance.
    Any,
    /// Those of one.
    Instance(String),
}

/// How a folder is brought back to what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    /// Nothing of ours is in it.
    Nothing,
    /// `hosts.toml` is not ours any more: only our leftovers go.
    Leftovers,
    /// The folder goes.
    Folder,
    /// `hosts.toml` goes.
    Hosts,
    /// The copy becomes `hosts.toml` again.
    Restore,
    /// `hosts.toml` becomes what a person made of it, without our part.
    Rewrite(Content),
    /// `hosts.toml` is ours and cannot be read: a copy of it is kept, then as said.
    Damaged(Box<Undo>),
    /// It is left alone; says why.
    Leave(String),
}

/// Decides how to withdraw from a folder. `next` is what containerd uses without it.
pub fn undo(folder: &SeenFolder, next: Option<&SeenFolder>, owner: &Owner) -> Undo {
    let kept = kept(folder).and_then(Slot::file);
    let next = next.filter(|_| folder.created).and_then(|next| next.hosts.file());
    let something = folder.created || folder.original != Slot::Absent;
    let gone = || match (kept, folder.created && !folder.others) {
        (Some(_), _) => Undo::Restore,
        (None, true) => Undo::Folder,
        (None, false) => Undo::Hosts,
    };
    match &folder.hosts {
        Slot::Absent if something => gone(),
        Slot::File(hosts) => match mark::parse(&hosts.bytes) {
            Some(mark)
                if *owner != Owner::Any && *owner != Owner::Instance(mark.instance.clone()) =>
            {
                Undo::Nothing
            }
            Some(mark) => match changes(&mark, hosts, kept.or(next), None) {
                Ok(Some(content)) if !content.bytes.is_empty() => Undo::Rewrite(content),
                Ok(_) if kept.is_none() => {
                    lost(folder, &mark, hosts, None).map_or_else(gone, Undo::Rewrite)
                }
                Ok(_) => gone(),
                Err(problem) if is_ignored(&problem) => Undo::Damaged(Box::new(gone())),
                Err(problem) => Undo::Leave(by_hand(&problem)),
            },
            None if something => Undo::Leftovers,
            None => Undo::Nothing,
        },
        Slot::Odd(_) if something => Undo::Leftovers,
        Slot::Absent | Slot::Odd(_) => Undo::Nothing,
    }
}
