//! Counts requests by kind, from the servers' own logs. Decides nothing and reads nothing.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use super::stock::Asked;
use crate::rig::kubernetes::ApiRequest;

/// How many requests of each kind.
pub type Tally = BTreeMap<String, usize>;

/// What a store was asked, by kind.
#[must_use]
pub fn of_store(requests: &[Asked]) -> Tally {
    count(requests.iter().map(|request| request.kind.to_owned()))
}

/// What the API server was asked, by verb and resource, without the lease and the watches. Lists are one kind: there
/// is one for each kind of object and page.
#[must_use]
pub fn of_api(requests: &[ApiRequest]) -> Tally {
    let counted = requests.iter().filter(|request| !is_upkeep(request));
    count(counted.map(|request| match request.verb.as_str() {
        "list" => "list".to_owned(),
        verb => format!("{verb} {}", request.resource),
    }))
}

/// Requests that cost the same however many objects there are: the lease, and watches that are taken up again.
#[must_use]
pub fn is_upkeep(request: &ApiRequest) -> bool {
    request.verb == "watch" || request.resource == "leases"
}

/// The most requests that any second held, wherever it began. `times` need not be in order.
#[must_use]
pub fn busiest_second(times: impl Iterator<Item = DateTime<Utc>>) -> usize {
    let mut times: Vec<i64> = times.map(|time| time.timestamp_micros()).collect();
    times.sort_unstable();
    let mut from = 0;
    let mut most = 0;
    for (to, time) in times.iter().enumerate() {
        while time - times[from] >= 1_000_000 {
            from += 1;
        }
        most = most.max(to + 1 - from);
    }
    most
}

fn count(kinds: impl Iterator<Item = String>) -> Tally {
    let mut tally = Tally::new();
    for kind in kinds {
        *tally.entry(kind).or_default() += 1;
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upkeep_is_not_counted() {
        let requests = [
            ("watch", "secrets"),
            ("update", "leases"),
            ("patch", "secrets"),
            ("patch", "syncedsecrets/status"),
            ("list", "secrets"),
            ("list", "syncedsecrets"),
        ]
        .map(|(verb, resource)| asked(verb, resource));
        let tally = of_api(&requests);
        let expected = [
            ("list", 2),
            ("patch secrets", 1),
            ("patch syncedsecrets/status", 1),
        ];
        assert_eq!(
            tally,
            expected.map(|(kind, count)| (kind.to_owned(), count)).into()
        );
    }

    #[test]
    fn the_busiest_second_may_begin_anywhere() {
        let at = |millis| DateTime::from_timestamp_millis(millis).unwrap();
        let times = [0, 900, 1_100, 1_899, 2_050].map(at);
        assert_eq!(busiest_second(times.into_iter().rev()), 3);
        assert_eq!(
            busiest_second([at(0), at(1_000)].into_iter()),
            1,
            "a second is over when the next begins"
        );
        assert_eq!(busiest_second(std::iter::empty()), 0);
    }

    fn asked(verb: &str, resource: &str) -> ApiRequest {
        ApiRequest {
            user: String::new(),
            user_agent: String::new(),
            verb: verb.to_owned(),
            resource: resource.to_owned(),
            namespace: String::new(),
            name: String::new(),
            uri: String::new(),
            status: 200,
            received: DateTime::UNIX_EPOCH,
            at: DateTime::UNIX_EPOCH,
        }
    }
}
