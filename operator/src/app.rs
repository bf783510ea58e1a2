//! The composition root: builds, spawns, joins.

use std::{
    collections::BTreeSet,
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures_util::{Stream, StreamExt, stream};
use kube::{
    Api, Client, ResourceExt,
    runtime::{
        Controller,
        controller::{Action, Config},
        events::{Recorder, Reporter},
        watcher,
    },
};
use larder_crds::resources::{ProxyCache, UpstreamRegistry};
use prometheus::Registry;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::{broadcast, watch},
    time::sleep,
};

use crate::{
    Ctx, Written, admin,
    apply::Applier,
    args::{RunArgs, UninstallArgs},
    fleet::Fleet,
    labels,
    lease::Lease,
    metrics::Metrics,
    proxy_cache::{self, Teller, plan::Installed},
    uninstall, upstream_registry,
    world::{World, error_chain},
};

/// Between two tries to reach the API server at the start.
const RETRY: Duration = Duration::from_secs(2);
/// Changes that come together are one; and the configuration is written at most once a second.
const SETTLE: Duration = Duration::from_millis(100);
const PAUSE: Duration = Duration::from_millis(900);

/// Runs the operator until SIGTERM, or until another one leads.
pub async fn run(args: RunArgs) -> anyhow::Result<()> {
    let registry = Registry::new();
    let metrics = Metrics::register(&registry)?;
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry.register(Box::new(process))?;
    let (ready, is_ready) = watch::channel(false);
    let listener = TcpListener::bind(args.admin)
        .await
        .with_context(|| format!("--admin: cannot listen on {}", args.admin))?;
    let admin = admin::serve(listener, admin::Admin { registry, ready: is_ready });

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        result = lead(args, metrics, ready, stopped) => result,
        result = admin => result.context("the admin port"),
    }
}

/// Acts while it has the lease, and gives it back when it is told to stop.
async fn lead(
    args: RunArgs,
    metrics: Metrics,
    ready: watch::Sender<bool>,
    stopped: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut stopped = std::pin::pin!(stopped);
    let client = Client::try_default().await.context("no Kubernetes configuration")?;
    let mut lease = tokio::select! {
        lease = try_for_lease(&client, &args, &ready) => lease,
        () = &mut stopped => return Ok(()),
    };
    tracing::info!(identity = args.identity, "waiting for the lease");
    tokio::select! {
        won = lease.won() => won?,
        () = &mut stopped => return Ok(()),
    }
    metrics.lead();
    tracing::info!(identity = args.identity, "leading");
    tokio::select! {
        result = act(client, args, metrics) => result?,
        () = lease.lost() => anyhow::bail!("the lease is lost: another operator leads"),
        () = stopped => {}
    }
    lease.release().await;
    Ok(())
}

/// For ever: without the API server there is nothing to do, and a restart would not help.
async fn try_for_lease(client: &Client, args: &RunArgs, ready: &watch::Sender<bool>) -> Lease {
    wait_for_api_server(client).await;
    ready.send_replace(true);
    loop {
        match Lease::try_for(client.clone(), &args.namespace, &args.identity).await {
            Ok(lease) => return lease,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "the lease cannot be tried for yet");
                sleep(RETRY).await;
            }
        }
    }
}

async fn act(client: Client, args: RunArgs, metrics: Metrics) -> anyhow::Result<()> {
    let (world, mut watches) = World::watch(&client, &args.namespace);
    let watching = async move { while watches.next().await.is_some() {} };
    let ctx = Arc::new(Ctx {
        client: client.clone(),
        world: world.clone(),
        fleet: Fleet::default(),
        applier: Applier::new(client.clone(), &args.namespace),
        teller: Teller::new(client.clone(), &args.namespace),
        recorder: recorder(client.clone(), &args.identity),
        installed: Installed {
            namespace: args.namespace,
            image: args.node_image,
            pull_policy: args.node_pull_policy,
            pull_secrets: args.node_pull_secrets,
            architectures: args.node_architectures,
        },
        written: Written::default(),
        metrics,
    });
    // Nodes are asked directly, whatever proxy the environment names.
    let http = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .build()?;
    let controllers = async {
        world.wait_until_known().await?;
        let (changes, _) = broadcast::channel(1);
        let caches =
            control(Api::<ProxyCache>::all(client.clone()), &changes, &ctx, proxy_cache::reconcile);
        let registries = control(
            Api::<UpstreamRegistry>::all(client),
            &changes,
            &ctx,
            upstream_registry::reconcile,
        );
        let polls = ctx.fleet.clone().poll(world.clone(), http);
        tokio::join!(caches, registries, polls, spread(&world, &changes, &ctx.metrics));
        anyhow::Ok(())
    };
    tokio::select! {
        result = controllers => result,
        () = watching => anyhow::bail!("the watches ended"),
    }
}

async fn wait_for_api_server(client: &Client) {
    loop {
        match client.apiserver_version().await {
            Ok(version) => {
                tracing::info!(version = version.git_version, "the API server answers");
                return;
            }
            Err(error) => {
                tracing::warn!(error = %error_chain(&error), "waiting for the API server");
                sleep(RETRY).await;
            }
        }
    }
}

fn recorder(client: Client, identity: &str) -> Recorder {
    let reporter = Reporter {
        controller: labels::FIELD_MANAGER.to_owned(),
        instance: Some(identity.to_owned()),
    };
    Recorder::new(client, reporter)
}

/// Everything that changes may concern every object; there are few.
async fn spread(world: &World, changes: &broadcast::Sender<()>, metrics: &Metrics) {
    loop {
        world.changed().await;
        sleep(SETTLE).await;
        // Nobody reconciles what is gone.
        metrics.retain(&names(&world.caches.state()), &names(&world.registries.state()));
        // Nobody listens while the controllers start; they look at everything then.
        let _ = changes.send(());
        sleep(PAUSE).await;
    }
}

fn names<K: kube::Resource>(objects: &[Arc<K>]) -> BTreeSet<String> {
    objects.iter().map(|object| object.name_any()).collect()
}

fn follow(changes: &broadcast::Sender<()>) -> impl Stream<Item = ()> + Send + 'static {
    stream::unfold(changes.subscribe(), |mut changes| async {
        match changes.recv().await {
            // One that was missed is as good as one that came.
            Ok(()) | Err(broadcast::error::RecvError::Lagged(_)) => Some(((), changes)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    })
}

async fn control<K, F>(
    api: Api<K>,
    changes: &broadcast::Sender<()>,
    ctx: &Arc<Ctx>,
    reconcile: fn(Arc<K>, Arc<Ctx>) -> F,
) where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
    F: Future<Output = Result<Action, kube::Error>> + Send + 'static,
{
    let kind = K::kind(&()).into_owned();
    let measured = move |object: Arc<K>, ctx: Arc<Ctx>| {
        let kind = K::kind(&());
        async move {
            let started = Instant::now();
            let result = reconcile(object, ctx.clone()).await;
            ctx.metrics.reconciled(&kind, result.is_ok(), started.elapsed());
            result
        }
    };
    Controller::new(api, watcher::Config::default())
        .with_config(Config::default().concurrency(4))
        .reconcile_all_on(follow(changes))
        .run(measured, retry_later::<K>, ctx.clone())
        .for_each(|result| {
            // Failures of a reconcile are logged where they are retried.
            if let Err(error @ kube::runtime::controller::Error::QueueError(_)) = result {
                tracing::warn!(kind, error = %error_chain(&error), "a watch failed; it is tried again");
            }
            std::future::ready(())
        })
        .await;
}

/// The API server is down, slow or refuses for now: not before five seconds, and a conflict at once
/// would meet the same conflict.
#[expect(clippy::needless_pass_by_value, reason = "kube gives it so")]
fn retry_later<K: kube::Resource<DynamicType = ()>>(
    object: Arc<K>,
    error: &kube::Error,
    _: Arc<Ctx>,
) -> Action {
    let kind = K::kind(&());
    tracing::warn!(%kind, name = object.name_any(), error = %error_chain(error), "a reconcile failed; again in 5 s");
    Action::requeue(Duration::from_secs(5))
}

/// Deletes every ProxyCache and waits.
pub async fn uninstall(args: UninstallArgs) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("no Kubernetes configuration")?;
    uninstall::run(client, Duration::from_secs(args.timeout)).await;
    Ok(())
}
