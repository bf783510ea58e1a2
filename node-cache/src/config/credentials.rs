//! An upstream's credentials, from the two forms people have them in.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde::Deserialize;

use super::Secret;
use crate::oci::UpstreamHost;

/// A user name and password for one upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User name; never contains a colon (RFC 7617 section 2).
    pub username: String,
    /// Password or token.
    pub password: Secret,
}

/// Why a credentials file gives none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// Neither of the two forms.
    #[error(
        "expected a Docker config.json (a mapping with `auths`) or a mapping with `username` and \
         `password`"
    )]
    Form,
    /// `auths` has no entry for the upstream.
    #[error("`auths` has no entry for {host}; it has: {found}")]
    NoEntry {
        /// The upstream.
        host: String,
        /// The entries that are there.
        found: String,
    },
    /// The entry for the upstream cannot be used.
    #[error(
        "the entry for {host} needs `username` and `password`, or `auth` with base64 of user:password"
    )]
    Entry {
        /// The upstream.
        host: String,
    },
}

#[derive(Deserialize)]
struct DockerConfig {
    auths: std::collections::BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
}

impl Credentials {
    /// Reads the credentials for `host` from the text of a credentials file.
    pub fn parse(text: &str, host: &UpstreamHost) -> Result<Self, CredentialsError> {
        let document: serde_yaml::Value =
            serde_yaml::from_str(text).map_err(|_| CredentialsError::Form)?;
        if document.get("auths").is_none() {
            let entry = serde_yaml::from_value(document).map_err(|_| CredentialsError::Form)?;
            return from_entry(entry).ok_or(CredentialsError::Form);
        }
        let config: DockerConfig =
            serde_yaml::from_value(document).map_err(|_| CredentialsError::Form)?;
        let found = config.auths.keys().cloned().collect::<Vec<_>>().join(", ");
        let entry = config
            .auths
            .into_iter()
            .find_map(|(key, entry)| (registry_of(&key).as_ref() == Some(host)).then_some(entry))
            .ok_or_else(|| CredentialsError::NoEntry { host: host.to_string(), found })?;
        from_entry(entry).ok_or_else(|| CredentialsError::Entry { host: host.to_string() })
    }

    /// The value of a Basic `Authorization` header, without the scheme.
    pub fn basic(&self) -> Secret {
        Secret::new(BASE64_STANDARD.encode(format!("{}:{}", self.username, self.password.expose())))
    }
}

/// The registry that a key of `auths` stands for: `https://index.docker.io/v1/` is Docker Hub.
fn registry_of(key: &str) -> Option<UpstreamHost> {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next()?.parse().ok()
}

fn from_entry(entry: Entry) -> Option<Credentials> {
    let (username, password) = match (entry.username, entry.password, entry.auth) {
        (Some(username), Some(password), _) => (username, password),
        (_, _, Some(auth)) => {
            let decoded = BASE64_STANDARD.decode(auth.trim()).ok()?;
            let text = String::from_utf8(decoded).ok()?;
            let (username, password) = text.split_once(':')?;
            // Some writers pad the decoded text with NUL bytes.
            (username.to_owned(), password.trim_end_matches('\0').to_owned())
        }
        _ => return None,
    };
    if username.is_empty() || username.contains(':') || password.is_empty() {
        return None;
    }
    Some(Credentials { username, password: Secret::new(password) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, host: &str) -> Result<(String, String), CredentialsError> {
        Credentials::parse(text, &host.parse().unwrap())
            .map(|found| (found.username, found.password.expose().to_owned()))
    }

    #[test]
    fn both_forms_of_a_credentials_file_are_read() {
        let pair = Ok(("robot".to_owned(), "s3cret".to_owned()));
        assert_eq!(parse("username: robot\npassword: s3cret\n", "a.example"), pair);
        assert_eq!(parse(r#"{"username":"robot","password":"s3cret"}"#, "a.example"), pair);
        let docker = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"cm9ib3Q6czNjcmV0"},
                        "b.example:5000":{"username":"robot","password":"s3cret"}}}"#;
        assert_eq!(parse(docker, "docker.io"), pair);
        assert_eq!(parse(docker, "b.example:5000"), pair);
    }

    #[test]
    fn t17_an_error_names_the_host_and_never_the_secret() {
        let docker = r#"{"auths":{"b.example":{"auth":"!!"},"c.example":{"username":"u"}}}"#;
        for (text, host, expected) in [
            (docker, "a.example", "no entry for a.example; it has: b.example, c.example"),
            (docker, "b.example", "the entry for b.example needs"),
            (docker, "c.example", "the entry for c.example needs"),
            ("password: s3cret", "a.example", "expected a Docker config.json"),
            ("s3cret", "a.example", "expected a Docker config.json"),
            ("username: 'a:b'\npassword: s3cret", "a.example", "expected a Docker config.json"),
        ] {
            let message = parse(text, host).unwrap_err().to_string();
            assert!(message.contains(expected) && !message.contains("s3cret"), "{message}");
        }
        let secret = Credentials { username: "u".into(), password: Secret::new("s3cret".into()) };
        assert!(!format!("{secret:?}").contains("s3cret"));
    }
}
