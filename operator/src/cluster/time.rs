//! The one conversion between our time (`chrono`) and Kubernetes' (`jiff`).

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

/// As Kubernetes keeps it: whole seconds.
///
/// Instants beyond the year 9999, which Kubernetes cannot write, become the last one it can.
#[must_use]
pub fn to_kubernetes(instant: DateTime<Utc>) -> Time {
    Time(Timestamp::from_second(instant.timestamp()).unwrap_or(Timestamp::MAX))
}

/// As our code reckons.
#[must_use]
pub fn from_kubernetes(time: &Time) -> DateTime<Utc> {
    // Every jiff timestamp lies within chrono's wider range.
    DateTime::from_timestamp(time.0.as_second(), 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_survive_the_round_trip() {
        let instant: DateTime<Utc> = "2026-11-22T10:15:30.987Z".parse().unwrap();
        let back = from_kubernetes(&to_kubernetes(instant));
        assert_eq!(back.to_rfc3339(), "2026-11-22T10:15:30+00:00");
        let distant = to_kubernetes(DateTime::<Utc>::MAX_UTC);
        assert_eq!(distant.0, Timestamp::MAX);
    }
}
