//! The configuration in force: a [`NodeConfig`] that was checked as a whole, with every file that
//! it names read.

mod credentials;
mod globs;
mod secret;
mod upstream;
mod watch;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use larder_crds::{
    ByteSize,
    node::{Containerd, MinFree, NodeConfig, ParseError, RejectedUpstream},
};

pub use credentials::{Credentials, CredentialsError};
pub use globs::{Globs, GlobsError};
pub use secret::Secret;
pub use upstream::{
    Access, Identity, RepositoryFilter, TagPolicy, Timeouts, TlsSettings, UpstreamConfig,
};
pub use watch::{ConfigSource, watch};

use crate::oci::{Algorithm, Digest, UpstreamHost};

/// A checked configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where and how much to store.
    pub storage: StorageConfig,
    /// Where containerd looks for mirrors; both paths are absolute.
    pub containerd: Containerd,
    /// What `/report` and `/catalog` ask for.
    pub report_token: Option<Secret>,
    /// Upstreams that may be used, by host.
    pub upstreams: BTreeMap<UpstreamHost, Arc<UpstreamConfig>>,
    /// Upstreams that were left out, and why.
    pub rejected: Vec<RejectedUpstream>,
    /// Fields that this version does not know.
    pub unknown_fields: Vec<String>,
    /// Lower-case hex SHA-256 of the document's text.
    pub hash: String,
}

/// The checked `storage` section.
#[derive(Clone, Debug, PartialEq)]
pub struct StorageConfig {
    /// Absolute folder.
    pub path: PathBuf,
    /// Upper bound of allocated bytes.
    pub capacity: ByteSize,
    /// Floor of free space.
    pub min_free: MinFree,
}

/// Why a configuration cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {cause}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// What is in the file cannot be used.
    #[error("the configuration {path}: {problem}")]
    Document {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, with its causes.
        problem: String,
    },
    /// The document is wrong.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// A field outside `upstreams` has a bad value.
    #[error("{field}: {message}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What is wrong and what is allowed.
        message: String,
    },
}

/// Reads a file that the configuration names.
type ReadFile<'a> = &'a dyn Fn(&str) -> io::Result<Vec<u8>>;

impl Config {
    /// Reads and checks the document at `path` and the files that it names.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |cause| ConfigError::Read { path: path.to_owned(), cause };
        let text = fs::read_to_string(path).map_err(read)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        Self::parse(&text, &|name| fs::read(folder.join(name))).map_err(|error| {
            let problem = format!("{:#}", anyhow::Error::from(error));
            ConfigError::Document { path: path.to_owned(), problem }
        })
    }

    /// Checks the document `text`; `read_file` reads the files that it names.
    pub fn parse(text: &str, read_file: ReadFile<'_>) -> Result<Self, ConfigError> {
        let parsed = NodeConfig::parse(text)?;
        let NodeConfig {
            api_version: _,
            kind: _,
            storage,
            containerd,
            report_token_file,
            upstreams,
        } = parsed.config;
        let field = |field, message: String| ConfigError::Field { field, message };
        if !storage.path.is_absolute() {
            let message = format!("{} is not an absolute path", storage.path.display());
            return Err(field("storage.path", message));
        }
        if storage.capacity.bytes() < MIN_CAPACITY {
            let message = format!("{} is too small, the least is 64Mi", storage.capacity);
            return Err(field("storage.capacity", message));
        }
        for (name, path) in [
            ("containerd.certsDir", &containerd.certs_dir),
            ("containerd.configFile", &containerd.config_file),
        ] {
            if !path.is_absolute() {
                return Err(field(name, format!("{} is not an absolute path", path.display())));
            }
        }
        let report_token = match report_token_file.as_str() {
            "" => None,
            name => Some(report_token(name, read_file).map_err(|m| field("reportTokenFile", m))?),
        };

        let mut rejected = parsed.rejected;
        let mut by_host = BTreeMap::new();
        for upstream in upstreams {
            let written = upstream.host.clone();
            let reject =
                |field: String, message| RejectedUpstream { host: written.clone(), field, message };
            match UpstreamConfig::check(upstream, read_file) {
                Ok(checked) if by_host.contains_key(&checked.host) => {
                    let message =
                        format!("{} is listed twice; the first entry is used", checked.host);
                    rejected.push(reject("host".to_owned(), message));
                }
                Ok(checked) => {
                    by_host.insert(checked.host.clone(), Arc::new(checked));
                }
                Err(error) => rejected.push(reject(error.field, error.message)),
            }
        }
        Ok(Self {
            storage: StorageConfig {
                path: storage.path,
                capacity: storage.capacity,
                min_free: storage.min_free,
            },
            containerd,
            report_token,
            upstreams: by_host,
            rejected,
            unknown_fields: parsed.unknown_fields,
            hash: Digest::of(Algorithm::Sha256, text.as_bytes()).hex().to_owned(),
        })
    }
}

/// Below this not even two ordinary layers fit, and the cache would only churn.
const MIN_CAPACITY: u64 = 64 << 20;

fn report_token(name: &str, read_file: ReadFile<'_>) -> Result<Secret, String> {
    let bytes = read_file(name).map_err(|error| format!("cannot read {name:?}: {error}"))?;
    let text = String::from_utf8(bytes).map_err(|_| format!("{name:?} is not text"))?;
    match text.trim() {
        "" => Err(format!("{name:?} is empty; write a token into it or leave the field out")),
        token => Ok(Secret::new(token.to_owned())),
    }
}
