//! The door to Vault and OpenBao.
