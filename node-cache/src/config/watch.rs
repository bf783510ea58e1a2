//! Following the configuration file while running.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Config, ConfigError};

/// Where the configuration comes from.
#[derive(Clone, Debug)]
pub enum ConfigSource {
    /// A document, followed while running.
    File(PathBuf),
    /// The text of a document made from flags; it does not change.
    Text(String),
}

/// A folder is looked at this often: a change is in force within a second, which is what the
/// operator counts on.
const INTERVAL: Duration = Duration::from_millis(500);

impl ConfigSource {
    /// Reads and checks it once.
    pub fn load(&self) -> Result<Config, ConfigError> {
        match self {
            Self::File(path) => Config::load(path),
            Self::Text(text) => Config::parse(text, &|name| {
                Err(std::io::Error::other(format!("{name:?} needs a configuration file")))
            }),
        }
    }
}

/// Calls `changed` with the outcome of reading the configuration again, every time it or a file
/// beside it changed. Never returns for a document that does not change.
pub async fn watch(source: ConfigSource, mut changed: impl FnMut(Result<Config, ConfigError>)) {
    let ConfigSource::File(path) = source else {
        return std::future::pending().await;
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    // Nothing seen yet: what changed since the first reading must not be missed.
    let mut seen = Vec::new();
    loop {
        tokio::time::sleep(INTERVAL).await;
        let now = look(folder.clone()).await;
        if now != seen {
            seen = now;
            let path = path.clone();
            if let Ok(loaded) = tokio::task::spawn_blocking(move || Config::load(&path)).await {
                changed(loaded);
            }
        }
    }
}

type Look = Vec<(PathBuf, u64, i64, i64, u64)>;

async fn look(folder: PathBuf) -> Look {
    tokio::task::spawn_blocking(move || fingerprint(&folder)).await.unwrap_or_default()
}

/// What would be different if any file of the folder was written, replaced or, as in a ConfigMap
/// volume, came to lie behind another symbolic link.
fn fingerprint(folder: &Path) -> Look {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut look: Look = entries
        .flatten()
        .filter_map(|entry| {
            let path = entry.path();
            let metadata = fs::metadata(&path).ok()?;
            let is_file = metadata.is_file();
            is_file.then(|| {
                let (seconds, nanos) = (metadata.mtime(), metadata.mtime_nsec());
                (path, metadata.ino(), seconds, nanos, metadata.size())
            })
        })
        .collect();
    look.sort();
    look
}
