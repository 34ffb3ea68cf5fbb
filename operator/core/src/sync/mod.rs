//! The decisions of sync: from what stores hold to what a Secret should hold.

pub mod absence;
pub mod allowance;
pub mod decode;
pub mod departure;
mod digest;
pub mod fields;
pub mod find;
pub mod fingerprint;
pub mod freshness;
pub mod grant;
mod json;
pub mod keys;
pub mod lineage;
pub mod observe;
pub mod ownership;
pub mod path;
pub mod payload;
pub mod rollout;
pub mod template;
pub mod told;
pub mod version;
