//! Puts the parts together and owns every task.

use std::sync::{Arc, atomic::AtomicU64};

use anyhow::Context;
use prometheus::Registry;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::{Duration, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    args::ServeArgs,
    cache::Cache,
    config::{self, Config, ConfigError, StorageConfig},
    housekeeping,
    metrics::Metrics,
    server::{self, Pulls, admin},
    store::{Limits, Store},
    upstreams::Upstreams,
    watchdog,
};

/// How long writes may take after the last stream ended.
const LAST_WRITES: Duration = Duration::from_secs(3);

/// Runs `larder-node serve` until SIGTERM or SIGINT.
pub async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let source = args.source().context("the flags make no configuration")?;
    let config = source.load()?;
    let storage = config.storage.clone();
    let limits = limits(&storage);
    let store = Store::open(&storage.path, limits).context("the store cannot be used")?;
    let store = Arc::new(store);

    let registry = Registry::new();
    let metrics = Metrics::register(&registry)?;
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    metrics.config_valid.set(1);
    let upstreams = Arc::new(Upstreams::build(config, None, &metrics));
    let (swap, upstreams) = watch::channel(upstreams);

    let tasks = TaskTracker::new();
    let cancel = CancellationToken::new();
    let cache = Cache::new(store.clone(), metrics.clone(), tasks.clone(), cancel.clone());
    let (set_ready, ready) = watch::channel(false);
    let not_ready = set_ready.clone();
    let admin = admin::Admin {
        registry,
        metrics: metrics.clone(),
        upstreams: upstreams.clone(),
        store: store.clone(),
        instance: args.instance,
        node: args.node_name,
        mirror_state: args.mirror_state,
        ready,
    };
    let pulls = Pulls {
        cache: Arc::new(cache),
        upstreams,
        metrics: metrics.clone(),
        requests: Arc::new(AtomicU64::new(0)),
    };

    let pull_port = bind(args.listen, "--listen").await?;
    let admin_port = bind(args.admin, "--admin").await?;
    let (pull, admin_address) = (pull_port.local_addr()?, admin_port.local_addr()?);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    watchdog::start();

    let keeping = housekeeping::start(&store, &metrics, args.scrub_period.get(), &cancel);
    let followed = store.clone();
    let reload = config::watch(source, move |loaded| {
        apply(loaded, &swap, &followed, &metrics);
    });
    let background = tokio::spawn(reload);
    let stop_admin = CancellationToken::new();
    let admin_stopped = stop_admin.clone().cancelled_owned();
    let admin_server = tokio::spawn(server::serve(admin_port, admin::router(admin), admin_stopped));
    let stopping = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        not_ready.send_replace(false);
    };
    tracing::info!(%pull, admin = %admin_address, data = %storage.path.display(), "serving");
    set_ready.send_replace(true);
    server::serve(pull_port, server::router(pulls), stopping).await;

    // Clients are gone. Downloads stop where they are; the next process goes on from there.
    background.abort();
    cancel.cancel();
    tasks.close();
    if timeout(LAST_WRITES, tasks.wait()).await.is_err() {
        tracing::warn!("not everything could be written in time; it will be fetched again");
    }
    let _ = timeout(LAST_WRITES, keeping).await;
    let last = store.clone();
    let written = tokio::task::spawn_blocking(move || {
        last.write_counters();
        last.sync()
    });
    if let Ok(Ok(Err(error))) = timeout(LAST_WRITES, written).await
        && !error.is_expected()
    {
        tracing::warn!(%error, "cannot sync the store");
    }
    stop_admin.cancel();
    admin_server.abort();
    Ok(())
}

fn limits(storage: &StorageConfig) -> Limits {
    Limits { capacity: storage.capacity, min_free: storage.min_free }
}

async fn bind(address: std::net::SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; choose another address with {flag}"))
}

/// Puts a changed configuration in force, or keeps the old one.
fn apply(
    loaded: Result<Config, ConfigError>,
    swap: &watch::Sender<Arc<Upstreams>>,
    store: &Store,
    metrics: &Metrics,
) {
    let config = match loaded {
        Ok(config) => config,
        Err(error) => {
            metrics.config_valid.set(0);
            tracing::error!(
                %error,
                "the new configuration is refused; the old one stays in force"
            );
            return;
        }
    };
    metrics.config_valid.set(1);
    let previous = swap.borrow().clone();
    if previous.config == config {
        return;
    }
    if previous.config.storage.path != config.storage.path {
        tracing::warn!("storage.path changed; it is read at start only, so restart larder-node");
    }
    store.set_limits(limits(&config.storage));
    let hash = config.hash.clone();
    let next = Upstreams::build(config, Some(&previous), metrics);
    swap.send_replace(Arc::new(next));
    tracing::info!(hash, "a new configuration is in force");
}
