//! The edits that make `config_path` right, as TOML to paste.

use std::{fmt::Write as _, path::Path};

use super::{
    document::{CRI, IMAGES},
    load::Loaded,
};

const RESTART: &str =
    "Then restart containerd (`systemctl restart containerd`; running pods go on).";

/// What helps against a colon without a restart.
pub(super) const REPAIR: &str = "Or, without a restart, set `containerd.colonPathRepair: true`: \
     Larder then makes a folder of that literal name point to its own.";

/// For a node without a configuration file.
pub(super) fn create(config_file: &Path, certs_dir: &Path) -> String {
    // Version 2 is the one that every containerd since 1.3 reads.
    format!(
        "Create {} with\n\nversion = 2\n\n{}\n\n{RESTART} (Without a file, containerd before 2.2 \
         has no config_path, and later ones have \
         \"/etc/containerd/certs.d:/etc/docker/certs.d\", which they take for one folder.)",
        config_file.display(),
        table(2, certs_dir)
    )
}

/// For a node whose `config_path` is unset or another.
pub(super) fn set(loaded: &Loaded, certs_dir: &Path) -> String {
    let mut edit = String::new();
    if !loaded.conflicting.is_empty() {
        _ = write!(
            edit,
            "First remove {} from {}: containerd does not start with both (what they say belongs \
             into {}/<host>/hosts.toml). ",
            loaded.section.conflicting.join(" and "),
            names(loaded),
            certs_dir.display()
        );
    }
    let decider = &loaded.decider;
    let file = decider.path.display();
    match loaded.drop_ins.last() {
        // Never for version 2: containerd 1.x would replace its whole CRI section by the drop-in.
        Some(folder) if loaded.version > 2 && decider.path == loaded.root => {
            // Last in the alphabet, so that it wins. Version 2, which is higher than no root file's.
            _ = write!(
                edit,
                "Create {}/zz-larder.toml with\n\nversion = 2\n\n{}\n\n",
                folder.display(),
                table(2, certs_dir)
            );
        }
        _ if decider.has_registry => {
            _ = write!(
                edit,
                "In {file}, in the table [plugins.\"{}\".registry] that it has, set the line\n\n\
                 {}\n\n",
                plugin(decider.version),
                line(certs_dir)
            );
        }
        _ => {
            _ = write!(edit, "To {file} add\n\n{}\n\n", table(decider.version, certs_dir));
        }
    }
    edit.push_str(RESTART);
    if loaded.version == 2 && decider.path != loaded.root && loaded.section.config_path.is_none() {
        _ = write!(
            edit,
            " (This assumes containerd 1.x, where {file} replaces the CRI section of {} as a \
             whole.)",
            loaded.root.display()
        );
    }
    if loaded.section.config_path.as_deref().is_some_and(|path| !path.contains(':')) {
        edit.push_str(" Or set `containerd.certsDir` to that folder.");
    }
    edit
}

/// For a list that is split by one containerd and not by another.
pub(super) fn caution(path: &str, edit: &str) -> String {
    format!(
        "config_path {path:?} is a list, which containerd before 2.1 splits. If this node runs 2.1 \
         or later (`containerd --version`), it takes the list for one folder and uses no mirror. \
         {edit} {REPAIR}"
    )
}

/// For a node whose configuration containerd refuses.
pub(super) fn resolve_conflict(loaded: &Loaded, path: &str) -> String {
    format!(
        "config_path is {path:?} in {}, but {} also has {}, and containerd's CRI plugin does not \
         start with both; remove those tables and put what they say into hosts.toml files. {RESTART}",
        loaded.decider.path.display(),
        names(loaded),
        loaded.section.conflicting.join(" and "),
    )
}

fn names(loaded: &Loaded) -> String {
    let names: Vec<_> = loaded.conflicting.iter().map(|path| path.display().to_string()).collect();
    names.join(" and ")
}

fn table(version: i64, certs_dir: &Path) -> String {
    format!("[plugins.\"{}\".registry]\n  {}", plugin(version), line(certs_dir))
}

fn line(certs_dir: &Path) -> String {
    format!("config_path = {}", toml_edit::Value::from(certs_dir.display().to_string()))
}

fn plugin(version: i64) -> &'static str {
    if version >= 3 { IMAGES } else { CRI }
}
