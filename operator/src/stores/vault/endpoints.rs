//! Requests and answers that the client library lacks, or whose types would drop what we need: in its own style,
//! one struct per call.

use std::collections::HashMap;

use rustify_derive::Endpoint;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use vaultrs::api::kv2::responses::{ReadSecretMetadataResponse, SecretVersionMetadata};

/// Names the mount that serves a path, with type and options. Any right below the mount is enough to ask.
#[derive(Debug, Endpoint)]
#[endpoint(path = "sys/internal/ui/mounts/{self.mount}")]
pub(super) struct LookUpMount {
    #[endpoint(skip)]
    pub(super) mount: String,
}

/// The answer to [`LookUpMount`].
#[derive(Debug, Deserialize)]
pub(super) struct MountInfo {
    #[serde(rename = "type")]
    pub(super) kind: String,
    #[serde(default)]
    pub(super) options: Option<HashMap<String, String>>,
    /// Where the mount really is: the path that was asked about may lie below it.
    #[serde(default)]
    pub(super) path: Option<String>,
}

/// A health answer, as far as its status does not tell.
#[derive(Debug, Deserialize)]
pub(super) struct Health {
    #[serde(default)]
    pub(super) sealed: bool,
}

/// Asks about the token that is sent along. The library's type would keep the token in plain text.
#[derive(Debug, Endpoint)]
#[endpoint(path = "auth/token/lookup-self")]
pub(super) struct LookUpSelf {}

/// The answer to [`LookUpSelf`], without the token.
#[derive(Debug, Deserialize)]
pub(super) struct TokenInfo {
    /// Seconds left; 0 never ends.
    pub(super) ttl: u64,
    #[serde(default)]
    pub(super) renewable: bool,
}

/// The envelope of an answer of which only `data` is wanted.
#[derive(Deserialize)]
pub(super) struct DataEnvelope<T> {
    pub(super) data: Option<T>,
}

/// The envelope of a login or a renewal. The library's type wants fields that servers leave out, such as the policies of a
/// token that has none.
#[derive(Deserialize)]
pub(super) struct LoginEnvelope {
    #[serde(default)]
    pub(super) auth: Option<Login>,
}

/// What a login or a renewal gives.
#[derive(Deserialize)]
pub(super) struct Login {
    #[serde(default)]
    pub(super) client_token: Option<String>,
    /// Seconds to live; 0 never ends.
    #[serde(default)]
    pub(super) lease_duration: Option<u64>,
    #[serde(default)]
    pub(super) renewable: Option<bool>,
    /// There where the login wants a second factor before it gives a token.
    #[serde(default)]
    pub(super) mfa_requirement: Option<IgnoredAny>,
}

/// Logs in with the client certificate. The library sends the role under another name than the server reads.
#[derive(Debug, Endpoint)]
#[endpoint(path = "auth/{self.mount}/login", method = "POST")]
pub(super) struct LogInWithCertificate {
    #[endpoint(skip)]
    pub(super) mount: String,
    pub(super) name: Option<String>,
}

/// Lists a folder together with the metadata of what is in it (OpenBao 2.2 and later).
#[derive(Debug, Endpoint)]
#[endpoint(path = "{self.mount}/detailed-metadata/{self.path}", method = "LIST")]
pub(super) struct ListWithMetadata {
    #[endpoint(skip)]
    pub(super) mount: String,
    #[endpoint(skip)]
    pub(super) path: String,
}

/// The answer to [`ListWithMetadata`].
#[derive(Debug, Deserialize)]
pub(super) struct DetailedList {
    pub(super) keys: Vec<String>,
    #[serde(default)]
    pub(super) key_info: HashMap<String, ReadSecretMetadataResponse>,
}

/// The envelope of a KV answer, with the value as the raw JSON it arrived as: parsed, it would lie unwiped in
/// memory and lose the spelling of its numbers.
#[derive(Deserialize)]
pub(super) struct ValueEnvelope<'a> {
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
}

/// `data` of a KV v2 answer: the value beside its version.
#[derive(Deserialize)]
pub(super) struct VersionedValue<'a> {
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    pub(super) metadata: SecretVersionMetadata,
}

/// The envelope of a failed call.
#[derive(Default, Deserialize)]
pub(super) struct ErrorEnvelope {
    #[serde(default)]
    pub(super) errors: Option<Vec<String>>,
    #[serde(default)]
    pub(super) warnings: Option<Vec<IgnoredAny>>,
    #[serde(default)]
    pub(super) request_id: Option<String>,
}
