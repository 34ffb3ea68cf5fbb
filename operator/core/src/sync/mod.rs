//! The decisions of sync: from what stores hold to what a Secret should hold.

pub mod payload;
pub mod version;
