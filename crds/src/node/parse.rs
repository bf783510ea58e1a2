//! Reading a [`NodeConfig`] from text: whole, or with single upstreams rejected.

use serde::de::DeserializeOwned;
use serde_yaml::Value;

use super::{API_VERSION, NodeConfig, Upstream};

/// A document that could be read, with what was wrong in parts of it.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedConfig {
    /// The document, without the rejected upstreams.
    pub config: NodeConfig,
    /// Upstreams that could not be read. The others stand.
    pub rejected: Vec<RejectedUpstream>,
    /// Fields that this version does not know, as paths (`upstreams[0].foo`).
    pub unknown_fields: Vec<String>,
}

/// One entry of `upstreams` that is not used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedUpstream {
    /// The entry's `host` as written; empty when even that could not be read.
    pub host: String,
    /// Path of the field, for example `upstreams[1].tags.refreshInterval`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// Why a whole document cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ParseError {
    /// It is not YAML.
    #[error("the configuration is not valid YAML")]
    Yaml(#[source] serde_yaml::Error),
    /// A field outside `upstreams` is wrong.
    #[error("{field}: {message}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong.
        message: String,
    },
}

impl NodeConfig {
    /// Reads a document. One bad upstream rejects that upstream; anything else that is wrong
    /// rejects the whole.
    pub fn parse(text: &str) -> Result<ParsedConfig, ParseError> {
        let mut document: Value = serde_yaml::from_str(text).map_err(ParseError::Yaml)?;
        let Some(mapping) = document.as_mapping_mut() else {
            return Err(field_error("", "expected a mapping with apiVersion, kind and upstreams"));
        };
        let entries = match mapping.remove("upstreams") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Sequence(entries)) => entries,
            Some(_) => return Err(field_error("upstreams", "expected a list")),
        };
        let mut unknown_fields = Vec::new();
        let mut config: NodeConfig = read(document, "", &mut unknown_fields)
            .map_err(|(field, message)| ParseError::Field { field, message })?;
        expect(&config.api_version, API_VERSION, "apiVersion")?;
        expect(&config.kind, "NodeConfig", "kind")?;

        let mut rejected = Vec::new();
        for (index, entry) in entries.into_iter().enumerate() {
            let host = entry.get("host").and_then(Value::as_str).unwrap_or_default().to_owned();
            match read::<Upstream>(entry, &format!("upstreams[{index}]"), &mut unknown_fields) {
                Ok(upstream) => config.upstreams.push(upstream),
                Err((field, message)) => rejected.push(RejectedUpstream { host, field, message }),
            }
        }
        Ok(ParsedConfig { config, rejected, unknown_fields })
    }
}

fn expect(actual: &str, wanted: &str, field: &str) -> Result<(), ParseError> {
    if actual == wanted {
        return Ok(());
    }
    Err(field_error(field, &format!("{actual:?} is not supported, this version reads {wanted:?}")))
}

fn field_error(field: &str, message: &str) -> ParseError {
    ParseError::Field { field: field.to_owned(), message: message.to_owned() }
}

/// Deserialises `value`; an error names the field below `prefix`.
fn read<T: DeserializeOwned>(
    value: Value,
    prefix: &str,
    unknown: &mut Vec<String>,
) -> Result<T, (String, String)> {
    let mut ignored = |path: serde_ignored::Path<'_>| unknown.push(join(prefix, &path.to_string()));
    let deserializer = serde_ignored::Deserializer::new(value, &mut ignored);
    let mut track = serde_path_to_error::Track::new();
    let result = T::deserialize(serde_path_to_error::Deserializer::new(deserializer, &mut track));
    result.map_err(|error| (join(prefix, &track.path().to_string()), error.to_string()))
}

fn join(prefix: &str, path: &str) -> String {
    match (prefix, path) {
        (prefix, "" | ".") => prefix.to_owned(),
        ("", path) => path.to_owned(),
        (prefix, path) => format!("{prefix}.{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Duration,
        node::{AccessMode, MinFree},
    };

    const HEAD: &str = "apiVersion: node.larder.dev/v1alpha1\nkind: NodeConfig\n";

    fn parse(body: &str) -> Result<ParsedConfig, ParseError> {
        NodeConfig::parse(&format!("{HEAD}{body}"))
    }

    #[test]
    fn a_document_of_two_lines_and_a_host_has_every_default() {
        let parsed = parse("upstreams: [{host: docker.io}]").unwrap();
        assert_eq!(parsed.rejected, []);
        assert_eq!(parsed.unknown_fields, Vec::<String>::new());
        assert_eq!(parsed.config.storage.min_free, MinFree::Percent(20));
        let upstream = &parsed.config.upstreams[0];
        assert_eq!(upstream.access.mode, AccessMode::Anonymous);
        assert_eq!(upstream.tags.stale_if_error, Duration::from_secs(86_400));
        assert_eq!(upstream.tags.negative_ttl, Duration::from_secs(5));
        assert_eq!(upstream.repositories.allow, ["**"]);
        assert_eq!(upstream.timeouts.first_byte, Duration::from_secs(8));
    }

    #[test]
    fn one_bad_upstream_is_rejected_by_field_and_the_others_stand() {
        let parsed = parse(
            "upstreams:\n- {host: a.example}\n- {host: b.example, access: {mode: Open}}\n\
             - {host: c.example, tags: {refreshInterval: soon}}\n- {endpoints: []}\n- 7\n",
        )
        .unwrap();
        assert_eq!(parsed.config.upstreams.len(), 1);
        let fields: Vec<_> = parsed.rejected.iter().map(|r| (&*r.host, &*r.field)).collect();
        assert_eq!(
            fields,
            [
                ("b.example", "upstreams[1].access.mode"),
                ("c.example", "upstreams[2].tags.refreshInterval"),
                ("", "upstreams[3]"),
                ("", "upstreams[4]"),
            ]
        );
        assert!(parsed.rejected[0].message.contains("Anonymous"), "{}", parsed.rejected[0].message);
        assert!(parsed.rejected[1].message.contains("\"soon\""), "{}", parsed.rejected[1].message);
    }

    #[test]
    fn fields_of_a_newer_version_are_named_and_ignored() {
        let parsed = parse("peers: {}\nupstreams: [{host: docker.io, tags: {pin: true}}]").unwrap();
        assert_eq!(parsed.unknown_fields, ["peers", "upstreams[0].tags.pin"]);
        assert_eq!(parsed.config.upstreams.len(), 1);
    }

    #[test]
    fn a_document_that_is_wrong_as_a_whole_says_which_field() {
        let table = [
            ("storage: {capacity: much}", "storage.capacity"),
            ("storage: {minFree: \"100%\"}", "storage.minFree"),
            ("upstreams: {}", "upstreams"),
        ];
        for (body, field) in table {
            match parse(body) {
                Err(ParseError::Field { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{body}: {other:?}"),
            }
        }
        let text = "apiVersion: node.larder.dev/v9\nkind: NodeConfig";
        assert!(NodeConfig::parse(text).unwrap_err().to_string().contains("node.larder.dev/v9"));
        assert!(matches!(NodeConfig::parse("a: [b"), Err(ParseError::Yaml(_))));
        assert!(matches!(NodeConfig::parse("just text"), Err(ParseError::Field { .. })));
    }

    #[test]
    fn what_is_written_is_read_back_the_same() {
        let parsed = parse(
            "storage: {capacity: 1.5Gi, minFree: 5Gi}\nreportTokenFile: token\nupstreams:\n\
             - host: docker.io\n  endpoints: [{url: 'https://mirror.example'}]\n  \
             tags: {refreshInterval: 60s, immutable: ['v*']}",
        )
        .unwrap();
        let text = serde_yaml::to_string(&parsed.config).unwrap();
        assert_eq!(NodeConfig::parse(&text).unwrap(), parsed);
    }
}
