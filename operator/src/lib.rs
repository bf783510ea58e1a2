//! The operator: turns [`ProxyCache`](larder_crds::resources::ProxyCache) and
//! [`UpstreamRegistry`](larder_crds::resources::UpstreamRegistry) objects into a cache on every node.
//!
//! One reconcile, in reading order: [`world`] is what the API server says; [`proxy_cache`] validates
//! an object, plans its DaemonSet, configuration and Secret (all pure) and says in its status what
//! came of it; [`apply`] is the only code that writes objects; [`fleet`] asks the node caches how
//! they do. [`upstream_registry`] is the same sentence, shorter.

pub mod admin;
pub mod app;
pub mod apply;
pub mod args;
pub mod condition;
pub mod events;
pub mod fleet;
pub mod labels;
pub mod lease;
pub mod metrics;
pub mod proxy_cache;
pub mod telemetry;
pub mod uninstall;
pub mod upstream_registry;
pub mod world;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::{Client, runtime::events::Recorder};

use crate::{
    apply::Applier,
    fleet::Fleet,
    metrics::Metrics,
    proxy_cache::{Teller, plan::Installed},
    world::World,
};

/// What every reconcile uses.
pub struct Ctx {
    /// For status.
    pub client: Client,
    /// What the API server says.
    pub world: World,
    /// What the node caches say.
    pub fleet: Fleet,
    /// Writes objects.
    pub applier: Applier,
    /// Tells pods of their configuration.
    pub teller: Teller,
    /// Publishes events.
    pub recorder: Recorder,
    /// What the operator was installed with.
    pub installed: Installed,
    /// When which status was last written.
    pub written: Written,
    /// Its own metrics.
    pub metrics: Metrics,
}

/// When which status was last written, by this process.
#[derive(Debug, Default)]
pub struct Written(Mutex<HashMap<String, Instant>>);

impl Written {
    /// How long ago; `None`: not by this process.
    pub fn since(&self, key: &str) -> Option<Duration> {
        let written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.get(key).map(Instant::elapsed)
    }

    /// It was written now.
    pub fn now(&self, key: &str) {
        let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        written.insert(key.to_owned(), Instant::now());
    }
}
