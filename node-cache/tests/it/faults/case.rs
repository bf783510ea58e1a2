//! One case of the table and its surroundings.

use std::{net::Ipv4Addr, time::Duration};

use futures_util::future::join_all;
use tokio::time::sleep;

use super::{
    FOREIGN, SINK,
    check::Check,
    want::{Ask, Want},
};
use crate::{
    faulty::{ALWAYS, Fault, Image, On, Origin, Sink, seed},
    larder::{Larder, Upstream},
};

pub const REPOSITORY: &str = "team/app";
pub const TAG: &str = "v1";
/// Larger than what is verified before its first byte (256 KiB).
pub const LARGE: usize = 1_500_000;
/// Smaller than that.
pub const SMALL: usize = 40_000;
/// Somewhere in a large blob.
pub const MIDDLE: usize = 700_000;

/// A story about one upstream.
pub struct Case {
    pub name: &'static str,
    /// What happens and what must come of it, for whoever reads the failure.
    pub story: &'static str,
    /// Size of the image's layer.
    pub size: usize,
    /// The configuration; the endpoint is already there.
    pub upstream: fn(&Ground, Upstream) -> Upstream,
    /// What is wrong from the start.
    pub arrange: fn(&Ground),
    pub steps: &'static [Step],
    pub then: &'static [Check],
    /// Least and most that `larder_node_quarantined_total` grows by.
    pub quarantined: (u32, u32),
}

/// What a case is made from: `..CASE`.
pub const CASE: Case = Case {
    name: "",
    story: "",
    size: LARGE,
    upstream: |_, upstream| upstream,
    arrange: |_| {},
    steps: &[],
    then: &[],
    quarantined: (0, 0),
};

/// One sentence of a story.
pub enum Step {
    /// One client asks.
    Ask(Ask, Want),
    /// So many clients ask the same at once.
    Crowd(usize, Ask, Want),
    /// All faults of the repository end.
    Heal,
    /// The upstream's port is closed.
    Stop,
    /// The upstream's port is open again.
    Start,
    /// Nothing for so many seconds.
    Pause(u64),
    /// Something holds in between.
    Check(Check),
}

/// The network of one case.
pub struct Ground {
    pub host: String,
    pub origin: Origin,
    /// The same content at another port: a CDN or a second endpoint.
    pub second: Origin,
    /// The same content at another address: a foreign host.
    pub foreign: Origin,
    pub sink: Sink,
    pub image: Image,
}

impl Ground {
    pub async fn prepare(case: &Case) -> Self {
        let origin = Origin::start().await;
        let image = origin.image(REPOSITORY, TAG, seed(case.name), case.size);
        Self {
            host: format!("{}.test", case.name.replace('_', "-")),
            second: origin.twin(Ipv4Addr::LOCALHOST).await,
            foreign: origin.twin(FOREIGN).await,
            sink: Sink::start(SINK).await,
            origin,
            image,
        }
    }

    pub fn upstream(&self) -> Upstream {
        Upstream::at(&self.host, &self.origin)
    }

    /// Makes the next `times` GETs of a blob go wrong.
    pub fn blob(&self, fault: Fault, times: usize) {
        self.origin.inject(REPOSITORY, On::BlobGets, fault, times);
    }

    /// Makes every request of this kind go wrong.
    pub fn always(&self, on: On, fault: Fault) {
        self.origin.inject(REPOSITORY, on, fault, ALWAYS);
    }

    pub fn blob_path(&self) -> String {
        format!("/blobs/{}", self.image.layer.digest)
    }
}

impl Case {
    /// Plays the story; the answer is everything that went otherwise.
    pub async fn run(&self, ground: &Ground, larder: &Larder) -> Option<String> {
        let mut wrong = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            let of_step = self.step(step, ground, larder).await;
            wrong.extend(of_step.into_iter().map(|text| format!("step {}: {text}", index + 1)));
        }
        for check in self.then {
            wrong.extend(check.fails(ground, larder).await.map(|text| format!("then: {text}")));
        }
        wrong.extend(super::check::always(ground, larder));
        if wrong.is_empty() {
            return None;
        }
        let (wrong, seen) = (wrong.join("\n  "), ground.origin.story());
        Some(format!("{}: {}\n  {wrong}\n  the upstream saw:\n{seen}", self.name, self.story))
    }

    async fn step(&self, step: &Step, ground: &Ground, larder: &Larder) -> Vec<String> {
        match step {
            Step::Ask(ask, want) => {
                want.compare(ask, ground, &ask.call(ground, larder).send().await)
            }
            Step::Crowd(clients, ask, want) => {
                let answers = (0..*clients).map(|_| ask.call(ground, larder).send());
                let answers = join_all(answers).await;
                answers.iter().flat_map(|answer| want.compare(ask, ground, answer)).collect()
            }
            Step::Check(check) => check.fails(ground, larder).await.into_iter().collect(),
            quiet => {
                match quiet {
                    Step::Heal => ground.origin.heal(REPOSITORY),
                    Step::Stop => ground.origin.stop().await,
                    Step::Start => ground.origin.restart().await,
                    Step::Pause(seconds) => sleep(Duration::from_secs(*seconds)).await,
                    Step::Ask(..) | Step::Crowd(..) | Step::Check(_) => unreachable!(),
                }
                Vec::new()
            }
        }
    }
}
