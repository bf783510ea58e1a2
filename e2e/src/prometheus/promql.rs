//! What a query of Prometheus names: metrics, values of labels, labels. Not a parser: it has to
//! understand the queries that Larder ships, and Prometheus itself says whether they are queries.

use anyhow::{Result, bail, ensure};

/// What a query names.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Query {
    /// Its metrics.
    pub(super) selectors: Vec<Selector>,
    /// Labels by which it groups and joins.
    pub(super) labels: Vec<String>,
    /// The labels that its result has, if the first thing in it is `sum by (...)` or the like.
    pub(super) grouped: Option<Vec<String>>,
}

/// `metric{label="value"}`.
#[derive(Debug, PartialEq)]
pub(super) struct Selector {
    pub(super) metric: String,
    pub(super) matchers: Vec<Matcher>,
}

/// What a selector says of one label.
#[derive(Debug, PartialEq)]
pub(super) struct Matcher {
    pub(super) label: String,
    /// The values that are named; `None` for a pattern.
    pub(super) values: Option<Vec<String>>,
}

const AGGREGATIONS: [&str; 12] = [
    "sum",
    "min",
    "max",
    "avg",
    "count",
    "group",
    "stddev",
    "stdvar",
    "topk",
    "bottomk",
    "quantile",
    "count_values",
];
const LISTS: [&str; 6] = ["by", "without", "on", "ignoring", "group_left", "group_right"];
const WORDS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "atan2"];

/// Reads a query that Prometheus has accepted.
pub(super) fn parse(text: &str) -> Result<Query> {
    let mut query = Query::default();
    let mut rest = text.trim_start();
    let mut aggregates = false;
    let mut first = true;
    while let Some(next) = rest.chars().next() {
        if next.is_ascii_alphabetic() || next == '_' {
            let (word, after) = split(rest, |c| c.is_ascii_alphanumeric() || c == '_' || c == ':');
            rest = after.trim_start();
            if AGGREGATIONS.contains(&word) {
                aggregates |= first;
            } else if LISTS.contains(&word) {
                let (labels, after) = list(rest)?;
                if aggregates && word == "by" && query.grouped.is_none() {
                    query.grouped = Some(labels.clone());
                }
                query.labels.extend(labels);
                rest = after;
            } else if !WORDS.contains(&word) && !rest.starts_with('(') {
                let matchers;
                (matchers, rest) = match rest.strip_prefix('{') {
                    Some(inner) => matchers_of(inner)?,
                    None => (Vec::new(), rest),
                };
                query.selectors.push(Selector { metric: word.to_owned(), matchers });
            }
        } else if next.is_ascii_digit() {
            rest = split(rest, |c| c.is_ascii_alphanumeric() || c == '.').1;
        } else if next == '[' {
            let Some((_, after)) = rest.split_once(']') else { bail!("no ] in {text}") };
            rest = after;
        } else {
            ensure!(!"{\"'`$".contains(next), "{next} is not understood in {text}");
            rest = &rest[next.len_utf8()..];
        }
        first = false;
        rest = rest.trim_start();
    }
    Ok(query)
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// `(label, label)`, or nothing: `group_left` may stand alone.
fn list(text: &str) -> Result<(Vec<String>, &str)> {
    let Some(inner) = text.strip_prefix('(') else { return Ok((Vec::new(), text)) };
    let Some((labels, after)) = inner.split_once(')') else { bail!("no ) in {text}") };
    let labels = labels.split(',').map(str::trim).filter(|label| !label.is_empty());
    Ok((labels.map(ToOwned::to_owned).collect(), after))
}

/// `label="value", label=~"one|two"}` and what follows.
fn matchers_of(text: &str) -> Result<(Vec<Matcher>, &str)> {
    let mut matchers = Vec::new();
    let mut rest = text.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((matchers, after));
        }
        let (label, after) = split(rest, |c| c.is_ascii_alphanumeric() || c == '_');
        let (operator, after) = split(after.trim_start(), |c| "=!~".contains(c));
        let Some((value, after)) =
            after.trim_start().strip_prefix('"').and_then(|after| after.split_once('"'))
        else {
            bail!("no value after {label} in {text}")
        };
        let values = match operator {
            "=" | "!=" => Some(vec![value.to_owned()]),
            "=~" | "!~" => alternatives(value),
            _ => bail!("{operator} in {text}"),
        };
        matchers.push(Matcher { label: label.to_owned(), values });
        rest = after.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
}

/// The words of `one|two`.
fn alternatives(pattern: &str) -> Option<Vec<String>> {
    let plain = pattern.chars().all(|c| c.is_ascii_alphanumeric() || "_-|".contains(c));
    plain.then(|| pattern.split('|').map(ToOwned::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(label: &str, values: &[&str]) -> Matcher {
        let values = values.iter().map(ToString::to_string).collect();
        Matcher { label: label.to_owned(), values: Some(values) }
    }

    #[test]
    fn metrics_values_and_labels_of_a_query_are_found() {
        let query = parse(
            "sum by (upstream, node) (rate(a_total{outcome=~\"hit|miss\", x!=\"1\"}[5m] offset 1h))\n\
             / on (job) group_left sum(b{node=~\".*\"} == bool 0) > 0.5 and absent(up == 1)",
        )
        .unwrap();
        let metrics: Vec<_> =
            query.selectors.iter().map(|selector| selector.metric.as_str()).collect();
        assert_eq!(metrics, ["a_total", "b", "up"]);
        let matchers = [matcher("outcome", &["hit", "miss"]), matcher("x", &["1"])];
        assert_eq!(query.selectors[0].matchers, matchers);
        let pattern = Matcher { label: "node".to_owned(), values: None };
        assert_eq!(query.selectors[1].matchers, [pattern]);
        assert_eq!(query.labels, ["upstream", "node", "job"]);
        assert_eq!(query.grouped.unwrap(), ["upstream", "node"]);
    }

    #[test]
    fn a_query_that_is_not_grouped_as_a_whole_says_so() {
        for query in ["a / sum by (x) (b)", "(sum by (x) (b))", "increase(a[1h]) > 0"] {
            assert_eq!(parse(query).unwrap().grouped, None, "{query}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for query in ["{__name__=\"a\"}", "a{b=c}", "a{b=\"c\"", "a[5m", "sum by (a", "a == $b"] {
            assert!(parse(query).is_err(), "{query}");
        }
    }
}
