//! The closed lists of condition types and reasons.

use std::fmt;

macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $word:ident,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $word,)+ }

        impl $name {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$word),+];

            /// As it is written.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$word => stringify!($word),)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// Types of conditions.
    ConditionType {
        /// The spec is valid and in force.
        Accepted,
        /// The node caches run.
        Available,
        /// containerd asks the caches.
        MirrorEffective,
        /// Something is not as it should be.
        Degraded,
        /// The nodes reach the registry.
        Reachable,
        /// The credentials could be read and are taken.
        CredentialsValid,
        /// The registry's identity is not checked.
        Insecure,
        /// Pods read with the cache's credentials.
        Shared,
    }
}

words! {
    /// Reasons in the conditions of a `ProxyCache`.
    CacheReason {
        /// All is well.
        Accepted,
        /// A field of the spec is wrong.
        InvalidSpec,
        /// An older ProxyCache is meant for the same nodes.
        NodesTaken,
        /// An UpstreamRegistry that is named is not there.
        UpstreamNotFound,
        /// The configuration does not fit into a ConfigMap.
        ConfigTooLarge,
        /// The API server refuses an object.
        ApplyFailed,
        /// Every node cache runs.
        AllReady,
        /// Some node caches are not ready.
        NotAllReady,
        /// No node matches.
        NoNodes,
        /// Nobody has been asked yet.
        NotPolled,
        /// Every node is mirrored, and a containerd has asked a cache.
        AllMirrored,
        /// Every node is mirrored, and no containerd has asked a cache yet: nothing was pulled.
        NothingPulled,
        /// Some nodes are not mirrored.
        NotAllMirrored,
        /// Nothing is wrong.
        AsExpected,
        /// Nodes have problems.
        NodeProblems,
    }
}

words! {
    /// Reasons in the conditions of an `UpstreamRegistry`.
    UpstreamReason {
        /// All is well.
        Accepted,
        /// A field of the spec is wrong.
        InvalidSpec,
        /// An older UpstreamRegistry has the same host.
        HostTaken,
        /// A Secret is not there.
        SecretNotFound,
        /// A Secret has another type, or lacks a key.
        SecretInvalid,
        /// A ConfigMap is not there.
        ConfigMapNotFound,
        /// A certificate authority is not PEM.
        CaInvalid,
        /// A client certificate is not PEM, or does not fit its key.
        ClientCertificateInvalid,
        /// No ProxyCache uses it.
        NotUsed,
        /// Nodes rejected it.
        RejectedByNodes,
        /// The nodes that used it reached it.
        Reachable,
        /// Some nodes do not reach it.
        Unreachable,
        /// No node has reported on it.
        NotReported,
        /// No node has needed anything of it.
        NotAsked,
        /// There are none, or they work.
        CredentialsValid,
        /// `tls.insecure` is set.
        InsecureAllowed,
        /// `access.mode` is `Shared`.
        SharedAccess,
    }
}

words! {
    /// What is wrong on a node.
    NodeReason {
        /// containerd's configuration has no `config_path`.
        ConfigPathMissing,
        /// `config_path` is a list that this containerd reads as one name.
        ColonConfigPath,
        /// `config_path` names another folder.
        ConfigPathElsewhere,
        /// Mirrors of somebody else were left alone.
        ForeignMirror,
        /// The folder of mirror files cannot be written.
        CertsDirUnusable,
        /// The cache does not answer its configurator.
        MirrorUnreachable,
        /// The node's runtime is not containerd.
        RuntimeNotContainerd,
        /// A configuration file on the node cannot be read.
        ConfigUnreadable,
        /// What is pulled does not fit.
        DiskFull,
        /// The disk is read-only.
        DiskReadOnly,
        /// The disk fails.
        DiskFailing,
        /// Another process holds the store.
        StoreLocked,
        /// An upstream is not reached from this node.
        UpstreamUnreachable,
        /// The node has not taken over the newest configuration.
        ConfigPending,
        /// The node rejected a part of the configuration.
        ConfigRejected,
        /// The node cache does not answer.
        NotReporting,
        /// The node cache is not ready.
        NotReady,
        /// It answers, but not what a node cache answers.
        ReportInvalid,
    }
}
