//! What belongs to containerd: its mirror files and its configuration.

use std::path::{Path, PathBuf};

use larder_crds::node::ExistingHosts;
use larder_node_cache::{
    containerd::{Files, Verdict, inspect},
    mirror::{
        hosts_toml, mark,
        plan::{Content, Meta, Owner, Plan, Seen, SeenFolder, Slot, Undo, Want, plan, undo},
    },
};
use toml_edit::{DocumentMut, Item};

const MIRROR: &str = "http://127.0.0.1:5055";
const WANT: Want<'static> =
    Want { instance: "fuzz", mirror: MIRROR, existing: ExistingHosts::Prepend, takeover: true };

/// A `hosts.toml` that somebody has, or that somebody made of ours.
///
/// What is merged can be read, has our entry first and the others as they were; to write it again
/// changes nothing; and withdrawing gives back every byte, or what was added by hand.
pub fn hosts_toml(data: &[u8]) {
    let content = Content { bytes: data.to_vec(), meta: Meta::default() };
    let folder = SeenFolder { hosts: Slot::File(content.clone()), ..SeenFolder::default() };
    let mark = mark::parse(data);
    let before = undo(&folder, None, &Owner::Any);
    let Ok(planned) = plan(&seen(&folder), &WANT) else {
        // Left alone: then there is nothing of ours in it, or withdrawing says what comes of it.
        assert_eq!(before == Undo::Nothing, mark.is_none(), "{before:?}");
        return;
    };
    let Plan::Write { damaged, original, hosts } = planned else {
        assert_eq!(planned, Plan::Keep);
        assert!(mark.is_some_and(|mark| mark.intact), "only ours is kept");
        return;
    };
    if mark.is_none() {
        assert!(!damaged);
        assert_eq!(original.as_ref(), Some(&content), "what was there is put aside as it is");
    }
    let text = std::str::from_utf8(&hosts.bytes).expect("what is written is text");
    assert!(mark::is_intact(text.as_bytes()));
    let names = hosts_of(text);
    assert_eq!(names.first().map(String::as_str), Some(MIRROR), "{text}");
    let kept = original.as_ref().map(|content| String::from_utf8_lossy(&content.bytes));
    let others = kept.as_deref().map(hosts_of).unwrap_or_default();
    assert_eq!(names[1..], others, "{text}");

    let folder = SeenFolder {
        hosts: Slot::File(hosts.clone()),
        original: original.clone().map_or(Slot::Absent, Slot::File),
        ..folder
    };
    assert_eq!(plan(&seen(&folder), &WANT), Ok(Plan::Keep), "{text}");
    let back = if original.is_some() { Undo::Restore } else { Undo::Hosts };
    assert_eq!(undo(&folder, None, &Owner::Any), back, "{text}");
    let stripped = hosts_toml::strip(mark::body(&hosts.bytes), Some(MIRROR));
    let stripped = stripped.expect("what was merged can be stripped");
    let kept = original.as_ref().map(|content| content.bytes.as_slice());
    assert!(hosts_toml::alike(stripped.as_deref().map(str::as_bytes), kept), "{text}");
}

fn seen(folder: &SeenFolder) -> Seen {
    Seen { folder: Some(folder.clone()), ..Seen::default() }
}

/// The hosts in the order of their tables in the text.
fn hosts_of(text: &str) -> Vec<String> {
    let document: DocumentMut = text.parse().expect("what is merged is TOML");
    let hosts = document.get("host").and_then(Item::as_table);
    let names = hosts.into_iter().flat_map(toml_edit::Table::iter);
    names.map(|(name, _)| name.to_owned()).collect()
}

const CERTS: &str = "/etc/containerd/certs.d";

/// The configuration of containerd and, each after a line `--- PATH`, what it may import.
///
/// Every finding has words for it, the exact edit where there is one, and folders that are searched
/// only where ours is one of them.
pub fn containerd_config(data: &[u8]) {
    let files = files_in(data);
    let find = |path: &Path| files.iter().find(|(name, _)| name == path);
    let read = |path: &Path| Ok(find(path).map(|(_, text)| text.clone()));
    let list = |pattern: &Path| {
        let beside = |path: &&PathBuf| path.parent() == pattern.parent();
        files.iter().map(|(path, _)| path).filter(beside).cloned().collect()
    };
    let disk = Files { read: &read, list: &list, resolve: &|_| None };
    let root = Path::new("/etc/containerd/config.toml");
    let found = inspect(root, Path::new(CERTS), &disk);
    assert_eq!(found, inspect(root, Path::new(&format!("{CERTS}/.//")), &disk));
    assert!(!found.verdict.message().is_empty());
    let effective = found.verdict == Verdict::Effective;
    assert_eq!(found.verdict.reason().is_empty(), effective);
    assert!(effective || (found.roots.is_empty() && found.caution.is_none()), "{found:?}");
    assert!(found.roots.is_empty() || found.roots.iter().any(|root| root == Path::new(CERTS)));
    match &found.verdict {
        Verdict::Missing { edit }
        | Verdict::Colon { edit, .. }
        | Verdict::Elsewhere { edit, .. } => {
            assert!(edit.contains(CERTS) && edit.contains("restart containerd"), "{edit}");
        }
        Verdict::Effective | Verdict::NotContainerd | Verdict::Unreadable { .. } => {}
    }
    if let Some(caution) = &found.caution {
        assert!(caution.path.contains(':') && caution.message.contains(CERTS), "{caution:?}");
    }
}

fn files_in(data: &[u8]) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = vec![(PathBuf::from("/etc/containerd/config.toml"), Vec::new())];
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        let name = line.strip_prefix(b"--- ").and_then(|name| std::str::from_utf8(name).ok());
        match (name, files.last_mut()) {
            (Some(name), _) => files.push((PathBuf::from(name.trim()), Vec::new())),
            (None, Some((_, text))) => text.extend_from_slice(line),
            (None, None) => {}
        }
    }
    files
}
