//! What the configurator says about containerd's mirror files.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The state file that `larder-node configure` keeps and `larder-node serve` reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MirrorStatus {
    /// Always [`API_VERSION`](super::API_VERSION).
    pub api_version: String,
    /// Which configurator wrote it: the pod's UID in a cluster.
    pub instance: String,
    /// When it was written; written again at least every 5 s.
    pub time: Timestamp,
    /// Whether containerd is sent to the cache.
    pub state: MirrorState,
    /// Why it is not, or not for every registry.
    pub reason: MirrorReason,
    /// For people: what is wrong and what to edit. Empty when all is well.
    pub message: String,
    /// Registries with a mirror file of ours.
    pub hosts: Vec<String>,
}

/// Whether containerd is sent to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorState {
    /// The files are there and containerd reads them.
    Mirrored,
    /// The files were taken away because the cache does not answer.
    Withdrawn,
    /// Nothing failed, but containerd does not use the cache.
    NotEffective,
    /// The files cannot be written, or what is to be written cannot be read.
    Failing,
}

impl MirrorState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Mirrored, Self::Withdrawn, Self::NotEffective, Self::Failing];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mirrored => "Mirrored",
            Self::Withdrawn => "Withdrawn",
            Self::NotEffective => "NotEffective",
            Self::Failing => "Failing",
        }
    }
}

/// Why containerd is not sent to the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorReason {
    /// It is.
    #[default]
    #[serde(rename = "")]
    None,
    /// containerd's configuration has no `config_path`.
    ConfigPathMissing,
    /// `config_path` is a list that this containerd reads as one name.
    ColonConfigPath,
    /// `config_path` names another folder.
    ConfigPathElsewhere,
    /// Mirrors of somebody else were left alone.
    ForeignMirror,
    /// The folder cannot be written.
    CertsDirUnusable,
    /// The cache does not answer.
    MirrorUnreachable,
    /// The container runtime is not containerd.
    NotContainerd,
    /// A configuration, ours or containerd's, cannot be read.
    ConfigUnreadable,
}

impl MirrorReason {
    /// All but `None`.
    pub const ALL: [Self; 8] = [
        Self::ConfigPathMissing,
        Self::ColonConfigPath,
        Self::ConfigPathElsewhere,
        Self::ForeignMirror,
        Self::CertsDirUnusable,
        Self::MirrorUnreachable,
        Self::NotContainerd,
        Self::ConfigUnreadable,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "",
            Self::ConfigPathMissing => "ConfigPathMissing",
            Self::ColonConfigPath => "ColonConfigPath",
            Self::ConfigPathElsewhere => "ConfigPathElsewhere",
            Self::ForeignMirror => "ForeignMirror",
            Self::CertsDirUnusable => "CertsDirUnusable",
            Self::MirrorUnreachable => "MirrorUnreachable",
            Self::NotContainerd => "NotContainerd",
            Self::ConfigUnreadable => "ConfigUnreadable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_the_types_say_them() {
        let written = |value| serde_json::to_value(value).unwrap();
        for state in MirrorState::ALL {
            assert_eq!(written(serde_json::to_value(state).unwrap()), state.as_str());
        }
        for reason in MirrorReason::ALL.into_iter().chain([MirrorReason::None]) {
            assert_eq!(written(serde_json::to_value(reason).unwrap()), reason.as_str());
        }
    }
}
