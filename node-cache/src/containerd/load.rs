//! A configuration file and everything that it imports, merged as containerd merges it.

use std::{
    collections::{HashSet, VecDeque},
    io,
    path::{Path, PathBuf},
};

use super::{
    Files, clean,
    document::{self, Document, Section},
};

/// Far more than any node has; without a bound an import of `/**` would read the disk.
const MOST_FILES: usize = 100;

/// The configuration in force.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) root: PathBuf,
    /// Of the root file.
    pub(super) version: i64,
    /// Folders whose `*.toml` files the root file imports.
    pub(super) drop_ins: Vec<PathBuf>,
    pub(super) section: Section,
    /// The file that decided about `config_path`.
    pub(super) decider: Decider,
    /// The files with legacy tables that rule out a `config_path`.
    pub(super) conflicting: Vec<PathBuf>,
}

/// The file that decided about `config_path`: by setting it or, on containerd 1.x, by replacing
/// the section that had it; else the root file.
#[derive(Clone, Debug)]
pub(super) struct Decider {
    pub(super) path: PathBuf,
    pub(super) version: i64,
    pub(super) has_registry: bool,
}

/// `None`: the root file does not exist. The error is a sentence.
pub(super) fn load(root: &Path, files: &Files<'_>) -> Result<Option<Loaded>, String> {
    let Files { read, list, .. } = *files;
    let Some(document) = open(root, read)? else { return Ok(None) };
    let version = supported(root, &document)?;
    let has_registry = document.section.as_ref().is_some_and(|section| section.has_registry);
    let mut loaded = Loaded {
        root: root.to_owned(),
        version,
        drop_ins: drop_in_folders(root, &document.imports),
        section: Section::default(),
        decider: Decider { path: root.to_owned(), version, has_registry },
        conflicting: Vec::new(),
    };
    let mut seen = HashSet::from([clean(root)]);
    // Breadth first, as containerd does it: that order decides what overrides what.
    let mut pending: VecDeque<_> = imported(root, &document.imports, list).into();
    loaded.add(root, document)?;
    while let Some(path) = pending.pop_front() {
        if !seen.insert(path.clone()) {
            continue;
        }
        if seen.len() > MOST_FILES {
            return Err(format!(
                "{} imports more than {MOST_FILES} files; narrow the patterns of its imports.",
                root.display()
            ));
        }
        let Some(document) = open(&path, read)? else {
            return Err(format!(
                "{} is imported but does not exist, so containerd does not start; create it or \
                 take it out of imports in {}.",
                path.display(),
                root.display()
            ));
        };
        pending.extend(imported(&path, &document.imports, list));
        loaded.add(&path, document)?;
    }
    Ok(Some(loaded))
}

impl Loaded {
    fn add(&mut self, path: &Path, document: Document) -> Result<(), String> {
        if document.cri_disabled {
            return Err(format!(
                "{} disables containerd's CRI plugin, without which no kubelet can use it; take \
                 it out of disabled_plugins.",
                path.display()
            ));
        }
        // Without a version a drop-in is read as one of version 1, whose keys we read like 2's.
        let version = document.version.unwrap_or(2).max(2);
        if version > self.version {
            return Err(format!(
                "{} has version {version}, and containerd refuses a drop-in of a higher version \
                 than that of {} ({}); lower it.",
                path.display(),
                self.root.display(),
                self.version
            ));
        }
        let Some(section) = document.section else { return Ok(()) };
        // containerd 1.x replaces the section, 2.x merges key by key. A root file of version 2 is
        // read by both: the reading that finds less is taken, so that nobody waits for a mirror
        // that is not used.
        let replaces = self.version == 2;
        if replaces || section.config_path.is_some() {
            let has_registry = section.has_registry;
            self.decider = Decider { path: path.to_owned(), version, has_registry };
        }
        if replaces {
            self.section = Section::default();
            self.conflicting.clear();
        }
        if !section.conflicting.is_empty() {
            self.conflicting.push(path.to_owned());
        }
        self.section.merge(section);
        Ok(())
    }
}

fn open(
    path: &Path,
    read: &dyn Fn(&Path) -> io::Result<Option<Vec<u8>>>,
) -> Result<Option<Document>, String> {
    let bytes = read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    bytes.map(|bytes| document::parse(path, &bytes)).transpose()
}

fn supported(root: &Path, document: &Document) -> Result<i64, String> {
    match document.version {
        Some(version @ 2..=4) => Ok(version),
        None | Some(..=1) => Err(format!(
            "{} is a configuration of version 1 (it has no `version = 2`), which Larder does not \
             read; convert it with `containerd config migrate`, or start it afresh from \
             `containerd config default`.",
            root.display()
        )),
        Some(version) => Err(format!(
            "{} has version {version}; this Larder knows 2, 3 and 4. Set containerd.certsDir to \
             its config_path and update Larder.",
            root.display()
        )),
    }
}

fn imported(
    importer: &Path,
    imports: &[String],
    list: &dyn Fn(&Path) -> Vec<PathBuf>,
) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for import in imports {
        let path = beside(importer, import);
        // containerd too takes a name for a pattern only if it has a star.
        if import.contains('*') { paths.extend(list(&path)) } else { paths.push(path) }
    }
    paths.iter().map(|path| clean(path)).collect()
}

fn beside(importer: &Path, import: &str) -> PathBuf {
    clean(&importer.parent().unwrap_or(Path::new("")).join(import))
}

fn drop_in_folders(root: &Path, imports: &[String]) -> Vec<PathBuf> {
    let folder = |import: &String| {
        let folder = import.strip_suffix("/*.toml").filter(|folder| !folder.contains('*'))?;
        Some(beside(root, folder))
    };
    imports.iter().filter_map(folder).collect()
}
