//! What the API server itself refuses. Every rule of the definitions is met by an object that passes
//! and by one that does not; a rule without one fails the test.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use larder_e2e::cluster::Cluster;
use serde_json::Value;

/// The definition, the spec that passes, the one that does not, and what is said about it.
const RULES: [(Kind, &str, &str, &str); 24] = {
    use Kind::{ProxyCache, UpstreamRegistry};
    [
        (
            ProxyCache,
            "{containerd: {certsDir: /a/certs.d, configFile: /a/config.toml}}",
            "{containerd: {certsDir: /a/../certs.d, configFile: /a/config.toml}}",
            "certsDir must not contain ..",
        ),
        (
            ProxyCache,
            "{containerd: {certsDir: /a/certs.d, configFile: /a/config.toml}}",
            "{containerd: {certsDir: /a/certs.d, configFile: /a/../config.toml}}",
            "configFile must not contain ..",
        ),
        (
            ProxyCache,
            "{containerd: {certsDir: /a/certs.d, configFile: /a/config.toml}}",
            "{containerd: {certsDir: /a/certs.d}}",
            "certsDir and configFile belong together: set both or none",
        ),
        (
            ProxyCache,
            "{containerd: {distribution: K3s}}",
            "{containerd: {distribution: K3s, certsDir: /a/certs.d, configFile: /a/config.toml}}",
            "containerd takes distribution, or certsDir and configFile, not both",
        ),
        (
            ProxyCache,
            "{endpoint: {port: 6055, adminPort: 6056}}",
            "{endpoint: {port: 6055, adminPort: 6055}}",
            "port and adminPort must differ",
        ),
        (
            ProxyCache,
            "{pod: {updateStrategy: {maxUnavailable: 100%}}}",
            "{pod: {updateStrategy: {maxUnavailable: 0}}}",
            "maxUnavailable must be a number of nodes or a percentage of at least 1, for example 10%",
        ),
        (
            ProxyCache,
            "{storage: {capacity: 1Gi}}",
            "{storage: {capacity: 1023Mi}}",
            "capacity must be a quantity between 1Gi and 1Pi, for example 20Gi",
        ),
        (
            ProxyCache,
            "{storage: {hostPath: /var/lib/containerd-images}}",
            "{storage: {hostPath: /var/lib/containerd/larder}}",
            "hostPath belongs to another program of the node",
        ),
        (
            ProxyCache,
            "{upstreams: {names: [docker-io]}}",
            "{upstreams: {names: [docker-io], selector: {matchLabels: {a: b}}}}",
            "upstreams takes names or a selector, not both",
        ),
        (
            UpstreamRegistry,
            "{host: x.example, credentials: {secretName: a}, access: {mode: Shared, repositories: ['team/*']}}",
            "{host: x.example, credentials: {secretName: a}, access: {mode: Shared}}",
            "mode Shared needs repositories: the list of what everybody on a node may read",
        ),
        (
            UpstreamRegistry,
            "{host: x.example, access: {mode: Anonymous}}",
            "{host: x.example, access: {mode: Anonymous, repositories: ['team/*']}}",
            "repositories belongs to mode Shared",
        ),
        (
            UpstreamRegistry,
            "{host: x.example, endpoints: [{url: 'https://mirror.example.com/prefix'}]}",
            "{host: x.example, endpoints: [{url: 'ftp://mirror.example.com'}]}",
            "url must be a URL such as https://mirror.example.com",
        ),
        (
            UpstreamRegistry,
            "{host: x.example, endpoints: [{url: 'https://mirror.example.com:5000'}]}",
            "{host: x.example, endpoints: [{url: 'https://user:pw@mirror.example.com'}]}",
            "url must not contain credentials: put them into a Secret and name it in \
             credentials.secretName",
        ),
        (
            UpstreamRegistry,
            "{host: x.example, endpoints: [{url: 'https://mirror.example.com'}]}",
            "{host: x.example, endpoints: [{url: 'https://mirror.example.com?a=b'}]}",
            "url must have neither a query nor a fragment",
        ),
        (
            UpstreamRegistry,
            "{host: x.example, endpoints: [{url: 'http://x.example'}], tls: {insecure: {reason: a lab network}}}",
            "{host: x.example, endpoints: [{url: 'https://x.example'}, {url: 'HTTP://x.example'}], tls: {}}",
            "an endpoint without TLS (http://) needs tls.insecure, with the reason why that is acceptable",
        ),
        (
            UpstreamRegistry,
            "{host: x.example, access: {mode: Shared, repositories: [a]}, credentials: {secretName: a}}",
            "{host: x.example, access: {mode: Shared, repositories: [a]}}",
            "access.mode Shared needs credentials: it is with them that pods read",
        ),
        (
            UpstreamRegistry,
            "{host: docker.io}",
            "{host: registry-1.docker.io}",
            "Docker Hub is docker.io in image names",
        ),
        (
            UpstreamRegistry,
            "{host: x.example, proxy: 'socks5://proxy.example.com:1080'}",
            "{host: x.example, proxy: 'proxy.example.com'}",
            "proxy must be a URL such as http://proxy.example.com:3128 (http, https or socks5)",
        ),
        (
            UpstreamRegistry,
            "{host: x.example, proxy: 'http://proxy.example.com:3128'}",
            "{host: x.example, proxy: 'http://user:pw@proxy.example.com:3128'}",
            "proxy must not contain credentials",
        ),
        (
            UpstreamRegistry,
            "{host: x.example, tags: {refreshInterval: 1h30m}}",
            "{host: x.example, tags: {refreshInterval: ''}}",
            "write a duration such as 60s",
        ),
        (
            UpstreamRegistry,
            "{host: x.example, tags: {staleIfError: 0s}}",
            "{host: x.example, tags: {staleIfError: ''}}",
            "write a duration such as 24h",
        ),
        (
            UpstreamRegistry,
            "{host: x.example, tls: {caBundle: {inline: '-----BEGIN CERTIFICATE-----'}}}",
            "{host: x.example, tls: {caBundle: {inline: 'MIIB'}}}",
            "inline must hold PEM certificates (-----BEGIN CERTIFICATE-----)",
        ),
        (
            UpstreamRegistry,
            "{host: x.example, tls: {caBundle: {configMap: {name: ca}}}}",
            "{host: x.example, tls: {caBundle: {configMap: {name: ca}, secret: {name: ca}}}}",
            "caBundle needs exactly one of inline, configMap and secret",
        ),
        (
            UpstreamRegistry,
            "{host: x.example, timeouts: {stall: 10s}}",
            "{host: x.example, timeouts: {stall: 11s}}",
            "spec.timeouts.stall",
        ),
    ]
};

#[derive(Clone, Copy, Debug)]
enum Kind {
    ProxyCache,
    UpstreamRegistry,
}

fn object(kind: Kind, name: &str, spec: &str) -> String {
    format!(
        "apiVersion: larder.dev/v1alpha1\nkind: {kind:?}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

/// Needs the definitions, and leaves nothing.
pub(crate) async fn every_rule_is_kept(cluster: &Cluster) -> Result<()> {
    let mut met = BTreeSet::new();
    for (kind, passes, fails, message) in RULES {
        accepted(cluster, &object(kind, "rule", passes)).await?;
        refused(cluster, &object(kind, "rule", fails), message).await?;
        met.insert(message.to_owned());
    }
    let long = "a".repeat(41);
    accepted(cluster, &object(Kind::ProxyCache, &long[..40], "{}")).await?;
    let message = "metadata.name must have at most 40 characters: names of pods are made of it";
    refused(cluster, &object(Kind::ProxyCache, &long, "{}"), message).await?;
    met.insert(message.to_owned());
    for (kind, before, after, message) in [
        (
            Kind::ProxyCache,
            "{storage: {hostPath: /var/lib/larder}}",
            "{storage: {hostPath: /var/lib/other}}",
            "hostPath cannot be changed: create another ProxyCache and delete this one",
        ),
        (
            Kind::UpstreamRegistry,
            "{host: x.example}",
            "{host: y.example}",
            "host cannot be changed: create another UpstreamRegistry and delete this one",
        ),
    ] {
        cluster.apply(&object(kind, "kept", before)).await?;
        refused(cluster, &object(kind, "kept", after), message).await?;
        met.insert(message.to_owned());
        let plural = if matches!(kind, Kind::ProxyCache) { "pcache" } else { "ureg" };
        cluster.delete(&[plural, "kept"]).await?;
    }
    let mut all = BTreeSet::new();
    for name in ["proxycaches", "upstreamregistries"] {
        let path =
            format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}.larder.dev");
        collect(&cluster.get(&path).await?.context("the definition is there")?, &mut all);
    }
    let unmet: Vec<_> = all.difference(&met).collect();
    ensure!(all.len() > 20 && unmet.is_empty(), "of {} rules not tried: {unmet:#?}", all.len());
    Ok(())
}

/// The messages of all rules.
fn collect(schema: &Value, messages: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            let rules = fields.get("x-kubernetes-validations").and_then(Value::as_array);
            let said = rules.into_iter().flatten().filter_map(|rule| rule["message"].as_str());
            messages.extend(said.map(str::to_owned));
            fields.values().for_each(|field| collect(field, messages));
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, messages)),
        _ => {}
    }
}

async fn accepted(cluster: &Cluster, yaml: &str) -> Result<()> {
    let applied = dry_run(cluster, yaml).await?;
    ensure!(applied.is_none(), "refused: {applied:?}\n{yaml}");
    Ok(())
}

async fn refused(cluster: &Cluster, yaml: &str, message: &str) -> Result<()> {
    let errors = dry_run(cluster, yaml).await?.with_context(|| format!("accepted:\n{yaml}"))?;
    ensure!(errors.contains(message), "another error than {message:?}: {errors}\n{yaml}");
    Ok(())
}

/// What is wrong with it, if anything.
async fn dry_run(cluster: &Cluster, yaml: &str) -> Result<Option<String>> {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    std::fs::write(file.path(), yaml)?;
    let path = file.path().to_string_lossy();
    let output = cluster.try_kubectl(&["apply", "--dry-run=server", "-f", &path]).await?;
    Ok((!output.status.success()).then_some(output.stderr))
}
