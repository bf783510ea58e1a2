//! What the node caches say about themselves: `GET /report` of every ready pod.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use larder_crds::{node::NodeReport, resources::NodeReason};

use crate::{condition::shorten, labels, proxy_cache::plan::REPORT_TOKEN, world::World};

/// Reports that are asked for at once.
const AT_ONCE: usize = 64;
/// Until a whole report is there.
const PATIENCE: Duration = Duration::from_secs(2);
/// The bound of formats.md 3; a node that sends more is not believed.
const MAX_REPORT: usize = 256 << 10;
/// Between two polls of everybody, give or take a fifth, so that two operators do not meet.
const PERIOD: Duration = Duration::from_secs(15);
/// Between two polls of those that something is expected of.
const HURRIED: Duration = Duration::from_secs(2);

/// What one node cache said when it was last asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its report, or why there is none.
    pub report: Result<NodeReport, (NodeReason, String)>,
}

/// Answers by UID of the pod. Shared: 1,000 reports on 100 upstreams are 24 MB, every reconcile
/// looks at them, and of most there is nothing new.
pub type Answers = Arc<HashMap<String, Arc<Answer>>>;

/// The answers of all node caches.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    answers: Answers,
    everybody_asked: bool,
}

impl Fleet {
    /// The answers, and whether everybody was asked at least once.
    pub fn answers(&self) -> (Answers, bool) {
        let known = self.lock();
        (Arc::clone(&known.answers), known.everybody_asked)
    }

    /// Asks everybody again and again, and those that something is expected of more often.
    pub async fn poll(self, world: World, http: reqwest::Client) {
        let mut expected = Expected::default();
        let mut whole = Instant::now();
        loop {
            let ready: Vec<_> =
                world.pods.state().into_iter().filter(|pod| is_ready(pod)).collect();
            let now = Instant::now();
            let (answers, _) = self.answers();
            let soon = expected.of(&ready, &answers, now);
            let everybody = now >= whole;
            let due = if everybody {
                whole = now + PERIOD.mul_f64(0.8 + 0.4 * random());
                ready.clone()
            } else {
                soon
            };
            if everybody || !due.is_empty() {
                self.ask(&due, &ready, &world, &http).await;
                self.lock().everybody_asked |= everybody;
                world.touch();
            }
            tokio::time::sleep(HURRIED).await;
        }
    }

    /// Takes up what some pods say. Of those that are not ready any more nothing is kept.
    async fn ask(
        &self,
        due: &[Arc<Pod>],
        ready: &[Arc<Pod>],
        world: &World,
        http: &reqwest::Client,
    ) {
        let (before, _) = self.answers();
        let asked = due.iter().map(|pod| async {
            let uid = pod.uid().unwrap_or_default();
            let answer = Answer { report: ask(pod, world, http).await };
            // Most say what they said before.
            let known = before.get(&uid).filter(|known| ***known == answer);
            let answer = known.map_or_else(|| Arc::new(answer), Arc::clone);
            (uid, answer)
        });
        let mut new =
            stream::iter(asked).buffer_unordered(AT_ONCE).collect::<HashMap<_, _>>().await;
        for uid in ready.iter().filter_map(|pod| pod.uid()) {
            if let Some(known) = before.get(&uid) {
                new.entry(uid).or_insert_with(|| Arc::clone(known));
            }
        }
        self.lock().answers = Arc::new(new);
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pods that something is expected of: a first answer, or the configuration that they were told
/// of. A pod that never does it must not have the operator at work for ever, so not for long.
#[derive(Debug, Default)]
struct Expected {
    /// What is expected, and since when, by UID.
    since: HashMap<String, (Option<String>, Instant)>,
}

/// For how long something is expected: a pod is told three times, 5 s apart (formats.md 9).
const EXPECTED: Duration = Duration::from_secs(20);

impl Expected {
    /// Those of `ready` that are to be asked again soon.
    fn of(
        &mut self,
        ready: &[Arc<Pod>],
        answers: &HashMap<String, Arc<Answer>>,
        now: Instant,
    ) -> Vec<Arc<Pod>> {
        let mut since = HashMap::new();
        let mut soon = Vec::new();
        for pod in ready {
            let uid = pod.uid().unwrap_or_default();
            let told = pod.annotations().get(labels::CONFIG_HASH);
            let is_up_to_date = match answers.get(&uid).map(|answer| &answer.report) {
                None => false,
                // There may be none for as long as its node is cut off.
                Some(Err(_)) => true,
                Some(Ok(report)) => told.is_none_or(|told| *told == report.config_hash),
            };
            if is_up_to_date {
                continue;
            }
            let known = self.since.remove(&uid).filter(|(what, _)| what.as_ref() == told);
            let known = known.unwrap_or_else(|| (told.cloned(), now));
            if now.duration_since(known.1) < EXPECTED {
                soon.push(Arc::clone(pod));
            }
            since.insert(uid, known);
        }
        self.since = since;
        soon
    }
}

/// Whether the kubelet says that the pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

type Asked = Result<NodeReport, (NodeReason, String)>;

async fn ask(pod: &Pod, world: &World, http: &reqwest::Client) -> Asked {
    let silent = |message: String| (NodeReason::NotReporting, message);
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let address = address.ok_or_else(|| silent("its pod has no address".to_owned()))?;
    let port = pod.annotations().get(labels::ADMIN_PORT).map_or("5056", String::as_str);
    let host = if address.contains(':') { format!("[{address}]") } else { address };
    let cache = pod.labels().get(labels::CACHE).cloned().unwrap_or_default();
    let secret = world.secret(&labels::object_name(&cache));
    let token = secret.as_ref().and_then(|secret| secret.data.as_ref()?.get(REPORT_TOKEN));
    let token =
        token.map(|token| String::from_utf8_lossy(&token.0).into_owned()).unwrap_or_default();
    let request = http.get(format!("http://{host}:{port}/report")).bearer_auth(token);
    report_of(&pod.uid().unwrap_or_default(), request).await
}

/// The report of one instance, and of no other.
async fn report_of(instance: &str, request: reqwest::RequestBuilder) -> Asked {
    let silent = |message: String| (NodeReason::NotReporting, message);
    let answer = tokio::time::timeout(PATIENCE, receive(request)).await;
    let body =
        answer.map_err(|_| silent(format!("no report within {} s", PATIENCE.as_secs())))??;
    let report = read(&body).map_err(|message| (NodeReason::ReportInvalid, message))?;
    // A pod that took the port over from this one speaks for itself.
    if report.instance != instance {
        let message = format!("another instance answers: {:?}", shorten(report.instance, 64));
        return Err((NodeReason::ReportInvalid, message));
    }
    Ok(report)
}

async fn receive(request: reqwest::RequestBuilder) -> Result<Vec<u8>, (NodeReason, String)> {
    let silent = |error: reqwest::Error| {
        (NodeReason::NotReporting, crate::world::error_chain(&error.without_url()))
    };
    let answer = request.send().await.map_err(silent)?;
    if !answer.status().is_success() {
        return Err((
            NodeReason::NotReporting,
            format!("its report is refused: {}", answer.status()),
        ));
    }
    let mut body = Vec::new();
    let mut pieces = answer.bytes_stream();
    while let Some(piece) = pieces.next().await {
        body.extend_from_slice(&piece.map_err(silent)?);
        if body.len() > MAX_REPORT {
            return Err((
                NodeReason::ReportInvalid,
                format!("its report is over {MAX_REPORT} bytes"),
            ));
        }
    }
    Ok(body)
}

/// Reads a report. Whatever is in it may be a lie: texts are cut, and it is never more than numbers
/// and texts.
fn read(body: &[u8]) -> Result<NodeReport, String> {
    let mut report: NodeReport = serde_json::from_slice(body)
        .map_err(|error| format!("its report cannot be read: {error}"))?;
    let clean = |text: &mut String| {
        let visible: String = text.chars().filter(|c| !c.is_control()).collect();
        *text = shorten(visible, 512);
    };
    for text in
        [&mut report.instance, &mut report.node, &mut report.version, &mut report.config_hash]
    {
        clean(text);
    }
    for text in [&mut report.mirror.state, &mut report.mirror.reason, &mut report.store.state] {
        clean(text);
    }
    // Nobody asks which files a node has, and 1,000 lists of 100 names are 7 MB.
    report.mirror.hosts = Vec::new();
    for upstream in report.upstreams.values_mut() {
        clean(&mut upstream.last_error);
    }
    Ok(report)
}

/// Between 0 and 1.
fn random() -> f64 {
    let mut bytes = [0; 2];
    // Without randomness operators poll in step, which does no harm.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        return 0.5;
    }
    f64::from(u16::from_le_bytes(bytes)) / f64::from(u16::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const REPORT: &str = r#"{"apiVersion": "node.larder.dev/v1alpha1", "instance": "u", "version": "9",
        "configHash": "h", "store": {}, "newField": 1, "upstreams": {"docker.io": {"lastError": "a\u001b[31mb"}}}"#;

    #[test]
    fn a_report_of_a_newer_node_cache_is_read_and_cleaned() {
        let report = read(REPORT.as_bytes()).unwrap();
        assert_eq!(report.upstreams["docker.io"].last_error, "a[31mb");
        assert_eq!(report.store.used_bytes, 0);
    }

    /// What a node that answers so, or not at all, is held for.
    async fn judged(answer: Option<Vec<u8>>) -> Asked {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/report", listener.local_addr().unwrap());
        let node = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            if let Some(answer) = answer {
                // Who has read enough hangs up.
                let _ = stream.write_all(&answer).await;
            }
            std::future::pending::<()>().await;
        });
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let asked = report_of("u", http.get(url)).await;
        node.abort();
        asked
    }

    fn http(status: &str, length: usize, body: &[u8]) -> Vec<u8> {
        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n");
        [head.as_bytes(), body].concat()
    }

    #[tokio::test]
    async fn a_node_that_is_silent_slow_enormous_or_lies_is_named_within_two_seconds() {
        let report = REPORT.as_bytes();
        assert_eq!(
            judged(Some(http("200 OK", report.len(), report))).await.map(|it| it.version).unwrap(),
            "9"
        );
        let stranger = REPORT.replace("\"u\"", "\"v\"");
        let enormous = vec![b' '; MAX_REPORT + 1];
        for (answer, reason, says) in [
            (b"".to_vec(), NodeReason::NotReporting, "no report within 2 s"),
            (http("200 OK", 100, b"{"), NodeReason::NotReporting, "no report within 2 s"),
            (http("401 Unauthorized", 0, b""), NodeReason::NotReporting, "401"),
            (http("302 Found", 0, b""), NodeReason::NotReporting, "302"),
            (b"SSH-2.0".to_vec(), NodeReason::NotReporting, ""),
            (http("200 OK", 1 << 30, &enormous), NodeReason::ReportInvalid, "is over 262144 bytes"),
            (http("200 OK", 2, b"[]"), NodeReason::ReportInvalid, "cannot be read"),
            (
                http("200 OK", stranger.len(), stranger.as_bytes()),
                NodeReason::ReportInvalid,
                "another instance answers: \"v\"",
            ),
        ] {
            let answer = (!answer.is_empty()).then_some(answer);
            let (found, message) = judged(answer).await.unwrap_err();
            assert_eq!(found, reason, "{message}");
            assert!(message.contains(says), "{says}: {message}");
        }
    }

    #[test]
    fn a_pod_that_never_does_what_it_was_told_is_asked_more_often_for_twenty_seconds_only() {
        let pod = |told: &str| {
            let pod = serde_json::json!({
                "metadata": {"uid": "u", "annotations": {labels::CONFIG_HASH: told}},
            });
            vec![Arc::new(serde_json::from_value::<Pod>(pod).unwrap())]
        };
        let answers = HashMap::from([(
            "u".to_owned(),
            Arc::new(Answer {
                report: read(REPORT.as_bytes()).map_err(|it| (NodeReason::ReportInvalid, it)),
            }),
        )]);
        let mut expected = Expected::default();
        let start = Instant::now();
        let mut soon = |told: &str, answers, seconds| {
            expected.of(&pod(told), answers, start + Duration::from_secs(seconds)).len()
        };
        assert_eq!(soon("h", &answers, 0), 0, "it has what it was told");
        for (seconds, asked) in [(100, 1), (119, 1), (120, 0), (1_000, 0)] {
            assert_eq!(soon("other", &answers, seconds), asked, "after {seconds} s");
        }
        assert_eq!(soon("another", &answers, 1_001), 1, "it is told something else");
        assert_eq!(soon("h", &answers, 1_002), 0, "it does what it was told");
        assert_eq!(soon("other", &answers, 1_003), 1, "and is told again");
    }

    #[test]
    fn a_pod_that_was_never_asked_is_asked_soon() {
        let pod = serde_json::json!({"metadata": {"uid": "u"}});
        let pods = vec![Arc::new(serde_json::from_value::<Pod>(pod).unwrap())];
        assert_eq!(Expected::default().of(&pods, &HashMap::new(), Instant::now()).len(), 1);
    }

    #[test]
    fn what_is_no_report_says_so() {
        for body in ["", "[]", "{}", "{\"apiVersion\": 1}"] {
            assert!(
                read(body.as_bytes()).unwrap_err().starts_with("its report cannot be read"),
                "{body}"
            );
        }
    }
}
