use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn digest(number: usize) -> Digest {
    Digest::of(Algorithm::Sha256, &number.to_le_bytes())
}

/// What happens to a store.
#[derive(Clone, Debug)]
enum Event {
    Store(usize, u64),
    Use(usize),
    Open(usize),
    Close(usize),
    Wait(u64),
    Need(u64),
    Book(usize, u64),
    Abandon(usize),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let blob = || 0_usize..12;
    let event = prop_oneof![
        4 => (blob(), 1_u64..1_000).prop_map(|(blob, kib)| Event::Store(blob, kib * 1024)),
        3 => blob().prop_map(Event::Use),
        2 => blob().prop_map(Event::Open),
        2 => blob().prop_map(Event::Close),
        2 => (1_u64..90).prop_map(Event::Wait),
        3 => (0_u64..2_000).prop_map(|kib| Event::Need(kib * 1024)),
        2 => (blob(), 0_u64..1_000).prop_map(|(blob, kib)| Event::Book(blob, kib * 1024)),
        1 => blob().prop_map(Event::Abandon),
    ];
    prop::collection::vec(event, 1..120)
}

/// The same rules without any index: everything is looked at every time.
#[derive(Default)]
struct Model {
    /// size, uses, rank, last read
    blobs: BTreeMap<Digest, (u64, u32, Rank, Instant)>,
    partials: BTreeMap<Digest, (u64, Instant)>,
    open: BTreeMap<Digest, u32>,
    floor: Rank,
}

impl Model {
    fn used(&self) -> u64 {
        let blobs: u64 = self.blobs.values().map(|blob| blob.0).sum();
        blobs + self.partials.values().map(|partial| partial.0).sum::<u64>()
    }

    fn may_go(&self, digest: &Digest, last: Instant, now: Instant) -> bool {
        !self.open.contains_key(digest) && now.duration_since(last) >= GRACE
    }

    fn victims(&self, needed: u64, now: Instant) -> (Vec<Victim>, u64) {
        let mut partials: Vec<_> = self
            .partials
            .iter()
            .filter(|(digest, partial)| self.may_go(digest, partial.1, now))
            .map(|(digest, partial)| (partial.1, digest, partial.0))
            .collect();
        partials.sort_by_key(|partial| partial.0);
        let mut blobs: Vec<_> = self
            .blobs
            .iter()
            .filter(|(digest, blob)| self.may_go(digest, blob.3, now))
            .map(|(digest, blob)| (blob.2, digest, blob.0))
            .collect();
        blobs.sort();
        let all = partials
            .into_iter()
            .map(|(_, digest, size)| (Victim::Partial(digest.clone()), size))
            .chain(blobs.into_iter().map(|(_, digest, size)| (Victim::Blob(digest.clone()), size)));
        let (mut chosen, mut freed) = (Vec::new(), 0);
        for (victim, size) in all {
            if freed >= needed {
                break;
            }
            freed += size;
            chosen.push(victim);
        }
        (chosen, freed)
    }
}

proptest! {
    #[test]
    fn the_ledger_does_what_a_model_without_any_index_does(events in events()) {
        let ledger = SharedLedger::default();
        let mut model = Model::default();
        let mut now = Instant::now();
        for event in events {
            // Every moment is different, so that the order of the idle is defined.
            now += Duration::from_millis(1);
            match event {
                Event::Store(blob, size) => {
                    let digest = digest(blob);
                    ledger.lock().insert(&digest, size, BlobRecord::default(), Some(now));
                    let rank = Rank::after_use(model.floor, 1, size);
                    model.blobs.insert(digest, (size, 1, rank, now));
                }
                Event::Use(blob) => {
                    let digest = digest(blob);
                    ledger.lock().use_once(&digest, now);
                    if let Some(blob) = model.blobs.get_mut(&digest) {
                        blob.1 += 1;
                        blob.2 = Rank::after_use(model.floor, blob.1, blob.0);
                        blob.3 = now;
                    }
                }
                Event::Open(blob) => {
                    ledger.lock().pin(&digest(blob));
                    *model.open.entry(digest(blob)).or_insert(0) += 1;
                }
                Event::Close(blob) => {
                    let digest = digest(blob);
                    let Some(open) = model.open.get_mut(&digest) else { continue };
                    ledger.lock().unpin(&digest, now);
                    *open -= 1;
                    if *open == 0 {
                        model.open.remove(&digest);
                    }
                    if let Some(blob) = model.blobs.get_mut(&digest) {
                        blob.3 = now;
                    }
                    if let Some(partial) = model.partials.get_mut(&digest) {
                        partial.1 = now;
                    }
                }
                Event::Wait(seconds) => now += Duration::from_secs(seconds),
                Event::Need(bytes) => {
                    let (victims, freed) = ledger.lock().victims(bytes, now);
                    prop_assert_eq!(&(victims.clone(), freed), &model.victims(bytes, now));
                    let before = ledger.lock().used();
                    for victim in &victims {
                        prop_assert!(ledger.lock().leave(victim), "{:?} is open", victim);
                        ledger.lock().left(victim, true);
                        match victim {
                            Victim::Partial(digest) => drop(model.partials.remove(digest)),
                            Victim::Blob(digest) => {
                                let gone = model.blobs.remove(digest).unwrap();
                                model.floor = model.floor.max(gone.2);
                            }
                        }
                    }
                    prop_assert_eq!(before - ledger.lock().used(), freed);
                    let spare = victims.last().map_or(0, |_| freed.saturating_sub(bytes));
                    prop_assert!(spare < 1_000 * 1024, "more was given up than was needed");
                }
                Event::Book(blob, size) => {
                    ledger.lock().book(&digest(blob), size, now);
                    model.partials.insert(digest(blob), (size, now));
                }
                Event::Abandon(blob) => {
                    ledger.lock().unbook(&digest(blob));
                    model.partials.remove(&digest(blob));
                }
            }
            prop_assert_eq!(ledger.lock().used(), model.used());
            prop_assert_eq!(ledger.lock().blobs(), model.blobs.len() as u64);
        }
    }
}

/// Pulls of a cluster's nodes over some weeks, the same at every run: few images that are pulled
/// again and again, their versions, base layers that they share, and large ones that are pulled
/// once. (blob, size)
fn trace() -> Vec<(usize, u64)> {
    const MIB: u64 = 1 << 20;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut trace = Vec::new();
    for pull in 0..6_000_u64 {
        // Half of all pulls are of 4 of 40 images.
        let app = if random(2) == 0 { random(4) } else { random(40) };
        // A new version every 600 pulls.
        let version = pull / 600 + app % 3;
        let id = |kind: u64, number: u64| usize::try_from(kind * 1_000_000 + number).unwrap();
        trace.push((id(1, app * 100 + version), 4_096));
        trace.push((id(2, app * 100 + version), 8_192));
        trace.push((id(3, app % 5), (30 + app % 5 * 15) * MIB));
        trace.push((id(4, app * 100 + version), (5 + app * 7 % 120) * MIB));
        if random(12) == 0 {
            trace.push((id(5, pull), (200 + random(800)) * MIB));
        }
    }
    trace
}

/// Hits of the trace per thousand, of requests and of bytes, in a store of `capacity` with `rank` as
/// the order.
fn replay(capacity: u64, rank: impl Fn(Rank, u32, u64, u64) -> Rank) -> (u64, u64) {
    let (mut asked, mut asked_bytes, mut hits, mut hit_bytes) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut stored: HashMap<usize, (Rank, u32, u64)> = HashMap::new();
    let mut order: BTreeSet<(Rank, usize)> = BTreeSet::new();
    let (mut occupied, mut floor) = (0, Rank::default());
    for (blob, size) in trace() {
        asked += 1;
        asked_bytes += size;
        let uses = match stored.remove(&blob) {
            Some((old, earlier, _)) => {
                order.remove(&(old, blob));
                occupied -= size;
                hits += 1;
                hit_bytes += size;
                earlier + 1
            }
            None => 1,
        };
        while occupied + size > capacity {
            let (lowest, victim) = order.pop_first().unwrap();
            occupied -= stored.remove(&victim).unwrap().2;
            floor = floor.max(lowest);
        }
        let new = rank(floor, uses, size, asked);
        order.insert((new, blob));
        stored.insert(blob, (new, uses, size));
        occupied += size;
    }
    (hits * 1_000 / asked, hit_bytes * 1_000 / asked_bytes)
}

#[test]
fn on_a_replayed_trace_the_order_beats_the_least_recently_used() {
    for gib in [2, 4, 8] {
        let ours = replay(gib << 30, |floor, uses, size, _| Rank::after_use(floor, uses, size));
        let lru = replay(gib << 30, |_, _, _, moment| Rank::from_stored(moment));
        let table =
            format!("{gib} GiB: hits per thousand requests, bytes: ours {ours:?}, LRU {lru:?}");
        println!("{table}");
        assert!(ours.0 > lru.0 && ours.1 > lru.1, "{table}");
    }
}

#[test]
fn what_a_walk_does_not_see_is_gone_unless_it_came_meanwhile() {
    let mut ledger = Ledger::default();
    let now = Instant::now();
    ledger.insert(&digest(1), 10, BlobRecord::default(), Some(now));
    ledger.insert(&digest(2), 10, BlobRecord::default(), Some(now));
    let walk = ledger.begin_walk();
    ledger.saw(&digest(1), 20, None, None);
    ledger.insert(&digest(3), 5, BlobRecord::default(), Some(now));
    ledger.end_walk(walk);
    assert!(ledger.has(&digest(1)) && !ledger.has(&digest(2)) && ledger.has(&digest(3)));
    assert_eq!(ledger.used(), 25);
}

#[test]
fn only_changes_are_written_down_and_not_what_was_just_read_from_there() {
    let mut ledger = Ledger::default();
    let record = BlobRecord { stamp: None, uses: 3, rank: Rank::from_stored(77) };
    ledger.saw(&digest(1), 10, Some(record), None);
    assert_eq!(ledger.take_changes(), []);
    ledger.use_once(&digest(1), Instant::now());
    let changes = ledger.take_changes();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].1.unwrap().uses, 4);
    ledger.remove(&digest(1));
    assert_eq!(ledger.take_changes(), [(digest(1), None)]);
}
