//! The configuration read from the disk.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Component, Path, PathBuf},
};

use globset::GlobBuilder;
use rustix::fs::OFlags;

use super::{Files, Inspection, Verdict, inspect};

/// The longest `containerd config default` is 12 KiB.
const LONGEST: u64 = 1024 * 1024;

/// [`inspect`] with the files of this machine: regular ones, of at most 1 MiB each.
pub fn examine_files(config_file: &Path, certs_dir: &Path) -> Inspection {
    let resolve = |path: &Path| fs::canonicalize(path).ok();
    inspect(config_file, certs_dir, &Files { read: &read, list: &list, resolve: &resolve })
}

/// The verdict of [`examine_files`] alone.
pub fn inspect_files(config_file: &Path, certs_dir: &Path) -> Verdict {
    examine_files(config_file, certs_dir).verdict
}

fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    // A FIFO without a writer would block the open for ever.
    #[expect(clippy::cast_possible_wrap, reason = "the flag is a small positive bit")]
    let flags = OFlags::NONBLOCK.bits() as i32;
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(Some(bytes))
}

/// Segment by segment, so that only folders that match are looked into. A pattern that is none,
/// or a folder that cannot be read, matches nothing, as in containerd.
fn list(pattern: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let Component::Normal(name) = component else {
            for path in &mut found {
                path.push(component);
            }
            continue;
        };
        let name = name.to_string_lossy();
        if !name.contains(['*', '?', '[', '\\']) {
            for path in &mut found {
                path.push(name.as_ref());
            }
            found.retain(|path| path.symlink_metadata().is_ok());
            continue;
        }
        let Ok(glob) = GlobBuilder::new(&name).literal_separator(true).build() else {
            return Vec::new();
        };
        let glob = glob.compile_matcher();
        let entries = found.iter().flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
        found = entries
            .filter_map(Result::ok)
            .filter(|entry| glob.is_match(entry.file_name()))
            .map(|entry| entry.path())
            .collect();
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    const SINGLE: &str = r#"version = 3
[plugins."io.containerd.cri.v1.images".registry]
config_path = "/certs"
"#;

    fn judged(folder: &Path) -> Verdict {
        inspect_files(&folder.join("config.toml"), Path::new("/certs"))
    }

    #[test]
    fn drop_ins_are_found_by_pattern_and_the_last_one_wins() {
        let folder = tempfile::tempdir().unwrap();
        let root = format!("imports = [\"conf.d/*.toml\"]\n{SINGLE}");
        fs::write(folder.path().join("config.toml"), root).unwrap();
        fs::create_dir(folder.path().join("conf.d")).unwrap();
        assert_eq!(judged(folder.path()), Verdict::Effective);
        for (name, path) in [("a.toml", "/a"), ("b.toml", "/b"), ("c.conf", "/c")] {
            let text = SINGLE.replace("/certs", path);
            fs::write(folder.path().join("conf.d").join(name), text).unwrap();
        }
        let Verdict::Elsewhere { path, edit } = judged(folder.path()) else { panic!() };
        assert_eq!(path, Path::new("/b"));
        assert!(edit.contains("conf.d/b.toml"), "{edit}");
    }

    #[test]
    fn a_star_stands_for_folders_too_but_crosses_none() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a/x.toml", "b/x.toml", "b/c/x.toml"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let found = list(&folder.path().join("*/*.toml"));
        assert_eq!(found, [folder.path().join("a/x.toml"), folder.path().join("b/x.toml")]);
        assert!(list(&folder.path().join("[")).is_empty());
    }

    #[test]
    fn a_file_of_one_mebibyte_is_read_and_a_longer_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut text = SINGLE.to_owned();
        text.push_str(&"#".repeat(1024 * 1024 - text.len()));
        fs::write(folder.path().join("config.toml"), &text).unwrap();
        assert_eq!(judged(folder.path()), Verdict::Effective);
        text.push('#');
        fs::write(folder.path().join("config.toml"), &text).unwrap();
        let Verdict::Unreadable { message } = judged(folder.path()) else { panic!() };
        assert!(message.contains("config.toml") && message.contains("1 MiB"), "{message}");
    }

    #[test]
    fn a_fifo_does_not_hang_and_a_folder_is_not_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert_eq!(judged(folder.path()).reason(), "ConfigUnreadable");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let Verdict::Unreadable { message } = judged(folder.path()) else { panic!() };
        assert!(message.contains("not a regular file"), "{message}");
    }

    #[test]
    fn a_config_path_that_is_a_link_to_our_folder_is_our_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("real")).unwrap();
        std::os::unix::fs::symlink("real", path("link")).unwrap();
        let judged = |config_path: &str, certs_dir: &str| {
            let text = SINGLE.replace("/certs", path(config_path).to_str().unwrap());
            fs::write(path("config.toml"), text).unwrap();
            inspect_files(&path("config.toml"), &path(certs_dir)).reason()
        };
        assert_eq!(judged("link", "real"), "");
        assert_eq!(judged("real/", "link"), "");
        assert_eq!(judged("link/../real", "link"), "");
        assert_eq!(judged("other", "real"), "ConfigPathElsewhere");
        assert_eq!(judged("gone", "gone/."), "", "what is not there is compared as it is written");
    }

    #[test]
    fn no_file_is_missing_and_no_folder_is_not_containerd() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(judged(folder.path()).reason(), "ConfigPathMissing");
        assert_eq!(judged(&folder.path().join("none")), Verdict::NotContainerd);
    }
}
