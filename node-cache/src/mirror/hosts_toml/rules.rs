//! What containerd demands of a `hosts.toml` beyond TOML; it ignores a file that fails one.

use toml_edit::{Item, Table, TableLike, Value};

use super::Unmergeable;

/// The most that is allowed anywhere; `referrers` needs containerd 2.2.
const CAPABILITIES: [&str; 4] = ["pull", "resolve", "push", "referrers"];

/// Checks the whole file.
pub(super) fn check(root: &Table) -> Result<(), Unmergeable> {
    check_host(root, "")?;
    if let Some(server) = root.get("server") {
        let server = server.as_str().ok_or_else(|| text_expected("server"))?;
        check_address(server, "server")?;
    }
    let Some(hosts) = root.get("host") else {
        return Ok(());
    };
    // Other forms than tables are refused where the place for our entry is looked for.
    for (name, host) in hosts.as_table_like().into_iter().flat_map(TableLike::iter) {
        let key = format!("host.{name:?}");
        let Some(host) = host.as_table_like() else {
            continue;
        };
        check_address(name, &key)?;
        check_host(host, &format!("{key}."))?;
    }
    Ok(())
}

fn check_address(address: &str, key: &str) -> Result<(), Unmergeable> {
    if address.chars().any(|c| c.is_control() || c == ' ') {
        return Err(Unmergeable::ignored(key, "an address has no spaces and control characters"));
    }
    Ok(())
}

fn text_expected(key: &str) -> Unmergeable {
    Unmergeable::ignored(key, "write a text in quotation marks")
}

fn check_host(host: &dyn TableLike, prefix: &str) -> Result<(), Unmergeable> {
    let key = |name: &str| format!("{prefix}{name}");
    if let Some(item) = host.get("capabilities") {
        let key = key("capabilities");
        let list = item.as_array().ok_or_else(|| Unmergeable::ignored(&key, "write a list"))?;
        for value in list {
            let known = value.as_str().map(str::to_ascii_lowercase);
            if !known.is_some_and(|value| CAPABILITIES.contains(&value.as_str())) {
                let message = format!("containerd knows {}", CAPABILITIES.join(", "));
                return Err(Unmergeable::ignored(key, message));
            }
        }
    }
    for name in ["skip_verify", "override_path"] {
        if host.get(name).is_some_and(|item| !item.is_bool()) {
            return Err(Unmergeable::ignored(key(name), "write true or false"));
        }
    }
    if let Some(item) = host.get("dial_timeout")
        && !item.as_str().is_some_and(is_go_duration)
    {
        return Err(Unmergeable::ignored(key("dial_timeout"), "write a duration such as \"1s\""));
    }
    if let Some(item) = host.get("ca")
        && !is_text_or_list(item, &|value| value.is_str())
    {
        return Err(Unmergeable::ignored(key("ca"), "write a file name or a list of them"));
    }
    let pair = |value: &Value| match value.as_array() {
        Some(pair) => pair.len() == 2 && pair.iter().all(Value::is_str),
        None => value.is_str(),
    };
    if let Some(item) = host.get("client")
        && !is_text_or_list(item, &pair)
    {
        let message = "write a file name, a list of them, or a list of [certificate, key] pairs";
        return Err(Unmergeable::ignored(key("client"), message));
    }
    if let Some(item) = host.get("header") {
        let header = item.as_table_like();
        let header = header.ok_or_else(|| Unmergeable::ignored(key("header"), "write a table"))?;
        for (name, item) in header.iter() {
            if !is_text_or_list(item, &Value::is_str) {
                let key = key(&format!("header.{name:?}"));
                return Err(Unmergeable::ignored(key, "write a text or a list of texts"));
            }
        }
    }
    Ok(())
}

fn is_text_or_list(item: &Item, element: &dyn Fn(&Value) -> bool) -> bool {
    item.is_str() || item.as_array().is_some_and(|list| list.iter().all(element))
}

/// Go's `time.ParseDuration`: `1.5s`, `-1m30s`, `0`. The empty text means no limit.
fn is_go_duration(text: &str) -> bool {
    let text = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(text, "" | "0") {
        return true;
    }
    let mut rest = text;
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (digits, after) = rest.split_at(number);
        let plain = digits.bytes().any(|byte| byte.is_ascii_digit())
            && digits.bytes().filter(|byte| *byte == b'.').count() <= 1;
        let unit = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"]
            .iter()
            .filter(|unit| after.starts_with(**unit))
            .max_by_key(|unit| unit.len());
        match (plain, unit) {
            (true, Some(unit)) => rest = &after[unit.len()..],
            _ => return false,
        }
    }
    true
}
