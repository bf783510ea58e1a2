//! The files of this machine that images are made of.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};

const FOLDERS: [&str; 3] = ["/usr/bin", "/usr/lib", "/usr/share"];
/// Smaller ones would make unpacking, not pulling, most of a pull; larger ones would let a layer
/// miss its size.
const SIZES: std::ops::RangeInclusive<u64> = 64 << 10..=4 << 20;

/// A file and the name it gets in the image.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) name: PathBuf,
}

/// An endless supply of real files in a fixed order. On a small system they come round again
/// under another name: layers have no memory long enough to notice.
pub(super) fn endless() -> Result<impl Iterator<Item = Source>> {
    let mut paths = Vec::new();
    for folder in FOLDERS {
        walk(Path::new(folder), &mut paths);
    }
    ensure!(!paths.is_empty(), "no files below {FOLDERS:?}");
    let rounds = (0_u32..).flat_map(move |round| {
        paths.clone().into_iter().map(move |path| {
            let below_root = path.strip_prefix("/").unwrap_or(&path);
            let name = match round {
                0 => below_root.to_owned(),
                _ => Path::new("round").join(round.to_string()).join(below_root),
            };
            Source { path, name }
        })
    });
    Ok(rounds)
}

fn walk(folder: &Path, paths: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // Not followed: a link to a folder above would never end.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_dir() {
            walk(&entry.path(), paths);
        } else if metadata.is_file() && SIZES.contains(&metadata.len()) {
            paths.push(entry.path());
        }
    }
}
