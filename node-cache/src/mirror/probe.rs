//! Whether the cache answers.

use std::{str::FromStr, time::Duration};

use reqwest::Url;

/// Less than the second between two probes, so that a hung cache is known after three of them.
const TIMEOUT: Duration = Duration::from_millis(900);

/// Address of the cache as it stands in a mirror file: `http://127.0.0.1:5055`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorUrl(String);

impl MirrorUrl {
    /// The address, without a slash at the end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MirrorUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = "write scheme, host and port alone, for example http://127.0.0.1:5055";
        let url = Url::parse(text).map_err(|error| format!("{error}; {wrong}"))?;
        let bare = matches!(url.path(), "" | "/")
            && url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !bare {
            return Err(wrong.to_owned());
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

/// Asks the cache for a sign of life.
#[derive(Clone, Debug)]
pub struct Probe {
    client: reqwest::Client,
    url: String,
}

impl Probe {
    /// A probe of the cache at `mirror`. Proxies are for upstreams, never for this.
    pub fn new(mirror: &MirrorUrl) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { client, url: format!("{}/v2/", mirror.as_str()) })
    }

    /// Whether it answers, within 900 ms.
    pub async fn answers(&self) -> bool {
        match self.client.get(&self.url).send().await {
            Ok(response) => response.status().is_success(),
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "no answer");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_scheme_host_and_port_alone() {
        let read = |text: &str| text.parse::<MirrorUrl>();
        for text in ["http://127.0.0.1:5055", "http://127.0.0.1:5055/"] {
            assert_eq!(read(text).unwrap().as_str(), "http://127.0.0.1:5055");
        }
        for text in ["127.0.0.1:5055", "ftp://a", "http://a/b", "http://a?x", "http://u@a", ""] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
