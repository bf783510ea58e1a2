//! Our entry in the text of a `hosts.toml`: put in front of the others, and taken out again.

mod rules;

use std::ops::Range;

use toml_edit::{Document, Item, Table};

/// Longest file that is read. Real ones have a few hundred bytes.
pub const MAX_SIZE: usize = 1 << 20;

/// What our entry and the line with our mark may add at most: the merged file must not be longer
/// than what is read, or it would not be known for ours.
const ADDED: usize = 4096;

/// Why an existing `hosts.toml` has to be left alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmergeable {
    /// Longer than [`MAX_SIZE`], or merged it would be.
    #[error("it is larger than 1 MiB, our entry included; make it smaller")]
    TooLarge,
    /// Not text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// Not TOML. containerd ignores such a file, so there may be a hidden intention in it.
    #[error("it is not valid TOML (containerd ignores it as a whole): {0}")]
    NotToml(String),
    /// containerd 2 ignores a file that begins so.
    #[error("it begins with a byte order mark, so that containerd ignores it; save it without")]
    ByteOrderMark,
    /// TOML, and containerd ignores it all the same, our entry included.
    #[error("containerd ignores the file because of {key}: {fix}")]
    Ignored {
        /// The key whose value it does not take.
        key: String,
        /// What it would take.
        fix: String,
    },
    /// `host` is a value.
    #[error("its `host` is not a table")]
    HostIsNoTable,
    /// Inline or dotted, so that no table can stand in front of it.
    #[error("its `host` is written inline; write every mirror as a [host.\"URL\"] table")]
    Inline,
    /// Somebody sends the registry to our address already. That is not ours to take away, also when
    /// the cache hangs and every pull waits for it.
    #[error(
        "it has an entry for the cache at {0} that was written by hand; Larder cannot withdraw it \
         when the cache hangs, so remove that entry"
    )]
    NamesMirror(String),
    /// Our own merge did not come out as intended.
    #[error("a mirror cannot be put in front of its entries")]
    Misplaced,
}

/// The text of `original` with the mirror in front of every other host. Everything else stays as
/// it is, comments included.
///
/// The entry has only keys that every containerd understands or skips. In particular it has
/// neither `server` (its absence gives the registry itself as the last resort) nor `ca`, `client`
/// and `skip_verify` (under an `http://` host containerd would try HTTPS), nor `push`.
pub fn merge(original: Option<&[u8]>, mirror: &str) -> Result<String, Unmergeable> {
    let entry = entry(mirror);
    let Some(original) = original else {
        return Ok(entry);
    };
    if original.starts_with("\u{feff}".as_bytes()) {
        return Err(Unmergeable::ByteOrderMark);
    }
    if original.len() > MAX_SIZE - ADDED {
        return Err(Unmergeable::TooLarge);
    }
    let text = text(original)?;
    let parsed = Parsed::of(text)?;
    if let Ok(document) = Document::parse(text) {
        rules::check(document.as_table())?;
    }
    if parsed.hosts.iter().chain(&parsed.server).any(|host| same_address(host, mirror)) {
        return Err(Unmergeable::NamesMirror(mirror.to_owned()));
    }
    let (before, after) = text.split_at(parsed.first_table.unwrap_or(text.len()));
    let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    let space = if after.is_empty() { "" } else { "\n" };
    let merged = format!("{before}{gap}{entry}{space}{after}");
    let check = Parsed::of(&merged).map_err(|_| Unmergeable::Misplaced)?;
    match check.hosts.split_first() {
        Some((first, rest)) if first == mirror && rest == parsed.hosts => Ok(merged),
        _ => Err(Unmergeable::Misplaced),
    }
}

/// The text without our entry, which is the mirror's or, if that is not known, the first on a
/// loopback address; `None` if nothing else is left. For files of ours that were edited by hand.
pub fn strip(body: &[u8], mirror: Option<&str>) -> Result<Option<String>, Unmergeable> {
    let text = text(body)?;
    let parsed = Parsed::of(text)?;
    let ours = parsed.hosts.iter().find(|host| match mirror {
        Some(mirror) => same_address(host, mirror),
        None => is_loopback(host),
    });
    // Somebody may have put another cache of this node in front: ours has the keys that we write.
    let as_we_write = |(host, range): &&(String, Range<usize>)| {
        is_loopback(host) && text[range.clone()].contains(OUR_KEYS)
    };
    let ours = match mirror {
        None => parsed.sections.iter().find(as_we_write).map(|(host, _)| host).or(ours),
        Some(_) => ours,
    };
    let mut left = String::new();
    let mut end = 0;
    for (host, range) in &parsed.sections {
        if Some(host) == ours {
            left.push_str(&text[end..range.start]);
            // Comments above the next table are that table's.
            let is_code = |line: &str| !line.trim().is_empty() && !line.trim().starts_with('#');
            let mut at = range.start;
            for line in text[range.clone()].split_inclusive('\n') {
                at += line.len();
                if is_code(line) {
                    end = at;
                }
            }
        }
    }
    left.push_str(&text[end..]);
    Ok((!left.trim().is_empty()).then_some(left))
}

/// Whether there is nothing in it but space and comments: containerd then goes by the certificates
/// beside it.
pub fn says_nothing(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#'))
}

/// Whether two texts say the same but for line ends and space around them.
pub fn alike(one: Option<&[u8]>, other: Option<&[u8]>) -> bool {
    fn lines(text: Option<&[u8]>) -> Vec<&str> {
        let text = text.and_then(|bytes| self::text(bytes).ok()).unwrap_or_default();
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
    }
    lines(one) == lines(other)
}

/// A file name in `original` that is relative to the folder of the file, so that the text means
/// something else in another folder.
pub fn relative_file(original: &[u8]) -> Option<String> {
    let document = Document::parse(text(original).ok()?).ok()?;
    let root = document.as_table();
    let hosts = root.get("host").and_then(Item::as_table_like);
    let hosts = hosts.into_iter().flat_map(toml_edit::TableLike::iter);
    let tables = hosts.filter_map(|(_, item)| item.as_table_like());
    let mut names = Vec::new();
    for table in tables.chain(Some(root as &dyn toml_edit::TableLike)) {
        for key in ["ca", "client"] {
            table.get(key).into_iter().for_each(|item| strings(item, &mut names));
        }
    }
    names.into_iter().find(|name| !name.starts_with('/'))
}

fn strings(item: &Item, into: &mut Vec<String>) {
    if let Some(text) = item.as_str() {
        into.push(text.to_owned());
    }
    let mut nested: Vec<&toml_edit::Value> = item.as_array().into_iter().flatten().collect();
    while let Some(value) = nested.pop() {
        into.extend(value.as_str().map(str::to_owned));
        nested.extend(value.as_array().into_iter().flatten());
    }
}

const OUR_KEYS: &str = "capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"1s\"";

fn is_loopback(host: &str) -> bool {
    host.starts_with("http://127.0.0.1:")
}

fn entry(mirror: &str) -> String {
    // A basic string of TOML and of Rust escape alike what an address can contain.
    format!("[host.{mirror:?}]\n  {OUR_KEYS}\n")
}

fn text(bytes: &[u8]) -> Result<&str, Unmergeable> {
    if bytes.len() > MAX_SIZE {
        return Err(Unmergeable::TooLarge);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Unmergeable::NotText)?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

fn same_address(one: &str, other: &str) -> bool {
    fn bare(url: &str) -> String {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        rest.trim_end_matches('/').to_ascii_lowercase()
    }
    bare(one) == bare(other)
}

/// Where things are in a text.
struct Parsed {
    /// The line of the first table header.
    first_table: Option<usize>,
    /// `server`.
    server: Option<String>,
    /// Names of the hosts in the order in which containerd asks them.
    hosts: Vec<String>,
    /// Text of each table of a host, nested ones on their own, in order.
    sections: Vec<(String, Range<usize>)>,
}

impl Unmergeable {
    fn ignored(key: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Ignored { key: key.into(), fix: fix.into() }
    }
}

impl Parsed {
    fn of(text: &str) -> Result<Self, Unmergeable> {
        let document = Document::parse(text).map_err(|error| {
            let message = error.message().lines().next().unwrap_or_default();
            Unmergeable::NotToml(message.to_owned())
        })?;
        let root = document.as_table();
        let mut headers = Vec::new();
        collect(root, None, 0, &mut headers);
        let line = |at: usize| text[..at].rfind('\n').map_or(0, |end| end + 1);
        for (at, _) in &mut headers {
            *at = line(*at);
        }
        headers.sort();
        let mut hosts: Vec<String> = Vec::new();
        let mut sections = Vec::new();
        for (index, (start, host)) in headers.iter().enumerate() {
            let Some(host) = host else { continue };
            let end = headers.get(index + 1).map_or(text.len(), |next| next.0);
            sections.push((host.clone(), *start..end));
            if !hosts.contains(host) {
                hosts.push(host.clone());
            }
        }
        match root.get("host") {
            None => {}
            Some(Item::Table(table)) => {
                // A host that has no header of its own, nor one of a nested table.
                let dotted = table.is_dotted()
                    || table.iter().any(|(name, item)| {
                        !item.is_table() || !hosts.iter().any(|host| host == name)
                    });
                if dotted {
                    return Err(Unmergeable::Inline);
                }
            }
            Some(Item::Value(value)) if value.is_inline_table() => return Err(Unmergeable::Inline),
            Some(_) => return Err(Unmergeable::HostIsNoTable),
        }
        let server = root.get("server").and_then(Item::as_str).map(str::to_owned);
        Ok(Self { first_table: headers.first().map(|header| header.0), server, hosts, sections })
    }
}

/// The place of every table header below `table`, with the host to which it belongs.
fn collect(table: &Table, host: Option<&str>, depth: usize, into: &mut Vec<Header>) {
    for (name, item) in table {
        // [host."X"] and what is nested in it
        let below = match depth {
            0 if name == "host" => None,
            1 => Some(name),
            _ => host,
        };
        let depth = if depth == 0 && name != "host" { 2 } else { depth + 1 };
        let mut add = |table: &Table| {
            if let (false, false, Some(span)) =
                (table.is_implicit(), table.is_dotted(), table.span())
            {
                into.push((span.start, below.map(str::to_owned)));
            }
            collect(table, below, depth, into);
        };
        match item {
            Item::Table(table) => add(table),
            Item::ArrayOfTables(tables) => tables.iter().for_each(add),
            Item::None | Item::Value(_) => {}
        }
    }
}

type Header = (usize, Option<String>);

#[cfg(test)]
mod tests;
