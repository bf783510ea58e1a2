//! When an endpoint is left alone: a state machine without a clock (formats.md section 4).

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How long an endpoint is left alone at first; doubles with every probe that fails.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest pause, whatever `Retry-After` says.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The shortest pause that `Retry-After` can ask for.
const SHORTEST_PAUSE: Duration = Duration::from_secs(1);
/// Failures in a row that open a breaker.
const TOLERATED_FAILURES: u32 = 2;

/// What one request said about an endpoint's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It answered sensibly, whatever the answer.
    Alive,
    /// No connection, no answer in time, 502, 503 or 504; perhaps with a `Retry-After`.
    Failing(Option<Duration>),
    /// 429, perhaps with a `Retry-After`.
    RateLimited(Option<Duration>),
}

/// Counts failures and says whether an endpoint may be asked. Callers pass the time.
#[derive(Debug)]
struct Breaker {
    state: State,
    /// The pause that the next opening makes.
    next_pause: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Closed {
        failures: u32,
    },
    Open {
        until: Instant,
    },
    /// One request is on its way to find out; the others still wait.
    Probing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    Ordinary,
    Probe,
}

impl Breaker {
    const fn new() -> Self {
        Self { state: State::Closed { failures: 0 }, next_pause: FIRST_PAUSE }
    }

    fn would_admit(&self, now: Instant) -> bool {
        match self.state {
            State::Closed { .. } => true,
            State::Open { until } => now >= until,
            State::Probing => false,
        }
    }

    fn admit(&mut self, now: Instant) -> Option<Admission> {
        match self.state {
            State::Closed { .. } => Some(Admission::Ordinary),
            State::Open { until } if now >= until => {
                self.state = State::Probing;
                Some(Admission::Probe)
            }
            State::Open { .. } | State::Probing => None,
        }
    }

    /// Takes in how a request ended; `None` if it was given up and says nothing.
    fn record(&mut self, admission: Admission, verdict: Option<Verdict>, now: Instant) {
        match (admission, self.state) {
            (Admission::Probe, State::Probing) => match verdict {
                None => self.state = State::Open { until: now },
                Some(Verdict::Alive) => *self = Self::new(),
                Some(Verdict::Failing(wait) | Verdict::RateLimited(wait)) => self.open(wait, now),
            },
            (_, State::Closed { failures }) => match verdict {
                None => {}
                Some(Verdict::Alive) => self.state = State::Closed { failures: 0 },
                Some(Verdict::RateLimited(wait)) => self.open(wait, now),
                Some(Verdict::Failing(wait)) if failures + 1 >= TOLERATED_FAILURES => {
                    self.open(wait, now);
                }
                Some(Verdict::Failing(_)) => {
                    self.state = State::Closed { failures: failures + 1 };
                }
            },
            // Requests that were under way when the breaker opened: their failures are the same
            // event, and their successes do not end a pause that a 429 asked for.
            (_, State::Open { .. } | State::Probing) => {}
        }
    }

    fn open(&mut self, wait: Option<Duration>, now: Instant) {
        let pause = wait.map_or(self.next_pause, |wait| wait.clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
        self.state = State::Open { until: now + pause };
        self.next_pause = (self.next_pause * 2).min(LONGEST_PAUSE);
    }
}

/// A breaker that requests pass through.
#[derive(Debug)]
pub(super) struct Gate(Mutex<Breaker>);

/// The right to send one request. Dropping it without [`Permit::conclude`] says nothing about the
/// endpoint, and lets the next request probe.
#[derive(Debug)]
pub(super) struct Permit<'a> {
    gate: &'a Gate,
    admission: Admission,
    concluded: bool,
}

impl Gate {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Breaker::new()))
    }

    /// A permit, or `None` if the endpoint is to be left alone.
    pub(super) fn admit(&self, now: Instant) -> Option<Permit<'_>> {
        let admission = self.breaker().admit(now)?;
        Some(Permit { gate: self, admission, concluded: false })
    }

    /// Whether [`Gate::admit`] would give a permit.
    pub(super) fn would_admit(&self, now: Instant) -> bool {
        self.breaker().would_admit(now)
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        // The state is one assignment at a time, so a panic elsewhere cannot leave half of it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// Records what the request said about the endpoint.
    pub(super) fn conclude(mut self, verdict: Verdict) {
        self.concluded = true;
        self.gate.breaker().record(self.admission, Some(verdict), Instant::now());
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if !self.concluded {
            self.gate.breaker().record(self.admission, None, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What happens to a breaker, and at which second.
    #[derive(Clone, Copy)]
    enum Step {
        /// Is a request admitted as this?
        Ask(Option<Admission>),
        /// An ordinary request ends.
        Ends(Verdict),
        /// The probe ends.
        ProbeEnds(Option<Verdict>),
    }
    use Step::{Ask, Ends, ProbeEnds};
    use Verdict::{Alive, Failing, RateLimited};

    const NO: Step = Ask(None);
    const YES: Step = Ask(Some(Admission::Ordinary));
    const PROBE: Step = Ask(Some(Admission::Probe));
    const FAILS: Step = Ends(Failing(None));

    const AFTER_0: Option<Duration> = Some(Duration::ZERO);
    const AFTER_9: Option<Duration> = Some(Duration::from_secs(9));
    const AFTER_20: Option<Duration> = Some(Duration::from_secs(20));
    const AFTER_A_DAY: Option<Duration> = Some(Duration::from_hours(24));
    const PROBE_FAILS: Step = ProbeEnds(Some(Failing(None)));
    const PROBE_WORKS: Step = ProbeEnds(Some(Alive));

    /// Names, and what happens at which second.
    #[rustfmt::skip]
    const TABLE: &[(&str, &[(u64, Step)])] = &[
        ("one failure is tolerated", &[(0, FAILS), (0, YES)]),
        ("two in a row open", &[(0, FAILS), (1, FAILS), (1, NO), (5, NO), (6, PROBE)]),
        ("a success between resets", &[(0, FAILS), (0, Ends(Alive)), (0, FAILS), (0, YES)]),
        ("one 429 opens", &[(0, Ends(RateLimited(None))), (4, NO), (5, PROBE)]),
        ("Retry-After is honoured", &[(0, Ends(RateLimited(AFTER_20))), (19, NO), (20, PROBE)]),
        ("and capped", &[(0, Ends(RateLimited(AFTER_A_DAY))), (59, NO), (60, PROBE)]),
        ("zero still pauses", &[(0, Ends(RateLimited(AFTER_0))), (0, NO), (1, PROBE)]),
        ("503 may say it too", &[(0, FAILS), (0, Ends(Failing(AFTER_9))), (8, NO), (9, PROBE)]),
        ("one probe at a time", &[(0, FAILS), (0, FAILS), (5, PROBE), (5, NO), (50, NO)]),
        ("a probe that succeeds closes", &[
            (0, FAILS), (0, FAILS), (5, PROBE), (5, PROBE_WORKS), (5, YES), (5, FAILS), (5, YES),
        ]),
        ("a probe that fails doubles the pause, up to a minute", &[
            (0, FAILS), (0, FAILS),
            (5, PROBE), (5, PROBE_FAILS), (14, NO),
            (15, PROBE), (15, PROBE_FAILS), (34, NO),
            (35, PROBE), (35, PROBE_FAILS), (74, NO),
            (75, PROBE), (75, PROBE_FAILS), (134, NO),
            (135, PROBE), (135, PROBE_FAILS), (194, NO), (195, PROBE),
        ]),
        ("after closing the pause starts small again", &[
            (0, FAILS), (0, FAILS), (5, PROBE), (5, PROBE_FAILS), (15, PROBE), (15, PROBE_WORKS),
            (15, FAILS), (15, FAILS), (19, NO), (20, PROBE),
        ]),
        ("a probe that is given up lets the next one through", &[
            (0, FAILS), (0, FAILS), (5, PROBE), (6, ProbeEnds(None)), (6, PROBE), (6, NO),
        ]),
        ("stragglers change nothing", &[
            (0, FAILS), (0, FAILS), (0, FAILS), (1, Ends(Alive)), (4, NO), (5, PROBE),
            (5, Ends(Alive)), (5, NO), (5, FAILS), (5, NO), (5, PROBE_WORKS), (5, YES),
        ]),
    ];

    #[test]
    fn f10_breaker_table() {
        let start = Instant::now();
        for (name, steps) in TABLE {
            let mut breaker = Breaker::new();
            for (index, (second, step)) in steps.iter().enumerate() {
                let now = start + Duration::from_secs(*second);
                match step {
                    Ask(expected) => {
                        let would = breaker.would_admit(now);
                        assert_eq!(would, expected.is_some(), "{name}: step {index}");
                        assert_eq!(breaker.admit(now), *expected, "{name}: step {index}");
                    }
                    Ends(verdict) => breaker.record(Admission::Ordinary, Some(*verdict), now),
                    ProbeEnds(verdict) => breaker.record(Admission::Probe, *verdict, now),
                }
            }
        }
    }

    #[test]
    fn a_dropped_permit_says_nothing() {
        let gate = Gate::new();
        let now = Instant::now();
        gate.admit(now).unwrap().conclude(RateLimited(None));
        assert!(gate.admit(now).is_none());
        let later = Instant::now() + LONGEST_PAUSE;
        let probe = gate.admit(later).unwrap();
        assert!(gate.admit(later).is_none() && !gate.would_admit(later));
        drop(probe);
        assert!(gate.would_admit(later));
    }
}
