//! What runs next: plain data and instants that are handed in. Every step is logarithmic in the number of keys.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use tokio::time::Instant;

/// When a key is due, and a number that keeps keys of one instant in the order they came.
type Turn = (Instant, u64);

/// The keys that wait and run, by lane.
pub(super) struct Plan<K> {
    lane_limit: usize,
    entries: HashMap<K, Entry>,
    lanes: HashMap<Arc<str>, Lane<K>>,
    /// Lanes that were seen with a due key, in the order of their turns. A lane may have lost it since.
    rotation: VecDeque<Arc<str>>,
    /// The first turn of every lane that has room and is not in the rotation.
    heads: BTreeMap<Turn, Arc<str>>,
    sequence: u64,
}

enum Entry {
    Waiting {
        lane: Arc<str>,
        turn: Turn,
    },
    Running {
        lane: Arc<str>,
        again: Option<(Arc<str>, Instant)>,
    },
}

struct Lane<K> {
    waiting: BTreeMap<Turn, K>,
    running: usize,
    in_rotation: bool,
    head: Option<Turn>,
}

impl<K: Clone + Eq + Hash> Plan<K> {
    pub(super) fn new(lane_limit: usize) -> Self {
        Self {
            lane_limit: lane_limit.max(1),
            entries: HashMap::new(),
            lanes: HashMap::new(),
            rotation: VecDeque::new(),
            heads: BTreeMap::new(),
            sequence: 0,
        }
    }

    pub(super) fn add(&mut self, key: K, lane: Arc<str>, due: Instant) {
        match self.entries.get_mut(&key) {
            Some(Entry::Running { again, .. }) => {
                let due = again.as_ref().map_or(due, |(_, before)| due.min(*before));
                *again = Some((lane, due));
            }
            Some(Entry::Waiting { lane: old, turn }) => {
                if *old == lane && turn.0 <= due {
                    return;
                }
                let (old, turn) = (Arc::clone(old), *turn);
                self.take_from(&old, turn);
                self.wait(key, lane, due.min(turn.0));
            }
            None => self.wait(key, lane, due),
        }
    }

    pub(super) fn forget(&mut self, key: &K) {
        match self.entries.get_mut(key) {
            Some(Entry::Running { again, .. }) => *again = None,
            Some(Entry::Waiting { lane, turn }) => {
                let (lane, turn) = (Arc::clone(lane), *turn);
                self.entries.remove(key);
                self.take_from(&lane, turn);
            }
            None => {}
        }
    }

    /// The key whose turn it is at `now`; it runs until [`Plan::finish`].
    pub(super) fn take(&mut self, now: Instant) -> Option<K> {
        while let Some(head) = self.heads.first_entry() {
            if head.key().0 > now {
                break;
            }
            let name = head.remove();
            if let Some(lane) = self.lanes.get_mut(&name) {
                lane.head = None;
                lane.in_rotation = true;
                self.rotation.push_back(name);
            }
        }
        while let Some(name) = self.rotation.pop_front() {
            let Some(lane) = self.lanes.get_mut(&name) else {
                continue;
            };
            lane.in_rotation = false;
            let due = lane.running < self.lane_limit
                && lane
                    .waiting
                    .first_key_value()
                    .is_some_and(|(turn, _)| turn.0 <= now);
            let taken = if due { lane.waiting.pop_first() } else { None };
            if taken.is_some() {
                lane.running += 1;
            }
            self.place(&name, Some(now));
            if let Some((_, key)) = taken {
                self.entries.insert(
                    key.clone(),
                    Entry::Running {
                        lane: name,
                        again: None,
                    },
                );
                return Some(key);
            }
        }
        None
    }

    /// Ends the run of `key`.
    pub(super) fn finish(&mut self, key: &K) {
        let Some(Entry::Running { lane, again }) = self.entries.remove(key) else {
            debug_assert!(false, "only a running key finishes");
            return;
        };
        if let Some(state) = self.lanes.get_mut(&lane) {
            state.running -= 1;
        }
        self.place(&lane, None);
        if let Some((lane, due)) = again {
            self.wait(key.clone(), lane, due);
        }
    }

    /// When [`Plan::take`] is worth calling again, once it has answered `None`.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.heads.first_key_value().map(|(turn, _)| turn.0)
    }

    /// Whether a lane may have another key that is due now.
    pub(super) fn has_ready(&self) -> bool {
        !self.rotation.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn wait(&mut self, key: K, lane: Arc<str>, due: Instant) {
        let turn = (due, self.sequence);
        self.sequence += 1;
        self.lanes
            .entry(Arc::clone(&lane))
            .or_insert_with(Lane::new)
            .waiting
            .insert(turn, key.clone());
        self.place(&lane, None);
        self.entries.insert(key, Entry::Waiting { lane, turn });
    }

    fn take_from(&mut self, lane: &Arc<str>, turn: Turn) {
        if let Some(state) = self.lanes.get_mut(lane) {
            state.waiting.remove(&turn);
        }
        self.place(lane, None);
    }

    /// Puts a lane where its state belongs: in the rotation, among the heads, or nowhere. Only [`Plan::take`]
    /// passes `now`, because only it may judge that something is due.
    fn place(&mut self, name: &Arc<str>, now: Option<Instant>) {
        let Some(lane) = self.lanes.get_mut(name) else {
            return;
        };
        if let Some(head) = lane.head.take() {
            self.heads.remove(&head);
        }
        if lane.in_rotation {
            return;
        }
        let first = lane.waiting.first_key_value().map(|(turn, _)| *turn);
        match first {
            Some(turn) if lane.running < self.lane_limit => {
                if now.is_some_and(|now| turn.0 <= now) {
                    lane.in_rotation = true;
                    self.rotation.push_back(Arc::clone(name));
                } else {
                    lane.head = Some(turn);
                    self.heads.insert(turn, Arc::clone(name));
                }
            }
            None if lane.running == 0 => {
                self.lanes.remove(name);
            }
            _ => {}
        }
    }
}

impl<K> Lane<K> {
    fn new() -> Self {
        Self {
            waiting: BTreeMap::new(),
            running: 0,
            in_rotation: false,
            head: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn lane(name: &str) -> Arc<str> {
        Arc::from(name)
    }

    fn seconds(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn lanes_take_turns() {
        let now = Instant::now();
        let mut plan = Plan::new(10);
        for key in ["a1", "a2", "a3"] {
            plan.add(key, lane("a"), now);
        }
        for key in ["b1", "b2"] {
            plan.add(key, lane("b"), now);
        }
        let order: Vec<_> = std::iter::from_fn(|| plan.take(now)).collect();
        assert_eq!(order, ["a1", "b1", "a2", "b2", "a3"]);
    }

    #[test]
    fn a_full_lane_holds_up_only_itself() {
        let now = Instant::now();
        let mut plan = Plan::new(1);
        plan.add("hangs", lane("dead"), now);
        plan.add("waits", lane("dead"), now);
        plan.add("works", lane("alive"), now);
        assert_eq!(plan.take(now), Some("hangs"));
        assert_eq!(plan.take(now), Some("works"));
        assert_eq!(plan.take(now), None);
        plan.finish(&"hangs");
        assert_eq!(plan.take(now), Some("waits"));
    }

    #[test]
    fn the_earlier_instant_wins() {
        let start = Instant::now();
        let mut plan = Plan::new(1);
        plan.add("a", lane("l"), seconds(start, 5));
        plan.add("a", lane("l"), seconds(start, 9));
        assert_eq!(plan.take(seconds(start, 4)), None);
        assert_eq!(plan.next_due(), Some(seconds(start, 5)));
        plan.add("a", lane("l"), seconds(start, 2));
        assert_eq!(plan.take(seconds(start, 2)), Some("a"));
        plan.finish(&"a");
        assert_eq!(plan.len(), 0);
        assert!(plan.lanes.is_empty(), "a lane without keys is not kept");
    }

    #[test]
    fn a_key_can_change_its_lane() {
        let now = Instant::now();
        let mut plan = Plan::new(1);
        plan.add("first", lane("old"), now);
        plan.add("moves", lane("old"), now);
        plan.add("moves", lane("new"), now);
        assert_eq!(plan.take(now), Some("first"));
        assert_eq!(plan.take(now), Some("moves"));
    }

    #[test]
    fn a_forgotten_key_does_not_run() {
        let now = Instant::now();
        let mut plan = Plan::new(1);
        plan.add("a", lane("l"), now);
        plan.forget(&"a");
        assert_eq!(plan.take(now), None);
        plan.add("b", lane("l"), now);
        assert_eq!(plan.take(now), Some("b"));
        plan.add("b", lane("l"), now);
        plan.forget(&"b");
        plan.finish(&"b");
        assert_eq!(plan.take(now), None);
        assert_eq!(plan.len(), 0);
    }

    #[test]
    fn fifty_thousand_keys_drain_in_order() {
        let start = Instant::now();
        let mut plan = Plan::new(usize::MAX);
        for key in (0..50_000_u64).rev() {
            plan.add(key, lane("l"), seconds(start, key / 100));
        }
        let now = seconds(start, 500);
        let mut last = 0;
        let mut count = 0;
        while let Some(key) = plan.take(now) {
            assert!(key / 100 >= last, "due earlier runs earlier");
            last = key / 100;
            count += 1;
            plan.finish(&key);
        }
        assert_eq!(count, 50_000);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Add { key: u8, lane: u8, after: u8 },
        Forget { key: u8 },
        Pass { seconds: u8 },
        Take,
        Finish,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..12_u8, 0..3_u8, 0..20_u8).prop_map(|(key, lane, after)| Step::Add { key, lane, after }),
            1 => (0..12_u8).prop_map(|key| Step::Forget { key }),
            2 => (1..10_u8).prop_map(|seconds| Step::Pass { seconds }),
            4 => Just(Step::Take),
            3 => Just(Step::Finish),
        ]
    }

    proptest! {
        /// Whatever happens, a key never runs twice at once, a lane never exceeds its limit, nothing runs early,
        /// and everything that was added and not forgotten runs in the end.
        #[test]
        fn the_laws_of_the_queue(steps in prop::collection::vec(step(), 1..200), limit in 1..4_usize) {
            let start = Instant::now();
            let mut now = start;
            let mut plan = Plan::new(limit);
            let mut owed: HashMap<u8, (u8, Instant)> = HashMap::new();
            let mut running: Vec<(u8, u8)> = Vec::new();
            for step in steps {
                match step {
                    Step::Add { key, lane: number, after } => {
                        let due = now + Duration::from_secs(u64::from(after));
                        plan.add(key, lane(&number.to_string()), due);
                        let due = owed.get(&key).map_or(due, |(_, before)| due.min(*before));
                        owed.insert(key, (number, due));
                    }
                    Step::Forget { key } => {
                        plan.forget(&key);
                        owed.remove(&key);
                    }
                    Step::Pass { seconds } => now += Duration::from_secs(u64::from(seconds)),
                    Step::Take => {
                        let Some(key) = plan.take(now) else {
                            let stuck = owed.iter().find(|(key, (lane, due))| {
                                *due <= now
                                    && running.iter().all(|(other, _)| other != *key)
                                    && running.iter().filter(|(_, other)| other == lane).count() < limit
                            });
                            prop_assert!(stuck.is_none(), "{stuck:?} is due and its lane has room");
                            continue;
                        };
                        prop_assert!(running.iter().all(|(other, _)| *other != key), "one run at a time");
                        let (number, due) = owed.remove(&key).expect("only what was added runs");
                        prop_assert!(due <= now, "nothing runs early");
                        running.push((key, number));
                        let in_lane = running.iter().filter(|(_, other)| *other == number).count();
                        prop_assert!(in_lane <= limit, "a lane keeps its limit");
                    }
                    Step::Finish => {
                        if !running.is_empty() {
                            plan.finish(&running.remove(0).0);
                        }
                    }
                }
            }
            now += Duration::from_secs(100);
            for (key, _) in running.drain(..) {
                plan.finish(&key);
            }
            while let Some(key) = plan.take(now) {
                prop_assert!(owed.remove(&key).is_some());
                plan.finish(&key);
            }
            prop_assert!(owed.is_empty(), "{owed:?} never ran");
            prop_assert_eq!(plan.len(), 0);
            prop_assert!(plan.lanes.is_empty());
        }
    }
}
