//! The shapes in which stores hand over a value.

use crate::secret::{SecretBytes, SecretMap};

/// A value as a store holds it, before fields are chosen.
pub enum Payload {
    /// A JSON object as the store sent it (Vault data); fields may be nested.
    Json(SecretBytes),
    /// Opaque bytes (a Barbican secret).
    Bytes(SecretBytes),
    /// Named parts (a Barbican container).
    Parts(SecretMap),
}
