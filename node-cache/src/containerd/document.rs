//! One configuration file of containerd.

use std::{ops::Range, path::Path};

use toml_edit::{DocumentMut, Item, TableLike};

pub(super) const CRI: &str = "io.containerd.grpc.v1.cri";
pub(super) const IMAGES: &str = "io.containerd.cri.v1.images";

/// Whether a value takes containerd off the transfer service.
type Leaves = fn(&Item) -> bool;

/// Any of these makes containerd 2.1 and later pull without the transfer service.
const LOCAL_PULL: [(&str, Leaves); 5] = [
    ("use_local_image_pull", |value| value.as_bool() == Some(true)),
    ("discard_unpacked_layers", |value| value.as_bool() == Some(true)),
    ("disable_snapshot_annotations", |value| value.as_bool() == Some(false)),
    ("image_pull_with_sync_fs", |value| value.as_bool() == Some(true)),
    // The default.
    ("max_concurrent_downloads", |value| value.as_integer() != Some(3)),
];

/// What matters of one file.
#[derive(Debug)]
pub(super) struct Document {
    /// The key `version`; containerd takes a file without it for version 1.
    pub(super) version: Option<i64>,
    pub(super) imports: Vec<String>,
    /// The section that pulls images, whatever it is called in this version.
    pub(super) section: Option<Section>,
    pub(super) cri_disabled: bool,
}

/// The section that pulls images, of one file or of several merged.
#[derive(Clone, Debug, Default)]
pub(super) struct Section {
    pub(super) config_path: Option<String>,
    pub(super) has_registry: bool,
    /// Names of the legacy tables with which containerd refuses a `config_path`.
    pub(super) conflicting: Vec<&'static str>,
    /// Legacy tables, conflicting or not, that exclude the transfer service.
    legacy: bool,
    /// By the index in `LOCAL_PULL`: not set, or whether it excludes the transfer service.
    local_pull: [Option<bool>; LOCAL_PULL.len()],
}

impl Section {
    /// Whether a setting excludes the transfer service of containerd 2.1 and later.
    pub(super) fn pulls_locally(&self) -> bool {
        self.legacy || self.local_pull.contains(&Some(true))
    }

    /// Whether the file was written for containerd 2.1 or later. Keys that only 1.x has prove
    /// nothing: they outlive an update of containerd, which skips them.
    pub(super) fn is_of_2_1(&self) -> bool {
        // use_local_image_pull is as old as the transfer service's part in pulling.
        self.local_pull.first().is_some_and(Option::is_some)
    }

    /// Lets what `later` sets win, key by key, as containerd 2.x does.
    pub(super) fn merge(&mut self, later: Self) {
        self.config_path = later.config_path.or_else(|| self.config_path.take());
        self.has_registry |= later.has_registry;
        self.legacy |= later.legacy;
        for table in later.conflicting {
            if !self.conflicting.contains(&table) {
                self.conflicting.push(table);
            }
        }
        for (mine, later) in self.local_pull.iter_mut().zip(later.local_pull) {
            *mine = later.or(*mine);
        }
    }

    fn read(plugin: &dyn TableLike) -> Result<Self, String> {
        let mut section = Self::default();
        let nested = plugin.get("containerd").and_then(Item::as_table_like);
        for (slot, (key, local)) in section.local_pull.iter_mut().zip(LOCAL_PULL) {
            // Version 2 has some of them one table deeper.
            let value = plugin.get(key).or_else(|| nested.and_then(|nested| nested.get(key)));
            *slot = value.map(local);
        }
        let Some(registry) = plugin.get("registry").and_then(Item::as_table_like) else {
            return Ok(section);
        };
        section.has_registry = true;
        section.config_path = match registry.get("config_path") {
            None => None,
            Some(value) => {
                Some(value.as_str().ok_or("config_path is not a string; quote it")?.to_owned())
            }
        };
        let filled = |key| {
            let table = registry.get(key).and_then(Item::as_table_like);
            table.filter(|table| !table.is_empty())
        };
        let configs = filled("configs");
        section.legacy = filled("mirrors").or(configs).or(filled("auths")).is_some();
        if filled("mirrors").is_some() {
            section.conflicting.push("registry.mirrors");
        }
        if configs.is_some_and(|hosts| hosts.iter().any(|(_, host)| host.get("tls").is_some())) {
            section.conflicting.push("registry.configs.<host>.tls");
        }
        Ok(section)
    }
}

/// Reads the file `path`, of which `bytes` is the content. The error is a sentence.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Document, String> {
    let at = |span: Range<usize>, problem: &str| {
        let (line, column) = position(bytes, span.start);
        format!("{}, line {line}, column {column}: {problem}", path.display())
    };
    let text = std::str::from_utf8(bytes)
        .map_err(|error| at(error.valid_up_to()..bytes.len(), "this is not UTF-8"))?;
    let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        at(error.span().unwrap_or_default(), error.message().lines().next().unwrap_or_default())
    })?;
    interpret(&document).map_err(|problem| format!("{}: {problem}.", path.display()))
}

fn interpret(document: &DocumentMut) -> Result<Document, String> {
    let version = match document.get("version") {
        None => None,
        Some(version) => Some(version.as_integer().ok_or("version is not a number")?),
    };
    let plugin = |name: &str| {
        document.get("plugins").and_then(|plugins| plugins.get(name)).and_then(Item::as_table_like)
    };
    let plugin = match version {
        Some(version) if version >= 3 => plugin(IMAGES),
        Some(2) => plugin(CRI),
        // Files of version 1 may use both names.
        _ => plugin(CRI).or(plugin("cri")),
    };
    let disabled = strings(document.get("disabled_plugins"), "disabled_plugins")?;
    Ok(Document {
        version,
        imports: strings(document.get("imports"), "imports")?,
        section: plugin.map(Section::read).transpose()?,
        cri_disabled: disabled.iter().any(|name| [CRI, IMAGES, "cri"].contains(&name.as_str())),
    })
}

fn strings(list: Option<&Item>, key: &str) -> Result<Vec<String>, String> {
    let Some(list) = list else { return Ok(Vec::new()) };
    let texts = list.as_array().and_then(|list| {
        list.iter().map(|value| value.as_str().map(ToOwned::to_owned)).collect::<Option<Vec<_>>>()
    });
    texts.ok_or_else(|| format!("{key} is not a list of strings"))
}

/// Line and column, both from 1; the column counts characters.
fn position(bytes: &[u8], offset: usize) -> (usize, usize) {
    let before = bytes.get(..offset).unwrap_or(bytes);
    let line = before.split(|byte| *byte == b'\n').count();
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    (line, String::from_utf8_lossy(before.get(start..).unwrap_or_default()).chars().count() + 1)
}
