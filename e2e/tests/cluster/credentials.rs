//! A registry that wants a password, and a cache that has it: pods pull without one, passwords and
//! tokens change without a pod restarted, and what turns bad stays in force as it was.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use larder_crds::resources::{CacheReason, UpstreamReason};
use larder_e2e::{
    cluster::{Cluster, NAMESPACE, Options, PullPolicy, story},
    image::{APP, Edition, Image},
    sandbox::Told,
};
use serde_json::Value;

use crate::{
    ground::{self, CACHE, HUB_FOLDER, MINUTE, PRIVATE_FOLDER, incarnations},
    store,
};

/// A password, and the line of `htpasswd` that has it.
const BEFORE: (&str, &str) =
    ("before", "larder:$2b$05$abcdefghijklmnopqrstuumO.kQghB0UVlhL4l0laF42RR1G0NvMe");
const AFTER: (&str, &str) =
    ("after", "larder:$2b$05$bcdefghijklmnopqrstuvux7cxij4RiLPzTABCjYAgSPZHG0SG9nS");

const EXAMPLE: &str = "/apis/larder.dev/v1alpha1/upstreamregistries/example";
const SECRET: &str = "/api/v1/namespaces/larder/secrets/larder-default";
const HUB_APP: &str = "docker.io/library/app:1";
/// "Within seconds" (docs/guide/kubernetes.md), on a machine with other things to do.
const SECONDS: Duration = Duration::from_secs(10);

/// A repository for each pull: what was never pulled is asked of the registry.
const REPOSITORIES: [&str; 5] = ["one", "two", "three", "four", "five"];

const REGISTRIES: &str = r"
apiVersion: larder.dev/v1alpha1
kind: UpstreamRegistry
metadata: {name: docker-io}
spec: {host: docker.io}
---
apiVersion: larder.dev/v1alpha1
kind: UpstreamRegistry
metadata: {name: example}
spec:
  host: registry.example:443
  tls: {caBundle: {configMap: {name: company-ca}}}
  credentials: {secretName: login}
  access: {mode: Shared, repositories: ['team/*']}
";

const FLEET: &str = r"
apiVersion: larder.dev/v1alpha1
kind: ProxyCache
metadata: {name: default}
spec: {storage: {hostPath: /var/lib/larder/store, capacity: 1Gi, minFree: 100Mi}}
";

/// Reasons that this story has to meet.
pub(crate) const CACHE_REASONS: [CacheReason; 5] = [
    CacheReason::AllReady,
    CacheReason::NothingPulled,
    CacheReason::AllMirrored,
    CacheReason::AsExpected,
    CacheReason::NodeProblems,
];
pub(crate) const UPSTREAM_REASONS: [UpstreamReason; 4] = [
    UpstreamReason::NotUsed,
    UpstreamReason::NotAsked,
    UpstreamReason::Reachable,
    UpstreamReason::Unreachable,
];

#[test]
fn passwords_and_tokens_change_and_no_pull_fails() -> Told {
    story(Options::default(), async |_, cluster| {
        let image = Image::of(&APP, Edition::First)?;
        cluster.upstreams.push_to_docker_hub("library/app:1", &image).await?;
        for name in REPOSITORIES {
            cluster.upstreams.push_to_private(&format!("team/{name}:1"), &image).await?;
        }
        cluster.upstreams.push_to_private("other/app:1", &image).await?;
        cluster.upstreams.private.ask_for_password(BEFORE.1).await?;
        ground::install(cluster).await?;
        let [one, two, three, four, five] = REPOSITORIES;
        a_cache_with_a_password(cluster).await?;
        cluster.stages().done("a cache with a password");
        pods_without_a_secret_pull(cluster, one).await?;
        cluster.stages().done("pods without a secret");
        the_password_changes(cluster, two).await?;
        cluster.stages().done("another password");
        the_token_of_the_reports_is_made_anew(cluster).await?;
        cluster.stages().done("another token");
        what_turns_bad_stays_in_force(cluster, three, four).await?;
        cluster.stages().done("bad and mended");
        what_nodes_say_of_an_upstream_is_a_condition(cluster, five).await?;
        cluster.stages().done("unreachable, rejected");
        store::its_folder_is_deleted(cluster, HUB_APP).await?;
        cluster.stages().done("the store's folder is deleted");
        ground::tell(&format!("{}", cluster.stages()));
        Ok(())
    })
}

async fn a_cache_with_a_password(cluster: &Cluster) -> Result<()> {
    log_in(cluster, BEFORE.0).await?;
    company_ca(cluster, cluster.upstreams.private_ca()).await?;
    cluster.apply(REGISTRIES).await?;
    says(cluster, ("Accepted", "True"), UpstreamReason::NotUsed).await?;
    cluster.apply(FLEET).await?;
    let all = CacheReason::AllReady.as_str();
    cluster.wait_for_condition(CACHE, ("Available", "True", Some(all)), MINUTE * 2).await?;
    mirrors_are_there(cluster).await?;
    let nothing = CacheReason::NothingPulled.as_str();
    cluster
        .wait_for_condition(CACHE, ("MirrorEffective", "Unknown", Some(nothing)), MINUTE)
        .await?;
    let expected = CacheReason::AsExpected.as_str();
    cluster.wait_for_condition(CACHE, ("Degraded", "False", Some(expected)), MINUTE).await?;
    says(cluster, ("Reachable", "Unknown"), UpstreamReason::NotAsked).await
}

async fn mirrors_are_there(cluster: &Cluster) -> Result<()> {
    cluster
        .wait_for("mirror files on every node", MINUTE, async |cluster| {
            let mut folders = cluster
                .nodes()
                .iter()
                .flat_map(|node| [HUB_FOLDER, PRIVATE_FOLDER].map(|it| node.mirror_file(it)));
            Ok(folders.all(|file| file.is_some()))
        })
        .await
}

/// Nodes neither know the registry's authority nor have its password: what they have came through
/// their caches.
async fn pods_without_a_secret_pull(cluster: &Cluster, name: &str) -> Result<()> {
    run_on_all(cluster, name).await?;
    let refused = cluster.node("n1")?.pull("registry.example:443/other/app:1").await;
    ensure!(refused.is_err(), "what is not on the list is served");
    let all = CacheReason::AllMirrored.as_str();
    cluster.wait_for_condition(CACHE, ("MirrorEffective", "True", Some(all)), MINUTE).await?;
    says(cluster, ("Reachable", "True"), UpstreamReason::Reachable).await
}

async fn the_password_changes(cluster: &mut Cluster, name: &str) -> Result<()> {
    let pods = incarnations(cluster).await?;
    cluster.upstreams.private.ask_for_password(AFTER.1).await?;
    log_in(cluster, AFTER.0).await?;
    let changed = Instant::now();
    cluster
        .wait_for("the registry takes what every cache has", SECONDS, async |cluster| {
            let path = format!("team/{name}/manifests/1?ns=registry.example:443");
            Ok(answers(cluster, &path).await?.iter().all(|status| status == "200"))
        })
        .await?;
    ground::tell(&format!("the nodes have another password after {:.1?}", changed.elapsed()));
    run_on_all(cluster, name).await?;
    let now = incarnations(cluster).await?;
    ensure!(now == pods, "pods were restarted: {pods:?}, now {now:?}");
    Ok(())
}

/// The Secret is deleted: the operator makes another one, and reports are believed again. A registry
/// that comes after that is `NotAsked` when a report has told of it.
async fn the_token_of_the_reports_is_made_anew(cluster: &Cluster) -> Result<()> {
    let pods = incarnations(cluster).await?;
    let old = cluster.get(SECRET).await?.context("there is a Secret")?["data"].clone();
    ground::while_pods_start(cluster, HUB_APP, async {
        let namespace = format!("--namespace={NAMESPACE}");
        cluster.delete(&["secret", "larder-default", &namespace]).await?;
        cluster
            .wait_for("another token", SECONDS, async |cluster| {
                let secret = cluster.get(SECRET).await?.unwrap_or_default();
                let token = &secret["data"]["report-token"];
                Ok(token.is_string() && *token != old["report-token"])
            })
            .await?;
        let late = "apiVersion: larder.dev/v1alpha1\nkind: UpstreamRegistry\n\
                    metadata: {name: late}\nspec: {host: late.example}\n";
        cluster.apply(late).await?;
        let path = "/apis/larder.dev/v1alpha1/upstreamregistries/late";
        let reason = UpstreamReason::NotAsked.as_str();
        let asked = Instant::now();
        cluster.wait_for_condition(path, ("Reachable", "Unknown", Some(reason)), MINUTE).await?;
        ground::tell(&format!("reports are back {:.1?} after another token", asked.elapsed()));
        cluster
            .wait_for("every node reports", MINUTE, async |cluster| {
                let cache = cluster.get(CACHE).await?.unwrap_or_default();
                let problems = cache["status"]["problemNodes"].as_array().map_or(0, Vec::len);
                Ok(cache["status"]["nodes"]["reporting"] == 2 && problems == 0)
            })
            .await?;
        cluster.delete(&["ureg", "late"]).await?;
        Ok(())
    })
    .await?;
    let new = cluster.get(SECRET).await?.context("there is a Secret")?["data"].clone();
    let but_the_token = |data: &Value| {
        let mut data = data.clone();
        data["report-token"] = Value::Null;
        data
    };
    ensure!(but_the_token(&new) == but_the_token(&old), "more than the token is another");
    let now = incarnations(cluster).await?;
    ensure!(now == pods, "pods were restarted: {pods:?}, now {now:?}");
    Ok(())
}

async fn what_turns_bad_stays_in_force(cluster: &Cluster, one: &str, other: &str) -> Result<()> {
    let namespace = format!("--namespace={NAMESPACE}");
    cluster.delete(&["secret", "login", &namespace]).await?;
    says(cluster, ("Accepted", "False"), UpstreamReason::SecretNotFound).await?;
    mirrors_are_there(cluster).await?;
    run_on_all(cluster, one).await?;
    log_in(cluster, AFTER.0).await?;
    says(cluster, ("Accepted", "True"), UpstreamReason::Accepted).await?;
    // PEM, and no certificate in it: a node that was told of it would leave the registry out.
    company_ca(cluster, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").await?;
    says(cluster, ("Accepted", "False"), UpstreamReason::CaInvalid).await?;
    mirrors_are_there(cluster).await?;
    run_on_all(cluster, other).await?;
    company_ca(cluster, cluster.upstreams.private_ca()).await?;
    says(cluster, ("Accepted", "True"), UpstreamReason::Accepted).await
}

async fn what_nodes_say_of_an_upstream_is_a_condition(
    cluster: &mut Cluster,
    name: &str,
) -> Result<()> {
    cluster.upstreams.private.stop()?;
    let path = format!("team/{name}/manifests/1?ns=registry.example:443");
    let statuses = answers(cluster, &path).await?;
    ensure!(statuses == ["503", "503"], "the registry is down: {statuses:?}");
    says(cluster, ("Reachable", "False"), UpstreamReason::Unreachable).await?;
    let problems = CacheReason::NodeProblems.as_str();
    cluster.wait_for_condition(CACHE, ("Degraded", "True", Some(problems)), MINUTE).await?;
    cluster.upstreams.private.start_again().await?;
    run_on_all(cluster, name).await
}

async fn says(
    cluster: &Cluster,
    (kind, status): (&str, &str),
    reason: UpstreamReason,
) -> Result<()> {
    cluster.wait_for_condition(EXAMPLE, (kind, status, Some(reason.as_str())), MINUTE).await
}

async fn log_in(cluster: &Cluster, password: &str) -> Result<()> {
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: login, namespace: {NAMESPACE}}}\n\
         type: kubernetes.io/basic-auth\nstringData: {{username: larder, password: {password}}}\n"
    );
    cluster.apply(&secret).await?;
    Ok(())
}

async fn company_ca(cluster: &Cluster, pem: &str) -> Result<()> {
    let config_map = serde_json::json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "company-ca", "namespace": NAMESPACE},
        "data": {"ca.crt": pem},
    });
    cluster.apply(&config_map.to_string()).await?;
    Ok(())
}

/// A pod of an image that no node and no cache has, on each node. No pull fails.
async fn run_on_all(cluster: &Cluster, name: &str) -> Result<()> {
    for node in cluster.nodes() {
        let image = format!("registry.example:443/team/{name}:1");
        let pod = cluster.pod(node.name(), &image, PullPolicy::Always).await?;
        ensure!(!pod.was_told("Failed"), "{}: {:#?}", node.name(), pod.events);
        cluster.delete_pod(&pod).await?;
    }
    Ok(())
}

/// What the cache of each node answers.
async fn answers(cluster: &Cluster, path: &str) -> Result<Vec<String>> {
    let mut statuses = Vec::new();
    for node in cluster.nodes() {
        let url = format!("http://127.0.0.1:5055/v2/{path}");
        let asked = ["-s", "-o", "/dev/null", "-w", "%{http_code}", &url];
        statuses.push(node.exec("curl", &asked).await?.stdout);
    }
    Ok(statuses)
}
