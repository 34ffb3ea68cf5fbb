//! The wall clock, read at the edge and handed to whatever decides.

use std::time::SystemTime;

use chrono::{DateTime, Utc};

/// The time of day.
#[must_use]
pub fn now() -> DateTime<Utc> {
    SystemTime::now().into()
}
