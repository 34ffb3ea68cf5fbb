//! The decisions of sync: from what stores hold to what a Secret should hold.

pub mod decode;
pub mod fields;
pub mod grant;
mod json;
pub mod keys;
pub mod path;
pub mod payload;
pub mod template;
pub mod version;
