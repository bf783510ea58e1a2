//! One connection of an origin: request by request.

use std::{io, sync::Arc};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::json;
use tokio::net::TcpStream;

use super::{
    CREDENTIALS, Shared,
    content::{Door, Repository},
    fault::Fault,
    reply::Reply,
    request::{Seen, Target},
    wire::{self, After},
};

/// What an anonymous client gets from the token endpoint.
pub const ANONYMOUS_TOKEN: &str = "canary-anonymous-token";
/// What `robot:s3cret` gets from the token endpoint.
pub const ROBOT_TOKEN: &str = "canary-robot-token";

pub(super) async fn connection(
    mut stream: TcpStream,
    id: u64,
    shared: Arc<Shared>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let Some(seen) = Seen::read(&mut stream, id).await? else {
            return Ok(());
        };
        let is_head = seen.method == "HEAD";
        shared.lock().seen.push(seen.clone());
        let reply = answer(&shared, &seen, is_head);
        if wire::send(&mut stream, reply, is_head, &seen.sent).await? == After::Closed {
            return Ok(());
        }
    }
}

fn answer(shared: &Shared, seen: &Seen, is_head: bool) -> Reply {
    let mut target = seen.target();
    if let Target::Hop(left, rest) = &target {
        if *left > 0 {
            return Reply::error(307).with("Location", format!("/hop/{}{rest}", left - 1));
        }
        let there = Seen { path: rest.clone(), ..seen.clone() };
        target = there.target();
    }
    let mut state = shared.lock();
    let (repository, kind) = target.subject();
    // The last hop of a chain is the content: the fault was taken at the first.
    let faults = if seen.path.starts_with("/hop/") {
        Vec::new()
    } else {
        state.faults.take(repository, kind, is_head)
    };
    let mut reply = content(&state.repositories, &target, seen);
    let whole = |fault: &Fault| matches!(fault, Fault::RangeIgnored | Fault::RangeFromZero);
    let range = seen.header("range").filter(|_| reply.status == 200 && !is_head);
    if let (Some(range), false) = (range, faults.iter().any(whole)) {
        reply = reply.cut_to(range);
    }
    let own = shared.url();
    for fault in faults {
        if !matches!(fault, Fault::RangeFromZero) || range.is_some() {
            reply.suffer(fault, &seen.path, &own);
        }
    }
    reply
}

type Repositories = std::collections::HashMap<String, Repository>;

fn content(repositories: &Repositories, target: &Target, seen: &Seen) -> Reply {
    let (name, _) = target.subject();
    let repository = match target {
        Target::Token => return token(seen),
        Target::Ping => return Reply::new(200, "application/json", "{}"),
        _ => match repositories.get(name) {
            Some(repository) => repository,
            None => return Reply::error(404),
        },
    };
    if let Some(refusal) = refuse(repository, name, seen) {
        return refusal;
    }
    match target {
        Target::Blob(_, digest) => match repository.blobs.get(digest) {
            Some(bytes) => Reply::new(200, "application/octet-stream", bytes.clone())
                .with("Accept-Ranges", "bytes")
                .with("Docker-Content-Digest", digest),
            None => Reply::error(404),
        },
        Target::Manifest(_, reference) => match repository.manifest(reference) {
            Some(manifest) => {
                let digest = if reference.contains(':') { reference } else { &manifest.digest };
                Reply::new(200, &manifest.media_type, manifest.bytes.clone())
                    .with("Docker-Content-Digest", digest)
            }
            None => Reply::error(404),
        },
        Target::Tags(_) => tags(repository, name, &seen.query),
        _ => Reply::error(404),
    }
}

fn tags(repository: &Repository, name: &str, query: &str) -> Reply {
    let parameter = |wanted: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == wanted).map(|(_, value)| value)
    };
    let last = parameter("last").unwrap_or_default();
    let n = parameter("n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
    let after: Vec<_> = repository.tags.keys().filter(|tag| tag.as_str() > last).collect();
    let page = &after[..n.min(after.len())];
    let body = json!({"name": name, "tags": page}).to_string();
    let reply = Reply::new(200, "application/json", body);
    match page.last() {
        Some(end) if page.len() < after.len() => {
            reply.with("Link", format!("</v2/{name}/tags/list?n={n}&last={end}>; rel=\"next\""))
        }
        _ => reply,
    }
}

fn is_robot(seen: &Seen) -> bool {
    let expected = format!("Basic {}", BASE64_STANDARD.encode(CREDENTIALS));
    seen.header("authorization") == Some(&expected)
}

fn token(seen: &Seen) -> Reply {
    let token = match seen.header("authorization") {
        None => ANONYMOUS_TOKEN,
        Some(_) if is_robot(seen) => ROBOT_TOKEN,
        Some(_) => return Reply::error(401),
    };
    let body = json!({"token": token, "access_token": token, "expires_in": 300});
    Reply::new(200, "application/json", body.to_string())
}

fn refuse(repository: &Repository, name: &str, seen: &Seen) -> Option<Reply> {
    let bearer = seen.header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let (welcome, challenge) = match &repository.door {
        Door::Open => return None,
        Door::Basic => (is_robot(seen), "Basic realm=\"origin\"".to_owned()),
        Door::Bearer { realm, public } => {
            let welcome =
                bearer == Some(ROBOT_TOKEN) || (*public && bearer == Some(ANONYMOUS_TOKEN));
            let scope = format!("repository:{name}:pull");
            (welcome, format!("Bearer realm=\"{realm}\",service=\"origin\",scope=\"{scope}\""))
        }
    };
    (!welcome).then(|| Reply::error(401).with("WWW-Authenticate", challenge))
}
