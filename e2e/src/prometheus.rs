//! A real Prometheus, which scrapes what a story runs and says whether the queries that Larder ships
//! ask for something that is there.

mod promql;
mod queries;

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::{
    promql::{Matcher, Query, Selector},
    queries::Shipped,
};
use crate::{
    process::{self, Daemon, POLL},
    tools,
};

/// It opens its database and reads its configuration first.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A Debian Prometheus with a database of its own. It ends with the story.
pub struct Prometheus {
    daemon: Daemon,
    address: SocketAddr,
    http: reqwest::Client,
}

impl Prometheus {
    /// Starts one that listens on `address` and scrapes once a second. `scrape_configs` is the list
    /// of that name in its configuration, as YAML. Answers queries when this returns.
    pub async fn start(folder: &Path, address: SocketAddr, scrape_configs: &str) -> Result<Self> {
        let config = configuration(folder, scrape_configs)?;
        let mut command = process::command(&tools::debian("prometheus")?, folder);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}"));
        let log = folder.join("prometheus.log");
        let daemon = Daemon::start("prometheus", command, &log, &log)?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let mut prometheus = Self { daemon, address, http };
        let ready = format!("http://{address}/-/ready");
        let started = Instant::now();
        while !prometheus.http.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200) {
            prometheus.daemon.check_running()?;
            ensure!(started.elapsed() < READY_WITHIN, "prometheus is not ready");
            tokio::time::sleep(POLL).await;
        }
        Ok(prometheus)
    }

    /// Waits until it has found at least `targets` targets and scraped every one of them twice, so
    /// that a rate over them has a value.
    pub async fn scrapes(&self, targets: usize, patience: Duration) -> Result<()> {
        let started = Instant::now();
        loop {
            let answer = self.ask("targets", &[("state", "active")]).await?;
            let found = answer["activeTargets"].as_array().context("a list of targets")?;
            let down: Vec<_> = found.iter().filter(|target| target["health"] != "up").collect();
            let twice = self.query("count_over_time(up[1m]) > 1").await?.len();
            if found.len() >= targets && down.is_empty() && twice >= found.len() {
                return Ok(());
            }
            if started.elapsed() > patience {
                bail!("{} of {targets} targets; not up: {down:#?}", found.len());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The series that a query gives now.
    pub async fn query(&self, query: &str) -> Result<Vec<Value>> {
        let answer =
            self.ask("query", &[("query", query)]).await.with_context(|| query.to_owned())?;
        match answer["result"].as_array() {
            Some(series) => Ok(series.clone()),
            None => bail!("{query}: {answer}"),
        }
    }

    async fn ask(&self, what: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let url = format!("http://{}/api/v1/{what}", self.address);
        let answer = self.http.get(url).query(parameters).send().await?;
        let text = answer.text().await?;
        let mut answer: Value = serde_json::from_str(&text).with_context(|| text.clone())?;
        ensure!(answer["status"] == "success", "prometheus says {text}");
        Ok(answer["data"].take())
    }

    /// Asks every query of a rule file and a dashboard, and for each of their metrics and labels
    /// alone. Fails with all that name something which no target exports. Returns how many queries
    /// there are.
    pub async fn every_query(&self, rules: &str, dashboard: &str) -> Result<usize> {
        let shipped = queries::shipped(rules, dashboard)?;
        ensure!(!shipped.is_empty(), "there is no query");
        let mut wrong = BTreeSet::new();
        for Shipped { place, query, labels } in &shipped {
            if let Err(error) = self.query(query).await {
                wrong.insert(format!("{place}: {error:#}"));
                continue;
            }
            let parsed = promql::parse(query).with_context(|| place.clone())?;
            for missing in self.missing(&parsed, labels).await? {
                wrong.insert(format!("{place}: nothing exports {missing}"));
            }
        }
        let list: Vec<_> = wrong.into_iter().collect();
        ensure!(list.is_empty(), "{}", list.join("\n"));
        Ok(shipped.len())
    }

    /// What a query names and nobody exports. `shown` are labels that are made into text.
    async fn missing(&self, query: &Query, shown: &[String]) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        for Selector { metric, matchers } in &query.selectors {
            let mut wanted = vec![metric.clone()];
            for Matcher { label, values } in matchers {
                match values {
                    Some(values) => {
                        let one = |value: &String| format!("{metric}{{{label}=\"{value}\"}}");
                        wanted.extend(values.iter().map(one));
                    }
                    None => wanted.push(format!("{metric}{{{label}!=\"\"}}")),
                }
            }
            for wanted in wanted {
                if self.query(&wanted).await?.is_empty() {
                    missing.push(wanted);
                }
            }
        }
        let shown = shown.iter().map(|label| (label, query.grouped.as_ref()));
        for (label, grouped) in query.labels.iter().map(|label| (label, None)).chain(shown) {
            if let Some(grouped) = grouped {
                if !grouped.contains(label) {
                    missing.push(format!("the label {label} after grouping by {grouped:?}"));
                }
                continue;
            }
            let mut found = false;
            for Selector { metric, .. } in &query.selectors {
                found |= !self.query(&format!("{metric}{{{label}!=\"\"}}")).await?.is_empty();
            }
            if !found {
                missing.push(format!("the label {label}"));
            }
        }
        Ok(missing)
    }
}

fn configuration(folder: &Path, scrape_configs: &str) -> Result<PathBuf> {
    let scrape_configs: serde_yaml::Value =
        serde_yaml::from_str(scrape_configs).context("the scrape configuration")?;
    let config = serde_json::json!({
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": scrape_configs,
    });
    let path = folder.join("prometheus.yaml");
    fs::write(&path, serde_json::to_string_pretty(&config)?)?;
    Ok(path)
}
