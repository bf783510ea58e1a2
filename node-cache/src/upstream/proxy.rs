//! Which proxy requests go through.

use reqwest::{NoProxy, Proxy, Url};

use super::address::bare_host;

/// Makes the rule for one scheme of a proxy's URL.
type Rule = fn(Url) -> reqwest::Result<Proxy>;

/// Never proxied: a proxy's loopback is not ours. `localhost` covers the names below it.
const NEVER: &str = "localhost,127.0.0.0/8,::1";

/// The proxies of one upstream.
#[derive(Debug, Default)]
pub(super) struct Proxies {
    rules: Vec<Proxy>,
    /// Names of the proxies, which may be at any address, as they come from the operator.
    hosts: Vec<String>,
}

impl Proxies {
    /// The configured proxy, or else what the environment says, read by `variable`, as any Unix
    /// client does: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in either case.
    pub(super) fn new(
        configured: Option<&Url>,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, reqwest::Error> {
        let mut proxies = Self::default();
        if let Some(url) = configured {
            proxies.add(url, Proxy::all(url.clone())?, NEVER);
            return Ok(proxies);
        }
        let read = |upper: &str| {
            variable(upper)
                .or_else(|| variable(&upper.to_ascii_lowercase()))
                .filter(|value| !value.trim().is_empty())
        };
        let exempt = match read("NO_PROXY") {
            Some(listed) => format!("{NEVER},{listed}"),
            None => NEVER.to_owned(),
        };
        let all = read("ALL_PROXY");
        let schemes: [(&str, Rule); 2] =
            [("HTTPS_PROXY", Proxy::https), ("HTTP_PROXY", Proxy::http)];
        for (name, rule) in schemes {
            let Some(text) = read(name).or_else(|| all.clone()) else {
                continue;
            };
            let text = if text.contains("://") { text } else { format!("http://{text}") };
            match Url::parse(&text) {
                Ok(url) if url.host_str().is_some() => {
                    proxies.add(&url, rule(url.clone())?, &exempt);
                }
                // The value is not shown: it may carry a password.
                _ => tracing::warn!(variable = name, "not the URL of a proxy, ignored"),
            }
        }
        Ok(proxies)
    }

    fn add(&mut self, url: &Url, rule: Proxy, exempt: &str) {
        self.rules.push(rule.no_proxy(NoProxy::from_string(exempt)));
        self.hosts.push(bare_host(url).to_owned());
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// For `reqwest`, in the order in which they apply.
    pub(super) fn rules(&self) -> impl Iterator<Item = Proxy> {
        self.rules.iter().cloned()
    }

    /// Names of the proxies.
    pub(super) fn hosts(&self) -> &[String] {
        &self.hosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(configured: Option<&str>, environment: &[(&str, &str)]) -> Vec<String> {
        let configured = configured.map(|url| Url::parse(url).unwrap());
        let variable = |name: &str| {
            let found = environment.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Proxies::new(configured.as_ref(), &variable).unwrap().hosts().to_vec()
    }

    #[test]
    fn the_configured_proxy_replaces_the_environments() {
        let environment =
            [("https_proxy", "http://u:p@a.example:3128"), ("HTTP_PROXY", "b.example")];
        assert_eq!(hosts(None, &environment), ["a.example", "b.example"]);
        assert_eq!(hosts(Some("socks5h://c.example:1080"), &environment), ["c.example"]);
        assert_eq!(hosts(None, &[("ALL_PROXY", "http://d.example")]), ["d.example", "d.example"]);
        assert_eq!(hosts(None, &[("HTTPS_PROXY", ""), ("HTTP_PROXY", "http://")]), [""; 0]);
        assert_eq!(hosts(None, &[]), [""; 0]);
    }
}
