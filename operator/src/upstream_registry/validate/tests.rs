use serde_json::{Value, json};

use super::*;

fn registry(name: &str, created: i64, spec: &Value) -> UpstreamRegistry {
    let created = jiff::Timestamp::from_second(1_800_000_000 + created).unwrap();
    serde_json::from_value(json!({
        "apiVersion": "larder.dev/v1alpha1", "kind": "UpstreamRegistry",
        "metadata": {"name": name, "creationTimestamp": created.to_string()},
        "spec": spec,
    }))
    .unwrap()
}

fn named(secrets: Value, config_maps: Value) -> Named {
    let secrets: Vec<Secret> = serde_json::from_value(secrets).unwrap();
    let config_maps: Vec<ConfigMap> = serde_json::from_value(config_maps).unwrap();
    Named {
        secrets: secrets.into_iter().map(|found| (found.name_any(), Arc::new(found))).collect(),
        config_maps: config_maps
            .into_iter()
            .map(|found| (found.name_any(), Arc::new(found)))
            .collect(),
    }
}

fn secret(name: &str, kind: &str, data: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<_, _> = data
        .iter()
        .map(|(key, text)| ((*key).to_owned(), Value::String(BASE64_STANDARD.encode(text))))
        .collect();
    json!({"metadata": {"name": name}, "type": kind, "data": data})
}

fn check(spec: &Value, named: &Named) -> Checked<ValidUpstream> {
    let registry = registry("one", 0, spec);
    validate(&registry, &[Arc::new(registry.clone())], named)
}

#[test]
fn a_host_alone_has_every_default_of_the_node_cache() {
    let valid = check(&json!({"host": "docker.io"}), &Named::default()).unwrap();
    assert_eq!(valid.entry, Upstream::new("docker.io"));
    assert!(valid.files.is_empty());
}

#[test]
fn credentials_of_both_kinds_become_a_file() {
    let config =
        r#"{"auths": {"https://index.docker.io/v1/": {"username": "u", "password": "p"}}}"#;
    let named = named(
        json!([
            secret("hub", DOCKER_CONFIG, &[(".dockerconfigjson", config)]),
            secret("basic", BASIC, &[("username", "u"), ("password", "p: \"quoted\"")]),
        ]),
        json!([]),
    );
    let spec = |name: &str| json!({"host": "docker.io", "credentials": {"secretName": name}});
    let valid = check(&spec("hub"), &named).unwrap();
    assert_eq!(valid.entry.credentials_file, "credentials-docker.io");
    assert_eq!(valid.files["credentials-docker.io"], config.as_bytes());
    let valid = check(&spec("basic"), &named).unwrap();
    let written: Value = serde_json::from_slice(&valid.files["credentials-docker.io"]).unwrap();
    assert_eq!(written, json!({"username": "u", "password": "p: \"quoted\""}));
}

#[test]
fn what_is_wrong_names_the_field_and_the_fix() {
    let named = named(
        json!([
            secret("opaque", "Opaque", &[("token", "t")]),
            secret(
                "other",
                DOCKER_CONFIG,
                &[(".dockerconfigjson", r#"{"auths": {"quay.io": {}}}"#)]
            ),
            secret("half", BASIC, &[("username", "u")]),
            secret("tls", "kubernetes.io/tls", &[("tls.crt", "x"), ("tls.key", "y")]),
        ]),
        json!([{"metadata": {"name": "ca"}, "data": {"ca.crt": "no certificate"}}]),
    );
    let credentials =
        |name: &str| json!({"host": "x.example", "credentials": {"secretName": name}});
    let bundle = |from: Value| json!({"host": "x.example", "tls": {"caBundle": from}});
    let table = [
        (credentials("missing"), UpstreamReason::SecretNotFound, "spec.credentials.secretName"),
        (credentials("opaque"), UpstreamReason::SecretInvalid, "kubernetes.io/basic-auth"),
        (credentials("other"), UpstreamReason::SecretInvalid, "only for: quay.io"),
        (credentials("half"), UpstreamReason::SecretInvalid, "no key password"),
        (bundle(json!({"inline": "junk"})), UpstreamReason::CaInvalid, "caBundle.inline"),
        (bundle(json!({"configMap": {"name": "ca"}})), UpstreamReason::CaInvalid, "ConfigMap ca"),
        (
            bundle(json!({"configMap": {"name": "gone"}})),
            UpstreamReason::ConfigMapNotFound,
            "create it",
        ),
        (
            bundle(json!({"configMap": {"name": "ca", "key": "k"}})),
            UpstreamReason::CaInvalid,
            "no such key",
        ),
        (
            bundle(json!({"secret": {"name": "gone"}})),
            UpstreamReason::SecretNotFound,
            "caBundle.secret",
        ),
        (
            json!({"host": "x.example", "tls": {"clientCertificate": {"secretName": "tls"}}}),
            UpstreamReason::ClientCertificateInvalid,
            "tls.crt and tls.key",
        ),
        (
            json!({"host": "x.example", "endpoints": [{"url": "http://x.example"}]}),
            UpstreamReason::InvalidSpec,
            "spec.tls.insecure.reason",
        ),
        (
            json!({"host": "x.example", "endpoints": [{"url": "HTTP://x.example"}]}),
            UpstreamReason::InvalidSpec,
            "spec.tls.insecure.reason",
        ),
        (
            json!({"host": "x.example", "access": {"mode": "Shared", "repositories": ["a"]}}),
            UpstreamReason::InvalidSpec,
            "spec.credentials",
        ),
        (
            json!({"host": "x.example", "tags": {"refreshInterval": "soon"}}),
            UpstreamReason::InvalidSpec,
            "spec.tags.refreshInterval",
        ),
    ];
    for (spec, reason, text) in table {
        let rejected = check(&spec, &named).unwrap_err();
        assert_eq!(rejected.reason, reason, "{spec}: {}", rejected.message);
        assert!(rejected.message.contains(text), "{spec}: {}", rejected.message);
    }
}

#[test]
fn of_two_with_one_host_the_older_wins_and_then_the_name() {
    let spec = json!({"host": "docker.io"});
    let [old, young, twin] = [("b", 1), ("a", 2), ("c", 1)]
        .map(|(name, created)| Arc::new(registry(name, created, &spec)));
    let all = [young.clone(), old.clone(), twin.clone()];
    let named = Named::default();
    assert!(validate(&old, &all, &named).is_ok());
    for loser in [&young, &twin] {
        let rejected = validate(loser, &all, &named).unwrap_err();
        assert_eq!(rejected.reason, UpstreamReason::HostTaken);
        assert!(rejected.message.contains("UpstreamRegistry b"), "{}", rejected.message);
    }
}
