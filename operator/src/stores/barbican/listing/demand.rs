//! When a listing of the whole project is worth its cost.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::MOST_PAGES;
use crate::stores::Place;

/// How much is asked, against what a listing costs. Plain state over a clock that is handed in.
#[derive(Debug, Default)]
pub(super) struct Demand {
    /// Pages of the project when it was last seen; 0 when it never was.
    pub(super) pages: usize,
    /// Places asked for since the window began, or answered for by the newest listing.
    asked: HashSet<Place>,
    window: Option<Instant>,
    /// How many places it was the last time: a wave of that size is likely to come again.
    before: usize,
}

impl Demand {
    /// Notes that a listing answers for `place`; `false` if it has done so before.
    pub(super) fn serve(&mut self, place: &Place) -> bool {
        self.asked.insert(place.clone())
    }

    /// Notes that `place` is asked for while there is no listing; says whether one should be made.
    pub(super) fn ask(&mut self, place: &Place, now: Instant, window: Duration) -> bool {
        match self.window {
            Some(began) if now.duration_since(began) < window => {}
            began => {
                if began.is_some() {
                    self.rest();
                }
                self.window = Some(now);
            }
        }
        self.asked.insert(place.clone());
        self.pages <= self.worth()
    }

    /// So many pages are no dearer than a request per place.
    pub(super) fn worth(&self) -> usize {
        self.asked.len().max(self.before).clamp(1, MOST_PAGES)
    }

    /// Notes that a listing has been made: from now on, `asked` holds what it answers for.
    pub(super) fn listed(&mut self, pages: usize) {
        self.pages = pages;
        self.asked.clear();
    }

    /// Keeps only the size of what was asked.
    pub(super) fn rest(&mut self) {
        self.before = self.asked.len();
        self.asked = HashSet::new();
        self.window = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn place(n: usize) -> Place {
        Place::Name(n.to_string())
    }

    #[test]
    fn a_project_of_one_page_is_listed_at_once() {
        assert!(Demand::default().ask(&place(0), Instant::now(), WINDOW));
    }

    #[test]
    fn few_names_in_a_large_project_are_asked_for_alone() {
        let mut demand = Demand {
            pages: 20,
            ..Demand::default()
        };
        let mut now = Instant::now();
        for round in 0..50 {
            for name in 0..10 {
                assert!(!demand.ask(&place(name), now, WINDOW), "round {round}");
                assert!(
                    !demand.ask(&place(name), now, WINDOW),
                    "the same name counts once"
                );
            }
            now += WINDOW;
        }
    }

    #[test]
    fn a_wave_is_listed_for_and_the_next_one_from_its_first_name_on() {
        let mut demand = Demand {
            pages: 10,
            ..Demand::default()
        };
        let mut now = Instant::now();
        let asked_alone = (0..100)
            .take_while(|name| !demand.ask(&place(*name), now, WINDOW))
            .count();
        assert_eq!(asked_alone, 9);
        demand.listed(10);
        for name in 9..1000 {
            assert!(demand.serve(&place(name)));
        }
        demand.rest();

        now += Duration::from_hours(1);
        assert!(demand.ask(&place(0), now, WINDOW));
        demand.listed(10);
        assert!(demand.serve(&place(0)));
        assert!(!demand.serve(&place(0)), "the same place twice wants news");
        demand.rest();

        now += Duration::from_hours(1);
        assert!(
            !demand.ask(&place(0), now, WINDOW),
            "the last wave was a single name"
        );
    }

    #[test]
    fn a_project_beyond_the_cap_is_never_listed_for_names() {
        let mut demand = Demand {
            pages: MOST_PAGES + 1,
            ..Demand::default()
        };
        let now = Instant::now();
        assert!((0..2000).all(|name| !demand.ask(&place(name), now, WINDOW)));
    }
}
