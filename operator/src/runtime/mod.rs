//! What keeps the process in order and knows nothing of secrets or stores: work queue, supervision, metrics, logs.

pub mod clock;
pub mod crew;
pub mod http;
pub mod logs;
pub mod metrics;
pub mod queue;
pub mod supervisor;
