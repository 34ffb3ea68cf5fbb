//! The door to Barbican and Keystone.
