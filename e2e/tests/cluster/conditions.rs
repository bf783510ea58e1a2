//! What is wrong with an object is a condition with a reason of a closed list; the rest goes on, and
//! when it is mended the condition says so.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use larder_crds::resources::{CacheReason, UpstreamReason};
use larder_e2e::cluster::{Cluster, NAMESPACE};

use crate::{
    credentials,
    ground::{self, CACHE, MINUTE},
    turns_bad,
};

/// A change is in force within seconds.
const SOON: Duration = Duration::from_secs(30);

/// Too short to be waited for: the first poll of a new leader, which takes 2 s at most.
const NOT_MET: [CacheReason; 1] = [CacheReason::NotPolled];
/// What a node of this release refuses, the operator refuses first; it takes an older node.
const NOT_MET_OF_UPSTREAMS: [UpstreamReason; 1] = [UpstreamReason::RejectedByNodes];

/// A new reason needs a case: here, among what turns bad, or where nodes are real.
#[test]
fn every_reason_of_the_closed_lists_is_met() {
    let mut met = said("proxycaches");
    let real = credentials::CACHE_REASONS.into_iter().chain(NOT_MET).chain(turns_bad::reasons());
    met.extend(real.map(|reason| reason.to_string()));
    let all: BTreeSet<_> = CacheReason::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(met, all, "of a ProxyCache");
    let mut met = said("upstreamregistries");
    let real = credentials::UPSTREAM_REASONS.into_iter().chain(NOT_MET_OF_UPSTREAMS);
    met.extend(real.map(|reason| reason.to_string()));
    let all: BTreeSet<_> = UpstreamReason::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(met, all, "of an UpstreamRegistry");
}

/// The reasons of [`CASES`] for one kind.
fn said(plural: &str) -> BTreeSet<String> {
    let cases = CASES.iter().filter(|case| case.plural == plural);
    cases.map(|case| case.says.2.to_owned()).collect()
}

/// What is created (nothing: it is there), under which plural and name it is found, which condition
/// says what, and what the message must name.
struct Case {
    objects: &'static str,
    plural: &'static str,
    name: &'static str,
    says: (&'static str, &'static str, &'static str),
    message: &'static str,
}

const CASES: [Case; 18] = [
    Case {
        objects: "{kind: UpstreamRegistry, metadata: {name: twin}, spec: {host: docker.io}}",
        plural: "upstreamregistries",
        name: "twin",
        says: ("Accepted", "False", "HostTaken"),
        message: "docker-io",
    },
    Case {
        objects: "{kind: UpstreamRegistry, metadata: {name: secretive}, \
                  spec: {host: a.example, credentials: {secretName: missing}}}",
        plural: "upstreamregistries",
        name: "secretive",
        says: ("Accepted", "False", "SecretNotFound"),
        message: "missing",
    },
    Case {
        objects: "{kind: UpstreamRegistry, metadata: {name: opaque}, \
                  spec: {host: b.example, credentials: {secretName: wrong-type}}}",
        plural: "upstreamregistries",
        name: "opaque",
        says: ("Accepted", "False", "SecretInvalid"),
        message: "wrong-type",
    },
    Case {
        objects: "{kind: UpstreamRegistry, metadata: {name: no-ca}, \
                  spec: {host: c.example, tls: {caBundle: {configMap: {name: missing}}}}}",
        plural: "upstreamregistries",
        name: "no-ca",
        says: ("Accepted", "False", "ConfigMapNotFound"),
        message: "missing",
    },
    Case {
        objects: "{kind: UpstreamRegistry, metadata: {name: bad-ca}, \
                  spec: {host: d.example, tls: {caBundle: {configMap: {name: no-pem}}}}}",
        plural: "upstreamregistries",
        name: "bad-ca",
        says: ("Accepted", "False", "CaInvalid"),
        message: "no-pem",
    },
    Case {
        objects: "{kind: UpstreamRegistry, metadata: {name: bad-client}, \
                  spec: {host: e.example, tls: {clientCertificate: {secretName: bad-pair}}}}",
        plural: "upstreamregistries",
        name: "bad-client",
        says: ("Accepted", "False", "ClientCertificateInvalid"),
        message: "bad-pair",
    },
    Case {
        objects: "{kind: UpstreamRegistry, metadata: {name: loose}, \
                  spec: {host: f.example, tls: {insecure: {reason: a lab network}}}}",
        plural: "upstreamregistries",
        name: "loose",
        says: ("Insecure", "True", "InsecureAllowed"),
        message: "a lab network",
    },
    Case {
        objects: "{kind: UpstreamRegistry, metadata: {name: shared}, spec: {host: g.example, \
                  credentials: {secretName: good}, access: {mode: Shared, repositories: ['team/*']}}}",
        plural: "upstreamregistries",
        name: "shared",
        says: ("Shared", "True", "SharedAccess"),
        message: "team/*",
    },
    Case {
        objects: "{kind: UpstreamRegistry, metadata: {name: good}, \
                  spec: {host: h.example, credentials: {secretName: good}}}",
        plural: "upstreamregistries",
        name: "good",
        says: ("CredentialsValid", "True", "CredentialsValid"),
        message: "",
    },
    Case {
        objects: "{kind: UpstreamRegistry, metadata: {name: quiet}, spec: {host: i.example}}",
        plural: "upstreamregistries",
        name: "quiet",
        says: ("Accepted", "True", "Accepted"),
        message: "",
    },
    Case {
        objects: "{kind: ProxyCache, metadata: {name: second}, spec: {}}",
        plural: "proxycaches",
        name: "second",
        says: ("Accepted", "False", "NodesTaken"),
        message: "default",
    },
    Case {
        objects: "{kind: ProxyCache, metadata: {name: nowhere}, \
                  spec: {nodes: {nodeSelector: {nobody: has-this}}}}",
        plural: "proxycaches",
        name: "nowhere",
        says: ("Available", "False", "NoNodes"),
        message: "spec.nodes",
    },
    Case {
        objects: "{kind: ProxyCache, metadata: {name: dangling}, \
                  spec: {upstreams: {names: [nobody]}, nodes: {nodeSelector: {nobody: has-that}}}}",
        plural: "proxycaches",
        name: "dangling",
        says: ("Accepted", "False", "UpstreamNotFound"),
        message: "nobody",
    },
    Case {
        objects: "{kind: ProxyCache, metadata: {name: default}, spec: {endpoint: {port: 5057}}}",
        plural: "proxycaches",
        name: "default",
        says: ("Accepted", "True", "Accepted"),
        message: "",
    },
    // The image of its pods has no such program.
    Case {
        objects: "",
        plural: "proxycaches",
        name: "default",
        says: ("Available", "False", "NotAllReady"),
        message: "0 of 2",
    },
    Case {
        objects: "",
        plural: "proxycaches",
        name: "default",
        says: ("MirrorEffective", "False", "NotAllMirrored"),
        message: "",
    },
    Case {
        objects: "",
        plural: "upstreamregistries",
        name: "docker-io",
        says: ("Reachable", "Unknown", "NotReported"),
        message: "",
    },
    Case {
        objects: "",
        plural: "upstreamregistries",
        name: "in-the-clear",
        says: ("Accepted", "False", "InvalidSpec"),
        message: "spec.endpoints[0].url",
    },
];

/// Needs an operator, a ProxyCache `default` and an UpstreamRegistry `docker-io`.
pub(crate) async fn what_is_wrong_is_a_condition(cluster: &Cluster) -> Result<()> {
    let namespace = format!("--namespace={NAMESPACE}");
    for create in [
        &["secret", "generic", "wrong-type", "--from-literal=a=b"][..],
        &[
            "secret",
            "generic",
            "bad-pair",
            "--type=kubernetes.io/tls",
            "--from-literal=tls.crt=x",
            "--from-literal=tls.key=y",
        ],
        &[
            "secret",
            "generic",
            "good",
            "--type=kubernetes.io/basic-auth",
            "--from-literal=username=u",
            "--from-literal=password=p",
        ],
        &["configmap", "no-pem", "--from-literal=ca.crt=nothing"],
    ] {
        cluster.kubectl(&[&["create"], create, &[&namespace]].concat()).await?;
    }
    an_object_is_older_than_the_rules(cluster).await?;
    for case in CASES.iter().filter(|case| !case.objects.is_empty()) {
        cluster
            .apply(&format!("{{apiVersion: larder.dev/v1alpha1, {}", &case.objects[1..]))
            .await?;
    }
    for Case { plural, name, says: (kind, status, reason), message, .. } in &CASES {
        let path = path(plural, name);
        ground::observed(cluster, &path).await?;
        cluster.wait_for_condition(&path, (kind, status, Some(reason)), SOON).await?;
        // A text alone is renewed once a minute.
        cluster
            .wait_for(
                &format!("{name}: {kind} names {message:?}"),
                MINUTE + SOON,
                async |cluster| {
                    let condition =
                        cluster.condition(&path, kind).await?.context("it was there")?;
                    Ok(condition["message"].as_str().is_some_and(|text| text.contains(message)))
                },
            )
            .await?;
    }
    // Nothing that is wrong is in force, and all else is.
    let config = format!("/api/v1/namespaces/{NAMESPACE}/configmaps/larder-default");
    let config = cluster.get(&config).await?.context("the configuration is there")?;
    let text = config["data"]["node.yaml"].as_str().unwrap_or_default();
    for (host, there) in [
        ("docker.io", true),
        ("a.example", false),
        ("b.example", false),
        ("c.example", false),
        ("d.example", false),
        ("e.example", false),
        ("f.example", true),
        ("g.example", true),
        ("h.example", true),
        ("i.example", true),
        ("j.example", false),
    ] {
        ensure!(text.contains(&format!("host: {host}")) == there, "{host}: {there}\n{text}");
    }
    // What is mended is taken up by itself.
    let mend = [
        "create",
        "secret",
        "generic",
        "missing",
        "--type=kubernetes.io/basic-auth",
        "--from-literal=username=u",
        "--from-literal=password=p",
        &namespace,
    ];
    cluster.kubectl(&mend).await?;
    let accepted = ("Accepted", "True", None);
    cluster.wait_for_condition(&path("upstreamregistries", "secretive"), accepted, SOON).await?;
    cluster.delete(&["pcache", "second", "nowhere", "dangling"]).await?;
    ground::a_change_is_observed(cluster).await?;
    cluster.wait_for_condition(CACHE, accepted, SOON).await
}

/// The rules of the definition refuse it; one that was made before them is still there.
async fn an_object_is_older_than_the_rules(cluster: &Cluster) -> Result<()> {
    const RULES: &str = r#"[{"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/x-kubernetes-validations"}]"#;
    const OLD: &str = "{apiVersion: larder.dev/v1alpha1, kind: UpstreamRegistry, \
                       metadata: {name: in-the-clear}, \
                       spec: {host: j.example, endpoints: [{url: 'http://j.example'}]}}";
    let name = "upstreamregistries.larder.dev";
    cluster.kubectl(&["patch", "crd", name, "--type=json", "--patch", RULES]).await?;
    let taken = async |cluster: &Cluster| Ok(cluster.try_apply(OLD).await?.status.success());
    cluster.wait_for("a definition without rules is in force", SOON, taken).await?;
    cluster.apply(&ground::read("crds/yaml/upstreamregistries.yaml")?).await?;
    let other = OLD.replace("in-the-clear", "later").replace("j.example", "k.example");
    let refused = async |cluster: &Cluster| {
        let refused = !cluster.try_apply(&other).await?.status.success();
        if !refused {
            cluster.delete(&["ureg", "later"]).await?;
        }
        Ok(refused)
    };
    cluster.wait_for("the rules are in force again", SOON, refused).await
}

fn path(plural: &str, name: &str) -> String {
    format!("/apis/larder.dev/v1alpha1/{plural}/{name}")
}
