//! Counts requests by kind, from the servers' own logs. Decides nothing and reads nothing.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::rig::kubernetes::ApiRequest;
use crate::rig::vault::StoreRequest;

/// How many requests of each kind.
pub type Tally = BTreeMap<String, usize>;

/// What a store was asked, by kind. `mount` is the mount that holds the values.
#[must_use]
pub fn of_store(requests: &[StoreRequest], mount: &str) -> Tally {
    count(requests.iter().map(|request| kind_of(request, mount)))
}

/// What the API server was asked, by verb and resource, without the lease and the watches.
#[must_use]
pub fn of_api(requests: &[ApiRequest]) -> Tally {
    let counted = requests.iter().filter(|request| !is_upkeep(request));
    count(counted.map(|request| format!("{} {}", request.verb, request.resource)))
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

/// `login`, `value`, `metadata`, `mount`, `token` or `other`.
fn kind_of(request: &StoreRequest, mount: &str) -> String {
    let path = request.path.as_str();
    let below = path.strip_prefix(mount).and_then(|rest| rest.strip_prefix('/'));
    let kind = match below {
        _ if request.is_login() => "login",
        Some(rest) if rest.starts_with("metadata/") => "metadata",
        Some(_) if request.operation == "list" => "list",
        Some(_) => "value",
        None if path.starts_with("sys/internal/ui/mounts") => "mount",
        None if path.starts_with("auth/token/") => "token",
        None => "other",
    };
    kind.to_owned()
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
    fn requests_to_the_store_are_told_apart() {
        let requests = [
            ("update", "auth/k8s/login"),
            ("read", "sys/internal/ui/mounts/kv"),
            ("read", "kv/data/a"),
            ("read", "kv/data/b"),
            ("read", "kv/metadata/a"),
            ("update", "auth/token/renew-self"),
        ]
        .map(|(operation, path)| stored(operation, path));
        let expected = [
            ("login", 1),
            ("metadata", 1),
            ("mount", 1),
            ("token", 1),
            ("value", 2),
        ];
        assert_eq!(
            of_store(&requests, "kv"),
            expected.map(|(kind, count)| (kind.to_owned(), count)).into()
        );
    }

    #[test]
    fn upkeep_is_not_counted() {
        let requests = [
            ("watch", "secrets"),
            ("update", "leases"),
            ("patch", "secrets"),
            ("patch", "syncedsecrets/status"),
        ]
        .map(|(verb, resource)| asked(verb, resource));
        let tally = of_api(&requests);
        assert_eq!(tally.len(), 2);
        assert_eq!(tally["patch secrets"], 1);
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

    fn stored(operation: &str, path: &str) -> StoreRequest {
        StoreRequest {
            operation: operation.to_owned(),
            path: path.to_owned(),
            mount_type: String::new(),
            display_name: String::new(),
            remote_port: 0,
            failed: false,
            at: DateTime::UNIX_EPOCH,
        }
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
            at: DateTime::UNIX_EPOCH,
        }
    }
}
