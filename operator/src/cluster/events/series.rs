//! Which event is new and which repeats an earlier one. Plain data; the instant is handed in.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Event;

/// An event that was not seen for so long starts anew.
const QUIET: Duration = Duration::from_mins(10);

/// A repeat is written at least this often while it goes on, and otherwise when its count doubles.
const REPORT: Duration = Duration::from_mins(5);

/// Series that are kept; beyond it the stalest goes.
const MOST: usize = 4096;

/// What to do with an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Create it.
    Create,
    /// Patch the count of the event with this name.
    CountUp { name: String, count: u32 },
    /// It is counted and not written yet.
    Nothing,
}

/// The events of the last minutes, whole: one whose note differs is another event.
#[derive(Default)]
pub(super) struct Series {
    known: HashMap<Event, Entry>,
}

struct Entry {
    name: Option<String>,
    count: u32,
    written: u32,
    written_at: Instant,
    seen_at: Instant,
}

impl Series {
    /// Counts `event` in.
    pub(super) fn next(&mut self, now: Instant, event: &Event) -> Next {
        if let Some(entry) = self.known.get_mut(event)
            && now.duration_since(entry.seen_at) < QUIET
        {
            entry.seen_at = now;
            entry.count = entry.count.saturating_add(1);
            let Some(name) = entry.name.clone() else {
                return Next::Create;
            };
            let doubled = entry.count >= entry.written.saturating_mul(2);
            if doubled || now.duration_since(entry.written_at) >= REPORT {
                entry.written = entry.count;
                entry.written_at = now;
                return Next::CountUp {
                    name,
                    count: entry.count,
                };
            }
            return Next::Nothing;
        }
        self.make_room(now);
        let entry = Entry {
            name: None,
            count: 1,
            written: 1,
            written_at: now,
            seen_at: now,
        };
        self.known.insert(event.clone(), entry);
        Next::Create
    }

    /// Notes the name under which `event` was created.
    pub(super) fn created(&mut self, event: &Event, name: String) {
        if let Some(entry) = self.known.get_mut(event) {
            entry.name = Some(name);
        }
    }

    /// Lets the next repeat of `event` start anew.
    pub(super) fn forget(&mut self, event: &Event) {
        self.known.remove(event);
    }

    fn make_room(&mut self, now: Instant) {
        if self.known.len() < MOST {
            return;
        }
        self.known
            .retain(|_, entry| now.duration_since(entry.seen_at) < QUIET);
        if self.known.len() < MOST {
            return;
        }
        // Half goes at once, so that this is not done for each event.
        let mut seen: Vec<_> = self.known.values().map(|entry| entry.seen_at).collect();
        let middle = seen.len() / 2;
        let (_, median, _) = seen.select_nth_unstable(middle);
        let median = *median;
        self.known.retain(|_, entry| entry.seen_at > median);
    }
}

#[cfg(test)]
mod tests {
    use keyward_core::reason::Reason;
    use keyward_crds::SyncedSecret;

    use super::super::{EventKind, Regarding};
    use super::*;
    use crate::cluster::ObjectKey;

    fn event(note: &str) -> Event {
        Event {
            regarding: Regarding::of::<SyncedSecret>(ObjectKey::new("apps", "db"), "u1"),
            kind: EventKind::Warning,
            reason: Reason::StoreSealed,
            note: note.into(),
        }
    }

    #[test]
    fn repeats_are_written_ever_more_rarely() {
        let mut series = Series::default();
        let start = Instant::now();
        assert_eq!(series.next(start, &event("a")), Next::Create);
        series.created(&event("a"), "db.1".into());
        let counts: Vec<_> = (1..32)
            .filter_map(
                |second| match series.next(start + Duration::from_secs(second), &event("a")) {
                    Next::CountUp { count, .. } => Some(count),
                    _ => None,
                },
            )
            .collect();
        assert_eq!(counts, [2, 4, 8, 16, 32]);
        assert_eq!(
            series.next(start + Duration::from_secs(400), &event("a")),
            Next::CountUp {
                name: "db.1".into(),
                count: 33
            },
        );
    }

    #[test]
    fn another_note_or_a_long_silence_is_another_event() {
        let mut series = Series::default();
        let start = Instant::now();
        series.next(start, &event("a"));
        series.created(&event("a"), "db.1".into());
        assert_eq!(series.next(start, &event("b")), Next::Create);
        assert_eq!(series.next(start + QUIET, &event("a")), Next::Create);
        series.created(&event("a"), "db.2".into());
        series.forget(&event("a"));
        assert_eq!(series.next(start + QUIET, &event("a")), Next::Create);
    }

    #[test]
    fn an_event_that_was_not_created_is_tried_again() {
        let mut series = Series::default();
        let start = Instant::now();
        series.next(start, &event("a"));
        assert_eq!(series.next(start, &event("a")), Next::Create);
    }

    #[test]
    fn memory_is_bounded() {
        let mut series = Series::default();
        let start = Instant::now();
        for number in 0..MOST as u64 * 2 {
            series.next(start + Duration::from_millis(number), &event(&number.to_string()));
        }
        assert!(series.known.len() <= MOST);
        let late = start + Duration::from_mins(1);
        series.next(late, &event("a"));
        series.created(&event("a"), "db.1".into());
        assert!(matches!(series.next(late, &event("a")), Next::CountUp { .. }));
    }
}
