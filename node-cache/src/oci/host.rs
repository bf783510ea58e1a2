//! The registry part of an image name.

use std::{fmt, str::FromStr};

/// A registry as image names spell it: a DNS name or address with an optional port, lower case.
/// `registry-1.docker.io` and `index.docker.io` are read as `docker.io`, which is how containerd
/// names it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamHost(Box<str>);

/// Why a text is not an [`UpstreamHost`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a registry is a host name with an optional port, for example reg.example.com:5000")]
pub struct ParseHostError;

const DOCKER_HUB: &str = "docker.io";

impl UpstreamHost {
    /// The name, lower case, with its port if it has one.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is Docker Hub, whose official images live under `library/`.
    pub fn is_docker_hub(&self) -> bool {
        &*self.0 == DOCKER_HUB
    }

    /// Where the registry API is when nobody configures an endpoint.
    pub fn default_endpoint(&self) -> String {
        if self.is_docker_hub() {
            "https://registry-1.docker.io".to_owned()
        } else {
            format!("https://{}", self.0)
        }
    }
}

impl FromStr for UpstreamHost {
    type Err = ParseHostError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']').ok_or(ParseHostError)?;
                address.parse::<std::net::Ipv6Addr>().map_err(|_| ParseHostError)?;
                let port = match after {
                    "" => None,
                    after => Some(after.strip_prefix(':').ok_or(ParseHostError)?),
                };
                (format!("[{address}]"), port)
            }
            None => match text.split_once(':') {
                Some((name, port)) => (name.to_owned(), Some(port)),
                None => (text.to_owned(), None),
            },
        };
        if !name.starts_with('[') && !is_dns_name(&name) {
            return Err(ParseHostError);
        }
        let name = name.to_ascii_lowercase();
        let name = match name.as_str() {
            "registry-1.docker.io" | "index.docker.io" if port.is_none() => DOCKER_HUB.to_owned(),
            _ => name,
        };
        match port {
            None => Ok(Self(name.into())),
            Some(port) => {
                let plain = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
                match port.parse::<u16>() {
                    Ok(number) if plain && number > 0 => {
                        Ok(Self(format!("{name}:{number}").into()))
                    }
                    _ => Err(ParseHostError),
                }
            }
        }
    }
}

fn is_dns_name(name: &str) -> bool {
    name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

impl fmt::Display for UpstreamHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UpstreamHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_read_as_image_names_spell_them() {
        let table = [
            ("docker.io", "docker.io"),
            ("registry-1.docker.io", "docker.io"),
            ("index.docker.io", "docker.io"),
            ("GHCR.io", "ghcr.io"),
            ("reg.example.com:5000", "reg.example.com:5000"),
            ("localhost:5000", "localhost:5000"),
            ("10.0.0.1:05000", "10.0.0.1:5000"),
            ("[::1]:5000", "[::1]:5000"),
        ];
        for (text, host) in table {
            assert_eq!(text.parse::<UpstreamHost>().unwrap().as_str(), host);
        }
    }

    #[test]
    fn t01_what_is_no_registry_name_is_refused() {
        for text in [
            "", ":5000", "a:", "a:0", "a:+80", "a:65536", "a b", "a/b", "..", "a..b", "-a", "a-",
            "a@b", "http://a", "a:1:2", "[::1", "[::1]5", "[zz]", "a\0b", "ä.de", "a_b", "a#b",
        ] {
            assert!(text.parse::<UpstreamHost>().is_err(), "{text:?}");
        }
        assert!("a".repeat(64).parse::<UpstreamHost>().is_err());
    }
}
